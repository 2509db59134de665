"""Tasks and approvals as they stand, for metrics: how many live, stand still or wait for a person, and how they end.

In: messages of the journal, as the watcher folds them. Out: counts, and each end once. Pure. What is told after a
restart is what the fold has read again: tasks that live, and not their earlier ends.
"""

from collections.abc import Iterator
from typing import NamedTuple

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import Stored
from bulkhead.journal.order import said_at
from bulkhead_contracts.approval import ApprovalEnded, ApprovalRequested
from bulkhead_contracts.task import TaskEnded, TaskRejected, TaskRequested, TaskSubmitted

MAX_TASKS, MAX_APPROVALS, MAX_ENDS = 100_000, 10_000, 10_000
QUIET_MS = 600_000
"""A task in which nothing has moved for so long stands still, unless it waits for a person."""


class End(NamedTuple):
    """How a task ended. answer: ok, incomplete, degraded or failed, as its result says; "" without one. seconds: since
    it was asked for."""

    status: str
    answer: str
    seconds: float


class Standing:
    """The fold."""

    def __init__(self, quiet_ms: int = QUIET_MS) -> None:
        self._quiet_ms = quiet_ms
        self._asked = BoundedDict[str, int](MAX_TASKS)
        """By lineage: when it was asked for."""
        self._tasks = BoundedDict[str, int](MAX_TASKS)
        """Tasks that run: when they last moved. What waits for a place is not among them."""
        self._over = BoundedDict[str, None](MAX_TASKS)
        self._approvals = BoundedDict[str, tuple[int, str]](MAX_APPROVALS)
        """By id: when it was asked for, and by which lineage."""
        self._ends = BoundedDict[str, End](MAX_ENDS)

    def take(self, kind: str, stored: Stored) -> None:
        """Fold one message of this type. What cannot be read tells nothing."""
        lineage = "/".join(stored.subject.rsplit(".", 2)[1:])
        if lineage in self._over:
            return  # A journal that catches up has the end before the begin.
        if kind == TaskRequested.TYPE:
            self._asked.setdefault(lineage, said_at(stored))
        elif kind == TaskSubmitted.TYPE or (lineage in self._tasks and _moves(kind)):
            self._tasks[lineage] = max(self._tasks.get(lineage, 0), stored.time_unix_ms)
        if stored.receiver != "gateway":
            return
        try:
            if kind == TaskEnded.TYPE:
                self._end(lineage, TaskEnded.model_validate_json(stored.body), stored)
            elif kind == TaskRejected.TYPE:
                self._gone(lineage)
            elif kind == ApprovalRequested.TYPE:
                asked = ApprovalRequested.model_validate_json(stored.body)
                self._approvals[asked.approval_id] = asked.requested_unix_ms, lineage
            elif kind == ApprovalEnded.TYPE:
                self._approvals.pop(ApprovalEnded.model_validate_json(stored.body).approval_id, None)
        except ValueError:
            return

    def _end(self, lineage: str, end: TaskEnded, stored: Stored) -> None:
        began = self._gone(lineage)
        answer: str = end.result.standing if end.result is not None else ""
        if end.result is not None and answer == "ok" and not end.result.completeness.complete:
            answer = "incomplete"
        self._ends[lineage] = End(end.status, answer, max(0, said_at(stored) - began) / 1000 if began else 0.0)

    def _gone(self, lineage: str) -> int:
        """When it had been asked for; 0 where nobody knows."""
        for name in [name for name, (_, of) in self._approvals.items() if of == lineage]:
            del self._approvals[name]
        self._tasks.pop(lineage, None)
        self._over[lineage] = None
        return self._asked.pop(lineage, 0)

    def ends(self) -> Iterator[End]:
        """Those since the last time."""
        while self._ends:
            yield self._ends.pop(next(iter(self._ends)))

    def living(self) -> int:
        """Tasks that have begun and not ended."""
        return len(self._tasks)

    def quiet(self, now_unix_ms: int) -> int:
        """Tasks that stand still and wait for no person."""
        asked = {lineage for _, lineage in self._approvals.values()}
        return sum(at + self._quiet_ms < now_unix_ms and name not in asked for name, at in list(self._tasks.items()))

    def approvals(self, now_unix_ms: int) -> tuple[int, int]:
        """How many wait for a person, and for how many seconds the oldest does."""
        since = [at for at, _ in list(self._approvals.values())]
        return len(since), (now_unix_ms - min(since)) // 1000 if since else 0


def _moves(kind: str) -> bool:
    """What waits for a halt, a breaker or a ceiling asks again and is put off again: that is no movement."""
    return not kind.endswith("requested") and not kind.startswith(("mesh.control.", "mesh.budget."))
