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
        return frozenset(one.waiter for one in self.waits)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task that is held up by its own edge."""
        return tuple(sorted({one.task for one in self.waits}))


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
        if left != group:
            groups += components(sorted(left), _successors(within(left, obstacles)))
            continue
        first = next((name for name in names if name in group), None)
        if first is not None:
            found.append((first, group))
    return found


def _successors(obstacles: Obstacles) -> Callable[[str], list[str]]:
    return lambda name: [target for _, blocked in obstacles(name) for target in blocked]


def within(parts: set[str], obstacles: Obstacles) -> Obstacles:
    """What stands in the way of a party if everybody outside of `parts` can go on."""

    def inside(name: str) -> list[tuple[Wait, tuple[str, ...]]]:
        if name not in parts:
            return []
        found = [(wait, tuple(one for one in blocked if one in parts)) for wait, blocked in obstacles(name)]
        return [(wait, held) for wait, held in found if held and (wait.mode == "all" or len(held) == len(wait.targets))]

    return inside


def _held_up(group: set[str], obstacles: Obstacles) -> set[str]:
    """The members of a group that stay stuck when every party outside of it can go on."""
    behind: dict[str, set[str]] = {}
    for one in group:
        for _, blocked in obstacles(one):
            for target in blocked:
                behind.setdefault(target, set()).add(one)
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
    root = min(parts)
    if _conjunctive(parts, obstacles):
        # Several cycles may share a node: the one that `name` closed is the news.
        root = name
    distance = _distances(root, parts, obstacles)
    waits = _closing(root, parts, obstacles, distance)
    victim, refuse = _victim(waits, parties)
    digest = hashlib.blake2b(digest_size=16)
    for wait in waits:
        digest.update(repr((wait.key, wait.waiter, wait.targets, wait.mode)).encode())
    return Suspected(
        digest.hexdigest(), _round(root, parts, obstacles, distance), tuple(sorted(parts)), waits, victim, refuse
    )


def _conjunctive(parts: set[str], obstacles: Obstacles) -> bool:
    return all(wait.mode == "all" or len(wait.targets) == 1 for one in parts for wait, _ in obstacles(one))


def _distances(root: str, parts: set[str], obstacles: Obstacles) -> dict[str, int]:
    """Steps from each party to the root, by edges inside the circle."""
    behind: dict[str, list[str]] = {}
    for one in sorted(parts):
        for _, blocked in obstacles(one):
            for target in blocked:
                behind.setdefault(target, []).append(one)
    found = {root: 0}
    front = deque([root])
    while front:
        name = front.popleft()
        for one in behind.get(name, ()):
            if one in parts and one not in found:
                found[one] = found[name] + 1
                front.append(one)
    return found


def _next(
    name: str, parts: set[str], obstacles: Obstacles, distance: Mapping[str, int]
) -> tuple[Wait, tuple[str, ...]]:
    """The wait of a party that holds it in the circle, and the targets that matter: one of `all`, each of `any`."""
    best: tuple[tuple[int, int, str, str], Wait, tuple[str, ...]] | None = None
    for wait, blocked in obstacles(name):
        inside = sorted((distance[one], one) for one in blocked if one in parts)
        if not inside:
            continue
        whole = wait.mode == "any" and len(wait.targets) > 1
        # Nearer first: so every step of a round comes nearer to the root, and the round ends.
        rank = (inside[0][0], int(whole), inside[0][1], wait.key)
        if best is None or rank < best[0]:
            best = (rank, wait, tuple(one for _, one in inside) if whole else (inside[0][1],))
    assert best is not None, "a party of a circle waits for one of it"
    return best[1], best[2]


def _closing(root: str, parts: set[str], obstacles: Obstacles, distance: Mapping[str, int]) -> tuple[Wait, ...]:
    found: dict[str, Wait] = {}
    seen, front = {root}, [root]
    while front:
        wait, targets = _next(front.pop(), parts, obstacles, distance)
        found[wait.key] = wait
        for one in targets:
            if one not in seen:
                seen.add(one)
                front.append(one)
    return tuple(found[key] for key in sorted(found))


def _round(root: str, parts: set[str], obstacles: Obstacles, distance: Mapping[str, int]) -> tuple[str, ...]:
    """One shortest round from the root back to it; the root stands at its beginning only."""
    path = [root]
    while True:
        _, targets = _next(path[-1], parts, obstacles, distance)
        nearest = min(targets, key=lambda one: (distance[one], one))
        if nearest == root:
            return tuple(path)
        path.append(nearest)


def chosen(suspected: Suspected, parties: Mapping[str, Party]) -> Suspected:
    """The same, with the victim that is known by now: while it waits, more may be read of what each has spent."""
    victim, refuse = _victim(suspected.waits, parties)
    return replace(suspected, victim=victim, refuse=refuse)


def _victim(waits: tuple[Wait, ...], parties: Mapping[str, Party]) -> tuple[str, str]:
    """Least sunk cost, then youngest, then by name; among its edges the first by name."""

    def rank(wait: Wait) -> tuple[int, int, str, str]:
        known = parties.get(wait.waiter)
        return (known.sunk_cost, -known.born, wait.waiter, wait.key) if known else (0, 0, wait.waiter, wait.key)

    able = [one for one in waits if not one.firm and (one.waiter not in parties or not parties[one.waiter].resource)]
    if not able:
        return "", ""
    chosen = min(able, key=rank)
    return chosen.waiter, chosen.key
