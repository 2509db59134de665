"""The caller's own credential, seen by the signer: who sent no token of his cannot be asked for by the gateway.

In: the requester as the gateway names him, and his token or the signer's earlier word about it (a voucher). Out: a
Failure, or nothing. API keys and publishers stay claims of the gateway; a tenant's policy says whether it takes those.
"""

from bulkhead.callers.tokens import CallerKeysUnavailable, CallerTokens, Unauthenticated
from bulkhead.grants import GrantRefused, Verifier
from bulkhead_contracts.grant import Voucher
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import RequesterClaim


class CredentialChecker:
    """Checks credentials against the key set and against the signer's own signature."""

    def __init__(self, tokens: CallerTokens, verifier: Verifier) -> None:
        self._tokens, self._verifier = tokens, verifier

    @property
    def requires_token(self) -> bool:
        """True when a requester by token has to show it here: the signer knows the key set."""
        return self._tokens.is_configured

    async def check_token(self, requester: RequesterClaim, credential: str) -> Failure | None:
        """Why this token is not the requester's."""
        if requester.via != "jwt" or not self.requires_token:
            return None
        if not credential:
            reason = f"{requester.person} is said to have sent a token, and it did not come along"
            return Failure.from_text("no_credential", reason, "submit again; gateway and signer must be of one version")
        try:
            claim = await self._tokens.claim_of_token(credential)
        except Unauthenticated as error:
            return Failure.from_text("bad_credential", f"the signer does not accept the token: {error}", error.hint)
        except CallerKeysUnavailable as error:
            hint = "ask the operator to give the signer the key set (BULKHEAD_JWT_JWKS_FILE)"
            return Failure.from_text("keys_unavailable", f"the signer cannot verify tokens: {error}", hint)
        return None if claim == requester else _foreign_credential(requester)

    async def check_voucher(
        self, requester: RequesterClaim, credential: str, *, tenant: str, task: str, now_unix_ms: int
    ) -> Failure | None:
        """Why this voucher is not for the requester's task."""
        if requester.via != "jwt" or not self.requires_token:
            return None
        try:
            voucher = self._verifier.verify_voucher(credential, now_unix_ms)
        except GrantRefused as error:
            reason = f"nothing proves that {requester.person} asked for this task: {error}"
            return Failure.from_text("no_credential", reason, "submit the task again, with a token of yours")
        fits = (voucher.requester, voucher.tenant, voucher.task) == (requester, tenant, task)
        return None if fits else _foreign_credential(requester)

    @staticmethod
    def make_voucher(requester: RequesterClaim, tenant: str, task: str, expires_unix_ms: int) -> Voucher:
        """Voucher for a token that the signer has seen."""
        return Voucher(requester=requester, tenant=tenant, task=task, expires_unix_ms=expires_unix_ms)


def _foreign_credential(requester: RequesterClaim) -> Failure:
    reason = f"the credential is not one of {requester.person} ({requester.role} of tenant {requester.tenant})"
    return Failure.from_text("foreign_credential", reason, "submit again with a token of your own")
