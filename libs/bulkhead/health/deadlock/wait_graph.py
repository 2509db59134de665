"""The wait-for graph, and the moment in which no party of a circle can go on.

In: waits that open (a waiter, its targets, `all` of them or `any`) and close. Out: `SuspectedDeadlock` on
the very edge that closes a deadlock. A suspicion is not yet a deadlock: see deadlock/confirmation.

A party goes on when every one of its waits is met; an `all` wait is met when all its targets can go on, an
`any` wait when one can. What can never go on under this rule is stuck (the largest such set: for `all`
alone a cycle and its tails, for `any` alone a knot and its tails). A new edge can only close a circle where
one of its targets is stuck, or leads back to the waiter; that is looked for from both ends in turn, because
most edges lie at the end of a chain. Only then the exact reduction runs, over those who wait for the
waiter.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import cache

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.deadlock import evidence
from bulkhead.health.deadlock.evidence import SuspectedDeadlock
from bulkhead.health.deadlock.waits import MAX_TARGETS, Party, TaskWaits, Wait

MAX_WAITS_PER_TASK = 1_024
MAX_ENDED_TASKS = 100_000
MAX_TASKS = 200_000
"""Tasks that have or had waits; beyond it the oldest is dropped."""


class WaitGraph:
    """All open waits. Memory: the open waits, and the ids of closed ones while their task lives."""

    def __init__(self) -> None:
        self.waits: dict[str, Wait] = {}
        self.parties: dict[str, Party] = {}
        self.stuck: set[str] = set()
        self.until: dict[str, int] = {}
        """When open waits end by themselves, of those that do."""
        self.refused = 0
        """Waits that were not taken because their task has too many."""
        self._of: dict[str, dict[str, Wait]] = {}
        self._on: dict[str, dict[str, Wait]] = {}
        self._tasks: dict[str, TaskWaits] = {}
        self._ended = BoundedDict[str, None](MAX_ENDED_TASKS)
        self._told: dict[str, SuspectedDeadlock] = {}

    # What comes in

    def add_party_facts(self, name: str, task: str, born: int, spent: int = 0) -> None:
        """Add to what is known of a party until its task ends: its start (the first value counts), tokens spent."""
        before = self.parties.get(name)
        if before is not None:
            self.parties[name] = replace(before, sunk_cost=before.sunk_cost + spent)
        elif task not in self._ended:
            self.parties[name] = Party(spent, born)
            self._waits_of_task(task).parties.add(name)

    def open_wait(self, wait: Wait) -> list[SuspectedDeadlock]:
        """Open a wait. One that is known, closed or of an ended task changes nothing."""
        if not wait.targets or wait.key in self.waits or wait.task in self._ended:
            return []
        owner = self._waits_of_task(wait.task)
        if wait.key in owner.closed:
            return []
        if len(owner.waits) >= MAX_WAITS_PER_TASK or len(wait.targets) > MAX_TARGETS:
            self.refused += 1
            return []
        wait = replace(wait, targets=tuple(dict.fromkeys(wait.targets)))
        owner.waits.add(wait.key)
        self._link_wait(wait)
        if wait.waiter in self.stuck:
            # A met wait blocks no party, and one suspicion per circle is enough.
            return (
                self._report_circles([wait.waiter])
                if self._holds_up_waiter(wait) and not self._is_reported(wait.waiter)
                else []
            )
        return self._settle_edge(wait)

    def set_expiry(self, key: str, until_unix_ms: int) -> None:
        """Set when an open wait ends by itself, unless it is prolonged."""
        if key in self.waits:
            self.until[key] = until_unix_ms

    def close_wait(self, key: str, *, task: str = "") -> list[SuspectedDeadlock]:
        """Close a wait. Remaining cycles that shared an edge with it are suspected anew."""
        wait = self.waits.get(key)
        owner = self._waits_of_task(wait.task if wait else task) if (wait or task not in self._ended) else None
        if owner is not None:
            owner.closed[key] = None
        if wait is None:
            return []
        frozen = self._holds_up_waiter(wait)
        self._unlink_wait(wait)
        return self._free_parties() if frozen else []

    def answer_target(self, key: str, target: str) -> list[SuspectedDeadlock]:
        """One target has answered: an `any` wait is over, an `all` wait goes on with the rest."""
        wait = self.waits.get(key)
        if wait is None or target not in wait.targets:
            return []
        if wait.mode == "any" or len(wait.targets) == 1:
            return self.close_wait(key)
        unmet = self._holds_up_waiter(wait)
        self._relink_without(wait, target)
        return self._free_parties() if unmet else []

    def lose_target(self, key: str, target: str) -> list[SuspectedDeadlock]:
        """One target will never answer: it counts for nothing, so an `any` wait has fewer ways out."""
        wait = self.waits.get(key)
        if wait is None or wait.mode == "all" or len(wait.targets) == 1:
            return self.answer_target(key, target)
        if target not in wait.targets:
            return []
        fewer = self._relink_without(wait, target)
        return self._free_parties() if wait.waiter in self.stuck else self._settle_edge(fewer)

    def _relink_without(self, wait: Wait, target: str) -> Wait:
        """Link a wait anew with a target less."""
        frozen = {wait.waiter} & self.stuck
        self._unlink_wait(wait)
        fewer = replace(wait, targets=tuple(name for name in wait.targets if name != target))
        self._link_wait(fewer)
        self.stuck |= frozen
        return fewer

    def end_task(self, task: str) -> list[SuspectedDeadlock]:
        """End a task: its waits close, and only its name is kept, for a while."""
        self._ended[task] = None
        return self._drop_task(task)

    def _drop_task(self, task: str) -> list[SuspectedDeadlock]:
        owner = self._tasks.pop(task, None)
        if owner is None:
            return []
        frozen = False
        for key in list(owner.waits):
            wait = self.waits[key]
            frozen |= self._holds_up_waiter(wait)
            self._unlink_wait(wait)
        for name in owner.parties:
            self.parties.pop(name, None)
        return self._free_parties() if frozen else []

    def _holds_up_waiter(self, wait: Wait) -> bool:
        """Check whether a wait is what holds its waiter up, as far as is known; any other may come and go."""
        return wait.waiter in self.stuck and _is_blocked(wait, self.stuck)

    def _is_reported(self, name: str) -> bool:
        """Check whether the party closes a reported circle that still stands: another through it is the same."""
        return any(
            name in suspicion.closing_parties and self.still_holds(suspicion) for suspicion in self._told.values()
        )

    # What is asked

    def still_holds(self, suspected: SuspectedDeadlock) -> bool:
        """Check whether the same edges still close the same circle."""
        return all(self.waits.get(wait.key) == wait for wait in suspected.waits) and all(
            wait.waiter in self.stuck for wait in suspected.waits
        )

    def count_edges(self) -> int:
        """Number of open edges."""
        return sum(len(wait.targets) for wait in self.waits.values())

    # Structure

    def _waits_of_task(self, task: str) -> TaskWaits:
        owner = self._tasks.get(task)
        if owner is None:
            owner = self._tasks[task] = TaskWaits()
            if len(self._tasks) > MAX_TASKS:
                # Tasks that never existed have no end, and would be kept for ever.
                self._drop_task(next(iter(self._tasks)))
        return owner

    def _link_wait(self, wait: Wait) -> None:
        self.waits[wait.key] = wait
        self._tasks[wait.task].waits.add(wait.key)
        self._of.setdefault(wait.waiter, {})[wait.key] = wait
        for target in wait.targets:
            self._on.setdefault(target, {})[wait.key] = wait

    def _unlink_wait(self, wait: Wait) -> None:
        del self.waits[wait.key]
        self.until.pop(wait.key, None)
        if (owner := self._tasks.get(wait.task)) is not None:
            owner.waits.discard(wait.key)
        for table, names in ((self._of, (wait.waiter,)), (self._on, wait.targets)):
            for name in names:
                table[name].pop(wait.key)
                if not table[name]:
                    del table[name]
        self.stuck -= {name for name in (wait.waiter, *wait.targets) if name not in self._of and name not in self._on}

    def _targets_of(self, name: str) -> set[str]:
        """The parties that a party waits for."""
        return {target for wait in self._of.get(name, {}).values() for target in wait.targets}

    def _waiters_of(self, name: str) -> set[str]:
        """The parties that wait for a party."""
        return {wait.waiter for wait in self._on.get(name, {}).values()}

    # The reduction

    def _settle_edge(self, wait: Wait) -> list[SuspectedDeadlock]:
        """Find what a new edge has made stuck: nothing but its waiter, and those who wait for it."""
        if self.stuck.isdisjoint(wait.targets) and not self._leads_back_to_waiter(wait):
            return []
        doubtful, front = {wait.waiter}, [wait.waiter]
        while front:
            new = self._waiters_of(front.pop()) - doubtful - self.stuck
            doubtful |= new
            front += new
        self._reduce_to_stuck(doubtful)
        return self._report_circles([wait.waiter]) if wait.waiter in self.stuck else []

    def _leads_back_to_waiter(self, wait: Wait) -> bool:
        """Check whether a target waits for the waiter, directly or through others."""
        if wait.waiter in wait.targets:
            return True
        forward = (set(wait.targets), list(wait.targets), self._targets_of)
        backward = ({wait.waiter}, [wait.waiter], self._waiters_of)
        while forward[1] and backward[1]:
            visited, front, step = forward
            new = step(front.pop()) - visited
            if not new.isdisjoint(backward[0]):
                return True
            visited |= new
            front += new
            forward, backward = backward, forward
        return False

    def _reduce_to_stuck(self, doubtful: Iterable[str]) -> None:
        """Take out, again and again, the doubtful parties that can go on; what remains is stuck."""
        front = list(doubtful)
        unknown = set(front)
        still_stuck = self.stuck | unknown
        while front:
            name = front.pop()
            waits = self._of.get(name, {}).values()
            if name in still_stuck and name in unknown and not any(_is_blocked(wait, still_stuck) for wait in waits):
                still_stuck.discard(name)
                front += self._waiters_of(name)
        self.stuck = still_stuck

    def _free_parties(self) -> list[SuspectedDeadlock]:
        """A stuck party waits for less: free the parties that can go on now, and report the circles that remain."""
        self._reduce_to_stuck(self.stuck)
        self._told = {trip: suspicion for trip, suspicion in self._told.items() if self.still_holds(suspicion)}
        return self._report_circles(sorted(self.stuck)) if self.stuck else []

    # Suspicions

    def _report_circles(self, names: Iterable[str]) -> list[SuspectedDeadlock]:
        """New circles among the stuck parties, through any of `names`; one suspicion at a time per circle.

        The rest of a circle whose victim was refused is reported by `_free_parties`: two victims at once would
        be one too many where cycles share an edge.
        """
        suspicions: list[SuspectedDeadlock] = []
        obstacles = cache(self._obstacles_of)
        for name, circle in evidence.find_circles(names, obstacles):
            if any(
                circle.issuperset(reported.closing_parties) and self.still_holds(reported)
                for reported in self._told.values()
            ):
                continue
            suspected = evidence.build_suspicion(name, circle, obstacles, self.parties)
            self._told[suspected.trip] = suspected
            suspicions.append(suspected)
        return suspicions

    def _obstacles_of(self, name: str) -> list[tuple[Wait, tuple[str, ...]]]:
        """The waits of a stuck party that cannot be met, each with the targets that stand in the way."""
        waits = self._of.get(name, {}).values() if name in self.stuck else ()
        return [
            (wait, tuple(target for target in wait.targets if target in self.stuck))
            for wait in waits
            if _is_blocked(wait, self.stuck)
        ]


def _is_blocked(wait: Wait, held: Collection[str]) -> bool:
    """Check whether a wait cannot be met while the parties of `held` cannot go on."""
    inside = (target in held for target in wait.targets)
    return any(inside) if wait.mode == "all" else all(inside)
