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
from bulkhead.gateway_api.query import EVERY_ROLE, period_s
from bulkhead.gateway_api.tasks import Status, TaskListQuery, TaskPage, TaskSummary
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.admission.run_queue import RunQueueState
from bulkhead_services.gateway.http import task_document
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.query_routes import query_route
from bulkhead_services.gateway.http.request_limits import StreamCaps
from bulkhead_services.gateway.http.request_values import cursor_of, to_cursor
from bulkhead_services.gateway.http.schemas import ChangesDocument
from bulkhead_services.gateway.problems import unavailable
from bulkhead_services.gateway.read_model import task_view
from bulkhead_services.gateway.read_model.changes import ChangeWatchers, UnseenChanges
from bulkhead_services.gateway.read_model.feeds import InboxFeeds
from bulkhead_services.gateway.read_model.task_index import TaskIndex
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
GOES_ON = frozenset(get_args(Status)) - task_view.ENDED


class _SearchedTask(NamedTuple):
    row: TaskSummary
    said: str
    """Objective and id, for a search."""


class _TaskFilters(NamedTuple):
    """words: all of them are said. exact: values that are allowed. goes_on: nothing that has ended fits.
    oldest_unix_ms: nothing that was submitted before fits."""

    words: tuple[str, ...]
    exact: dict[str, set[str]]
    goes_on: bool
    oldest_unix_ms: int

    def is_too_old(self, seen: _SearchedTask) -> bool:
        return seen.row.created_unix_ms < self.oldest_unix_ms

    def matches_task(self, seen: _SearchedTask) -> bool:
        for name, values in self.exact.items():
            if getattr(seen.row, name) not in values:
                return False
        return all(term in seen.said for term in self.words)


class SlotHoldingEventStream(EventSourceResponse):
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


class TaskListRoutes:
    """GET /v1/tasks and GET /v1/changes."""

    def __init__(
        self,
        settings: Settings,
        auth: GatewayAuthenticator,
        feeds: InboxFeeds,
        listing: TaskIndex,
        changes: ChangeWatchers,
        caps: StreamCaps,
        places: Callable[[], Awaitable[RunQueueState | None]],
        clock: Callable[[], int],
    ) -> None:
        self._settings, self._auth, self._feeds, self._listing = settings, auth, feeds, listing
        self._changes, self._caps, self._places, self._clock = changes, caps, places, clock
        self._ended = BoundedDict[tuple[str, str, int], _SearchedTask](MAX_ENDED)

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            query_route(TaskListQuery, self._auth, self.list_tasks),
            Route("/v1/changes", self.stream_changes, methods=["GET"]),
        ]

    async def list_tasks(self, claim: RequesterClaim, query: TaskListQuery) -> TaskPage:
        """Tasks that fit the query, the newest first."""
        before = cursor_of(query.cursor)
        senders = [name for name, policy in self._settings.publishers.items() if policy.tenant == claim.tenant]
        filters, most, opener = _filters_of(query, self._clock()), self._settings.listed_tasks, query.opened_by
        page = await self._listing.list_page(claim.tenant, senders, before, most, opener)
        places = await self._places() if filters.goes_on else None
        # The index forgets the oldest, which may go on for all that.
        rows = page.rows if places is None or opener else _add_older(page.rows, places, claim.tenant, before)
        tasks, next_before = await self._matching_tasks(claim.tenant, rows, query.limit, filters, places)
        return TaskPage(tasks=tuple(tasks), next=to_cursor(next_before) if next_before else None, total=page.total)

    async def _matching_tasks(
        self, tenant: str, rows: list[tuple[int, str]], size: int, query: _TaskFilters, places: RunQueueState | None
    ) -> tuple[list[TaskSummary], int]:
        """The first tasks that fit, and the sequence below which others may; 0 where there are none."""
        tasks: list[TaskSummary] = []
        looked = before = 0
        for number, (sequence, task) in enumerate(rows, 1):
            if number % MAX_PASSED == 0:
                await asyncio.sleep(0)
            cached = self._ended.get((tenant, task, sequence))
            if cached is not None and query.is_too_old(cached):
                break
            if cached is not None and (query.goes_on or not query.matches_task(cached)):
                continue
            standing = places.standing_of((tenant, task), sequence) if places is not None else "unknown"
            # A task of which nobody has decided yet is among the newest; any other that is unknown has ended.
            if standing == "over" or (places is not None and standing == "unknown" and number > MAX_LOOKED):
                continue
            if len(tasks) == size or (looked == MAX_LOOKED and places is None):
                return tasks, before
            before, looked = sequence, looked + (standing == "unknown")
            searched = await self._read_task(tenant, task, sequence)
            if searched is not None and query.is_too_old(searched):
                break  # Rows are in the order of their submission: all others are older.
            if searched is not None and query.matches_task(searched):
                tasks.append(searched.row)
        return tasks, 0

    async def _read_task(self, tenant: str, task: str, sequence: int) -> _SearchedTask | None:
        """A task as it is now; None where nothing is left of it, or a follower lags. Raises BusError."""
        feed = await self._feeds.fresh_feed(tenant, task)
        if feed.view.request is None:
            return None
        search_text = f"{feed.view.request.objective} {task}".casefold()
        searched = _SearchedTask(task_document.summarize_task(feed, self._settings.publishers), search_text)
        if feed.has_ended:
            self._ended[tenant, task, sequence] = searched
        return searched

    async def stream_changes(self, request: Request) -> Response:
        """GET /v1/changes"""
        claim = await self._auth.require_role(request, EVERY_ROLE, "watch tasks")
        if self._feeds.is_closing:
            raise unavailable("this replica is closing", "reconnect in a moment; another replica may answer")
        return SlotHoldingEventStream(
            self._change_events(claim.tenant), self._caps.acquire_stream(claim), self._settings.heartbeat_s
        )

    async def _change_events(self, tenant: str) -> AsyncIterator[ServerSentEvent]:
        with self._changes.watch_tenant(tenant) as news:
            # Named by nobody: a client that comes, or comes back, looks at what it shows once.
            yield _changed_event(news, retry=RETRY_MS)
            gap_s, loop = GAP_S, asyncio.get_running_loop()
            while not self._feeds.is_closing:
                idle_since = loop.time()
                await news.came.wait()
                if self._feeds.is_closing:
                    return
                rested = loop.time() - idle_since > MAX_GAP_S
                yield _changed_event(news)
                least_s = max(GAP_S, LOOK_S * self._changes.watcher_count)
                gap_s = least_s if rested else max(least_s, min(MAX_GAP_S, gap_s * 1.5))
                # All of them at the same moments: they look at the same, which is read once for those who ask together.
                await asyncio.sleep(gap_s - loop.time() % gap_s)


def _changed_event(news: UnseenChanges, retry: int | None = None) -> ServerSentEvent:
    tasks, has_more = news.take_changes()
    data = ChangesDocument(tasks=tasks, more=has_more).model_dump_json()
    return ServerSentEvent(data, event="changed", retry=retry, sep="\n")


def _add_older(rows: list[tuple[int, str]], places: RunQueueState, tenant: str, before: int) -> list[tuple[int, str]]:
    """The rows, and behind them the tenant's tasks that run or wait and are older than all of them."""
    unended = [(place.request, task) for (of, task), place in places.running.items() if of == tenant]
    unended += [(place.request, task) for (of, task), place in places.waiting.items() if of == tenant]
    least = rows[-1][0] if rows else before
    return rows + sorted((row for row in unended if not least or row[0] < least), reverse=True)


def _filters_of(query: TaskListQuery, now_unix_ms: int) -> _TaskFilters:
    named = {"person": query.person, "feature": query.feature, "fork_of": query.fork_of, "failure_code": query.code}
    exact = {name: {value} for name, value in named.items() if value}
    listed = {"status": query.status, "standing": query.standing, "answered": query.answered}
    exact |= {name: set(values) for name, values in listed.items() if values}
    oldest_unix_ms = now_unix_ms - period_s(query.since) * 1_000 if query.since else 0
    goes_on = bool(query.status) and {*query.status} <= GOES_ON
    return _TaskFilters(tuple(query.text.casefold().split()), exact, goes_on, oldest_unix_ms)
