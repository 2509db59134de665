"""The run queue, pure: places to run, who has one, who waits, and in which order they get them.

In: the facts of the gateway's inbox in stream order, quotas, the time. Out: decisions, as data. The state
is a fold: what stands in the stream is what counts, and a decision counts once it stands there too.

    requested -> (free place) -> runs -> ended
        |-> queued -> released (its turn) -> runs -> ended
               |-> dropped (cancelled, waited too long)

An outside agent's run has a place while a call of it is in flight: it gives the place back, and waits for one again
before its next call, when all replicas of doors that use it have said so. Tasks that have places may wait for that very
run, but none for ever: each call has a deadline, and delegated steps run under the place of their task.

Tenants take turns by deficit round robin (Shreedhar and Varghese, 1996) with a task as the unit of cost
and `weight` as the quantum: nobody knows beforehand what a task will cost. In a tenant's turn the person
with the fewest running tasks goes first, and of one person's tasks the oldest.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal

from bulkhead.bounded_dict import BoundedDict
from bulkhead_contracts import bounds
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.quota import Quota
from bulkhead_contracts.task import (
    Dropped,
    Place,
    PlaceReturned,
    PlacesGiven,
    PlaceTaken,
    TaskEnded,
    TaskQueued,
    TaskRejected,
    TaskReleased,
)
from bulkhead_contracts.types import Body

Key = tuple[str, str]
"""Tenant and task."""
Standing = Literal["unknown", "waits", "runs", "over"]
MAX_PAST = 50_000
"""So many ended tasks are remembered, so that a message which comes again does not begin one of them again."""
SNAPSHOT_EVERY = 32
"""Every so many decisions tell who runs: what a start has to read stays small, and so does a decision."""


@dataclass(frozen=True, slots=True)
class WaitingTask:
    """A task without a place. request: sequence of its request; sequence: since when it waits, 0 for not yet. again: it
    had a place before, and is never dropped. holders: replicas that wait.
    """

    tenant: str
    task: str
    person: str
    request: int
    sequence: int
    until_unix_ms: int
    again: bool = False
    holders: tuple[str, ...] = ()

    def to_place(self) -> Place:
        """The place that it gets."""
        return Place(
            tenant=self.tenant,
            task=self.task,
            person=self.person,
            request=self.request,
            queued=self.sequence > 0,
            again=self.again,
            holders=self.holders,
        )


@dataclass(frozen=True, slots=True)
class RunQuotas:
    """quota_of: by tenant. running: tasks of the whole mesh."""

    quota_of: Callable[[str], Quota]
    running: int


@dataclass(slots=True)
class RunQueueState:
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
    waiting: dict[Key, WaitingTask] = field(default_factory=dict)
    lines: dict[str, dict[str, OrderedDict[str, WaitingTask]]] = field(default_factory=dict)
    """Who waits, by tenant, person and task, the longest waiting first."""
    returned: BoundedDict[Key, Place] = field(default_factory=lambda: BoundedDict(MAX_PAST))
    """Of runs without a call in flight: the places that they gave back. One that is not known here any more is known
    again when it wants a place."""
    past: BoundedDict[Key, int] = field(default_factory=lambda: BoundedDict(MAX_PAST))
    released: dict[Key, int] = field(default_factory=dict)

    @classmethod
    def from_snapshot(cls, base: PlacesGiven | None) -> "RunQueueState":
        """The state as a decision that tells who runs has it: to be read on from `sequence`."""
        if base is None:
            return cls()
        assert base.running is not None
        sequence = max(0, min(base.waiting_from, base.through + 1) - 1)
        running = {(place.tenant, place.task): place for place in base.running}
        return cls(sequence=sequence, through=base.through, running=running)

    def standing_of(self, key: Key, request: int) -> Standing:
        """Standing of this request's task; an earlier task under the same id, which was purged, is another."""
        place, waits = self.running.get(key), self.waiting.get(key)
        if place is not None and place.request == request:
            return "runs"
        if waits is not None and waits.request == request:
            return "waits"
        if (place := self.returned.get(key)) is not None and place.request == request:
            return "runs"
        return "over" if self.past.get(key) == request else "unknown"

    def place_of(self, key: Key) -> Place:
        """The place of a task that has one, or gave it back. Raises KeyError."""
        return self.running.get(key) or self.returned[key]

    def count_running(self, tenant: str) -> int:
        """Number of places that a tenant has."""
        return sum(1 for name, _ in self.running if name == tenant)

    def count_waiting(self, tenant: str) -> int:
        """Number of a tenant's tasks that wait."""
        return sum(len(line) for line in self.lines.get(tenant, {}).values())

    def count_ahead(self, waiting_task: WaitingTask) -> int:
        """Number of the tenant's tasks that waited before this one and still do."""
        return sum(
            queued_task.sequence < waiting_task.sequence
            for line in self.lines.get(waiting_task.tenant, {}).values()
            for queued_task in line.values()
        )

    @property
    def waiting_from(self) -> int:
        """Lower bound of the sequences of `TaskQueued` of tasks that wait."""
        heads = (next(iter(line.values())) for people in self.lines.values() for line in people.values())
        return min((head.sequence for head in heads), default=self.sequence + 1)

    def apply_fact(self, sequence: int, key: Key, body: Body) -> None:
        """One fact of the gateway's inbox, whose sender the broker vouches for."""
        match body:
            case TaskQueued():
                self._apply_queued(sequence, key, body)
            case PlacesGiven():
                self._apply_places_given(sequence, body)
            case PlaceReturned():
                self._return_place(sequence, key, body)
            case PlaceTaken():
                self._take_place(sequence, key, body)
            case TaskReleased() if key in self.running:
                self.released[key] = sequence
            case TaskEnded() | TaskRejected():
                self._end_task(sequence, key)
            case MessageRejected():
                self._apply_rejected_message(sequence, key, body)
            case _:
                pass
        self.sequence = max(self.sequence, sequence)

    def forget_task(self, key: Key) -> None:
        """A task whose messages are gone: it was purged, so it had ended."""
        self.running.pop(key, None)

    def _apply_queued(self, sequence: int, key: Key, body: TaskQueued) -> None:
        if self.standing_of(key, body.request) == "unknown":
            self._add_waiting(WaitingTask(*key, body.person, body.request, sequence, body.until_unix_ms))

    def _add_waiting(self, waiting: WaitingTask) -> None:
        key = (waiting.tenant, waiting.task)
        self._remove_waiting(key)
        self.waiting[key] = waiting
        self.lines.setdefault(waiting.tenant, {}).setdefault(waiting.person, OrderedDict())[waiting.task] = waiting

    def _apply_places_given(self, sequence: int, body: PlacesGiven) -> None:
        for place in body.given:
            key = (place.tenant, place.task)
            waited = self.waiting.get(key)
            self._remove_waiting(key)
            # What the snapshot knew: the task runs by it, or had ended by then.
            if sequence > self.through:
                # Replicas may have come or gone since the decider read.
                holders = waited.holders if waited is not None else place.holders
                self.running[key] = place.model_copy(update={"holders": holders})
        for drop in body.dropped:
            self._remove_waiting((drop.tenant, drop.task))
            self.past[drop.tenant, drop.task] = drop.request
        self.turn, self.credit, self.last = body.turn, body.credit, sequence
        self.since_snapshot += 1
        if body.running is not None:
            self.snapshot, self.since_snapshot = sequence, 0

    def _return_place(self, sequence: int, key: Key, body: PlaceReturned) -> None:
        place, waits = self.running.get(key), self.waiting.get(key)
        if place is not None and sequence > max(self.through, place.request):
            if holders := _without_holder(place.holders, body.replica):
                self.running[key] = place.model_copy(update={"holders": holders})
            else:
                self.returned[key] = self.running.pop(key)
        elif waits is not None and waits.again:
            if holders := _without_holder(waits.holders, body.replica):
                self._replace_waiting(replace(waits, holders=holders))
            else:
                self._remove_waiting(key)
                self.returned[key] = waits.to_place()

    def _take_place(self, sequence: int, key: Key, body: PlaceTaken) -> None:
        place, waits = self.running.get(key), self.waiting.get(key)
        if place is not None:
            if sequence > self.through:
                holders = _with_holder(place.holders, body.replica)
                self.running[key] = place.model_copy(update={"holders": holders})
        elif waits is not None:
            if waits.again:
                self._replace_waiting(replace(waits, holders=_with_holder(waits.holders, body.replica)))
        elif key not in self.past:
            place = self.returned.pop(key, None)
            person, request = (place.person, place.request) if place is not None else (body.person, 0)
            if person:
                holders = (body.replica,)
                self._add_waiting(WaitingTask(*key, person, request, sequence, 0, again=True, holders=holders))

    def _end_task(self, sequence: int, key: Key) -> None:
        returned = self.returned.pop(key, None)
        if returned is not None:
            self.past[key] = returned.request
        waits = self.waiting.get(key)
        if waits is not None:
            self._remove_waiting(key)
            self.past[key] = waits.request
        place = self.running.get(key)
        if place is not None and sequence > max(self.through, place.request):
            del self.running[key]
            self.released.pop(key, None)
            self.past[key] = place.request

    def _apply_rejected_message(self, sequence: int, key: Key, body: MessageRejected) -> None:
        """End a task whose beginning was buried: nobody will tell its end."""
        place, waits = self.running.get(key), self.waiting.get(key)
        if (place is not None and body.sequence in (place.request, self.released.get(key))) or (
            waits is not None and body.sequence in (waits.request, waits.sequence)
        ):
            self._end_task(sequence, key)

    def _replace_waiting(self, waiting: WaitingTask) -> None:
        """Change a task where it stands in its line."""
        self.waiting[waiting.tenant, waiting.task] = waiting
        self.lines[waiting.tenant][waiting.person][waiting.task] = waiting

    def _remove_waiting(self, key: Key) -> None:
        waiting = self.waiting.pop(key, None)
        if waiting is None:
            return
        people = self.lines[waiting.tenant]
        del people[waiting.person][waiting.task]
        if not people[waiting.person]:
            del people[waiting.person]
        if not people:
            del self.lines[waiting.tenant]


def decide_places(
    state: RunQueueState,
    quotas: RunQuotas,
    now_unix_ms: int,
    *,
    newcomer: WaitingTask | None = None,
    cancelled: Dropped | None = None,
) -> PlacesGiven | None:
    """The decision to be told now: free places go to those whose turn it is; None when there is nothing to say.

    newcomer: asks for a place and does not wait yet. cancelled: gives its waiting up.
    """
    dropped = ([cancelled] if cancelled is not None else []) + _find_overdue(state, now_unix_ms, cancelled)
    dropped = dropped[: bounds.MAX_PLACES_AT_ONCE]
    gone = {(row.tenant, row.task) for row in dropped}
    room = min(quotas.running - len(state.running), bounds.MAX_PLACES_AT_ONCE)
    starting, turn, credit = _deal_round_robin(
        _tenant_queues(state, quotas, gone, newcomer), quotas, room, state.turn, state.credit
    )
    if not starting and not dropped:
        return None
    tells = not state.snapshot or state.since_snapshot + 1 >= SNAPSHOT_EVERY
    return PlacesGiven(
        given=tuple(waiting.to_place() for waiting in starting),
        dropped=tuple(dropped),
        turn=turn,
        credit=credit,
        running=tuple(state.running.values()) if tells else None,
        snapshot=state.snapshot,
        through=state.sequence,
        waiting_from=state.waiting_from,
    )


def queued_notice(state: RunQueueState, quotas: RunQuotas, newcomer: WaitingTask) -> TaskQueued:
    """The notice about a newcomer that gets no place now, or about a run that waits again."""
    tenant_running, limit = state.count_running(newcomer.tenant), quotas.quota_of(newcomer.tenant).running
    tenant_is_full = tenant_running >= limit or len(state.running) < quotas.running
    return TaskQueued(
        request=newcomer.request,
        person=newcomer.person,
        ahead=state.count_ahead(newcomer) if newcomer.again else state.count_waiting(newcomer.tenant),
        full="tenant" if tenant_is_full else "mesh",
        running=tenant_running if tenant_is_full else len(state.running),
        limit=limit if tenant_is_full else quotas.running,
        until_unix_ms=newcomer.until_unix_ms,
    )


def _find_overdue(state: RunQueueState, now_unix_ms: int, cancelled: Dropped | None) -> list[Dropped]:
    overdue = []
    for line in (line for people in state.lines.values() for line in people.values()):
        for waiting in line.values():
            if waiting.again:
                continue
            if waiting.until_unix_ms > now_unix_ms:
                # In the order of their coming and with one bound per tenant: those behind have waited less. After a
                # change of the bound some may go later, when they are at the head.
                break
            if cancelled is None or (waiting.tenant, waiting.task) != (cancelled.tenant, cancelled.task):
                overdue.append(
                    Dropped(tenant=waiting.tenant, task=waiting.task, request=waiting.request, code="queue_timeout")
                )
    return overdue


class _TenantQueue:
    """One tenant's tasks that could begin, and how many more may."""

    def __init__(self, room: int, lines: Mapping[str, Iterator[WaitingTask]], running: dict[str, int]) -> None:
        self._room, self._lines = room, lines
        self._running = running
        """By person."""
        self._heads = {person: head for person, line in lines.items() if (head := next(line, None)) is not None}

    @property
    def has_next(self) -> bool:
        return self._room > 0 and bool(self._heads)

    def pop_next(self) -> WaitingTask:
        person = min(self._heads, key=lambda name: (self._running.get(name, 0), self._heads[name].request))
        waiting = self._heads.pop(person)
        if (behind := next(self._lines[person], None)) is not None:
            self._heads[person] = behind
        self._running[person] = self._running.get(person, 0) + 1
        self._room -= 1
        return waiting


def _tenant_queues(
    state: RunQueueState, quotas: RunQuotas, gone: set[Key], newcomer: WaitingTask | None
) -> dict[str, _TenantQueue]:
    running: dict[str, dict[str, int]] = {}
    for (tenant, _), place in state.running.items():
        people = running.setdefault(tenant, {})
        people[place.person] = people.get(place.person, 0) + 1
    queues = {}
    for tenant in {*state.lines, *((newcomer.tenant,) if newcomer else ())}:
        running_by_person = running.get(tenant, {})
        room = quotas.quota_of(tenant).running - sum(running_by_person.values())
        if room > 0:
            queue = _TenantQueue(room, _waiting_by_person(state, tenant, gone, newcomer), dict(running_by_person))
            if queue.has_next:
                queues[tenant] = queue
    return queues


def _waiting_by_person(
    state: RunQueueState, tenant: str, gone: set[Key], newcomer: WaitingTask | None
) -> dict[str, Iterator[WaitingTask]]:
    """By person, the oldest first; a newcomer stands behind everybody."""
    by_person: dict[str, Iterator[WaitingTask]] = {
        person: (waiting for waiting in line.values() if (tenant, waiting.task) not in gone)
        for person, line in state.lines.get(tenant, {}).items()
    }
    if newcomer is not None and newcomer.tenant == tenant:
        by_person[newcomer.person] = chain(by_person.get(newcomer.person, iter(())), (newcomer,))
    return by_person


def _deal_round_robin(
    queues: dict[str, _TenantQueue], quotas: RunQuotas, room: int, turn: str, credit: int
) -> tuple[list[WaitingTask], str, int]:
    """Deficit round robin over the tenants that could begin a task, from where the last decision left off."""
    starting: list[WaitingTask] = []
    ring = sorted(queues)
    while ring and len(starting) < room:
        if turn not in queues or credit <= 0:
            turn = ring[bisect_right(ring, turn) % len(ring)]  # The next, also when the last one is no longer there.
            credit = quotas.quota_of(turn).weight
        starting.append(queues[turn].pop_next())
        credit -= 1
        if not queues[turn].has_next:
            # What is left of a turn is lost with the queue, or could be saved up for a spike.
            del queues[turn]
            ring.remove(turn)
            credit = 0
    return starting, turn, credit


def _with_holder(holders: tuple[str, ...], replica: str) -> tuple[str, ...]:
    """The holders of a place and one more; "" stands for the replica that opened the run."""
    return tuple(sorted({*(holders or ("",)), replica}))[: bounds.MAX_PLACE_HOLDERS]


def _without_holder(holders: tuple[str, ...], replica: str) -> tuple[str, ...]:
    """The holders that a place still has; a replica that is none of them by name opened the run; "" is all."""
    leaver = replica if replica in holders else ""
    return tuple(holder for holder in holders if holder != leaver) if replica else ()


def starts_at_once(decision: PlacesGiven, newcomer: WaitingTask) -> bool:
    """True for a newcomer that is among those that begin."""
    return any((place.tenant, place.task) == (newcomer.tenant, newcomer.task) for place in decision.given)
