"""Who runs next, pure: places to run, who has one, who waits, and in which order they get them.

In: the facts of the gateway's inbox in stream order, quotas, the time. Out: decisions, as data. The book is a fold:
what stands in the stream is what counts, and a decision counts once it stands there too.

    requested -> (free place) -> runs -> ended
        |-> queued -> released (its turn) -> runs -> ended
               |-> dropped (cancelled, waited too long)

Tenants take turns by deficit round robin (Shreedhar and Varghese, 1996) with a task as the unit of cost and `weight` as
the quantum: nobody knows beforehand what a task will cost. In a tenant's turn the person with the fewest running tasks
goes first, and of one person's tasks the oldest.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

from bulkhead.bounded_dict import BoundedDict
from bulkhead_contracts import bounds
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.quota import Quota
from bulkhead_contracts.task import Dropped, Place, PlacesGiven, TaskEnded, TaskQueued, TaskRejected, TaskReleased
from bulkhead_contracts.types import Body

Key = tuple[str, str]
"""Tenant and task."""
Standing = Literal["unknown", "waits", "runs", "over"]
MAX_PAST = 50_000
"""So many ended tasks are remembered, so that a message which comes again does not begin one of them again."""
SNAPSHOT_EVERY = 32
"""Every so many decisions tell who runs: what a start has to read stays small, and so does a decision."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task without a place. request: sequence of its request; sequence: since when it waits, 0 for not yet."""

    tenant: str
    task: str
    person: str
    request: int
    sequence: int
    until_unix_ms: int

    def place(self) -> Place:
        """The place that it gets."""
        return Place(
            tenant=self.tenant, task=self.task, person=self.person, request=self.request, queued=self.sequence > 0
        )


@dataclass(frozen=True, slots=True)
class Quotas:
    """`of` a tenant; running: of the whole mesh."""

    of: Callable[[str], Quota]
    running: int


@dataclass(slots=True)
class Book:
    """Everything that the inbox says about places, up to `sequence`. through: what its first snapshot knew already."""

    sequence: int = 0
    through: int = 0
    last: int = 0
    """Sequence of the last decision; 0 before the first."""
    snapshot: int = 0
    since_snapshot: int = 0
    turn: str = ""
    credit: int = 0
    running: dict[Key, Place] = field(default_factory=dict)
    waiting: dict[Key, Waiting] = field(default_factory=dict)
    lines: dict[str, dict[str, OrderedDict[str, Waiting]]] = field(default_factory=dict)
    """Who waits, by tenant, person and task, the longest waiting first."""
    past: BoundedDict[Key, int] = field(default_factory=lambda: BoundedDict(MAX_PAST))
    released: dict[Key, int] = field(default_factory=dict)

    @classmethod
    def of(cls, base: PlacesGiven | None) -> "Book":
        """The book as a decision that tells who runs has it: to be read on from `sequence`."""
        if base is None:
            return cls()
        assert base.running is not None
        sequence = max(0, min(base.waiting_from, base.through + 1) - 1)
        running = {(place.tenant, place.task): place for place in base.running}
        return cls(sequence=sequence, through=base.through, running=running)

    def standing(self, key: Key, request: int) -> Standing:
        """How the task of this request stands; an earlier task under the same id, which was purged, is another."""
        place, waits = self.running.get(key), self.waiting.get(key)
        if place is not None and place.request == request:
            return "runs"
        if waits is not None and waits.request == request:
            return "waits"
        return "over" if self.past.get(key) == request else "unknown"

    def running_of(self, tenant: str) -> int:
        """How many places a tenant has."""
        return sum(1 for name, _ in self.running if name == tenant)

    def waiting_of(self, tenant: str) -> int:
        """How many of a tenant's tasks wait."""
        return sum(len(line) for line in self.lines.get(tenant, {}).values())

    def ahead_of(self, one: Waiting) -> int:
        """How many of the tenant's tasks waited before this one and still do."""
        return sum(
            other.sequence < one.sequence for line in self.lines.get(one.tenant, {}).values() for other in line.values()
        )

    @property
    def waiting_from(self) -> int:
        """No task waits whose `TaskQueued` lies below."""
        heads = (next(iter(line.values())) for people in self.lines.values() for line in people.values())
        return min((one.sequence for one in heads), default=self.sequence + 1)

    def take(self, sequence: int, key: Key, body: Body) -> None:
        """One fact of the gateway's inbox, whose sender the broker vouches for."""
        match body:
            case TaskQueued():
                self._queued(sequence, key, body)
            case PlacesGiven():
                self._given(sequence, body)
            case TaskReleased() if key in self.running:
                self.released[key] = sequence
            case TaskEnded() | TaskRejected():
                self._over(sequence, key)
            case MessageRejected():
                self._unreadable(sequence, key, body)
            case _:
                pass
        self.sequence = max(self.sequence, sequence)

    def forget(self, key: Key) -> None:
        """A task whose messages are gone: it was purged, so it had ended."""
        self.running.pop(key, None)

    def _queued(self, sequence: int, key: Key, body: TaskQueued) -> None:
        if self.standing(key, body.request) == "unknown":
            self._no_longer_waits(key)
            one = self.waiting[key] = Waiting(*key, body.person, body.request, sequence, body.until_unix_ms)
            self.lines.setdefault(one.tenant, {}).setdefault(one.person, OrderedDict())[one.task] = one

    def _given(self, sequence: int, body: PlacesGiven) -> None:
        for place in body.given:
            key = (place.tenant, place.task)
            self._no_longer_waits(key)
            # What the snapshot knew: the task runs by it, or had ended by then.
            if sequence > self.through:
                self.running[key] = place
        for one in body.dropped:
            self._no_longer_waits((one.tenant, one.task))
            self.past[one.tenant, one.task] = one.request
        self.turn, self.credit, self.last = body.turn, body.credit, sequence
        self.since_snapshot += 1
        if body.running is not None:
            self.snapshot, self.since_snapshot = sequence, 0

    def _over(self, sequence: int, key: Key) -> None:
        waits = self.waiting.get(key)
        if waits is not None:
            self._no_longer_waits(key)
            self.past[key] = waits.request
        place = self.running.get(key)
        if place is not None and sequence > max(self.through, place.request):
            del self.running[key]
            self.released.pop(key, None)
            self.past[key] = place.request

    def _unreadable(self, sequence: int, key: Key, body: MessageRejected) -> None:
        """What should have begun the task was buried: nobody will tell its end."""
        place, waits = self.running.get(key), self.waiting.get(key)
        if (place is not None and body.sequence in (place.request, self.released.get(key))) or (
            waits is not None and body.sequence in (waits.request, waits.sequence)
        ):
            self._over(sequence, key)

    def _no_longer_waits(self, key: Key) -> None:
        one = self.waiting.pop(key, None)
        if one is None:
            return
        people = self.lines[one.tenant]
        del people[one.person][one.task]
        if not people[one.person]:
            del people[one.person]
        if not people:
            del self.lines[one.tenant]


def decide(
    book: Book, quotas: Quotas, now_unix_ms: int, *, newcomer: Waiting | None = None, cancelled: Dropped | None = None
) -> PlacesGiven | None:
    """What is to be said now: places that are free go to those whose turn it is; None when there is nothing to say.

    newcomer: asks for a place and does not wait yet. cancelled: gives its waiting up.
    """
    dropped = ([cancelled] if cancelled is not None else []) + _too_long(book, now_unix_ms, cancelled)
    dropped = dropped[: bounds.MAX_PLACES_AT_ONCE]
    gone = {(one.tenant, one.task) for one in dropped}
    room = min(quotas.running - len(book.running), bounds.MAX_PLACES_AT_ONCE)
    given, turn, credit = _rounds(_queues(book, quotas, gone, newcomer), quotas, room, book.turn, book.credit)
    if not given and not dropped:
        return None
    tells = not book.snapshot or book.since_snapshot + 1 >= SNAPSHOT_EVERY
    return PlacesGiven(
        given=tuple(one.place() for one in given),
        dropped=tuple(dropped),
        turn=turn,
        credit=credit,
        running=tuple(book.running.values()) if tells else None,
        snapshot=book.snapshot,
        through=book.sequence,
        waiting_from=book.waiting_from,
    )


def queued(book: Book, quotas: Quotas, newcomer: Waiting) -> TaskQueued:
    """What is said of a newcomer that gets no place now."""
    own, limit = book.running_of(newcomer.tenant), quotas.of(newcomer.tenant).running
    tenant_is_full = own >= limit or len(book.running) < quotas.running
    return TaskQueued(
        request=newcomer.request,
        person=newcomer.person,
        ahead=book.waiting_of(newcomer.tenant),
        full="tenant" if tenant_is_full else "mesh",
        running=own if tenant_is_full else len(book.running),
        limit=limit if tenant_is_full else quotas.running,
        until_unix_ms=newcomer.until_unix_ms,
    )


def _too_long(book: Book, now_unix_ms: int, cancelled: Dropped | None) -> list[Dropped]:
    found = []
    for line in (line for people in book.lines.values() for line in people.values()):
        for one in line.values():
            if one.until_unix_ms > now_unix_ms:
                # In the order of their coming and with one bound per tenant: those behind have waited less. After a
                # change of the bound some may go later, when they are at the head.
                break
            if cancelled is None or (one.tenant, one.task) != (cancelled.tenant, cancelled.task):
                found.append(Dropped(tenant=one.tenant, task=one.task, request=one.request, code="queue_timeout"))
    return found


class _Queue:
    """One tenant's tasks that could begin, and how many more may."""

    def __init__(self, room: int, lines: Mapping[str, Iterator[Waiting]], running: dict[str, int]) -> None:
        self._room, self._lines = room, lines
        self._running = running
        """By person."""
        self._heads = {person: head for person, line in lines.items() if (head := next(line, None)) is not None}

    @property
    def ready(self) -> bool:
        return self._room > 0 and bool(self._heads)

    def next(self) -> Waiting:
        person = min(self._heads, key=lambda name: (self._running.get(name, 0), self._heads[name].request))
        found = self._heads.pop(person)
        if (behind := next(self._lines[person], None)) is not None:
            self._heads[person] = behind
        self._running[person] = self._running.get(person, 0) + 1
        self._room -= 1
        return found


def _queues(book: Book, quotas: Quotas, gone: set[Key], newcomer: Waiting | None) -> dict[str, _Queue]:
    running: dict[str, dict[str, int]] = {}
    for (tenant, _), place in book.running.items():
        people = running.setdefault(tenant, {})
        people[place.person] = people.get(place.person, 0) + 1
    found = {}
    for tenant in {*book.lines, *((newcomer.tenant,) if newcomer else ())}:
        own = running.get(tenant, {})
        room = quotas.of(tenant).running - sum(own.values())
        if room > 0:
            queue = _Queue(room, _lines(book, tenant, gone, newcomer), dict(own))
            if queue.ready:
                found[tenant] = queue
    return found


def _lines(book: Book, tenant: str, gone: set[Key], newcomer: Waiting | None) -> dict[str, Iterator[Waiting]]:
    """By person, the oldest first; a newcomer stands behind everybody."""
    found: dict[str, Iterator[Waiting]] = {
        person: (one for one in line.values() if (tenant, one.task) not in gone)
        for person, line in book.lines.get(tenant, {}).items()
    }
    if newcomer is not None and newcomer.tenant == tenant:
        found[newcomer.person] = chain(found.get(newcomer.person, iter(())), (newcomer,))
    return found


def _rounds(
    queues: dict[str, _Queue], quotas: Quotas, room: int, turn: str, credit: int
) -> tuple[list[Waiting], str, int]:
    """Deficit round robin over the tenants that could begin a task, from where the last decision left off."""
    given: list[Waiting] = []
    ring = sorted(queues)
    while ring and len(given) < room:
        if turn not in queues or credit <= 0:
            turn = ring[bisect_right(ring, turn) % len(ring)]  # The next, also when the last one is no longer there.
            credit = quotas.of(turn).weight
        given.append(queues[turn].next())
        credit -= 1
        if not queues[turn].ready:
            # What is left of a turn is lost with the queue, or could be saved up for a spike.
            del queues[turn]
            ring.remove(turn)
            credit = 0
    return given, turn, credit


def given_at_once(decision: PlacesGiven, newcomer: Waiting) -> bool:
    """Whether a newcomer is among those that begin."""
    return any((one.tenant, one.task) == (newcomer.tenant, newcomer.task) for one in decision.given)
