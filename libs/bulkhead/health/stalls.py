"""The stall detector: nothing is outstanding, and the task has not ended.

In: keys that open and close in a lineage, and the time of the newest message. Out: findings. A waiting approval, a
timer or an admission is outstanding, and so is every call, step, ask and lease: those have deadlines of their own.
"""

import heapq
from dataclasses import dataclass, field
from functools import partial

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.events import LineageEnded, WorkClosed, WorkOpened
from bulkhead.health.findings import HealthFinding, finding_of
from bulkhead.health.thresholds import StallThresholds

MAX_LINEAGES = 200_000
MAX_EARLY = 10_000
MAX_OUTSTANDING = 4_096
"""Of one lineage; one with more of them is certainly not stalled, and is not looked at until some are closed."""


@dataclass(slots=True)
class _LineageWork:
    tenant: str
    last_id: str
    last_unix_ms: int
    open: dict[str, int] = field(default_factory=dict)
    closed: BoundedDict[str, None] = field(default_factory=partial(BoundedDict, MAX_OUTSTANDING))
    timer_unix_ms: int = 0
    told: bool = False


class StallDetector:
    """Outstanding work, per living lineage. Opening and closing may come in either order."""

    def __init__(self, thresholds: StallThresholds) -> None:
        self._thresholds = thresholds
        self._lineages = BoundedDict[str, _LineageWork](MAX_LINEAGES)
        self._early = BoundedDict[str, dict[str, int]](MAX_EARLY)
        """What closed, and when, in lineages of which nothing has been seen to open: a journal that catches up, or was
        made again, has inboxes one before the other."""
        self._due: list[tuple[int, str]] = []

    def fold_event(self, event: WorkOpened | WorkClosed | LineageEnded) -> None:
        """Fold one event."""
        if isinstance(event, LineageEnded):
            self._lineages.pop(event.lineage, None)
            self._early.pop(event.lineage, None)
            return
        work = self._lineages.get(event.lineage)
        if work is None:
            if isinstance(event, WorkClosed):
                self._record_early_close(event)
                return
            work = self._lineages[event.lineage] = _LineageWork(event.tenant, event.id, event.time_unix_ms)
            early = self._early.pop(event.lineage, {})
            work.closed.update(dict.fromkeys(early))
            work.last_unix_ms = max(work.last_unix_ms, *early.values()) if early else work.last_unix_ms
        work.last_id, work.told = event.id, False
        work.last_unix_ms = max(work.last_unix_ms, event.time_unix_ms)
        if isinstance(event, WorkOpened):
            if event.kind == "timer":
                work.timer_unix_ms = max(work.timer_unix_ms, event.until_unix_ms)
            elif event.key in work.closed:
                del work.closed[event.key]
            elif len(work.open) < MAX_OUTSTANDING:
                work.open[event.key] = event.time_unix_ms
        elif work.open.pop(event.key, None) is None:
            work.closed[event.key] = None
        if not work.open:
            quiet_from = max(work.last_unix_ms, work.timer_unix_ms)
            heapq.heappush(self._due, (quiet_from + self._thresholds.after_ms, event.lineage))

    def _record_early_close(self, event: WorkClosed) -> None:
        """Remember a key that closed before any opening was seen. It is no stall by itself: a watcher that sees only
        the end of a task must not report one."""
        closed = self._early.setdefault(event.lineage, {})
        if len(closed) < MAX_OUTSTANDING:
            closed[event.key] = event.time_unix_ms

    def pass_time(self, now_unix_ms: int) -> list[HealthFinding]:
        """Every stall that is one by now: the time of the newest message, or the watcher's clock."""
        findings = []
        while self._due and self._due[0][0] <= now_unix_ms:
            _, name = heapq.heappop(self._due)
            work = self._lineages.get(name)
            if work is None or work.open or work.told:
                continue
            quiet_ms = now_unix_ms - max(work.last_unix_ms, work.timer_unix_ms)
            if quiet_ms < self._thresholds.after_ms:
                continue  # A later entry stands for it.
            work.told = True
            description = f"nothing has been outstanding for {quiet_ms / 1000:.0f} s, and the task has not ended"
            last, facts = work.last_id, {"quiet_ms": quiet_ms}
            findings.append(
                finding_of("stall", "stop", work.tenant, name, (), description, (last,), now_unix_ms, last, facts)
            )
        return findings

    def outstanding_keys(self, lineage: str) -> tuple[str, ...]:
        """Keys that a lineage waits for."""
        work = self._lineages.get(lineage)
        return () if work is None else tuple(work.open)

    def __len__(self) -> int:
        return len(self._lineages)
