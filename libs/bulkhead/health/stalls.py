"""The stall detector: nothing is outstanding, and the task has not ended.

In: keys that open and close in a lineage, and the time of the newest message. Out: findings. A waiting approval, a
timer or an admission is outstanding, and so is every call, step, ask and lease: those have deadlines of their own.
"""

import heapq
from dataclasses import dataclass, field
from functools import partial

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.events import Closed, Ended, Opened
from bulkhead.health.findings import Finding, finding_of
from bulkhead.health.thresholds import StallThresholds

MAX_LINEAGES = 200_000
MAX_EARLY = 10_000
MAX_OUTSTANDING = 4_096
"""Of one lineage; one with more of them is certainly not stalled, and is not looked at until some are closed."""


@dataclass(slots=True)
class _Lineage:
    tenant: str
    last_id: str
    last_unix_ms: int
    open: dict[str, int] = field(default_factory=dict)
    closed: BoundedDict[str, None] = field(default_factory=partial(BoundedDict, MAX_OUTSTANDING))
    timer_unix_ms: int = 0
    told: bool = False


class Stalls:
    """What is outstanding, per living lineage. Opening and closing may come in either order."""

    def __init__(self, named: StallThresholds) -> None:
        self._named = named
        self._lineages = BoundedDict[str, _Lineage](MAX_LINEAGES)
        self._early = BoundedDict[str, dict[str, int]](MAX_EARLY)
        """What closed, and when, in lineages of which nothing has been seen to open: a journal that catches up, or was
        made again, has inboxes one before the other."""
        self._due: list[tuple[int, str]] = []

    def take(self, event: Opened | Closed | Ended) -> None:
        """Fold one event."""
        if isinstance(event, Ended):
            self._lineages.pop(event.lineage, None)
            self._early.pop(event.lineage, None)
            return
        found = self._lineages.get(event.lineage)
        if found is None:
            if isinstance(event, Closed):
                self._closes_early(event)
                return
            found = self._lineages[event.lineage] = _Lineage(event.tenant, event.id, event.time_unix_ms)
            early = self._early.pop(event.lineage, {})
            found.closed.update(dict.fromkeys(early))
            found.last_unix_ms = max(found.last_unix_ms, *early.values()) if early else found.last_unix_ms
        found.last_id, found.told = event.id, False
        found.last_unix_ms = max(found.last_unix_ms, event.time_unix_ms)
        if isinstance(event, Opened):
            if event.kind == "timer":
                found.timer_unix_ms = max(found.timer_unix_ms, event.until_unix_ms)
            elif event.key in found.closed:
                del found.closed[event.key]
            elif len(found.open) < MAX_OUTSTANDING:
                found.open[event.key] = event.time_unix_ms
        elif found.open.pop(event.key, None) is None:
            found.closed[event.key] = None
        if not found.open:
            quiet_from = max(found.last_unix_ms, found.timer_unix_ms)
            heapq.heappush(self._due, (quiet_from + self._named.after_ms, event.lineage))

    def _closes_early(self, event: Closed) -> None:
        """Remember a key that closed before any opening was seen. It is no stall by itself: a watcher that sees only
        the end of a task must not report one."""
        closed = self._early.setdefault(event.lineage, {})
        if len(closed) < MAX_OUTSTANDING:
            closed[event.key] = event.time_unix_ms

    def pass_time(self, now_unix_ms: int) -> list[Finding]:
        """Every stall that is one by now: the time of the newest message, or the watcher's clock."""
        found = []
        while self._due and self._due[0][0] <= now_unix_ms:
            _, name = heapq.heappop(self._due)
            one = self._lineages.get(name)
            if one is None or one.open or one.told:
                continue
            quiet_ms = now_unix_ms - max(one.last_unix_ms, one.timer_unix_ms)
            if quiet_ms < self._named.after_ms:
                continue  # A later entry stands for it.
            one.told = True
            what = f"nothing has been outstanding for {quiet_ms / 1000:.0f} s, and the task has not ended"
            last, facts = one.last_id, {"quiet_ms": quiet_ms}
            found.append(finding_of("stall", "stop", one.tenant, name, (), what, (last,), now_unix_ms, last, facts))
        return found

    def outstanding(self, lineage: str) -> tuple[str, ...]:
        """What a lineage waits for."""
        found = self._lineages.get(lineage)
        return () if found is None else tuple(found.open)

    def __len__(self) -> int:
        return len(self._lineages)
