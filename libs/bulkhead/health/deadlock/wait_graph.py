"""The wait-for graph, and the moment in which no party of a circle can go on.

In: waits that open (a waiter, its targets, `all` of them or `any`) and close. Out: `Suspected` on the very edge that
closes a deadlock. A suspicion is not yet a deadlock: see deadlock/confirmation.

A party goes on when every one of its waits is met; an `all` wait is met when all its targets can go on, an `any` wait
when one can. What can never go on under this rule is stuck (the largest such set: for `all` alone a cycle and its
tails, for `any` alone a knot and its tails). The graph keeps a proof that everybody else can go on: ranks, so that each
party stands above what its proof needs (for an `any` wait one target, its witness). A new edge that fits under the
ranks costs nothing; one that does not is sorted in as in Pearce and Kelly, "A dynamic topological sort algorithm for
directed acyclic graphs" (JEA 2006); only where that fails the exact reduction runs, over those whose proof needs the
waiter.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

from bulkhead.bounded_dict import BoundedDict
from bulkhead.health.deadlock import evidence
from bulkhead.health.deadlock.evidence import Suspected
from bulkhead.health.deadlock.waits import MAX_TARGETS, OwnedWaits, Party, Wait

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
        self._rank: dict[str, int] = {}
        self._witness: dict[str, str] = {}
        self._low = self._high = 0
        self._tasks: dict[str, OwnedWaits] = {}
        self._ended = BoundedDict[str, None](MAX_ENDED_TASKS)
        self._told: dict[str, Suspected] = {}

    # What comes in

    def party(self, name: str, *, task: str = "", sunk_cost: int = 0, born: int = 0, resource: bool = False) -> None:
        """Record what is known of a party, until its task ends."""
        if task in self._ended:
            return
        self.parties[name] = Party(task, sunk_cost, born, resource)
        if task:
            self._task(task).parties.add(name)

    def know(self, name: str, task: str, born: int, spent: int = 0) -> None:
        """Add to what is known of a party: its start (the first value counts) and further tokens spent."""
        before = self.parties.get(name)
        if before is None:
            self.party(name, task=task, born=born, sunk_cost=spent)
        elif spent:
            self.parties[name] = replace(before, sunk_cost=before.sunk_cost + spent)

    def open(self, wait: Wait) -> list[Suspected]:
        """Open a wait. One that is known, closed or of an ended task changes nothing."""
        if not wait.targets or wait.key in self.waits or wait.task in self._ended:
            return []
        owner = self._task(wait.task)
        if wait.key in owner.closed:
            return []
        if len(owner.waits) >= MAX_WAITS_PER_TASK or len(wait.targets) > MAX_TARGETS:
            self.refused += 1
            return []
        wait = replace(wait, targets=tuple(dict.fromkeys(wait.targets)))
        owner.waits.add(wait.key)
        self._link(wait)
        if wait.waiter in self.stuck:
            # A met wait blocks no party, and one suspicion per circle is enough.
            return self._suspect([wait.waiter]) if self._unmet(wait) and not self._is_told(wait.waiter) else []
        if self._fits(wait):
            return []
        self._settle(wait.waiter)
        return self._suspect([wait.waiter]) if wait.waiter in self.stuck else []

    def lasts(self, key: str, until_unix_ms: int) -> None:
        """Set when an open wait ends by itself, unless it is prolonged."""
        if key in self.waits:
            self.until[key] = until_unix_ms

    def close(self, key: str, *, task: str = "") -> list[Suspected]:
        """Close a wait. Remaining cycles that shared an edge with it are suspected anew."""
        wait = self.waits.get(key)
        owner = self._task(wait.task if wait else task) if (wait or task not in self._ended) else None
        if owner is not None:
            owner.closed[key] = None
        if wait is None:
            return []
        frozen = self._unmet(wait)
        self._unlink(wait)
        return self._thaw() if frozen else []

    def answer(self, key: str, target: str) -> list[Suspected]:
        """One target has answered: an `any` wait is over, an `all` wait goes on with the rest."""
        wait = self.waits.get(key)
        if wait is None or target not in wait.targets:
            return []
        if wait.mode == "any" or len(wait.targets) == 1:
            return self.close(key)
        frozen, unmet = wait.waiter in self.stuck, self._unmet(wait)
        self._unlink(wait)
        self._link(replace(wait, targets=tuple(one for one in wait.targets if one != target)))
        if frozen:
            self.stuck.add(wait.waiter)
        return self._thaw() if unmet else []

    def lose(self, key: str, target: str) -> list[Suspected]:
        """One target will never answer: it counts for nothing, so an `any` wait has fewer ways out."""
        wait = self.waits.get(key)
        if wait is None or wait.mode == "all" or len(wait.targets) == 1:
            return self.answer(key, target)
        if target not in wait.targets:
            return []
        frozen = wait.waiter in self.stuck
        self._unlink(wait)
        fewer = replace(wait, targets=tuple(one for one in wait.targets if one != target))
        self._link(fewer)
        if frozen:
            self.stuck.add(wait.waiter)
            return self._thaw()
        if self._fits(fewer):
            return []
        self._settle(wait.waiter)
        return self._suspect([wait.waiter]) if wait.waiter in self.stuck else []

    def end_task(self, task: str) -> list[Suspected]:
        """End a task: its waits close, and only its name is kept, for a while."""
        self._ended[task] = None
        return self._drop(task)

    def _drop(self, task: str) -> list[Suspected]:
        owner = self._tasks.pop(task, None)
        if owner is None:
            return []
        frozen = False
        for key in list(owner.waits):
            wait = self.waits[key]
            frozen |= self._unmet(wait)
            self._unlink(wait)
        for name in owner.parties:
            self.parties.pop(name, None)
        return self._thaw() if frozen else []

    def _unmet(self, wait: Wait) -> bool:
        """Whether a wait is what holds its waiter up, as far as is known; any other may come and go."""
        if wait.waiter not in self.stuck:
            return False
        held = (one in self.stuck for one in wait.targets)
        return any(held) if wait.mode == "all" else all(held)

    def _is_told(self, name: str) -> bool:
        """Whether the party closes a circle that was reported and still stands: another circle through it is the same
        one."""
        return any(name in one.closers and self.holds(one) for one in self._told.values())

    # What is asked

    def holds(self, suspected: Suspected) -> bool:
        """Whether the same edges still close the same circle."""
        return all(self.waits.get(one.key) == one for one in suspected.waits) and all(
            one.waiter in self.stuck for one in suspected.waits
        )

    def waiting(self, name: str) -> tuple[Wait, ...]:
        """The open waits of a party."""
        return tuple(self._of.get(name, {}).values())

    def edges(self) -> int:
        """How many open edges there are."""
        return sum(len(wait.targets) for wait in self.waits.values())

    # Structure

    def _task(self, task: str) -> OwnedWaits:
        found = self._tasks.get(task)
        if found is None:
            found = self._tasks[task] = OwnedWaits()
            if len(self._tasks) > MAX_TASKS:
                # Tasks that never existed have no end, and would be kept for ever.
                self._drop(next(iter(self._tasks)))
        return found

    def _link(self, wait: Wait) -> None:
        self.waits[wait.key] = wait
        self._tasks[wait.task].waits.add(wait.key)
        self._of.setdefault(wait.waiter, {})[wait.key] = wait
        if wait.waiter not in self._rank:
            self._high += 1
            self._rank[wait.waiter] = self._high
        for target in wait.targets:
            self._on.setdefault(target, {})[wait.key] = wait
            if target not in self._rank:
                self._low -= 1
                self._rank[target] = self._low
        if wait.mode == "any" and self._witness.get(wait.key) not in wait.targets:
            self._witness[wait.key] = min(wait.targets, key=self._ease)

    def _unlink(self, wait: Wait) -> None:
        del self.waits[wait.key]
        self.until.pop(wait.key, None)
        self._witness.pop(wait.key, None)
        owner = self._tasks.get(wait.task)
        if owner is not None:
            owner.waits.discard(wait.key)
        for table, names in ((self._of, (wait.waiter,)), (self._on, wait.targets)):
            for name in names:
                table[name].pop(wait.key)
                if not table[name]:
                    del table[name]
        for name in (wait.waiter, *wait.targets):
            if name not in self._of and name not in self._on:
                self._rank.pop(name, None)
                self.stuck.discard(name)

    def _ease(self, name: str) -> tuple[bool, bool, int, str]:
        """How readily a target goes on: the lowest is the best witness."""
        return name in self.stuck, name in self._of, self._rank[name], name

    def _needs(self, name: str) -> Iterator[str]:
        """What the proof that `name` can go on rests on."""
        for wait in self._of.get(name, {}).values():
            if wait.mode == "all":
                yield from wait.targets
            else:
                yield self._witness[wait.key]

    def _needed_by(self, name: str) -> Iterator[str]:
        """Whose proof rests on `name`."""
        for wait in self._on.get(name, {}).values():
            if wait.waiter not in self.stuck and (wait.mode == "all" or self._witness[wait.key] == name):
                yield wait.waiter

    # The proof

    def _fits(self, wait: Wait) -> bool:
        """Make the ranks carry one wait more; False when they cannot, and the reduction has to say why."""
        waiter = wait.waiter
        needed = wait.targets if wait.mode == "all" else (self._witness[wait.key],)
        if waiter in wait.targets or any(one in self.stuck for one in needed):
            return False
        if waiter not in self._on:
            # No party waits for it: it may rank above everything.
            self._high += 1
            self._rank[waiter] = self._high
            return True
        for target in needed:
            if self._rank[target] < self._rank[waiter]:
                continue
            if target not in self._of:
                # It waits for no party: it may rank below everything.
                self._low -= 1
                self._rank[target] = self._low
            elif not self._sort(waiter, target):
                return False
        return True

    def _sort(self, waiter: str, target: str) -> bool:
        """Pearce and Kelly: move what lies between, and no more. False: the target's proof needs the waiter."""
        rank = self._rank
        low, high = rank[waiter], rank[target]
        below, front = {target}, [target]
        while front:
            for one in self._needs(front.pop()):
                if one == waiter:
                    return False
                if rank[one] > low and one not in below:
                    below.add(one)
                    front.append(one)
        above, front = {waiter}, [waiter]
        while front:
            for one in self._needed_by(front.pop()):
                if rank[one] < high and one not in above:
                    above.add(one)
                    front.append(one)
        order = sorted(below, key=rank.__getitem__) + sorted(above, key=rank.__getitem__)
        for name, place in zip(order, sorted(rank[name] for name in order), strict=True):
            rank[name] = place
        return True

    def _settle(self, waiter: str) -> None:
        """Prove anew all whose proof needs `waiter`; what cannot be proven is stuck."""
        doubtful, front = {waiter}, [waiter]
        while front:
            for one in self._needed_by(front.pop()):
                if one not in doubtful:
                    doubtful.add(one)
                    front.append(one)
        self._prove(doubtful)

    def _thaw(self) -> list[Suspected]:
        """A stuck party waits for less: free the parties that can go on now, and report the circles that remain."""
        self._prove(set(self.stuck))
        self._told = {trip: one for trip, one in self._told.items() if self.holds(one)}
        return self._suspect(sorted(self.stuck)) if self.stuck else []

    def _prove(self, doubtful: set[str]) -> None:
        """The reduction: repeatedly take out the parties that can go on, and rank them in that order."""
        others = self.stuck - doubtful
        missing: dict[str, int] = {}
        unmet: dict[str, int] = {}
        free: deque[str] = deque()
        for name in doubtful:
            waits = self._of.get(name, {}).values()
            for wait in waits:
                if wait.mode == "all":
                    missing[wait.key] = sum(one in doubtful or one in others for one in wait.targets)
                else:
                    good = [one for one in wait.targets if one not in doubtful and one not in others]
                    missing[wait.key] = 0 if good else 1
                    if good:
                        self._witness[wait.key] = min(good, key=self._ease)
            unmet[name] = sum(missing[wait.key] > 0 for wait in waits)
            if not unmet[name]:
                free.append(name)
        # Not the order of a set: two watchers must come to the same ranks.
        free = deque(sorted(free))
        while free:
            name = free.popleft()
            doubtful.discard(name)
            self.stuck.discard(name)
            self._high += 1
            self._rank[name] = self._high
            for wait in self._on.get(name, {}).values():
                if wait.waiter not in doubtful or missing[wait.key] == 0:
                    continue
                if wait.mode == "any":
                    self._witness[wait.key] = name
                missing[wait.key] -= 1
                if missing[wait.key] == 0:
                    unmet[wait.waiter] -= 1
                    if not unmet[wait.waiter]:
                        free.append(wait.waiter)
        self.stuck |= doubtful

    # Suspicions

    def _suspect(self, names: Iterable[str]) -> list[Suspected]:
        """New circles among the stuck parties, through any of `names`; one suspicion at a time per circle.

        The rest of a circle whose victim was refused is reported by `_thaw`: two victims at once would be one too many
        where cycles share an edge.
        """
        found: list[Suspected] = []
        known: dict[str, list[tuple[Wait, tuple[str, ...]]]] = {}

        def obstacles(name: str) -> list[tuple[Wait, tuple[str, ...]]]:
            if name not in known:
                known[name] = self._obstacles(name)
            return known[name]

        for name, circle in evidence.circles(names, obstacles):
            if any(circle.issuperset(one.closers) and self.holds(one) for one in self._told.values()):
                continue
            suspected = evidence.suspect(name, circle, obstacles, self.parties)
            self._told[suspected.trip] = suspected
            found.append(suspected)
        return found

    def _obstacles(self, name: str) -> list[tuple[Wait, tuple[str, ...]]]:
        """The waits of a stuck party that cannot be met, each with the targets that stand in the way."""
        found = []
        for wait in self._of.get(name, {}).values() if name in self.stuck else ():
            blocked = tuple(one for one in wait.targets if one in self.stuck)
            if blocked and (wait.mode == "all" or len(blocked) == len(wait.targets)):
                found.append((wait, blocked))
        return found
