"""Targets of latency per feature: told when the 95th percentile of its latest tasks is above its target. Pure.

In: requests and ends of tasks, out of the journal. Out: a finding, once per tenant, feature, target and UTC day, for
its id derives from those. After a restart the latest tasks are counted anew.
"""

import hashlib
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import StoredMessage
from bulkhead.health.findings import HealthFinding
from bulkhead.journal.order import published_unix_ms
from bulkhead.journal.quality import TIMED, percentile
from bulkhead_contracts.task import TaskEnded, TaskRequested

DETECTOR = "latency"
LATEST, FEWEST = 100, 20
"""So many ended tasks of a feature count, and of fewer nothing is said."""
MAX_TASKS, MAX_WINDOWS = 50_000, 2_000
HINT = (
    "`bulkhead report` shows p50 and p95 beside cost and quality, and `bulkhead spend --by model` what failed attempts "
    "took; BULKHEAD_LATENCY_TARGETS is the target"
)


class FeatureLatencyFold:
    """The fold. targets_ms: by feature."""

    def __init__(self, targets_ms: Mapping[str, int]) -> None:
        self._targets_ms = targets_ms
        self._begun = BoundedDict[str, tuple[str, int]](MAX_TASKS)
        self._latest = BoundedDict[tuple[str, str], deque[int]](MAX_WINDOWS)

    def fold_message(self, kind: str, stored: StoredMessage) -> HealthFinding | None:
        """Fold one message of this type. What cannot be read tells nothing."""
        if not self._targets_ms or kind not in (TaskRequested.TYPE, TaskEnded.TYPE):
            return None
        lineage = f"{stored.tenant}/{stored.task}"
        try:
            if kind == TaskEnded.TYPE:
                return self._fold_task_ended(lineage, TaskEnded.model_validate_json(stored.body), stored)
            # Older versions have the same field.
            feature = TaskRequested.model_validate_json(stored.body).feature
        except ValueError:
            return None
        if feature in self._targets_ms and lineage not in self._begun:
            self._begun[lineage] = feature, published_unix_ms(stored)
        return None

    def _fold_task_ended(self, lineage: str, end: TaskEnded, stored: StoredMessage) -> HealthFinding | None:
        feature, began = self._begun.pop(lineage, ("", 0))
        if not feature or end.status not in TIMED:
            return None
        tenant, now_unix_ms = lineage.partition("/")[0], published_unix_ms(stored)
        latest = self._latest.get_refreshed((tenant, feature)) or deque(maxlen=LATEST)
        latest.append(max(0, now_unix_ms - began))
        self._latest[tenant, feature] = latest
        p95, target = percentile(latest, 95), self._targets_ms[feature]
        if len(latest) < FEWEST or p95 is None or p95 <= target:
            return None
        day = datetime.fromtimestamp(now_unix_ms / 1000, UTC).date()
        finding_id = hashlib.sha256(f"{DETECTOR}|{tenant}|{feature}|{target}|{day}".encode()).hexdigest()[:32]
        description = (
            f"feature {feature} misses its target of latency: the 95th percentile of its latest {len(latest)} tasks is "
            f"{p95 / 1000:.1f} s, the target {target / 1000:g} s"
        )
        facts = {"feature": feature, "p95_ms": p95, "target_ms": target, "tasks": len(latest)}
        evidence = (stored.headers.get("ce-id", ""),)
        return HealthFinding(
            finding_id, DETECTOR, "warn", tenant, lineage, (feature,), description, HINT, evidence, now_unix_ms, facts
        )
