"""Alarms when the tasks of a feature are no longer what they were, pure: Page and Hinkley's test of a mean.

In: tasks that ended, in order. Out: alarms, each with the averages before and after. A value is the average of a block,
all tasks of a feature in one minute: tasks that come together are often alike, and one batch is no drift. Page,
"Continuous inspection schemes", 1954; Hinkley, "Inference about the change-point from cumulative sum tests", 1971.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from bulkhead.bounded_dict import BoundedDict
from bulkhead_contracts import bounds
from bulkhead_contracts.prompt import DriftAlarm
from bulkhead_contracts.task import TaskEnded
from bulkhead_services.registry.core import DAY_MS

TOLERANCE = 0.25
"""Standard deviations by which a mean may wander."""
THRESHOLD = 25.0
"""Of the sum of deviations beyond that: a mean that moves by one standard deviation is told after some 35 blocks. One
that stands still is told in one of some 200,000 independent blocks (measured), and more often where they depend on one
another."""
LEAST_BLOCKS = 50
"""Blocks from which the mean is known."""
BLOCK_MS = 60_000
MOST_DEVIATIONS = 4.0
"""So far out counts one block at most: a few rare ones in a row are no drift."""
MAX_FEATURES = 50
"""Of a tenant: one that names ever new features loses its own alone."""
MAX_TENANTS = 200


@dataclass(slots=True)
class PageHinkley:
    """One signal. direction: 1 for a rise, -1 for a fall, 0 for both."""

    direction: int
    count: int = 0
    mean: float = 0.0
    _squares: float = 0.0
    _sums: list[float] = field(default_factory=lambda: [0.0, 0.0])
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=LEAST_BLOCKS // 2))

    def add_value(self, value: float) -> tuple[float, float] | None:
        """The averages before and after, where this value shows that the mean has moved; it is then learned anew."""
        self._recent.append(value)
        if self.count >= LEAST_BLOCKS:
            # Of signals that hardly ever differ a floor: one odd block is no drift.
            spread = max((self._squares / self.count) ** 0.5, 0.05 * abs(self.mean), 0.05)
            deviation = max(-MOST_DEVIATIONS, min(MOST_DEVIATIONS, (value - self.mean) / spread))
            for place, sign in enumerate((1, -1)):
                if self.direction in (0, sign):
                    self._sums[place] = max(0.0, self._sums[place] + sign * deviation - TOLERANCE)
            if max(self._sums) > THRESHOLD:
                moved = self.mean, sum(self._recent) / len(self._recent)
                self.count, self.mean, self._squares, self._sums = 0, 0.0, 0.0, [0.0, 0.0]
                return moved
        self.count += 1
        off = value - self.mean
        self.mean += off / self.count
        self._squares += off * (value - self.mean)
        return None


class _FeatureDrift:
    """Signals of one feature, and sums of the block that goes on: by signal the sum and the number of tasks."""

    def __init__(self) -> None:
        rises = {name: PageHinkley(1) for name in ("not_answered", "refused", "cost")}
        self.signals = {**rises, "citations": PageHinkley(-1), "length": PageHinkley(0)}
        self._block = 0
        self._sums: dict[str, tuple[float, int]] = {}

    def add_task(self, values: dict[str, float], now_unix_ms: int) -> Iterator[tuple[str, float, float]]:
        """Signals that moved, with the averages before and after; told by the first task after a block."""
        block = now_unix_ms // BLOCK_MS
        if block > self._block:
            for name, (total, count) in self._sums.items():
                moved = self.signals[name].add_value(total / count)
                if moved is not None:
                    yield name, *moved
            self._block, self._sums = block, {}
        for name, value in values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + value, count + 1


class _TenantDrift:
    """The features of one tenant."""

    def __init__(self) -> None:
        self.features = BoundedDict[str, _FeatureDrift](MAX_FEATURES)
        self.alarms = BoundedDict[tuple[str, str], DriftAlarm](MAX_FEATURES)


class DriftFold:
    """All features of all tenants."""

    def __init__(self) -> None:
        self._tenants = BoundedDict[str, _TenantDrift](MAX_TENANTS)

    def add_end(self, tenant: str, task: str, ended: TaskEnded) -> list[DriftAlarm]:
        """Alarms that this task raises. What a person cancelled says nothing."""
        if ended.status == "cancelled":
            return []
        drift = self._tenants.get_refreshed(tenant)
        if drift is None:
            drift = self._tenants[tenant] = _TenantDrift()
        feature = drift.features.get_refreshed(ended.feature)
        if feature is None:
            feature = drift.features[ended.feature] = _FeatureDrift()
        raised = []
        for name, before, after in feature.add_task(_values_of(ended), ended.ended_unix_ms):
            alarm = DriftAlarm(
                feature=ended.feature,
                signal=name,  # type: ignore[arg-type]
                before=round(before, 3),
                after=round(after, 3),
                task=task,
                raised_unix_ms=ended.ended_unix_ms,
            )
            drift.alarms[ended.feature, name] = alarm
            raised.append(alarm)
        return raised

    def list_standing(self, tenant: str, now_unix_ms: int) -> list[DriftAlarm]:
        """A tenant's alarms of the last day, the newest first; `*` for all tenants."""
        drifts = [drift for named, drift in self._tenants.items() if tenant in (named, "*")]
        rows = [alarm for drift in drifts for alarm in drift.alarms.values()]
        recent = [alarm for alarm in rows if now_unix_ms - alarm.raised_unix_ms < DAY_MS]
        return sorted(recent, key=lambda alarm: -alarm.raised_unix_ms)[: bounds.MAX_DRIFT_ALARMS]


def _values_of(ended: TaskEnded) -> dict[str, float]:
    """Signals of one task. Citations and length are those of an answer."""
    result = ended.result
    refused = result is not None and result.answered == "no"
    values: dict[str, float] = {
        "not_answered": ended.status != "succeeded" or result is None,
        "refused": refused,
        "cost": ended.usage.cost_usd_micros,
    }
    if result is not None and not refused:
        values["citations"] = len(result.citations)
        values["length"] = result.content.size_bytes if result.content is not None else 0
    return values
