"""Authentication of the gateway's callers: a claim, or a 401, 403 or 503 that says why.

In: a request. Out: tenant, person, role. A session's token stands for the API key that it was made from.
"""

import hashlib
from collections.abc import Callable, Mapping

from starlette.requests import Request

from bulkhead.bus.port import BusError
from bulkhead.callers import authentication
from bulkhead.callers.api_keys import ApiKey
from bulkhead.callers.authentication import CallerKeysUnavailable, Unauthenticated, credential_of, repeated_header
from bulkhead.gateway_api.query import EVERY_ROLE, AllowedRoles
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway import sessions
from bulkhead_services.gateway.problems import Problem, forbidden, not_stored, unauthorized, unavailable
from bulkhead_services.gateway.session_ends import SessionEnds
from bulkhead_services.gateway.sessions import OpenedToken, Sessions
from bulkhead_services.gateway.settings import Settings

NEW_LINK = "make another one with `bulkhead open`, or sign in with an API key"


class GatewayAuthenticator:
    """Turns a request's credentials into a claim."""

    def __init__(self, settings: Settings, sealed: Sessions, ends: SessionEnds, clock: Callable[[], int]) -> None:
        self._callers = authentication.CallerAuthenticator(settings)
        self._sessions, self._ends, self._clock = sealed, ends, clock

    def load(self) -> None:
        """Read the key file once at start, so that a wrong one stops the start. Raises ValueError."""
        self._callers.load()

    async def authenticate_caller(self, headers: Mapping[str, str]) -> RequesterClaim:
        """The caller. Raises Problem (401, 503)."""
        try:
            credential = credential_of(headers)
            if credential.startswith(sessions.PREFIX):
                return (await self._open_session(credential))[0]
            return await self._callers.claim(headers)
        except Unauthenticated as error:
            raise unauthorized(str(error), error.hint) from error
        except CallerKeysUnavailable as error:
            raise unavailable(str(error), "use an API key, or ask the operator to check the JWKS setting") from error

    async def _open_session(self, token: str) -> tuple[RequesterClaim, str]:
        """Owner and id. Raises Unauthenticated, Problem (503)."""
        opened = self._sessions.open_token(token, self._clock())
        claim = self._callers.owner_of_digest(opened.digest) if opened is not None else None
        try:
            if opened is None or claim is None or await self._ends.is_ended(claim.tenant, opened.session):
                raise Unauthenticated("the session has ended, or its API key was withdrawn", "sign in again")
        except BusError as error:
            raise unavailable(f"it cannot be read whether the session has ended: {error}") from error
        return claim, opened.session

    async def end_session(self, token: str) -> None:
        """End the session of this token, at every replica; one that is over is ended already. Raises Problem (503)."""
        try:
            await self._ends.end_session(*await self._open_session(token))
        except Unauthenticated:
            pass
        except BusError as error:
            raise not_stored(error) from error

    def watch_session(self, token: str, end_stream: Callable[[], object]) -> Callable[[], None]:
        """Call `end_stream` when this token's session ends; the returned function forgets that."""
        opened = self._sessions.open_token(token, self._clock())
        return self._ends.watch_end(opened.session, end_stream) if opened is not None else lambda: None

    async def open_session(self, key: str) -> str:
        """The token of a new session of this API key's owner. Raises Problem (401)."""
        headers = {"x-api-key": key.strip()}
        await self.authenticate_caller(headers)
        if self.token_of_headers(headers) or key.strip().startswith(sessions.PREFIX):
            raise unauthorized("a session is made from an API key alone", "sign in with a key that begins with bk_")
        return self._sessions.seal_token(_digest_of(key.strip()), self._clock())

    async def make_link(self, request: Request) -> tuple[RequesterClaim, str, int]:
        """The caller, the token of a link that signs it in once, and when that expires. Raises Problem (400, 401, 403,
        503). Only an API key makes links: a session or a JWT would outlive itself by one, and an agent's key is no
        person's."""
        claim = await self.require_role(request, EVERY_ROLE, "sign in")
        credential = credential_of(request.headers)
        if claim.agent or credential.startswith(sessions.PREFIX) or self.token_of(request):
            hint = "send the API key of a person, which begins with bk_"
            raise Problem(403, "forbidden", "No login link for this", "a link is made by a person's API key", hint)
        expires_unix_ms = self._clock() + sessions.LINK_S * 1_000
        return claim, self._sessions.seal_link(_digest_of(credential), expires_unix_ms), expires_unix_ms

    def link_owner(self, token: str) -> tuple[RequesterClaim, OpenedToken]:
        """Owner and content of a link, used or not. Raises Problem (401)."""
        opened = self._sessions.open_link(token, self._clock())
        claim = self._callers.owner_of_digest(opened.digest) if opened is not None else None
        if opened is None or claim is None:
            raise unauthorized("this login link has expired, or its API key was withdrawn", NEW_LINK)
        return claim, opened

    async def use_link(self, token: str) -> str:
        """The token of a new session, for the first who uses this link. Raises Problem (401, 503)."""
        claim, opened = self.link_owner(token)
        try:
            is_first = await self._ends.use_link(claim, opened.session)
        except BusError as error:
            raise not_stored(error) from error
        if not is_first:
            raise unauthorized("this login link was used already", NEW_LINK)
        return self._sessions.seal_token(opened.digest, self._clock())

    def keys_of(self, tenant: str) -> tuple[ApiKey, ...]:
        """Rows of the key file that are a tenant's: digests, and whose they are."""
        return self._callers.keys_of(tenant)

    @property
    def accepts_tokens(self) -> bool:
        """True where people may come with tokens of an issuer, too."""
        return self._callers.accepts_tokens

    async def require_role(self, request: Request, allowed: AllowedRoles, action: str) -> RequesterClaim:
        """The caller, if it has one of these roles. Raises Problem (400, 401, 403, 503)."""
        if name := repeated_header(request.headers.keys()):
            detail = f"the header {name.title()} is there twice"
            raise Problem(400, "repeated_header", "A header is there twice", detail, "send it once")
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


def _digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
