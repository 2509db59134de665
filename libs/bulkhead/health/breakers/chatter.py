"""Agents that only talk: which tasks were stopped for it, for whom those ran, and who else uses the agent. Pure.

In: tasks that were stopped; calls of agents. Out: the tasks that count together, and whether they are enough to hold an
agent back for everybody. `rows` is what has to be kept to go on later: those tasks ended, and nobody reads them again.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from bulkhead.health.thresholds import BreakerThresholds

MAX_AGENTS, MAX_TASKS, MAX_USERS, MAX_EVIDENCE = 10_000, 64, 64, 16

K = TypeVar("K")
V = TypeVar("V")
Key = tuple[str, str, str]
"""As of a breaker: "agent", tenant, name."""
Row = tuple[Key, dict[str, tuple[int, tuple[str, ...], str]], dict[str, int]]


class Talked(NamedTuple):
    """A task that was stopped for chatter: when, what showed it, for whom it ran."""

    at_unix_ms: int
    evidence: tuple[str, ...]
    actor: str


class Talkers:
    """Of every agent: tasks in which it only talked, and when who used it last."""

    def __init__(self, named: BreakerThresholds) -> None:
        self._named = named
        self._tasks: OrderedDict[Key, OrderedDict[str, Talked]] = OrderedDict()
        self._users: OrderedDict[Key, OrderedDict[str, int]] = OrderedDict()

    def uses(self, key: Key, actor: str, at_unix_ms: int) -> None:
        """A call of this agent, for this person."""
        users = self._users.setdefault(key, OrderedDict())
        users[actor] = max(at_unix_ms, users.get(actor, 0))
        users.move_to_end(actor)
        self._users.move_to_end(key)
        _bound(users, MAX_USERS)
        _bound(self._users, MAX_AGENTS)

    def add(self, key: Key, lineage: str, talked: Talked) -> dict[str, Talked]:
        """One more task; all that count by now."""
        tasks = self._tasks.setdefault(key, OrderedDict[str, Talked]())
        tasks.setdefault(lineage, talked._replace(evidence=talked.evidence[-MAX_EVIDENCE:]))
        for name in [name for name, one in tasks.items() if one.at_unix_ms <= self._since(talked.at_unix_ms)]:
            del tasks[name]
        _bound(tasks, MAX_TASKS)
        _bound(self._tasks, MAX_AGENTS)
        return tasks

    def enough(self, key: Key, at_unix_ms: int) -> bool:
        """Whether so many tasks of so many people talked that it is the agent's doing. One person's tasks are, while
        nobody else uses the agent: what one asks for must not hold back the work of the others."""
        tasks = self._tasks.get(key, OrderedDict[str, Talked]())
        if len(tasks) < self._named.chatter_tasks:
            return False
        people = {one.actor for one in tasks.values()}
        since = self._since(at_unix_ms)
        others = any(who not in people and last > since for who, last in self._users.get(key, {}).items())
        return len(people) >= self._named.chatter_people or not others

    def forget(self, key: Key, before_unix_ms: int | None = None) -> None:
        """It was held back, or let go on: what was before counts no more; None: nothing does."""
        tasks = self._tasks.pop(key, OrderedDict())
        left = OrderedDict(
            (name, one)
            for name, one in tasks.items()
            if before_unix_ms is not None and one.at_unix_ms >= before_unix_ms
        )
        if left:
            self._tasks[key] = left

    def rows(self) -> tuple[Row, ...]:
        """What is kept of agents in whose tasks there was chatter; JSON makes lists of it, which `recall` takes."""
        return tuple(
            (
                key,
                {name: (talked.at_unix_ms, talked.evidence, talked.actor) for name, talked in tasks.items()},
                dict(self._users.get(key, {})),
            )
            for key, tasks in self._tasks.items()
            if tasks
        )

    def recall(self, rows: Iterable[Row]) -> None:
        """What was kept. Raises ValueError, TypeError for what is none of it."""
        for (scope, tenant, name), tasks, users in rows:
            key = (str(scope), str(tenant), str(name))
            for lineage, (at, evidence, actor) in tasks.items():
                known = self._tasks.setdefault(key, OrderedDict())
                known.setdefault(str(lineage), Talked(int(at), tuple(str(one) for one in evidence), str(actor)))
            for who, last in users.items():
                self.uses(key, str(who), int(last))

    def _since(self, at_unix_ms: int) -> int:
        return at_unix_ms - self._named.chatter_window_ms


def _bound(found: OrderedDict[K, V], most: int) -> None:
    while len(found) > most:
        found.popitem(last=False)
