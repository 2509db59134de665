"""The ground of every room: the person who is signed in, the API in that person's name, forms, errors, live news.

In: requests of browsers. Out: a Visit for each request of a signed-in person; else the way to the login. A request that
changes something must come from a page of the console itself: a session's cookie is sent by any page's form.
"""

import asyncio
import contextlib
import secrets
import shlex
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from bulkhead.runtime.background import cancel_tasks
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.console import pages
from bulkhead_services.gateway.console.api import OPENED, ApiRefused, ConsoleApi, Json, Query
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.problems import Problem
from bulkhead_services.gateway.read_model.shared_reads import SharedReads

COOKIE, SECURE_COOKIE = "bulkhead_session", "__Host-bulkhead_session"
MAX_FORM_BYTES = 128 * 1024
MAX_FIELDS = 100
FORM_TIMEOUT_S = 10.0
PING_S = 15
GAPS_S = {"health": 3.0, "totals": 10.0}
"""Between two such events of GET /live: what they ask to be read costs more than a list. The last news is told too."""
MAX_STREAM_S = 600.0
"""After this a stream ends with its next event, and its page comes again: only then is its session looked at anew."""
RETRY_MS, REFUSED_RETRY_MS = 1_000, 15_000
FLASH_COOKIE, FLASH_S, MAX_FLASH_CHARS = "bulkhead_flash", 60, 300
"""What was done, on its way from an act to the page that follows it."""
KEY_FIELD = "key"
"""A form's hidden field: its Idempotency-Key, so that a form that is sent twice counts once."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a signed-in person. api: in that person's name. shared: its page goes to others of the same tenant
    and role too, so it names nobody and has no form. runbooks: address of their page, "" for none."""

    request: Request
    claim: RequesterClaim
    token: str
    api: ConsoleApi
    shared: bool = False
    runbooks: str = ""

    async def get(self, path: str, **query: str | int) -> Json:
        """The API's answer. Raises ApiRefused."""
        return await self.api.get(self.token, path, query)

    async def get_or(self, path: str, missing: Json, query: Query | None = None) -> Json:
        """The API's answer; `missing` with the refusal as `refused` where it says no."""
        try:
            return await self.api.get(self.token, path, query)
        except ApiRefused as error:
            return missing | {"refused": error}

    async def post(self, path: str, body: Json, key: str, method: str = "POST") -> Json:
        """The API's answer to a change. Raises ApiRefused."""
        return await self.api.post(self.token, path, body, key, method)

    def render_page(self, template: str, status: int = 200, **values: Any) -> Response:
        """A room's page. `claim`, `path`, `theme`, a fresh form `key` and `flash`, what was just done, are there for
        every template."""
        # A part of a page that is read again shows no message: it is for the page that follows an act.
        told = (
            "" if self.shared or self.request.headers.get("hx-request") else self.request.cookies.get(FLASH_COOKIE, "")
        )
        response = pages.render_page(
            self.request,
            template,
            status,
            claim=self.claim,
            key="" if self.shared else secrets.token_hex(16),
            bare=self.shared,
            url=_request_url(self.request),
            runbooks=self.runbooks,
            flash=unquote(told)[:MAX_FLASH_CHARS],
            **values,
        )
        if told:
            response.delete_cookie(FLASH_COOKIE, path="/", httponly=True, samesite="lax")
        return response

    def query_value(self, name: str) -> str:
        """A value of the query, trimmed; "" when it is absent."""
        return self.request.query_params.get(name, "").strip()

    async def read_form(self, max_bytes: int = MAX_FORM_BYTES) -> dict[str, str]:
        """The form's fields, each once. Raises ApiRefused."""
        return await read_form(self.request, max_bytes)


Endpoint = Callable[[Visit], Awaitable[Response]]


class ConsoleRouteFactory:
    """Makes routes of rooms."""

    def __init__(self, api: ConsoleApi, auth: GatewayAuthenticator, runbooks: str = "") -> None:
        self._api, self._auth, self._runbooks = api, auth, runbooks
        self._shared = SharedReads[Response]()

    def get_route(self, path: str, endpoint: Endpoint, *, shared: bool = False) -> Route:
        """A page. shared: its inside, which browsers read again at every change, says the same to all of one tenant and
        role and has no form: it is read once for all who ask at about the same moment."""
        return Route(
            path, self._require_session(self._share_reading(endpoint) if shared else endpoint), methods=["GET"]
        )

    def _share_reading(self, endpoint: Endpoint) -> Endpoint:
        async def read_shared(visit: Visit) -> Response:
            if not visit.request.headers.get("hx-request"):
                return await endpoint(visit)
            key = (visit.claim.tenant, visit.claim.role, _request_url(visit.request))
            try:
                return await self._shared.get(key, partial(endpoint, replace(visit, shared=True)))
            except ApiRefused as error:
                if error.status != 401:
                    raise
            return await endpoint(visit)  # Another's session has ended, perhaps not this one.

        return read_shared

    def post_route(self, path: str, endpoint: Endpoint) -> Route:
        """An act: a form of one of our pages."""

        async def check_origin(visit: Visit) -> Response:
            require_own_form(visit.request)
            return await endpoint(visit)

        return Route(path, self._require_session(check_origin), methods=["POST"])

    def _require_session(self, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def guard_request(request: Request) -> Response:
            token = token_of(request)
            try:
                claim = await self._auth.authenticate_caller({"authorization": f"Bearer {token}"}) if token else None
            except Problem as problem:
                if problem.body.status == 503:
                    raise ApiRefused(503, problem.body.model_dump()) from problem
                claim = None
            if claim is None:
                return _to_login(request)
            visit = Visit(request, claim, token, self._api, runbooks=self._runbooks)
            try:
                return await endpoint(visit)
            except ApiRefused as error:
                # A withdrawn key ends the session in the midst of it.
                return (
                    _to_login(request)
                    if error.status == 401
                    else visit.render_page("error.html", error.status, error=error, method=request.method)
                )

        return guard_request


class ConsoleRoutes(ABC):
    """Base of a room: its pages are methods, and `routes` says at which paths they are."""

    def __init__(self, factory: ConsoleRouteFactory) -> None:
        self.factory = factory

    @abstractmethod
    def routes(self) -> list[Route]:
        """Routes of the room."""


def token_of(request: Request) -> str:
    """The session's token, from its cookie; "" without one."""
    # By TLS the guarded name alone: the plain one can be set by any host of the same domain.
    return request.cookies.get(SECURE_COOKIE if is_secure(request) else COOKIE, "")


def is_secure(request: Request) -> bool:
    """True if the browser came by TLS: to us, or to the proxy before us. A forged header harms its own sender
    alone.
    """
    return request.url.scheme == "https" or request.headers.get("x-forwarded-proto", "") == "https"


def gateway_address(request: Request) -> str:
    """The gateway's address as this browser has it, for a command line."""
    return shlex.quote(f"{'https' if is_secure(request) else 'http'}://{request.url.netloc}")


def require_own_form(request: Request) -> None:
    """Raises ApiRefused unless the request was sent by a page of the same origin. Browsers say so in headers
    that no page can set; programs have the API.
    """
    origin, site = request.headers.get("origin", ""), request.headers.get("sec-fetch-site", "")
    same_origin = split_url(origin).netloc == request.headers.get("host", "") if origin else site == "same-origin"
    if not same_origin or site not in ("", "same-origin"):
        detail = "the request was not sent by a page of this console"
        raise ApiRefused(
            403, {"title": "Not sent from here", "detail": detail, "hint": "open the console and try there"}
        )


async def read_form(request: Request, max_bytes: int = MAX_FORM_BYTES) -> dict[str, str]:
    """The fields of a form, read no further than its bound. Raises ApiRefused (400, 408, 413)."""
    raw = b""
    try:
        async with asyncio.timeout(FORM_TIMEOUT_S):
            async for chunk in request.stream():
                raw += chunk
                if len(raw) > max_bytes:
                    detail = f"the form has more than {max_bytes} bytes"
                    raise ApiRefused(413, {"title": "Too large", "detail": detail, "hint": "send less text"})
        fields = parse_qs(raw.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except TimeoutError as error:
        raise ApiRefused(
            408, {"title": "Too slow", "detail": "the form did not arrive", "hint": "try again"}
        ) from error
    except (ValueError, ClientDisconnect) as error:
        raise ApiRefused(
            400, {"title": "Not a form", "detail": "the form cannot be read", "hint": "try again"}
        ) from error
    return {name: values[-1].replace("\r\n", "\n").strip() for name, values in fields.items()}


def redirect_to(request: Request, path: str, flash: str = "") -> Response:
    """Go to another page, after an act too. flash: what was done, which that page says once."""
    response: Response
    if request.headers.get("hx-request"):
        response = Response(None, 204, pages.SAFE | pages.NOT_KEPT | {"HX-Redirect": path})
    else:
        response = RedirectResponse(path, 303, pages.SAFE | pages.NOT_KEPT)
    if flash:
        response.set_cookie(
            FLASH_COOKIE,
            quote(flash[:MAX_FLASH_CHARS]),
            max_age=FLASH_S,
            secure=is_secure(request),
            httponly=True,
            samesite="lax",
            path="/",
        )
    return response


def sending_page(request: Request, path: str) -> str:
    """The address of this room that a form was sent from, with its filters; the room's own where it was another."""
    url = split_url(request.headers.get("hx-current-url") or request.headers.get("referer", ""))
    return f"{path}?{url.query}" if url.path == path and url.query else path


def live_stream(events: AsyncIterator[tuple[str, str]]) -> Response:
    """An event stream: names, and pieces of HTML; at its end `refused` or `login`, where the API says no. It ends when
    the API's does; the browser comes again by itself."""

    async def send_events() -> AsyncIterator[ServerSentEvent]:
        loop = asyncio.get_running_loop()
        until = loop.time() + MAX_STREAM_S
        yield ServerSentEvent(comment="console", retry=RETRY_MS, sep="\n")
        async with contextlib.aclosing(events) as source:  # type: ignore[type-var]
            try:
                async for name, html in source:
                    yield ServerSentEvent(html, event=name, sep="\n")
                    if loop.time() > until:
                        return
            except ApiRefused as error:
                refusal_html = pages.render_template("refused.html", error=error)
                name = "login" if error.status == 401 else "refused"
                yield ServerSentEvent(refusal_html, event=name, retry=REFUSED_RETRY_MS, sep="\n")

    return _event_response(send_events())


def _event_response(sent: AsyncIterator[ServerSentEvent]) -> Response:
    headers = pages.SAFE | {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    alive = ServerSentEvent(comment="alive", sep="\n")
    return EventSourceResponse(sent, ping=PING_S, sep="\n", headers=headers, ping_message_factory=lambda: alive)


async def stream_changes(visit: Visit) -> Response:
    """GET /live: says `live_stream` once the API has let it in, `changed` whenever a page should look again, and
    names the
    tasks; `health` and `totals` less often, for what costs more to read."""
    return live_stream(_pace_changes(visit.api.stream_events(visit.token, "/v1/changes")))


async def _pace_changes(events: AsyncIterator[tuple[str, Json]]) -> AsyncIterator[tuple[str, str]]:
    loop = asyncio.get_running_loop()
    coming, owed, due = asyncio.ensure_future(anext(events)), set[str](), dict.fromkeys(GAPS_S, 0.0)
    try:
        while True:
            wait_s = max(0.0, min(due[name] for name in owed) - loop.time()) if owed else None
            await asyncio.wait({coming}, timeout=wait_s)
            if coming.done():
                try:
                    name, data = coming.result()
                except StopAsyncIteration:
                    return
                coming = asyncio.ensure_future(anext(events))
                if name == OPENED:
                    yield "live", "*"
                    continue
                yield name, " ".join(data["tasks"]) or "*"
                owed |= GAPS_S.keys()
            for name in [name for name in owed if loop.time() >= due[name]]:
                yield name, "*"
                owed.remove(name)
                due[name] = loop.time() + GAPS_S[name]
    finally:
        await cancel_tasks(coming)


def split_url(url: str) -> SplitResult:
    """The parts of an address that a client sent; of one that is none, empty ones."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def safe_path(path: str) -> str:
    """The path when it is one of ours, to go on to after the login; else `/`."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() else "/"


def _to_login(request: Request) -> Response:
    # A stream cannot be sent elsewhere: its page goes there when it hears this.
    if "text/event-stream" in request.headers.get("accept", ""):
        return _event_response(_login_events())
    current_url = request.headers.get("hx-current-url", "")
    path = split_url(current_url).path if current_url else _request_url(request) if request.method == "GET" else "/"
    return redirect_to(request, "/login" + (f"?next={quote(safe_path(path))}" if safe_path(path) != "/" else ""))


async def _login_events() -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent("*", event="login", retry=REFUSED_RETRY_MS, sep="\n")


def _request_url(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")
