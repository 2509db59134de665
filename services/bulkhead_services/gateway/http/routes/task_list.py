"""The list of a tenant's tasks, and the stream that says which of them have changed.

In: requests of people and programs. Out: a page of tasks that fit the query; ids of tasks as something of them is
stored. A query reads MAX_LOOKED tasks at most: a page may be short, or empty, and `next` leads on. What goes on is
found whatever is newer: the places to run say which tasks have not ended.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple, get_args

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bulkhead.bounded_dict import BoundedDict
from bulkhead_contracts import bounds
from bulkhead_contracts.result import Standing
from bulkhead_services.gateway.admission.run_queue import Book
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
MAX_PASSED = 1_000
"""Rows that a query passes over before others have their turn."""
MAX_ENDED = 10_000
"""Tasks that have ended, as they were last read: one that did not fit a query then does not fit it now."""
RETRY_MS = 1_000
GAP_S, MAX_GAP_S = 0.1, 1.0
"""Between two events: a stream that never rests says so less often, and its watchers look less often."""
LOOK_S = 0.06
"""Per watcher of this replica, the least gap: a look takes 3 to 5 ms of the processor, so all together take less than a
tenth of a core."""
FILTERS = ("text", "status", "person", "feature", "standing", "fork_of")
GOES_ON = frozenset(get_args(task_view.Status)) - task_view.ENDED
KNOWN = {"status": get_args(task_view.Status), "standing": get_args(Standing)}


class _Seen(NamedTuple):
    row: TaskSummary
    said: str
    """Objective and id, for a search."""


class _Query(NamedTuple):
    """words: all of them are said. exact: values that are allowed. goes_on: nothing that has ended fits."""

    words: tuple[str, ...]
    exact: dict[str, set[str]]
    goes_on: bool

    def fits(self, seen: _Seen) -> bool:
        for name, values in self.exact.items():
            if getattr(seen.row, name) not in values:
                return False
        return all(word in seen.said for word in self.words)


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
        places: Callable[[], Awaitable[Book | None]],
    ) -> None:
        self._settings, self._auth, self._feeds, self._listing = settings, auth, feeds, listing
        self._changes, self._caps, self._places = changes, caps, places
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
        query, most, opener = _query_of(request), self._settings.listed_tasks, opener_of(request)
        page = await self._listing.page(claim.tenant, senders, before, most, opener)
        places = await self._places() if query.goes_on else None
        # The index forgets the oldest, which may go on for all that.
        rows = page.rows if places is None or opener else _with_older(page.rows, places, claim.tenant, before)
        tasks, more = await self._fitting(claim.tenant, rows, size, query, places)
        return answered(TaskPage(tasks=tuple(tasks), next=to_cursor(more) if more else None, total=page.total))

    async def _fitting(
        self, tenant: str, rows: list[tuple[int, str]], size: int, query: _Query, places: Book | None
    ) -> tuple[list[TaskSummary], int]:
        """The first tasks that fit, and the sequence below which others may; 0 where there are none."""
        tasks: list[TaskSummary] = []
        looked = before = 0
        for number, (sequence, task) in enumerate(rows, 1):
            if number % MAX_PASSED == 0:
                await asyncio.sleep(0)
            known = self._ended.get((tenant, task, sequence))
            if known is not None and (query.goes_on or not query.fits(known)):
                continue
            stands = places.standing((tenant, task), sequence) if places is not None else "unknown"
            # A task of which nobody has decided yet is among the newest; any other that is unknown has ended.
            if stands == "over" or (places is not None and stands == "unknown" and number > MAX_LOOKED):
                continue
            if len(tasks) == size or (looked == MAX_LOOKED and places is None):
                return tasks, before
            before, looked = sequence, looked + (stands == "unknown")
            seen = await self._seen(tenant, task, sequence)
            if seen is not None and query.fits(seen):
                tasks.append(seen.row)
        return tasks, 0

    async def _seen(self, tenant: str, task: str, sequence: int) -> _Seen | None:
        """A task as it is now; None where nothing is left of it, or a follower lags. Raises BusError."""
        feed = await self._feeds.fresh(tenant, task)
        if feed.view.request is None:
            return None
        said = f"{feed.view.request.objective} {task}".casefold()
        found = _Seen(task_document.summary(feed, self._settings.publishers), said)
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
                least_s = max(GAP_S, LOOK_S * self._changes.watching)
                gap_s = least_s if rested else max(least_s, min(MAX_GAP_S, gap_s * 1.5))
                # All of them at the same moments: they look at the same, which is read once for those who ask together.
                await asyncio.sleep(gap_s - loop.time() % gap_s)


def _event(news: News, retry: int | None = None) -> ServerSentEvent:
    tasks, more = news.take()
    data = ChangesDocument(tasks=tasks, more=more).model_dump_json()
    return ServerSentEvent(data, event="changed", retry=retry, sep="\n")


def _with_older(rows: list[tuple[int, str]], places: Book, tenant: str, before: int) -> list[tuple[int, str]]:
    """The rows, and behind them the tenant's tasks that run or wait and are older than all of them."""
    stands = [(place.request, task) for (of, task), place in places.running.items() if of == tenant]
    stands += [(place.request, task) for (of, task), place in places.waiting.items() if of == tenant]
    least = rows[-1][0] if rows else before
    return rows + sorted((row for row in stands if not least or row[0] < least), reverse=True)


def _query_of(request: Request) -> _Query:
    """The query's filters. Raises Problem 422."""
    asked = {name: request.query_params.get(name, "") for name in FILTERS}
    for name, value in asked.items():
        if len(value) > bounds.MAX_NAME_CHARS:
            raise invalid_query(name, value[:40], f"send at most {bounds.MAX_NAME_CHARS} characters")
        unknown = set(value.split(",")) - set(KNOWN.get(name, ())) if value and name in KNOWN else ()
        if unknown:
            raise invalid_query(name, value, f"send one or several of {', '.join(KNOWN[name])}, with commas between")
    words = tuple(asked.pop("text").casefold().split())
    exact = {name: set(value.split(",")) if name in KNOWN else {value} for name, value in asked.items() if value}
    return _Query(words, exact, bool(exact.get("status")) and exact["status"] <= GOES_ON)
