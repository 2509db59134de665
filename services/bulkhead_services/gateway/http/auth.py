"""Authentication of the gateway's callers: a claim, or a 401, 403 or 503 that says why.

In: a request. Out: tenant, person, role. A session's token stands for the API key that it was made from.
"""

import hashlib
from collections.abc import Callable, Mapping

from starlette.requests import Request

from bulkhead.callers import authentication
from bulkhead.callers.authentication import CallerKeysUnavailable, Unauthenticated, credential_of
from bulkhead.gateway_api.query import AllowedRoles
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway import sessions
from bulkhead_services.gateway.problems import forbidden, unauthorized, unavailable
from bulkhead_services.gateway.sessions import Sessions
from bulkhead_services.gateway.settings import Settings


class GatewayAuthenticator:
    """Turns a request's credentials into a claim."""

    def __init__(self, settings: Settings, sealed: Sessions, clock: Callable[[], int]) -> None:
        self._callers = authentication.CallerAuthenticator(settings)
        self._sessions, self._clock = sealed, clock

    def load(self) -> None:
        """Read the key file once at start, so that a wrong one stops the start. Raises ValueError."""
        self._callers.load()

    async def authenticate_caller(self, headers: Mapping[str, str]) -> RequesterClaim:
        """The caller. Raises Problem (401, 503)."""
        try:
            credential = credential_of(headers)
            if credential.startswith(sessions.PREFIX):
                return self._of_session(credential)
            return await self._callers.claim(headers)
        except Unauthenticated as error:
            raise unauthorized(str(error), error.hint) from error
        except CallerKeysUnavailable as error:
            raise unavailable(str(error), "use an API key, or ask the operator to check the JWKS setting") from error

    def _of_session(self, token: str) -> RequesterClaim:
        claim = self._callers.owner_of_digest(self._sessions.digest_of(token, self._clock()))
        if claim is None:
            raise Unauthenticated("the session has ended, or its API key was withdrawn", "sign in again")
        return claim

    async def open_session(self, key: str) -> str:
        """The token of a new session of this API key's owner. Raises Problem (401)."""
        headers = {"x-api-key": key.strip()}
        await self.authenticate_caller(headers)
        if self.token_of_headers(headers) or key.strip().startswith(sessions.PREFIX):
            raise unauthorized("a session is made from an API key alone", "sign in with a key that begins with bk_")
        return self._sessions.seal_token(hashlib.sha256(key.strip().encode()).hexdigest(), self._clock())

    async def require_role(self, request: Request, allowed: AllowedRoles, action: str) -> RequesterClaim:
        """The caller, if it has one of these roles. Raises Problem (401, 403, 503)."""
        claim = await self.authenticate_caller(request.headers)
        if claim.role not in allowed.names:
            raise forbidden(claim.role, action, allowed.needed)
        return claim

    def token_of(self, request: Request) -> str:
        """The caller's own token, for the signer; "" for who has an API key."""
        return self.token_of_headers(request.headers)

    def token_of_headers(self, headers: Mapping[str, str]) -> str:
        """The same, of headers in small letters."""
        return self._callers.token_of(headers)
