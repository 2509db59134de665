"""The HTTP API: routes, bounds, idempotency. Who may what is decided here; what happens, in effects and stream.

In: requests of people and programs. Out: JSON, problem details, event streams. See openapi.py for the document.
"""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from pydantic import ValidationError
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bulkhead.blobs import Blobs
from bulkhead.bus.port import BusError
from bulkhead_contracts import limits, subjects
from bulkhead_contracts.task import ForkOf, RequesterClaim, TaskLimits, TaskRequested
from bulkhead_contracts.types import Contract
from services.gateway import core, views
from services.gateway.api import CancelReceipt, CancelSubmission, DocumentReceipt, TaskPage, TaskReceipt, TaskSubmission
from services.gateway.auth import Authenticator
from services.gateway.caps import Bodies, StreamCaps
from services.gateway.effects import Intake
from services.gateway.events import BadEventId, Position, parse_position
from services.gateway.feeds import Feed, Feeds
from services.gateway.listing import Listing
from services.gateway.openapi import openapi
from services.gateway.problems import FieldError, Problem, answer, forbidden, not_found, too_large, unavailable
from services.gateway.settings import Settings
from services.gateway.stream import watch
from services.gateway.upload import Document, read_document

MAX_BODY_BYTES = limits.MAX_MESSAGE_BYTES - limits.MAX_HEADER_BYTES
MAX_CANCEL_BODY_BYTES = 16 * 1024
MAX_KEY_CHARS = 255
MAX_PAGE = 100
RETRY_MS = 1_000
MAX_NAMED_ERRORS = 20

M = TypeVar("M", bound=Contract)


class Http:
    """The routes, over what they need."""

    def __init__(self, settings: Settings, auth: Authenticator, intake: Intake, feeds: Feeds, listing: Listing,
                 blobs: Blobs, ready: Callable[[], Awaitable[str]]) -> None:
        self._settings = settings
        self._auth = auth
        self._intake = intake
        self._feeds = feeds
        self._listing = listing
        self._blobs = blobs
        self._ready = ready
        self._caps = StreamCaps(settings)
        self._bodies = Bodies(settings)
        self.started = False

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/v1/tasks", self.submit, methods=["POST"]),
            Route("/v1/tasks", self.list_tasks, methods=["GET"]),
            Route("/v1/tasks/{task_id}", self.show, methods=["GET"]),
            Route("/v1/tasks/{task_id}/events", self.events, methods=["GET"]),
            Route("/v1/tasks/{task_id}/cancel", self.cancel, methods=["POST"]),
            Route("/v1/documents", self.add_document, methods=["POST"]),
            Route("/v1/documents/{ingest_id}", self.show_document, methods=["GET"]),
            Route("/openapi.json", self.document, methods=["GET"]),
            Route("/livez", self.livez, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
            Route("/startupz", self.startupz, methods=["GET"]),
        ]
        handlers = {Problem: answer, HTTPException: _http_exception, BusError: _bus_error,
                    ClientDisconnect: _client_gone}
        return Starlette(routes=routes, exception_handlers=handlers)  # type: ignore[arg-type]

    async def submit(self, request: Request) -> Response:
        """POST /v1/tasks"""
        claim = await self._allowed(request, core.MAY_SUBMIT, "submit tasks", "submitter or operator")
        key = _idempotency_key(request, required=True)
        async with self._bodies.read(request, MAX_BODY_BYTES) as raw:
            body = _parsed(TaskSubmission, raw)
        canonical = body.model_dump_json().encode()
        task = TaskRequested(
            objective=body.objective, limits=TaskLimits(**body.limits.model_dump()), tools=body.tools,
            check=body.check, plan=body.plan.plan() if body.plan is not None else None, requester=claim,
            fork=ForkOf(**body.fork.model_dump()) if body.fork is not None else None,
            payload_sha256=hashlib.sha256(canonical).hexdigest(),
        )
        task_id, repeated = await self._intake.submit(task, key)
        url = f"/v1/tasks/{task_id}"
        receipt = TaskReceipt(task_id=task_id, status_url=url, events_url=url + "/events")
        headers = {"Location": url} | ({"Idempotency-Replayed": "true"} if repeated else {})
        return _json(receipt, 202, headers)

    async def list_tasks(self, request: Request) -> Response:
        """GET /v1/tasks"""
        claim = await self._allowed(request, core.MAY_READ, "read tasks", "submitter")
        size = _size(request)
        before = _cursor(request.query_params.get("cursor", ""))
        senders = [name for name, policy in self._settings.publishers.items() if policy.tenant == claim.tenant]
        rows, more = await self._listing.page(claim.tenant, senders, before, size)
        tasks = []
        for _, task in rows:
            feed = await self._feeds.fresh(claim.tenant, task)
            tasks.append(views.summary(feed, self._settings.publishers))
        return _json(TaskPage(tasks=tuple(tasks), next=_to_cursor(rows[-1][0]) if more else None))

    async def show(self, request: Request) -> Response:
        """GET /v1/tasks/{task_id}"""
        claim = await self._allowed(request, core.MAY_READ, "read tasks", "submitter")
        feed = await self._task(request, claim)
        return _json(await views.document(feed, self._blobs, self._settings.publishers))

    async def events(self, request: Request) -> Response:
        """GET /v1/tasks/{task_id}/events"""
        claim = await self._allowed(request, core.MAY_READ, "watch tasks", "submitter")
        feed = await self._task(request, claim)
        position = _position(request)
        if feed.ended and position.sequence and not feed.after(position.sequence):
            return Response(status_code=204)  # Tells an EventSource that all was said: it must not come back.
        if self._feeds.closing:
            raise unavailable("this replica is closing", "reconnect in a moment; another replica may answer")
        return _EventStream(
            self._sse(feed, position), self._caps.take(claim), ping=self._settings.heartbeat_s, sep="\n",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            ping_message_factory=lambda: ServerSentEvent(comment="alive", sep="\n"),
        )

    async def _sse(self, feed: Feed, position: Position) -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(comment="bulkhead", retry=RETRY_MS, sep="\n")
        async for event in watch(self._feeds, feed, self._blobs, position):
            yield ServerSentEvent(event.data, event=event.name, id=event.id, sep="\n")

    async def cancel(self, request: Request) -> Response:
        """POST /v1/tasks/{task_id}/cancel"""
        claim = await self._allowed(request, core.MAY_SUBMIT, "cancel tasks", "submitter or operator")
        async with self._bodies.read(request, MAX_CANCEL_BODY_BYTES) as raw:
            body = _parsed(CancelSubmission, raw) if raw.strip() else CancelSubmission()
        feed = await self._task(request, claim)
        if feed.ended:
            raise Problem(409, "already_ended", "The task has ended", f"the task is {feed.view.status}",
                          f"read its result at /v1/tasks/{feed.task}")
        await self._intake.cancel(claim, feed, body.reason)
        url = f"/v1/tasks/{feed.task}"
        return _json(CancelReceipt(task_id=feed.task, status_url=url), 202, {"Location": url})

    async def add_document(self, request: Request) -> Response:
        """POST /v1/documents"""
        claim = await self._allowed(request, core.MAY_SUBMIT, "add documents", "submitter or operator")
        key = _idempotency_key(request, required=False)
        async with self._bodies.read(request, limits.MAX_BLOB_BYTES, extra=64 * 1024) as raw:
            found: Document = read_document(request, raw)
            feed = await self._intake.ingest(claim, found.name, found.media_type, found.data, key)
        with self._feeds.watching(feed):
            await feed.refresh()
            await _wait_ingested(feed, self._settings.ingest_wait_s)
        return self._document_answer(feed, found.name, hashlib.sha256(found.data).hexdigest())

    def _document_answer(self, feed: Feed, name: str, sha256: str) -> Response:
        url = f"/v1/documents/{feed.task}"
        ended = feed.view.ingested
        if ended is None:
            receipt = DocumentReceipt(ingest_id=feed.task, name=name, sha256=sha256, outcome="pending",
                                      status_url=url)
            return _json(receipt, 202, {"Location": url, "Retry-After": "1"})
        receipt = DocumentReceipt(ingest_id=feed.task, name=ended.name, sha256=ended.sha256,
                                  outcome=ended.outcome, chunks=ended.chunks, detail=ended.detail,
                                  failure=ended.failure, status_url=url)
        if ended.outcome == "rejected":
            failure = ended.failure
            raise Problem(422, failure.code if failure else "rejected", "The document cannot be taken in",
                          failure.message if failure else ended.detail or "the document store rejected it",
                          (failure.hint if failure else "") or "send text, Markdown, HTML or PDF with content")
        return _json(receipt, 201 if ended.outcome == "ingested" else 200, {"Location": url})

    async def show_document(self, request: Request) -> Response:
        """GET /v1/documents/{ingest_id}"""
        claim = await self._allowed(request, core.MAY_READ, "read documents", "submitter")
        ingest = _token(request, "ingest_id", "ingestion")
        feed = await self._feeds.fresh(claim.tenant, ingest)
        if feed.view.ingested is None:
            raise not_found("finished ingestion", ingest,
                            "it may still be under way: ask again in a moment; posting it again is harmless")
        return self._document_answer(feed, "", "")

    async def document(self, _: Request) -> Response:
        """GET /openapi.json"""
        return JSONResponse(openapi())

    async def livez(self, _: Request) -> Response:
        """Whether the process runs; asks nobody."""
        return JSONResponse({"status": "ok"})

    async def readyz(self, _: Request) -> Response:
        """Whether requests can be served now."""
        reason = "draining" if self._feeds.closing else await self._ready()
        return JSONResponse({"status": "unready", "reason": reason} if reason else {"status": "ok"},
                            503 if reason else 200)

    async def startupz(self, _: Request) -> Response:
        """Whether the start is over."""
        return JSONResponse({"status": "ok" if self.started else "starting"}, 200 if self.started else 503)

    async def _allowed(self, request: Request, roles: frozenset[str], action: str, needed: str) -> RequesterClaim:
        claim = await self._auth.claim(request.headers)
        if claim.role not in roles:
            raise forbidden(claim.role, action, needed)
        return claim

    async def _task(self, request: Request, claim: RequesterClaim) -> Feed:
        """The task in the caller's tenant; somebody else's is not there."""
        task = _token(request, "task_id", "task")
        feed = await self._feeds.fresh(claim.tenant, task)
        if feed.view.status == "unknown":
            raise not_found("task", task, "check the id; GET /v1/tasks lists your tenant's tasks")
        return feed


class _EventStream(EventSourceResponse):
    """Gives its place back however it ends, also when the client is gone before the first event."""

    def __init__(self, events: AsyncIterator[ServerSentEvent], release: Callable[[], None], **more: Any) -> None:
        super().__init__(events, **more)
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()


async def _wait_ingested(feed: Feed, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            while feed.view.ingested is None:
                await feed.changed(feed.version)
    except TimeoutError:
        pass  # The answer says `pending` then.


def _json(body: Contract, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body.model_dump_json(exclude_none=False), status, headers, "application/json")


def _idempotency_key(request: Request, *, required: bool) -> str:
    key = request.headers.get("idempotency-key", "")
    if not key and not required:
        return ""
    if not key or len(key) > MAX_KEY_CHARS:
        raise Problem(400, "idempotency_key", "Idempotency-Key is missing or too long",
                      f"the header Idempotency-Key must have 1 to {MAX_KEY_CHARS} characters",
                      "send a fresh random value (a UUID) with every new request and the same one when you "
                      "repeat it; then a repeat is never a second task", limit=MAX_KEY_CHARS)
    return key


def _parsed(model: type[M], raw: bytes) -> M:
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
    for problem in problems:
        if problem["type"] == "string_too_long" and problem["loc"] == ("objective",):
            raise too_large("the objective", limits.MAX_OBJECTIVE_CHARS, "characters",
                            "shorten it; long material belongs into documents (POST /v1/documents)")
    if problems[0]["type"] == "json_invalid":
        raise Problem(400, "malformed_json", "The body is not JSON", problems[0]["msg"],
                      "send a JSON object with content-type application/json")
    errors = tuple(
        FieldError(field=".".join(str(part) for part in problem["loc"]) or "body",
                   message="unknown field" if problem["type"] == "extra_forbidden" else problem["msg"])
        for problem in problems[:MAX_NAMED_ERRORS])
    named = ", ".join(f"{item.field}: {item.message}" for item in errors[:3])
    fields = ", ".join(model.model_fields)
    raise Problem(422, "invalid_body", "The body does not fit", named[:500],
                  f"known fields are {fields}; /openapi.json has the whole schema", errors=errors)


def _token(request: Request, parameter: str, what: str) -> str:
    value: str = request.path_params[parameter]
    try:
        return subjects.token(value)
    except subjects.SubjectError as error:
        raise not_found(what, value, "ids are made of A-Z a-z 0-9 _ - only") from error


def _position(request: Request) -> Position:
    event_id = request.headers.get("last-event-id") or request.query_params.get("last_event_id", "")
    if not event_id:
        return Position()
    try:
        return parse_position(event_id)
    except BadEventId as error:
        raise Problem(400, "bad_event_id", "Last-Event-ID is not one of ours", str(error),
                      "send the last `id:` that you received, or none to start at the beginning") from error


def _size(request: Request) -> int:
    text = request.query_params.get("limit", "20")
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MAX_PAGE):
        raise Problem(422, "invalid_query", "limit does not fit", f"limit is {text[:20]!r}",
                      f"send a number from 1 to {MAX_PAGE}", limit=MAX_PAGE)
    return int(text)


def _to_cursor(sequence: int) -> str:
    return base64.urlsafe_b64encode(sequence.to_bytes(8, "big")).rstrip(b"=").decode()


def _cursor(text: str) -> int:
    if not text:
        return 0
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if len(raw) != 8 or not text.isascii():
            raise ValueError("length")
        return int.from_bytes(raw, "big")
    except (ValueError, binascii.Error) as error:
        raise Problem(422, "invalid_query", "cursor does not fit", "the cursor is not one of ours",
                      "send the `next` of the page before, or none for the first page") from error


async def _http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    hint = "/openapi.json lists the paths and their methods"
    code = {404: "no_such_path", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    return Problem(error.status_code, code, error.detail, error.detail, hint, headers=error.headers).response()


async def _bus_error(_: Request, error: Exception) -> Response:
    return unavailable(f"the message broker does not answer: {error}").response()


async def _client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)
