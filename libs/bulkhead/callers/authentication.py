"""Authentication: an API key or a JWT becomes a RequesterClaim, or a refusal that says why.

In: a request's headers. Out: tenant, person, role. JWTs are checked against a JWKS by an asymmetric algorithm.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from bulkhead.callers.api_keys import KEY_PREFIX, ApiKey, ApiKeys
from bulkhead.callers.tokens import CallerKeysUnavailable, CallerTokens, TokenSettings, Unauthenticated
from bulkhead_contracts import bounds
from bulkhead_contracts.task import RequesterClaim

__all__ = [
    "CallerAuthenticator",
    "CallerKeysUnavailable",
    "CallerSettings",
    "Unauthenticated",
    "credential_of",
    "repeated_header",
]
_ONCE = ("authorization", "x-api-key", "idempotency-key")
CREDENTIAL_HINT = "send `Authorization: Bearer <API key or JWT>` or `X-API-Key: <API key>`"


class CallerSettings(TokenSettings):
    """api_keys_file: {"keys": [{"sha256", "tenant", "person", "role"}]}; re-read when it changes."""

    api_keys_file: Path | None = None


class CallerAuthenticator:
    """Turns a request's credentials into a claim."""

    def __init__(self, settings: CallerSettings) -> None:
        self._keys = ApiKeys(settings.api_keys_file)
        self._tokens = CallerTokens(settings)

    def load(self) -> None:
        """Read the key file once at start, so that a wrong one stops the start. Raises ValueError."""
        self._keys.load()
        self._tokens.check_settings()

    async def claim(self, headers: Mapping[str, str]) -> RequesterClaim:
        """The caller; names of headers are small letters, or the mapping ignores case. Raises Unauthenticated,
        CallerKeysUnavailable.
        """
        credential = credential_of(headers)
        if _is_token(credential):
            return await self._tokens.claim_of_token(credential)
        self._keys.load()
        claim = self._keys.find_owner(credential)
        if claim is None:
            hint = "check the key; `bulkhead up` writes one to credentials.json in its data directory"
            raise Unauthenticated("this API key is not known", hint)
        return claim

    def owner_of_digest(self, digest: str) -> RequesterClaim | None:
        """Owner of the API key with this SHA-256 digest (hexadecimal) now; None for nobody."""
        self._keys.load()
        return self._keys.owner_of_digest(digest)

    def keys_of(self, tenant: str) -> tuple[ApiKey, ...]:
        """Rows of the key file that are a tenant's, now."""
        self._keys.load()
        return self._keys.rows_of(tenant)

    @property
    def accepts_tokens(self) -> bool:
        """True where callers may come with tokens of an issuer, too."""
        return self._tokens.is_configured

    def worker(self, headers: Mapping[str, str]) -> tuple[str, str]:
        """Tenant and name of a program that takes delegated steps. Raises Unauthenticated."""
        self._keys.load()
        identity = self._keys.worker_of_key(credential_of(headers))
        if identity is None:
            hint = "use a key whose role is worker and whose person is the identity in `delegated_roles`"
            raise Unauthenticated("this is not the key of a program that takes steps", hint)
        return identity

    def token_of(self, headers: Mapping[str, str]) -> str:
        """The caller's own token, for the signer; "" for who has an API key. Raises Unauthenticated."""
        credential = credential_of(headers)
        return credential if _is_token(credential) else ""


def repeated_header(names: Iterable[str]) -> str:
    """The first header about the caller that is there twice, of a request's names; "" for none. A proxy may have
    believed the other one."""
    for name, count in Counter(name.lower() for name in names).items():
        if count > 1 and (name in _ONCE or name.startswith("x-bulkhead-")):
            return name
    return ""


def _is_token(credential: str) -> bool:
    return credential.count(".") == 2 and not credential.startswith(KEY_PREFIX)


def credential_of(headers: Mapping[str, str]) -> str:
    """The API key or the token of a request; names of headers as in `claim`. Raises Unauthenticated."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    credential = value.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()
    if not credential:
        raise Unauthenticated("the request carries no credentials", CREDENTIAL_HINT)
    if len(credential) > bounds.MAX_CREDENTIAL_CHARS:
        raise Unauthenticated(
            f"the credential is longer than {bounds.MAX_CREDENTIAL_CHARS} characters", CREDENTIAL_HINT
        )
    return credential
