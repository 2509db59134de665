"""Reservations ahead: what budget holds for the calls that usually follow the first one of a step (ADR 0047).

In: the calls of each step in their order, as they are made, and what budget held ahead. Out: the calls that probably
follow; the reservation of the next one; what is to be given back. Kept in memory alone: another replica asks anew, and
what this one held when it died returns with the lease.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bulkhead.bounded_dict import BoundedDict
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.doer.protocol import Job, agent_of
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.budget import Amount, CallAhead

MIN_STEPS = 3
"""What follows is foreseen where so many steps have gone the same way before, and none another."""
MAX_STEPS = 8
"""Steps of a kind that are remembered, and so many that have not ended: of a flood some are looked at."""
ENDED_AFTER_S = 2.0
"""A step that has made no call for so long is taken as a whole one; where it goes on all the same, that counts, too."""
RETURN_AFTER_S = 15.0
"""What a step has not used so long after its last call is given back."""
LOOK_EVERY_S = 5.0
HEADROOM = 4
"""One part in so many is reserved beyond the most that such a call asked for."""
MAX_SPARE = 2
"""So many times what a call asks for may be held for it."""
CLOSED = 0.0
"""As the end of a step's reservations: they are being given back."""
MEASURED_UNITS = ("tokens", "cost_usd_micros")
MAX_KEPT = 10_000


class StepPlace(NamedTuple):
    """A step, and what its messages tell of who caused it."""

    tenant: str
    task: str
    step_id: str
    actor: str
    logic: int

    @classmethod
    def of_message(cls, message: ReceivedMessage) -> "StepPlace":
        """The step of a request."""
        head, step_id = message.envelope, getattr(message.body, "step_id", "")
        return cls(message.tenant, message.task, step_id, head.actor, head.logic)


class CallShape(NamedTuple):
    """Traits that two calls share which may use the same reservation."""

    purpose: str
    resource: str
    price_digest: str
    agent: str


@dataclass(slots=True)
class HeldCall:
    """A reservation that is held for a call which has not been made."""

    reservation_id: str
    shape: CallShape
    amount: Amount


@dataclass(slots=True)
class StepCalls:
    """The calls that a step has made here. shapes: None for a call that did not wait for the one before. unsettled:
    reservations whose settlement lies in no reply. until_s: of the loop's clock; then nothing of `held` may be used."""

    place: StepPlace
    shapes: list[CallShape | None] = field(default_factory=list)
    amounts: list[Amount] = field(default_factory=list)
    unsettled: set[str] = field(default_factory=set)
    held: deque[HeldCall] = field(default_factory=deque)
    until_s: float = 0.0
    last_s: float = 0.0


@dataclass(slots=True)
class StepKind:
    """Steps that began with the same call. running: those that go to `ended` when they make no more calls."""

    running: list[StepCalls] = field(default_factory=list)
    ended: deque[StepCalls] = field(default_factory=lambda: deque(maxlen=MAX_STEPS))

    def add_step(self, step: StepCalls, now_s: float) -> None:
        """Remember a step, and which of those before it have ended."""
        self.ended += (earlier for earlier in self.running if now_s - earlier.last_s >= ENDED_AFTER_S)
        self.running = [earlier for earlier in self.running if now_s - earlier.last_s < ENDED_AFTER_S]
        if len(self.running) < MAX_STEPS:
            self.running.append(step)


class ReservationsAhead:
    """Those of one replica."""

    def __init__(self) -> None:
        self._steps = BoundedDict[StepPlace, StepCalls](MAX_KEPT)
        self._kinds = BoundedDict[tuple[str, CallShape | None], StepKind](MAX_KEPT)
        self._step_of = BoundedDict[str, StepCalls](MAX_KEPT)
        self._holding: list[StepCalls] = []
        self.has_some = asyncio.Event()
        """Set while something may be held."""

    def begin_call(self, job: Job[Any], purpose: str, resource: str, price_digest: str, amount: Amount) -> StepCalls:
        """Count a call that is about to be made."""
        shape, place = CallShape(purpose, resource, price_digest, agent_of(job)), StepPlace.of_message(job)
        step = self._steps.get_refreshed(place)
        if subjects.is_of_doors(job.task) or (step is not None and len(step.shapes) >= bounds.MAX_CALLS_PER_STEP):
            # A program outside makes calls without end, and budget holds nothing ahead for it.
            return StepCalls(place, [None], [amount])
        if step is None:
            step = self._steps[place] = StepCalls(place)
            kind = self._kinds.get_refreshed((job.tenant, shape))
            if kind is None:
                kind = self._kinds[job.tenant, shape] = StepKind()
            kind.add_step(step, _loop_time_s())
        step.shapes.append(None if step.unsettled else shape)
        step.amounts.append(amount)
        step.last_s = _loop_time_s()
        return step

    def draw(self, step: StepCalls) -> HeldCall | None:
        """The reservation of the call that was begun last, if it is held: nobody else gets it again."""
        shape, amount, held = step.shapes[-1], step.amounts[-1], step.held
        if shape is None or not held or held[0].shape != shape or _loop_time_s() >= step.until_s:
            return None
        if any(getattr(amount, unit) > getattr(held[0].amount, unit) for unit in Amount.model_fields):
            return None
        # One that is cut off is charged whole: not by what much longer calls asked for.
        if any(getattr(held[0].amount, unit) > MAX_SPARE * getattr(amount, unit) for unit in MEASURED_UNITS):
            return None
        self.watch_settlement(step, held[0].reservation_id)
        return held.popleft()

    def foresee_calls(self, step: StepCalls) -> tuple[CallAhead, ...]:
        """The calls that followed, in all steps that began like this one."""
        made, kind = len(step.shapes), self._kinds.get((step.place.tenant, step.shapes[0]))
        ended = kind.ended if kind is not None else ()
        alike = [earlier for earlier in ended if earlier is not step and earlier.shapes[:made] == step.shapes]
        calls: list[CallAhead] = []
        while len(alike) >= MIN_STEPS and len(calls) < bounds.MAX_CALLS_AHEAD:
            place = made + len(calls)
            shapes = {earlier.shapes[place] if place < len(earlier.shapes) else None for earlier in alike}
            if len(shapes) > 1 or (shape := shapes.pop()) is None:
                break
            calls.append(CallAhead(worst_case=_largest(earlier.amounts[place] for earlier in alike), **shape._asdict()))
        return tuple(calls)

    def hold(self, step: StepCalls, reservation_ids: Sequence[str], calls: Sequence[CallAhead], until_s: float) -> None:
        """Keep what budget holds for the calls that follow."""
        for reservation_id, call in zip(reservation_ids, calls, strict=False):
            shape = CallShape(call.purpose, call.resource, call.price_digest, call.agent)
            step.held.append(HeldCall(reservation_id, shape, call.worst_case))
        step.until_s = until_s
        self._holding.append(step)
        self.has_some.set()

    def watch_settlement(self, step: StepCalls, reservation_id: str) -> None:
        """Let nothing more of this step be used before the settlement of this one lies in a reply."""
        step.unsettled.add(reservation_id)
        self._step_of[reservation_id] = step

    def on_settled(self, reservation_ids: Iterable[str]) -> None:
        """The settlements of these lie in a reply."""
        for reservation_id in reservation_ids:
            step = self._step_of.pop(reservation_id, None)
            if step is not None:
                step.unsettled.discard(reservation_id)
                step.last_s = _loop_time_s()

    def give_back(self, step: StepCalls) -> list[str]:
        """All that is held for a step, last first: what lies behind one that is not settled was never used."""
        reservation_ids = [call.reservation_id for call in reversed(step.held)]
        step.held.clear()
        return reservation_ids

    def close_due(self, *, everything: bool = False) -> list[StepCalls]:
        """Steps that make no calls any more, and hold some: nothing of that is drawn any more. everything: all."""
        now_s = _loop_time_s()
        self._holding = [step for step in self._holding if step.held]
        if not self._holding:
            self.has_some.clear()
        closed = [step for step in self._holding if everything or now_s >= self._due_s(step)]
        for step in closed:
            step.until_s = CLOSED
            kind = self._kinds.get((step.place.tenant, step.shapes[0]))
            if kind is not None:
                kind.ended.clear()  # They go another way now.
        return closed

    def _due_s(self, step: StepCalls) -> float:
        return step.until_s if step.unsettled else min(step.until_s, step.last_s + RETURN_AFTER_S)


def _largest(amounts: Iterable[Amount]) -> Amount:
    """The most of each unit, and some headroom where it is measured."""
    rows = [(row.tokens, row.cost_usd_micros, row.model_calls, row.tool_calls) for row in amounts]
    tokens, cost, model_calls, tool_calls = map(max, zip(*rows, strict=True))
    return Amount(
        tokens=min(tokens + tokens // HEADROOM, bounds.MAX_TOKENS),
        cost_usd_micros=min(cost + cost // HEADROOM, bounds.MAX_COST_USD_MICROS),
        model_calls=model_calls,
        tool_calls=tool_calls,
    )


def _loop_time_s() -> float:
    return asyncio.get_running_loop().time()
