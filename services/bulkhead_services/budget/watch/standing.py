"""Tasks and approvals as they stand, for metrics: how many live, stand still or wait for a person, and how they end.

In: messages of the journal, as the watcher folds them. Out: counts, and each end once. Pure. What is told after a
restart is what the fold has read again: tasks that live, and not their earlier ends.
"""

from collections.abc import Iterator
from typing import NamedTuple

from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import StoredMessage
from bulkhead.journal.order import published_unix_ms
from bulkhead_contracts.approval import ApprovalEnded, ApprovalRequested
from bulkhead_contracts.task import TaskEnded, TaskRejected, TaskRequested, TaskSubmitted

MAX_TASKS, MAX_APPROVALS, MAX_ENDS = 100_000, 10_000, 10_000
QUIET_MS = 600_000
"""A task in which nothing has moved for so long stands still, unless it waits for a person."""


class TaskEnd(NamedTuple):
    """End of a task. answer: ok, incomplete, degraded or failed, as its result says; "" without one. seconds: since
    it was asked for.
    """

    status: str
    answer: str
    seconds: float


class TaskStandings:
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
        self._ends = BoundedDict[str, TaskEnd](MAX_ENDS)

    def fold_message(self, kind: str, stored: StoredMessage) -> None:
        """Fold one message of this type. What cannot be read tells nothing."""
        lineage = f"{stored.tenant}/{stored.task}"
        if lineage in self._over:
            return  # A journal that catches up has the end before the begin.
        if kind == TaskRequested.TYPE:
            self._asked.setdefault(lineage, published_unix_ms(stored))
        elif kind == TaskSubmitted.TYPE or (lineage in self._tasks and _is_movement(kind)):
            self._tasks[lineage] = max(self._tasks.get(lineage, 0), stored.time_unix_ms)
        if stored.receiver != "gateway":
            return
        try:
            if kind == TaskEnded.TYPE:
                self._record_end(lineage, TaskEnded.model_validate_json(stored.body), stored)
            elif kind == TaskRejected.TYPE:
                self._forget_task(lineage)
            elif kind == ApprovalRequested.TYPE:
                request = ApprovalRequested.model_validate_json(stored.body)
                self._approvals[request.approval_id] = request.requested_unix_ms, lineage
            elif kind == ApprovalEnded.TYPE:
                self._approvals.pop(ApprovalEnded.model_validate_json(stored.body).approval_id, None)
        except ValueError:
            return

    def _record_end(self, lineage: str, end: TaskEnded, stored: StoredMessage) -> None:
        began = self._forget_task(lineage)
        answer: str = end.result.standing if end.result is not None else ""
        if end.result is not None and answer == "ok" and not end.result.completeness.complete:
            answer = "incomplete"
        self._ends[lineage] = TaskEnd(
            end.status, answer, max(0, published_unix_ms(stored) - began) / 1000 if began else 0.0
        )

    def _forget_task(self, lineage: str) -> int:
        """When it had been asked for; 0 where nobody knows."""
        for name in [name for name, (_, waiter) in self._approvals.items() if waiter == lineage]:
            del self._approvals[name]
        self._tasks.pop(lineage, None)
        self._over[lineage] = None
        return self._asked.pop(lineage, 0)

    def drain_ends(self) -> Iterator[TaskEnd]:
        """Those since the last time."""
        while self._ends:
            yield self._ends.pop(next(iter(self._ends)))

    def living_count(self) -> int:
        """Tasks that have begun and not ended."""
        return len(self._tasks)

    def quiet_count(self, now_unix_ms: int) -> int:
        """Tasks that stand still and wait for no person."""
        waiting = {lineage for _, lineage in self._approvals.values()}
        return sum(
            moved_unix_ms + self._quiet_ms < now_unix_ms and name not in waiting
            for name, moved_unix_ms in list(self._tasks.items())
        )

    def approval_backlog(self, now_unix_ms: int) -> tuple[int, int]:
        """Number of those that wait for a person, and seconds for which the oldest does."""
        since = [requested_unix_ms for requested_unix_ms, _ in list(self._approvals.values())]
        return len(since), (now_unix_ms - min(since)) // 1000 if since else 0


def _is_movement(kind: str) -> bool:
    """False for what waits for a halt, a breaker or a ceiling: it asks again and is put off again."""
    return not kind.endswith("requested") and not kind.startswith(("mesh.control.", "mesh.budget."))
