"""Authentication of the gateway's callers: a claim, or a 401, 403 or 503 that says why.

In: a request. Out: tenant, person, role.
"""

from collections.abc import Mapping

from starlette.requests import Request

from bulkhead.callers import authentication
from bulkhead.callers.authentication import KeysUnavailable, Unauthenticated
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.problems import forbidden, unauthorized, unavailable
from bulkhead_services.gateway.settings import Settings


class Authenticator:
    """Turns a request's credentials into a claim."""

    def __init__(self, settings: Settings) -> None:
        self._callers = authentication.Authenticator(settings)

    def load(self) -> None:
        """Read the key file once at start, so that a wrong one stops the start. Raises ValueError."""
        self._callers.load()

    async def claim(self, headers: Mapping[str, str]) -> RequesterClaim:
        """The caller. Raises Problem (401, 503)."""
        try:
            return await self._callers.claim(headers)
        except Unauthenticated as error:
            raise unauthorized(str(error), error.hint) from error
        except KeysUnavailable as error:
            raise unavailable(str(error), "use an API key, or ask the operator to check the JWKS setting") from error

    async def allowed(self, request: Request, roles: frozenset[str], action: str, needed: str) -> RequesterClaim:
        """The caller, if it has one of these roles. Raises Problem (401, 403, 503)."""
        claim = await self.claim(request.headers)
        if claim.role not in roles:
            raise forbidden(claim.role, action, needed)
        return claim

    def token_of(self, request: Request) -> str:
        """The caller's own token, for the signer; "" for who has an API key."""
        return self._callers.token_of(request.headers)
