"""Rows of tasks as they were last read, so that a list can filter, sort and count all of a tenant's tasks at once.

In: tasks of the index, pokes, what the ledger says. Out: rows. A row is read again when something of its task was
stored, and after a while in case that was missed. Whoever needs them all reads a few now; the rest is read in the
background, the newest first, for as long as somebody asks.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import BusError
from bulkhead.gateway_api.tasks import MAX_NAMES, TaskNames, TaskSummary
from bulkhead.telemetry.log import Log
from bulkhead_contracts.budget import SpendRow
from bulkhead_contracts.rating import Score
from bulkhead_services.gateway.read_model.feeds import InboxFeed, InboxFeeds
from bulkhead_services.gateway.read_model.ratings.standing import labels_of

MAX_ROWS = 20_000
"""Of all tenants together, beyond those of the tenant that was asked for last."""
AT_ONCE = 16
"""Tasks that are read at the same time."""
OPEN_ROW_S, ENDED_ROW_S = 5.0, 600.0
"""Age at which a row is read again though nobody has said that its task changed: a poke may be lost, a task purged."""
NAMES_S = 5.0
"""Age at which the names that tasks have are counted again."""
log = Log("gateway.task_rows")
ListedTask = tuple[int, str]
"""Sequence of its request, and the task."""


@dataclass(slots=True)
class TaskRow:
    """One task. search_text: objective and id, casefolded. labels: by person, which no summary tells. balance: of the
    ledger, as of balance_at_s, where calls are under way or were when the task ended."""

    sequence: int
    summary: TaskSummary
    search_text: str
    has_ended: bool
    read_at_s: float
    labels: Mapping[str, Score] = field(default_factory=dict)
    has_changed: bool = False
    balance: SpendRow | None = None
    balance_at_s: float = 0.0

    @property
    def has_open_cost(self) -> bool:
        """True while the ledger alone knows the cost."""
        return self.summary.held_usd_micros is None

    @property
    def cost_usd_micros(self) -> int:
        """Settled and held, as far as it is known."""
        if self.balance is None:
            return self.summary.cost_usd_micros
        spent = max(self.summary.cost_usd_micros, self.balance.spent.cost_usd_micros)
        return spent + self.balance.held.cost_usd_micros

    def duration_ms(self, now_unix_ms: int) -> int:
        """Time until its end, or until now."""
        return self.summary.duration_ms if self.has_ended else max(0, now_unix_ms - self.summary.created_unix_ms)

    def summarize(self, now_unix_ms: int) -> TaskSummary:
        """The summary with what the ledger says."""
        changes: dict[str, int] = {} if self.has_ended else {"duration_ms": self.duration_ms(now_unix_ms)}
        if self.balance is not None:
            spent = self.balance.spent
            for name in ("cost_usd_micros", "model_calls", "tool_calls"):
                changes[name] = max(getattr(self.summary, name), getattr(spent, name))
            changes["held_usd_micros"] = self.balance.held.cost_usd_micros
        return self.summary.model_copy(update=changes)


class TaskRows:
    """The rows of this replica. describe: makes the row's summary of a feed that has a request."""

    def __init__(self, feeds: InboxFeeds, describe: Callable[[InboxFeed], TaskSummary]) -> None:
        self._feeds, self._describe = feeds, describe
        self._tenants = BoundedDict[str, dict[str, TaskRow]](MAX_ROWS)
        self._names = BoundedDict[str, tuple[TaskNames, float]](MAX_ROWS)
        self._wanted: dict[str, Sequence[ListedTask]] = {}
        self._came = asyncio.Event()

    def mark_changed(self, tenant: str, task: str) -> None:
        """Something of this task was stored."""
        row = self._tenants.get(tenant, {}).get(task)
        if row is not None:
            row.has_changed = True

    def find_row(self, tenant: str, listed: ListedTask, max_age_s: float | None = None) -> TaskRow | None:
        """The row, if it is as the task stands; None for one that is to be read. max_age_s: how old it may be."""
        row = self._tenants.get(tenant, {}).get(listed[1])
        if row is None or row.sequence != listed[0] or row.has_changed:
            return None
        most_s = max_age_s if max_age_s is not None else ENDED_ROW_S if row.has_ended else OPEN_ROW_S
        return row if asyncio.get_running_loop().time() - row.read_at_s < most_s else None

    def known_rows(self, tenant: str, listed: Iterable[ListedTask]) -> list[TaskRow]:
        """The rows as far as they have been read, each as it was then."""
        find = (self._tenants.get_refreshed(tenant) or {}).get
        return [row for sequence, task in listed if (row := find(task)) is not None and row.sequence == sequence]

    def frequent_names(self, tenant: str) -> TaskNames:
        """The names that a tenant's tasks have, counted anew once in a while."""
        now_s = asyncio.get_running_loop().time()
        names, counted_at_s = self._names.get(tenant) or (TaskNames(), -NAMES_S)
        if now_s - counted_at_s < NAMES_S:
            return names
        summaries = [row.summary for row in self._tenants.get(tenant, {}).values()]
        names = TaskNames(
            people=_most_frequent([task.person for task in summaries]),
            features=_most_frequent([task.feature for task in summaries]),
            models=_most_frequent([name for task in summaries for name in task.models]),
            tools=_most_frequent([name for task in summaries for name in task.tools]),
            codes=_most_frequent([task.failure_code for task in summaries]),
        )
        self._names[tenant] = (names, now_s)
        return names

    async def read_rows(self, tenant: str, listed: Iterable[ListedTask]) -> None:
        """Read these tasks now; a row of which nothing is left goes. Raises BusError."""
        await asyncio.gather(*(self._read_row(tenant, *place) for place in listed))

    async def read_for(self, tenant: str, listed: Sequence[ListedTask], budget_s: float) -> None:
        """Read what is to be read of these for so long, and the rest in the background. Raises BusError."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + budget_s
        missing = self._stale_places(tenant, listed)
        for start in range(0, len(missing), AT_ONCE):
            if loop.time() >= until_s:
                self._wanted[tenant] = listed
                self._came.set()
                return
            await self.read_rows(tenant, missing[start : start + AT_ONCE])

    def _stale_places(self, tenant: str, listed: Sequence[ListedTask]) -> list[ListedTask]:
        """Those whose row `find_row` would not give, of thousands."""
        find, now_s = self._tenants.get(tenant, {}).get, asyncio.get_running_loop().time()
        open_s, ended_s = now_s - OPEN_ROW_S, now_s - ENDED_ROW_S
        return [
            place
            for place in listed
            if (row := find(place[1])) is None
            or row.has_changed
            or row.sequence != place[0]
            or row.read_at_s <= (ended_s if row.has_ended else open_s)
        ]

    async def run(self) -> None:
        """Read what lists have asked for, with as much rest as work, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._came.wait()
            self._came.clear()
            while self._wanted:
                tenant, listed = self._wanted.popitem()
                for place in self._stale_places(tenant, listed):
                    began_s = loop.time()
                    try:
                        await self._read_row(tenant, *place)
                    except BusError as error:
                        log.warning("rows_not_read", tenant=tenant, reason=str(error))
                        break
                    await asyncio.sleep(loop.time() - began_s)
                self._forget_unlisted(tenant, listed)

    def _forget_unlisted(self, tenant: str, listed: Sequence[ListedTask]) -> None:
        rows, tasks = self._tenants.get(tenant, {}), {task for _, task in listed}
        for task in rows.keys() - tasks:
            del rows[task]

    async def _read_row(self, tenant: str, sequence: int, task: str) -> None:
        rows = self._tenants.get_refreshed(tenant)
        if rows is None:
            rows = self._tenants[tenant] = {}
        before = rows.get(task)
        if before is not None:
            before.has_changed = False
        try:
            feed = await self._feeds.read_feed(tenant, task)
        except BusError:
            if before is not None:
                before.has_changed = True  # It is still to be read.
            raise
        if feed.view.request is None:
            rows.pop(task, None)
            return
        search_text = f"{feed.view.request.objective} {task}".casefold()
        now_s = asyncio.get_running_loop().time()
        labels = labels_of(feed.view.ratings)
        row = TaskRow(sequence, self._describe(feed), search_text, feed.has_ended, now_s, labels)
        if before is not None:
            row.has_changed = before.has_changed  # Somebody may have said so while it was read.
            if row.has_open_cost:
                row.balance, row.balance_at_s = before.balance, before.balance_at_s
        rows[task] = row
        self._make_room()

    def _make_room(self) -> None:
        while len(self._tenants) > 1 and sum(map(len, self._tenants.values())) > MAX_ROWS:
            self._tenants.popitem(last=False)


def _most_frequent(names: list[str]) -> tuple[str, ...]:
    return tuple(name for name, _ in Counter(names).most_common(MAX_NAMES + 1) if name)[:MAX_NAMES]
