"""Agents that only talk: which tasks were stopped for it, for whom those ran, and who else uses the agent.
Pure.

In: tasks that were stopped; calls of agents. Out: the tasks that count together, and whether they are
enough to hold an agent back for everybody. `dump_rows` is what has to be kept to go on later: those tasks
ended, and nobody reads them again.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.thresholds import BreakerThresholds

MAX_AGENTS, MAX_TASKS, MAX_USERS, MAX_EVIDENCE = 10_000, 64, 64, 16

Key = tuple[str, str, str]
"""As of a breaker: "agent", tenant, name."""
ChatterRow = tuple[Key, Mapping[str, tuple[int, tuple[str, ...], str]], Mapping[str, int]]


class ChatterStop(NamedTuple):
    """A task that was stopped for chatter: when, what showed it, for whom it ran."""

    at_unix_ms: int
    evidence: tuple[str, ...]
    actor: str


class ChatteringAgents:
    """By agent: the tasks in which it only talked, and when each person used it last."""

    def __init__(self, thresholds: BreakerThresholds) -> None:
        self._thresholds = thresholds
        self._tasks = BoundedDict[Key, BoundedDict[str, ChatterStop]](MAX_AGENTS)
        self._users = BoundedDict[Key, BoundedDict[str, int]](MAX_AGENTS)

    def record_use(self, key: Key, actor: str, at_unix_ms: int) -> None:
        """A call of this agent, for this person."""
        users = self._users[key] = self._users.get(key) or BoundedDict[str, int](MAX_USERS)
        users[actor] = max(at_unix_ms, users.get(actor, 0))

    def add_stop(self, key: Key, lineage: str, talked: ChatterStop) -> dict[str, ChatterStop]:
        """One more task; all that count by now."""
        tasks = self._tasks.setdefault(key, BoundedDict(MAX_TASKS))
        for name in [name for name, task in tasks.items() if task.at_unix_ms <= self._window_start(talked.at_unix_ms)]:
            del tasks[name]
        tasks.setdefault(lineage, talked._replace(evidence=talked.evidence[-MAX_EVIDENCE:]))
        return tasks

    def has_enough_stops(self, key: Key, at_unix_ms: int) -> bool:
        """Check whether so many tasks of so many people talked that it is the agent's doing. One person's
        tasks are, while nobody else uses the agent: what one asks for must not hold back others' work.
        """
        tasks: Mapping[str, ChatterStop] = self._tasks.get(key, {})
        if len(tasks) < self._thresholds.chatter_tasks:
            return False
        people = {task.actor for task in tasks.values()}
        since = self._window_start(at_unix_ms)
        used_by_others = any(who not in people and last > since for who, last in self._users.get(key, {}).items())
        return len(people) >= self._thresholds.chatter_people or not used_by_others

    def forget_stops(self, key: Key, before_unix_ms: int | None = None) -> None:
        """It was held back, or let go on: what was before counts no more; None: nothing does."""
        for name, task in self._tasks.pop(key, BoundedDict[str, ChatterStop](MAX_TASKS)).items():
            if before_unix_ms is not None and task.at_unix_ms >= before_unix_ms:
                self._tasks.setdefault(key, BoundedDict(MAX_TASKS))[name] = task

    def dump_rows(self) -> tuple[ChatterRow, ...]:
        """Rows of the agents in whose tasks there was chatter, as JSON, for `restore_rows`."""
        return tuple((key, dict(tasks), dict(self._users.get(key, {}))) for key, tasks in self._tasks.items() if tasks)

    def restore_rows(self, rows: Iterable[ChatterRow]) -> None:
        """Take back rows. Raises ValueError, TypeError for anything else."""
        for (scope, tenant, name), tasks, users in rows:
            key = (str(scope), str(tenant), str(name))
            for lineage, (stopped_unix_ms, evidence, actor) in tasks.items():
                stops = self._tasks.setdefault(key, BoundedDict(MAX_TASKS))
                stops.setdefault(
                    str(lineage),
                    ChatterStop(int(stopped_unix_ms), tuple(str(message_id) for message_id in evidence), str(actor)),
                )
            for who, last in users.items():
                self.record_use(key, str(who), int(last))

    def _window_start(self, at_unix_ms: int) -> int:
        return at_unix_ms - self._thresholds.chatter_window_ms
