"""Open waits of a tenant: now, and as they stood in each of the last minutes. Pure.

In: the wait-for graph, after each message that is folded. Out: rows for people who ask. A watch that starts knows the
minutes whose messages it reads again.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from bulkhead.health.deadlock.wait_graph import WaitGraph
from bulkhead.health.deadlock.waits import Wait
from bulkhead.health.sources.journal_waits import party_label
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import OpenWait, WaitMinute

MINUTE_MS = 60_000
GROWTH = 1.25
"""A minute is copied anew when its waits have grown by this factor, or more parties are stuck than before."""
MAX_KEPT = 200_000
"""Waits of all minutes together; beyond it the oldest minute is dropped."""


class WaitCopy(NamedTuple):
    """The graph as it stood. start: of its minute, in Unix milliseconds. counts, stuck_counts: waits by tenant."""

    start: int
    waits: tuple[Wait, ...]
    stuck: Collection[str]
    until: Mapping[str, int]
    counts: Mapping[str, int]
    stuck_counts: Mapping[str, int]


def open_waits(graph: WaitGraph, tenant: str) -> tuple[tuple[OpenWait, ...], int]:
    """The open waits of a tenant's tasks, and how many are left out: those who are stuck come first."""
    return _list_waits(list(graph.waits.values()), graph.stuck, graph.until, tenant)


class WaitMinutes:
    """For each minute the waits of its fullest moment: one with a party that is stuck goes before any without."""

    def __init__(self) -> None:
        self._copies: deque[WaitCopy] = deque(maxlen=bounds.MAX_WAIT_MINUTES)
        self._kept = self._start = self._peak = self._peak_stuck = 0

    def note_waits(self, graph: WaitGraph, now_unix_ms: int) -> None:
        """Note how the graph stands. Called after every message: most change nothing here."""
        start = now_unix_ms - now_unix_ms % MINUTE_MS
        if start > self._start:
            self._start, self._peak, self._peak_stuck = start, 0, 0
        count, stuck = len(graph.waits), len(graph.stuck)
        if stuck > self._peak_stuck or (stuck == self._peak_stuck and count > self._peak * GROWTH):
            self._peak, self._peak_stuck = count, stuck
            self._copy_waits(graph)

    def waits_at(self, tenant: str, unix_ms: int) -> tuple[tuple[OpenWait, ...], int]:
        """Waits of a tenant in the minute that holds this moment, as `open_waits` lists them."""
        for copy in self._copies:
            if copy.start == unix_ms - unix_ms % MINUTE_MS:
                return _list_waits(copy.waits, copy.stuck, copy.until, tenant)
        return (), 0

    def minutes_of(self, tenant: str) -> tuple[WaitMinute, ...]:
        """Minutes in which the tenant had waits, the oldest first."""
        return tuple(
            WaitMinute(start_unix_ms=copy.start, waits=copy.counts[tenant], stuck=copy.stuck_counts.get(tenant, 0))
            for copy in self._copies
            if tenant in copy.counts
        )

    def _copy_waits(self, graph: WaitGraph) -> None:
        if self._copies and self._copies[-1].start == self._start:
            self._kept -= len(self._copies.pop().waits)
        while self._copies and (self._kept > MAX_KEPT or len(self._copies) == bounds.MAX_WAIT_MINUTES):
            self._kept -= len(self._copies.popleft().waits)
        waits = tuple(graph.waits.values())
        counts = Counter(_tenant_of(wait) for wait in waits)
        stuck_counts = Counter(_tenant_of(wait) for wait in waits if wait.waiter in graph.stuck)
        self._copies.append(WaitCopy(self._start, waits, set(graph.stuck), dict(graph.until), counts, stuck_counts))
        self._kept += len(waits)


def _tenant_of(wait: Wait) -> str:
    return wait.task.partition("/")[0]


def _list_waits(
    waits: Iterable[Wait], stuck: Collection[str], until: Mapping[str, int], tenant: str
) -> tuple[tuple[OpenWait, ...], int]:
    tenant_waits = sorted(
        (wait for wait in waits if wait.task.startswith(f"{tenant}/")),
        key=lambda wait: (wait.waiter not in stuck, wait.task, wait.key),
    )
    rows = tuple(
        OpenWait(
            kind=wait.key.partition("/")[0],
            task=wait.task.partition("/")[2],
            waiter=party_label(wait.waiter)[: bounds.MAX_SUMMARY_CHARS],
            targets=tuple(
                party_label(target)[: bounds.MAX_SUMMARY_CHARS]
                for target in wait.targets[: bounds.MAX_WAIT_TARGETS_LISTED]
            ),
            mode=wait.mode,
            stuck=wait.waiter in stuck,
            until_unix_ms=until.get(wait.key, 0),
        )
        for wait in tenant_waits[: bounds.MAX_WAITS_LISTED]
    )
    return rows, len(tenant_waits) - len(rows)
