"""The list of a tenant's tasks, and the stream that says which of them have changed.

In: requests of people and programs. Out: a page of tasks that fit the query; ids of tasks as something of them is
stored. A query reads MAX_LOOKED tasks at most: a page may be short, or empty, and `next` leads on.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple, get_args

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bulkhead.bounded_dict import BoundedDict
from bulkhead_contracts import bounds
from bulkhead_contracts.result import Standing
from bulkhead_services.gateway.http import task_document
from bulkhead_services.gateway.http.auth import Authenticator
from bulkhead_services.gateway.http.request_limits import StreamCaps
from bulkhead_services.gateway.http.request_values import answered, cursor_of, opener_of, size_of, to_cursor
from bulkhead_services.gateway.http.schemas import ChangesDocument, TaskPage, TaskSummary
from bulkhead_services.gateway.problems import invalid_query, unavailable
from bulkhead_services.gateway.read_model import task_view
from bulkhead_services.gateway.read_model.changes import Changes, News
from bulkhead_services.gateway.read_model.feeds import Feeds
from bulkhead_services.gateway.read_model.task_index import Listing
from bulkhead_services.gateway.settings import Settings

MAX_LOOKED = 500
MAX_PASSED = 2_000
"""Rows of the index at a time, where a query passes over many."""
MAX_ENDED = 10_000
"""Tasks that have ended, as they were last read: one that did not fit a query then does not fit it now."""
RETRY_MS = 1_000
GAP_S, MAX_GAP_S = 0.1, 1.0
"""Between two events: a stream that never rests says so less often, and its watchers look less often."""
LOOK_S = 0.07
"""Per watcher of this replica, the gap of a stream that never rests: a look takes some 7 ms of the processor, so all
together take a tenth of a core."""
FILTERS = ("text", "status", "person", "feature", "standing", "fork_of")
KNOWN = {"status": get_args(task_view.Status), "standing": get_args(Standing)}


class _Seen(NamedTuple):
    row: TaskSummary
    objective: str


class EventStream(EventSourceResponse):
    """An event stream that gives its place back however it ends, also if the client leaves before the first event."""

    def __init__(
        self, events: AsyncIterator[ServerSentEvent], release: Callable[[], None], ping_s: float, **more: Any
    ) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        alive = ServerSentEvent(comment="alive", sep="\n")
        super().__init__(events, ping=ping_s, sep="\n", headers=headers, ping_message_factory=lambda: alive, **more)
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()


class TaskList:
    """GET /v1/tasks and GET /v1/changes."""

    def __init__(
        self,
        settings: Settings,
        auth: Authenticator,
        feeds: Feeds,
        listing: Listing,
        changes: Changes,
        caps: StreamCaps,
    ) -> None:
        self._settings, self._auth, self._feeds, self._listing = settings, auth, feeds, listing
        self._changes, self._caps = changes, caps
        self._ended = BoundedDict[tuple[str, str, int], _Seen](MAX_ENDED)

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            Route("/v1/tasks", self.list_tasks, methods=["GET"]),
            Route("/v1/changes", self.changes, methods=["GET"]),
        ]

    async def list_tasks(self, request: Request) -> Response:
        """GET /v1/tasks"""
        claim = await self._auth.allowed(request, task_view.MAY_READ, "read tasks", "submitter")
        size = size_of(request)
        before = cursor_of(request.query_params.get("cursor", ""))
        senders = [name for name, policy in self._settings.publishers.items() if policy.tenant == claim.tenant]
        opened_by, fits = opener_of(request), _filter_of(request)
        tasks: list[TaskSummary] = []
        more, looked, total = True, 0, 0
        while more and len(tasks) < size and looked < MAX_LOOKED:
            at_once = MAX_PASSED if fits else size - len(tasks)
            page = await self._listing.page(claim.tenant, senders, before, at_once, opened_by)
            more, total = page.more, page.total
            for sequence, task in page.rows:
                if len(tasks) == size or looked == MAX_LOOKED:
                    more = True
                    break
                before = sequence
                known = self._ended.use((claim.tenant, task, sequence))
                if known is not None and fits is not None and not fits(known.row, known.objective):
                    continue
                looked += 1
                found = await self._seen(claim.tenant, task, sequence)
                if found is not None and (fits is None or fits(found.row, found.objective)):
                    tasks.append(found.row)
        return answered(TaskPage(tasks=tuple(tasks), next=to_cursor(before) if more else None, total=total))

    async def _seen(self, tenant: str, task: str, sequence: int) -> _Seen | None:
        """A task as it is now; None where nothing is left of it, or a follower lags. Raises BusError."""
        feed = await self._feeds.fresh(tenant, task)
        if feed.view.request is None:
            return None
        found = _Seen(task_document.summary(feed, self._settings.publishers), feed.view.request.objective)
        if feed.ended:
            self._ended[tenant, task, sequence] = found
        return found

    async def changes(self, request: Request) -> Response:
        """GET /v1/changes"""
        claim = await self._auth.allowed(request, task_view.MAY_READ, "watch tasks", "submitter")
        if self._feeds.closing:
            raise unavailable("this replica is closing", "reconnect in a moment; another replica may answer")
        return EventStream(self._told(claim.tenant), self._caps.take(claim), self._settings.heartbeat_s)

    async def _told(self, tenant: str) -> AsyncIterator[ServerSentEvent]:
        with self._changes.watched(tenant) as news:
            # Named by nobody: a client that comes, or comes back, looks at what it shows once.
            yield _event(news, retry=RETRY_MS)
            gap_s, loop = GAP_S, asyncio.get_running_loop()
            while not self._feeds.closing:
                idle_since = loop.time()
                await news.came.wait()
                if self._feeds.closing:
                    return
                rested = loop.time() - idle_since > MAX_GAP_S
                yield _event(news)
                gap_s = GAP_S if rested else min(max(MAX_GAP_S, LOOK_S * self._changes.watching), gap_s * 1.5)
                await asyncio.sleep(gap_s)


def _event(news: News, retry: int | None = None) -> ServerSentEvent:
    tasks, more = news.take()
    data = ChangesDocument(tasks=tasks, more=more).model_dump_json()
    return ServerSentEvent(data, event="changed", retry=retry, sep="\n")


def _filter_of(request: Request) -> Callable[[TaskSummary, str], bool] | None:
    """Whether a task fits the query's filters; None for a query without. Raises Problem 422."""
    asked = {name: request.query_params.get(name, "") for name in FILTERS}
    for name, value in asked.items():
        if len(value) > bounds.MAX_NAME_CHARS:
            raise invalid_query(name, value[:40], f"send at most {bounds.MAX_NAME_CHARS} characters")
        unknown = set(value.split(",")) - set(KNOWN.get(name, ())) if value and name in KNOWN else ()
        if unknown:
            raise invalid_query(name, value, f"send one or several of {', '.join(KNOWN[name])}, with commas between")
    words = asked.pop("text").casefold().split()
    exact = {name: set(value.split(",")) if name in KNOWN else {value} for name, value in asked.items() if value}
    if not words and not exact:
        return None

    def fits(row: TaskSummary, objective: str) -> bool:
        if any(getattr(row, name) not in values for name, values in exact.items()):
            return False
        said = f"{objective} {row.task_id}".casefold() if words else ""
        return all(word in said for word in words)

    return fits
