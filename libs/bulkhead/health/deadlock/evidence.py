"""The evidence of a deadlock: the circle, the edges that close it, the victim and the id.

In: stuck parties and their obstacles. Out: `SuspectedDeadlock`, the same for the same edges, in whatever
order they came.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from bulkhead.health.deadlock.scc import cyclic_components
from bulkhead.health.deadlock.waits import Party, Wait

Obstacles = Callable[[str], list[tuple[Wait, tuple[str, ...]]]]
"""The unmet waits of a party, each with the targets that stand in the way."""


@dataclass(frozen=True, slots=True)
class SuspectedDeadlock:
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
    refused_wait: str

    @property
    def closing_parties(self) -> frozenset[str]:
        """The parties whose edges close the circle."""
        return frozenset(wait.waiter for wait in self.waits)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task that is held up by its own edge."""
        return tuple(sorted({wait.task for wait in self.waits}))


def find_circles(names: Iterable[str], obstacles: Obstacles) -> list[tuple[str, set[str]]]:
    """The circles that can be reached from `names` on which one of them lies, each with the first of those.

    A circle holds itself up: its parties would be stuck if everybody else could go on. What goes round but has a way
    out (an `any` wait for somebody who is stuck elsewhere) is freed with that one, and needs no victim.
    """
    names = list(names)
    circles_found = []
    groups = cyclic_components(names, _obstacle_successors(obstacles))
    while groups:
        group = groups.pop()
        stuck_members = _stuck_members(group, obstacles)
        parts = cyclic_components(
            sorted(stuck_members), _obstacle_successors(restrict_obstacles(stuck_members, obstacles))
        )
        if parts != [group]:
            groups += parts  # An edge that only counts beside the way out may have joined them.
        elif first := next((name for name in names if name in group), ""):
            circles_found.append((first, group))
    return circles_found


def _obstacle_successors(obstacles: Obstacles) -> Callable[[str], list[str]]:
    return lambda name: [target for _, blocked in obstacles(name) for target in blocked]


def restrict_obstacles(parts: set[str], obstacles: Obstacles) -> Obstacles:
    """Obstacles of a party if everybody outside of `parts` can go on."""

    def obstacles_inside(name: str) -> list[tuple[Wait, tuple[str, ...]]]:
        if name not in parts:
            return []
        narrowed = [(wait, tuple(target for target in blocked if target in parts)) for wait, blocked in obstacles(name)]
        return [
            (wait, blocked_inside)
            for wait, blocked_inside in narrowed
            if blocked_inside and (wait.mode == "all" or len(blocked_inside) == len(wait.targets))
        ]

    return obstacles_inside


def _waiters_by_target(parts: Iterable[str], obstacles: Obstacles) -> dict[str, list[str]]:
    """The parties that each party of `parts` holds up."""
    behind: dict[str, list[str]] = {}
    for name in parts:
        for target in _obstacle_successors(obstacles)(name):
            behind.setdefault(target, []).append(name)
    return behind


def _stuck_members(group: set[str], obstacles: Obstacles) -> set[str]:
    """The members of a group that stay stuck when every party outside of it can go on."""
    behind = _waiters_by_target(group, obstacles)
    still_stuck, front = set(group), list(group)
    while front:
        name = front.pop()
        if name in still_stuck and not restrict_obstacles(still_stuck, obstacles)(name):
            still_stuck.discard(name)
            front.extend(behind.get(name, ()))
    return still_stuck


def build_suspicion(
    name: str, parts: set[str], obstacles: Obstacles, parties: Mapping[str, Party]
) -> SuspectedDeadlock:
    """The suspicion of the circle `parts`, through `name`. The root is chosen by name, so that every watcher reports
    the same."""
    obstacles = restrict_obstacles(parts, obstacles)
    # Where several cycles share a node, the one that `name` closed is the news.
    conjunctive = all(wait.mode == "all" or len(wait.targets) == 1 for party in parts for wait, _ in obstacles(party))
    root = name if conjunctive else min(parts)
    distance = _distances_to_root(root, _waiters_by_target(sorted(parts), obstacles))
    waits: dict[str, Wait] = {}
    visited, front = {root}, [root]
    while front:
        wait, targets = _next_wait(front.pop(), obstacles, distance)
        waits[wait.key] = wait
        front += (new := [target for target in targets if target not in visited])
        visited.update(new)
    cycle = [root]
    while (nearest := _next_wait(cycle[-1], obstacles, distance)[1][0]) != root:
        cycle.append(nearest)
    closing = tuple(waits[key] for key in sorted(waits))
    digest = hashlib.blake2b(digest_size=16)
    for wait in closing:
        digest.update(repr((wait.key, wait.waiter, wait.targets, wait.mode)).encode())
    return SuspectedDeadlock(
        digest.hexdigest(), tuple(cycle), tuple(sorted(parts)), closing, *_pick_victim(closing, parties)
    )


def _distances_to_root(root: str, behind: Mapping[str, list[str]]) -> dict[str, int]:
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


def _next_wait(name: str, obstacles: Obstacles, distance: Mapping[str, int]) -> tuple[Wait, list[str]]:
    """The wait of a party that holds it in the circle, and the targets that matter, the nearest first: one of `all`,
    each of `any`."""
    ranked = []
    for wait, blocked in obstacles(name):
        inside = sorted((distance[target], target) for target in blocked)
        every_target = wait.mode == "any" and len(wait.targets) > 1
        # Nearer first: so every step of a round comes nearer to the root, and the round ends.
        rank = (inside[0][0], every_target, inside[0][1], wait.key)
        ranked.append((rank, wait, [target for _, target in (inside if every_target else inside[:1])]))
    _, wait, targets = min(ranked, key=lambda entry: entry[0])
    return wait, targets


def choose_victim(suspected: SuspectedDeadlock, parties: Mapping[str, Party]) -> SuspectedDeadlock:
    """The same, with the victim that is known by now: while it waits, more may be read of what each has spent."""
    victim, refuse = _pick_victim(suspected.waits, parties)
    return replace(suspected, victim=victim, refused_wait=refuse)


def _pick_victim(waits: tuple[Wait, ...], parties: Mapping[str, Party]) -> tuple[str, str]:
    """Least sunk cost, then youngest, then by name; among its edges the first by name."""

    def victim_rank(wait: Wait) -> tuple[int, int, str, str]:
        party = parties.get(wait.waiter, Party())
        return party.sunk_cost, -party.born, wait.waiter, wait.key

    gives_way = min((wait for wait in waits if not wait.firm), key=victim_rank, default=None)
    return (gives_way.waiter, gives_way.key) if gives_way else ("", "")
