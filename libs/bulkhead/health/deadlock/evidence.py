"""The evidence of a deadlock: the circle, the edges that close it, the victim and the id.

In: stuck parties and their obstacles. Out: `Suspected`, the same for the same edges, in whatever order they came.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from bulkhead.health.deadlock.scc import components
from bulkhead.health.deadlock.waits import Party, Wait

Obstacles = Callable[[str], list[tuple[Wait, tuple[str, ...]]]]
"""The unmet waits of a party, each with the targets that stand in the way."""


@dataclass(frozen=True, slots=True)
class Suspected:
    """A circle in which no party can go on, as far as is known.

    trip: its name, derived from `waits`, the edges that close it. cycle: one round through it, for people to read.
    circle: all parties that hold each other up. victim: whose wait `refuse` is to be refused; "" when all that wait
    are resources.
    """

    trip: str
    cycle: tuple[str, ...]
    circle: tuple[str, ...]
    waits: tuple[Wait, ...]
    victim: str
    refuse: str

    @property
    def closers(self) -> frozenset[str]:
        """The parties whose edges close the circle."""
        return frozenset(wait.waiter for wait in self.waits)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task that is held up by its own edge."""
        return tuple(sorted({wait.task for wait in self.waits}))


def circles(names: Iterable[str], obstacles: Obstacles) -> list[tuple[str, set[str]]]:
    """The circles that can be reached from `names` on which one of them lies, each with the first of those.

    A circle holds itself up: its parties would be stuck if everybody else could go on. What goes round but has a way
    out (an `any` wait for somebody who is stuck elsewhere) is freed with that one, and needs no victim.
    """
    names = list(names)
    found = []
    groups = components(names, _successors(obstacles))
    while groups:
        group = groups.pop()
        left = _held_up(group, obstacles)
        parts = components(sorted(left), _successors(within(left, obstacles)))
        if parts != [group]:
            groups += parts  # An edge that only counts beside the way out may have joined them.
        elif first := next((name for name in names if name in group), ""):
            found.append((first, group))
    return found


def _successors(obstacles: Obstacles) -> Callable[[str], list[str]]:
    return lambda name: [target for _, blocked in obstacles(name) for target in blocked]


def within(parts: set[str], obstacles: Obstacles) -> Obstacles:
    """What stands in the way of a party if everybody outside of `parts` can go on."""

    def inside(name: str) -> list[tuple[Wait, tuple[str, ...]]]:
        if name not in parts:
            return []
        found = [(wait, tuple(target for target in blocked if target in parts)) for wait, blocked in obstacles(name)]
        return [(wait, held) for wait, held in found if held and (wait.mode == "all" or len(held) == len(wait.targets))]

    return inside


def _behind(parts: Iterable[str], obstacles: Obstacles) -> dict[str, list[str]]:
    """The parties that each party of `parts` holds up."""
    behind: dict[str, list[str]] = {}
    for name in parts:
        for target in _successors(obstacles)(name):
            behind.setdefault(target, []).append(name)
    return behind


def _held_up(group: set[str], obstacles: Obstacles) -> set[str]:
    """The members of a group that stay stuck when every party outside of it can go on."""
    behind = _behind(group, obstacles)
    left, front = set(group), list(group)
    while front:
        name = front.pop()
        if name in left and not within(left, obstacles)(name):
            left.discard(name)
            front.extend(behind.get(name, ()))
    return left


def suspect(name: str, parts: set[str], obstacles: Obstacles, parties: Mapping[str, Party]) -> Suspected:
    """The suspicion of the circle `parts`, through `name`. The root is chosen by name, so that every watcher reports
    the same."""
    obstacles = within(parts, obstacles)
    # Where several cycles share a node, the one that `name` closed is the news.
    conjunctive = all(wait.mode == "all" or len(wait.targets) == 1 for party in parts for wait, _ in obstacles(party))
    root = name if conjunctive else min(parts)
    distance = _distances(root, _behind(sorted(parts), obstacles))
    waits: dict[str, Wait] = {}
    seen, front = {root}, [root]
    while front:
        wait, targets = _next(front.pop(), obstacles, distance)
        waits[wait.key] = wait
        front += (new := [target for target in targets if target not in seen])
        seen.update(new)
    cycle = [root]
    while (nearest := _next(cycle[-1], obstacles, distance)[1][0]) != root:
        cycle.append(nearest)
    closing = tuple(waits[key] for key in sorted(waits))
    digest = hashlib.blake2b(digest_size=16)
    for wait in closing:
        digest.update(repr((wait.key, wait.waiter, wait.targets, wait.mode)).encode())
    return Suspected(digest.hexdigest(), tuple(cycle), tuple(sorted(parts)), closing, *_victim(closing, parties))


def _distances(root: str, behind: Mapping[str, list[str]]) -> dict[str, int]:
    """Steps from each party to the root, by edges inside the circle."""
    steps = {root: 0}
    front = deque([root])
    while front:
        name = front.popleft()
        for waiter in behind.get(name, ()):
            if waiter not in steps:
                steps[waiter] = steps[name] + 1
                front.append(waiter)
    return steps


def _next(name: str, obstacles: Obstacles, distance: Mapping[str, int]) -> tuple[Wait, list[str]]:
    """The wait of a party that holds it in the circle, and the targets that matter, the nearest first: one of `all`,
    each of `any`."""
    ranked = []
    for wait, blocked in obstacles(name):
        inside = sorted((distance[target], target) for target in blocked)
        whole = wait.mode == "any" and len(wait.targets) > 1
        # Nearer first: so every step of a round comes nearer to the root, and the round ends.
        rank = (inside[0][0], whole, inside[0][1], wait.key)
        ranked.append((rank, wait, [target for _, target in (inside if whole else inside[:1])]))
    _, wait, targets = min(ranked, key=lambda entry: entry[0])
    return wait, targets


def chosen(suspected: Suspected, parties: Mapping[str, Party]) -> Suspected:
    """The same, with the victim that is known by now: while it waits, more may be read of what each has spent."""
    victim, refuse = _victim(suspected.waits, parties)
    return replace(suspected, victim=victim, refuse=refuse)


def _victim(waits: tuple[Wait, ...], parties: Mapping[str, Party]) -> tuple[str, str]:
    """Least sunk cost, then youngest, then by name; among its edges the first by name."""

    def rank(wait: Wait) -> tuple[int, int, str, str]:
        known = parties.get(wait.waiter, Party())
        return known.sunk_cost, -known.born, wait.waiter, wait.key

    gives_way = min((wait for wait in waits if not wait.firm), key=rank, default=None)
    return (gives_way.waiter, gives_way.key) if gives_way else ("", "")
