"""The list of a tenant's tasks, and the stream that says which of them have changed.

In: requests of people and programs. Out: a page of tasks that fit the query; ids of tasks as something of them is
stored. A query reads MAX_LOOKED tasks at most that were not read before, and for READ_S, but as many as its page holds:
it may be short, or empty, and `next` leads on. What goes on is found whatever is newer: the places to run say which
tasks have not ended.
"""

import asyncio
import heapq
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, get_args

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bulkhead.gateway_api.query import EVERY_ROLE
from bulkhead.gateway_api.tasks import Status, TaskCounts, TaskListQuery, TaskPage, TaskSort, to_unix_ms
from bulkhead.runtime.context import Context
from bulkhead_contracts import bounds
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.gateway.admission.run_queue import RunQueueState
from bulkhead_services.gateway.http import task_document
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.http.query_routes import query_route
from bulkhead_services.gateway.http.request_limits import StreamCaps
from bulkhead_services.gateway.http.request_values import cursor_of, to_cursor
from bulkhead_services.gateway.http.schemas import ChangesDocument
from bulkhead_services.gateway.problems import unavailable
from bulkhead_services.gateway.read_model import feeds as inbox_feeds
from bulkhead_services.gateway.read_model import task_view
from bulkhead_services.gateway.read_model.changes import ChangeWatchers, UnseenChanges
from bulkhead_services.gateway.read_model.feeds import InboxFeeds
from bulkhead_services.gateway.read_model.task_index import TaskIndex, TaskIndexPage
from bulkhead_services.gateway.read_model.task_rows import AT_ONCE, ListedTask, TaskRow, TaskRows
from bulkhead_services.gateway.read_model.tool_callers import CallingTasks, ToolCallers
from bulkhead_services.gateway.settings import Settings

MAX_LOOKED = 500
MAX_PASSED = 1_000
"""Rows that a query passes over before others have their turn."""
READ_S = 0.05
"""For so long a query reads tasks that were not read before; those that it needs beside are read in the background."""
MAX_BALANCES = 3 * bounds.MAX_SPEND_ROWS
"""Tasks with calls under way whose cost the ledger is asked for where a query compares costs, the newest."""
BALANCE_S = 2.0
"""Age at which the ledger is asked again."""
RETRY_MS = 1_000
GAP_S, MAX_GAP_S = 0.1, 1.0
"""Between two events: a stream that never rests says so less often, and its watchers look less often."""
LOOK_S = 0.06
"""Per watcher of this replica, the least gap: a look takes 3 to 5 ms of the processor, so all together take less than a
tenth of a core."""
NO_END_UNIX_MS = 2**53
GOES_ON = frozenset(get_args(Status)) - task_view.ENDED
STATE_FILTERS = ("status", "pause_code", "answered")
SORT_KEYS: dict[TaskSort, Callable[[TaskRow, int], int]] = {
    "updated": lambda row, now: row.summary.updated_unix_ms,
    "cost": lambda row, now: row.cost_usd_micros,
    "duration": lambda row, now: row.duration_ms(now),
}


class _TaskFilters(NamedTuple):
    """words: all of them are said. exact: values that are allowed, by the summary's field. model: that results rest on.
    tool: that was called, by one of `callers` or for a result. goes_on: nothing that has ended fits."""

    words: tuple[str, ...]
    exact: dict[str, frozenset[str]]
    model: str
    tool: str
    callers: frozenset[str]
    since_unix_ms: int
    until_unix_ms: int
    min_cost_usd_micros: int
    min_duration_ms: int
    now_unix_ms: int
    goes_on: bool

    def fitting_rows(self, rows: Iterable[TaskRow]) -> list[TaskRow]:
        """The rows that fit, in their order. One condition after the other: of thousands, that is soonest done."""
        fitting = list(rows)
        for name, allowed in self.exact.items():
            fitting = [row for row in fitting if getattr(row.summary, name) in allowed]
        if self.model:
            fitting = [row for row in fitting if self.model in row.summary.models]
        if self.tool:
            callers = self.callers
            fitting = [row for row in fitting if row.summary.task_id in callers or self.tool in row.summary.tools]
        if self.since_unix_ms or self.until_unix_ms < NO_END_UNIX_MS:
            since, until = self.since_unix_ms, self.until_unix_ms
            fitting = [row for row in fitting if since <= row.summary.created_unix_ms < until]
        if self.min_cost_usd_micros:
            fitting = [row for row in fitting if row.cost_usd_micros >= self.min_cost_usd_micros]
        if self.min_duration_ms:
            fitting = [row for row in fitting if row.duration_ms(self.now_unix_ms) >= self.min_duration_ms]
        for term in self.words:
            fitting = [row for row in fitting if term in row.search_text]
        return fitting

    def without_states(self) -> "_TaskFilters":
        """The same for tasks of every state."""
        return self._replace(exact={name: values for name, values in self.exact.items() if name not in STATE_FILTERS})


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
        context: Context,
    ) -> None:
        self._settings, self._auth, self._feeds, self._listing = settings, auth, feeds, listing
        self._changes, self._caps, self._places, self._context = changes, caps, places, context
        self._callers = ToolCallers(context)
        self.rows = TaskRows(feeds, lambda feed: task_document.summarize_task(feed, settings.publishers))

    def routes(self) -> list[Route]:
        """Routes for the application."""
        return [
            query_route(TaskListQuery, self._auth, self.list_tasks),
            Route("/v1/changes", self.stream_changes, methods=["GET"]),
        ]

    async def list_tasks(self, claim: RequesterClaim, query: TaskListQuery) -> TaskPage:
        """Tasks that fit the query, in its order."""
        position = cursor_of(query.cursor)
        callers = await self._find_callers(claim, query)
        filters = _filters_of(query, self._context.clock(), callers.tasks)
        page = await self._list_all(claim, query.opened_by)
        listed: Sequence[ListedTask] = page.rows
        if query.counts or query.sort != "newest":
            await self.rows.read_for(claim.tenant, listed, READ_S)
        if query.sort == "cost" or query.min_cost_usd_micros:
            await self._read_balances(claim, self.rows.known_rows(claim.tenant, listed), MAX_BALANCES)
        if query.sort == "newest":
            start = bisect_right(listed, -position, key=lambda place: -place[0]) if position else 0
            places = await self._places() if filters.goes_on else None
            # The index forgets the oldest, which may go on for all that.
            below = listed[start:]
            below = below if places is None or query.opened_by else _add_older(below, places, claim.tenant, position)
            chosen, following = await self._newest_tasks(claim.tenant, below, query.limit, filters, places)
        else:
            chosen, following = self._sorted_tasks(claim.tenant, listed, query, filters, position)
        rows = filters.fitting_rows(await self._reread_page(claim.tenant, chosen))
        await self._read_balances(claim, rows, bounds.MAX_SPEND_ROWS)
        return TaskPage(
            tasks=tuple(row.summarize(filters.now_unix_ms) for row in rows),
            next=to_cursor(following) if following else None,
            total=page.total,
            counts=self._count_tasks(claim.tenant, listed, filters.without_states()) if query.counts else None,
            note=callers.note,
        )

    async def _list_all(self, claim: RequesterClaim, opened_by: str = "") -> TaskIndexPage:
        senders = [name for name, policy in self._settings.publishers.items() if policy.tenant == claim.tenant]
        return await self._listing.list_page(claim.tenant, senders, 0, self._settings.listed_tasks, opened_by)

    async def read_all_rows(self, claim: RequesterClaim) -> tuple[list[TaskRow], int]:
        """The rows of the tenant's tasks as far as they are read, and how many are not yet: those are read in the
        background. Raises BusError."""
        listed = (await self._list_all(claim)).rows
        await self.rows.read_for(claim.tenant, listed, READ_S)
        rows = self.rows.known_rows(claim.tenant, listed)
        return rows, len(listed) - len(rows)

    async def _find_callers(self, claim: RequesterClaim, query: TaskListQuery) -> CallingTasks:
        """Tasks that called the tool that is asked for, none where none is."""
        if not query.tool:
            return CallingTasks()
        now_unix_ms = self._context.clock()
        age_ms = now_unix_ms - to_unix_ms(query.since, now_unix_ms) if query.since else bounds.MAX_SPEND_S * 1_000
        since_s = min(max(1, -(-age_ms // 1_000)), bounds.MAX_SPEND_S)
        return await self._callers.find_tasks(claim, query.tool, since_s)

    async def _newest_tasks(
        self, tenant: str, listed: Sequence[ListedTask], size: int, query: _TaskFilters, places: RunQueueState | None
    ) -> tuple[list[ListedTask], int]:
        """The first tasks that fit, and the sequence below which others may; 0 where there are none."""
        chosen: list[ListedTask] = []
        fitting = self._fitting_tasks(tenant, listed, query)
        looked = before = 0
        loop = asyncio.get_running_loop()
        until_s = loop.time() + READ_S
        for number, place in enumerate(listed, 1):
            if number % MAX_PASSED == 0:
                await asyncio.sleep(0)
            row = self.rows.find_row(tenant, place)
            if row is not None and row.summary.created_unix_ms < query.since_unix_ms and places is None:
                break  # All that follow are older.
            if row is not None and place[1] not in fitting:
                continue
            standing = places.standing_of((tenant, place[1]), place[0]) if places is not None else "unknown"
            # A task of which nobody has decided yet is among the newest; any other that is unknown has ended.
            if standing == "over" or (places is not None and standing == "unknown" and number > MAX_LOOKED):
                continue
            most = size if loop.time() > until_s else MAX_LOOKED
            if len(chosen) == size or (looked >= most and places is None):
                return chosen, before
            before = place[0]
            if row is None:
                # With some of those behind it, that a long list is not read one by one.
                behind = listed[number : number + AT_ONCE - 1] if places is None else ()
                unread = [place, *(row for row in behind if self.rows.find_row(tenant, row) is None)]
                looked += len(unread) if places is None else standing == "unknown"
                await self.rows.read_rows(tenant, unread)
                fitting -= {task for _, task in unread}
                fitting |= self._fitting_tasks(tenant, unread, query)
            if place[1] in fitting:
                chosen.append(place)
        return chosen, 0

    def _fitting_tasks(self, tenant: str, listed: Iterable[ListedTask], query: _TaskFilters) -> set[str]:
        return {row.summary.task_id for row in query.fitting_rows(self.rows.known_rows(tenant, listed))}

    def _sorted_tasks(
        self, tenant: str, listed: Sequence[ListedTask], query: TaskListQuery, filters: _TaskFilters, skip: int
    ) -> tuple[list[ListedTask], int]:
        """The tasks that fit behind the first `skip` in this order, and how many the next page is to skip."""
        fitting = filters.fitting_rows(self.rows.known_rows(tenant, listed))
        key_of, end = SORT_KEYS[query.sort], skip + query.limit
        first = heapq.nlargest(end, fitting, key=lambda row: (key_of(row, filters.now_unix_ms), row.sequence))
        chosen = [(row.sequence, row.summary.task_id) for row in first[skip:]]
        return chosen, end if len(fitting) > end else 0

    async def _reread_page(self, tenant: str, chosen: list[ListedTask]) -> list[TaskRow]:
        """The rows of a page, as their tasks are now: those that have ended as they were a moment ago."""
        recent = {
            place for place in chosen if self._has_ended(self.rows.find_row(tenant, place, inbox_feeds.LOOK_AGAIN_S))
        }
        old = [place for place in chosen if place not in recent]
        await self.rows.read_rows(tenant, old)
        return self.rows.known_rows(tenant, chosen)

    @staticmethod
    def _has_ended(row: TaskRow | None) -> bool:
        return row is not None and row.has_ended

    async def _read_balances(self, claim: RequesterClaim, rows: Iterable[TaskRow], most: int) -> None:
        """Have the ledger say what tasks with calls under way have spent, where it has not said so just now."""
        now_s = asyncio.get_running_loop().time()
        due = [row for row in rows if row.has_open_cost and now_s - row.balance_at_s >= BALANCE_S][:most]
        for start in range(0, len(due), bounds.MAX_SPEND_ROWS):
            batch = due[start : start + bounds.MAX_SPEND_ROWS]
            balances = await task_document.read_balances(self._context, claim, [row.summary.task_id for row in batch])
            for row in batch:
                row.balance, row.balance_at_s = balances.get(row.summary.task_id, row.balance), now_s

    def _count_tasks(self, tenant: str, listed: Sequence[ListedTask], filters: _TaskFilters) -> TaskCounts:
        rows = self.rows.known_rows(tenant, listed)
        states = Counter(
            [(row.summary.status, row.summary.pause_code, row.summary.answered) for row in filters.fitting_rows(rows)]
        )
        status, pause, answered = Counter[str](), Counter[str](), Counter[str]()
        for (name, code, answer), count in states.items():
            status[name] += count
            if name == "paused":
                pause[code] += count
            elif name == "succeeded":
                answered[answer or "unknown"] += count
        names = self.rows.frequent_names(tenant)
        return TaskCounts(
            read=len(rows), fitting=states.total(), status=status, pause=pause, answered=answered, names=names
        )

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


def _add_older(rows: Sequence[ListedTask], places: RunQueueState, tenant: str, before: int) -> Sequence[ListedTask]:
    """The rows, and behind them the tenant's tasks that run or wait and are older than all of them."""
    unended = [(place.request, task) for (of, task), place in places.running.items() if of == tenant]
    unended += [(place.request, task) for (of, task), place in places.waiting.items() if of == tenant]
    least = rows[-1][0] if rows else before
    return [*rows, *sorted((row for row in unended if not least or row[0] < least), reverse=True)]


def _filters_of(query: TaskListQuery, now_unix_ms: int, callers: frozenset[str]) -> _TaskFilters:
    named = {name: getattr(query, name) for name in ("person", "feature", "workflow", "fork_of", "kind")}
    exact = {name: frozenset((value,)) for name, value in named.items() if value}
    listed: dict[str, tuple[str, ...]] = {
        "status": query.status,
        "standing": query.standing,
        "answered": query.answered,
        "failure_code": query.code,
        "pause_code": query.pause,
        "rated": query.rated,
    }
    exact |= {name: frozenset(values) for name, values in listed.items() if values}
    return _TaskFilters(
        words=tuple(query.text.casefold().split()),
        exact=exact,
        model=query.model,
        tool=query.tool,
        callers=callers,
        since_unix_ms=to_unix_ms(query.since, now_unix_ms) if query.since else 0,
        until_unix_ms=to_unix_ms(query.until, now_unix_ms) if query.until else NO_END_UNIX_MS,
        min_cost_usd_micros=query.min_cost_usd_micros,
        min_duration_ms=query.min_duration_ms,
        now_unix_ms=now_unix_ms,
        goes_on=bool(query.status) and {*query.status} <= GOES_ON,
    )
