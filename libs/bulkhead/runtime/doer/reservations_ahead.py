"""Reservations ahead: what budget holds for the calls that usually follow the first one of a step (ADR 0047).

In: the calls of each step in their order, as they are made, and what budget held ahead. Out: the calls that probably
follow; the reservation of the next one; what is to be given back. Kept in memory alone: another replica asks anew, and
what this one held when it died returns with the lease.
"""

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

from bulkhead.bounded_dict import BoundedDict
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.budget import Amount, CallAhead

MIN_STEPS = 3
"""A call is foreseen where it came next so many times in a row, in three of four steps at least."""
MAX_COUNTED = 256
"""Of more steps the later ones count twice as much: some have only not gone on yet, and habits change."""
RETURN_AFTER_S = 15.0
"""What a step has not used so long after its last call is given back."""
MAX_CALL_S = 600.0
"""For which a step is remembered while a request of it is under way."""
LOOK_EVERY_S = 5.0
HEADROOM = 4
"""One part in so many is reserved beyond the most that such a call asked for."""
MAX_SPARE = 2
"""So many times what a call asks for may be held for it."""
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


@dataclass(slots=True)
class NextCall:
    """The call that came next, so many times in a row, in those of `arrived` steps that made the same calls before."""

    call: CallAhead | None = None
    times: int = 0
    arrived: int = 0


@dataclass(slots=True)
class StepCalls:
    """A step here. path: the calls that it has made, as a hash; None where nothing is foreseen. held: reservations that
    are ready for the next calls, until_s of the loop's clock. unsettled: requests whose settlements lie in no reply."""

    place: StepPlace
    path: int | None = None
    held: tuple[tuple[str, CallAhead], ...] = ()
    until_s: float = 0.0
    last_s: float = 0.0
    unsettled: set[str] = field(default_factory=set)

    def take_held(self) -> tuple[str, ...]:
        """All that is held, to be given back."""
        unused_ids, self.held = tuple(reservation_id for reservation_id, _ in self.held), ()
        return unused_ids


class ReservationsAhead:
    """Those of one replica."""

    def __init__(self) -> None:
        self._steps: dict[StepPlace, StepCalls] = {}
        self._next_calls = BoundedDict[int, NextCall](MAX_KEPT)

    def begin_call(self, message: ReceivedMessage, call: CallAhead) -> StepCalls:
        """Count a call that is about to be made for a request."""
        place = StepPlace.of_message(message)
        step = self._steps.get(place)
        if step is None:
            step = StepCalls(place)
            # A program outside makes calls without end, and budget holds nothing ahead for it.
            if not subjects.is_of_doors(place.task) and len(self._steps) < MAX_KEPT:
                self._steps[place] = step
                step.path = self._arrive_at(_path_after(hash(place.tenant), call))
        elif step.unsettled:
            # Of two that are under way nobody could tell which one was used, should their doer die.
            self._forget_next(step)
            step.path = None
        elif step.path is not None:
            next_call = self._next_calls.setdefault(step.path, NextCall())
            if next_call.call is None or not _is_alike(next_call.call, call):
                next_call.call, next_call.times = call, 0
            amount = _cover_both(next_call.call.worst_case, call.worst_case)
            next_call.call, next_call.times = call.model_copy(update={"worst_case": amount}), next_call.times + 1
            step.path = self._arrive_at(_path_after(step.path, call))
        step.unsettled.add(message.envelope.id)
        step.last_s = _loop_time_s()
        return step

    def _arrive_at(self, path: int) -> int:
        """Count a step that has made these calls."""
        next_call = self._next_calls[path] = self._next_calls.get(path) or NextCall()
        next_call.arrived += 1
        if next_call.arrived > MAX_COUNTED:
            next_call.arrived, next_call.times = next_call.arrived // 2, next_call.times // 2
        return path

    def draw(self, step: StepCalls, call: CallAhead) -> tuple[str, Amount] | None:
        """The reservation of the call that was begun last, if it is held: nobody else gets it again."""
        if not step.held or step.path is None or _loop_time_s() >= step.until_s:
            return None
        reservation_id, foreseen = step.held[0]
        amount = foreseen.worst_case
        fits = all(getattr(call.worst_case, unit) <= getattr(amount, unit) for unit in Amount.model_fields)
        if not fits or not _is_alike(foreseen, call):
            return None
        step.held = step.held[1:]
        return reservation_id, amount

    def foresee_calls(self, step: StepCalls) -> tuple[CallAhead, ...]:
        """The calls that came next in the last steps of this kind."""
        calls: list[CallAhead] = []
        path = step.path
        while path is not None and len(calls) < bounds.MAX_CALLS_AHEAD:
            next_call = self._next_calls.get(path, NextCall())
            # One of those that arrived is this step: where it goes is to be seen.
            if next_call.call is None or next_call.times < max(MIN_STEPS, 0.75 * (next_call.arrived - 1)):
                break
            calls.append(next_call.call)
            path = _path_after(path, next_call.call)
        return tuple(calls)

    def on_settled(self, message: ReceivedMessage) -> None:
        """The settlements of this request lie in a reply."""
        if (step := self._steps.get(StepPlace.of_message(message))) is not None:
            step.unsettled.discard(message.envelope.id)
            step.last_s = _loop_time_s()

    def close_steps(self, *, everything: bool = False) -> list[StepCalls]:
        """Forget steps that make no calls any more; those of them that hold some. everything: all."""
        now_s, closed = _loop_time_s(), list[StepCalls]()
        for place, step in list(self._steps.items()):
            is_cut_off = step.held and step.unsettled
            quiet_s = MAX_CALL_S if step.unsettled else RETURN_AFTER_S
            if everything or now_s >= (step.until_s if is_cut_off else step.last_s + quiet_s):
                del self._steps[place]
                if step.held:
                    self._forget_next(step)
                    closed.append(step)
        return closed

    def _forget_next(self, step: StepCalls) -> None:
        """Foresee no more what did not come."""
        if step.held and step.path is not None:
            self._next_calls.pop(step.path, None)


def _path_after(path: int, call: CallAhead) -> int:
    return hash((path, call.purpose, call.resource, call.price_digest, call.agent))


def _is_alike(foreseen: CallAhead, call: CallAhead) -> bool:
    """Check whether a call may use what is held for another: not where that is much more, for a call that is cut off is
    charged all of it."""
    most, amount = foreseen.worst_case, call.worst_case
    is_spare = most.tokens > MAX_SPARE * amount.tokens or most.cost_usd_micros > MAX_SPARE * amount.cost_usd_micros
    return not is_spare and foreseen.model_copy(update={"worst_case": amount}) == call


def _cover_both(earlier: Amount, amount: Amount) -> Amount:
    """The most of each unit, with some headroom where it is measured."""
    tokens = min(amount.tokens + amount.tokens // HEADROOM, bounds.MAX_TOKENS)
    cost = min(amount.cost_usd_micros + amount.cost_usd_micros // HEADROOM, bounds.MAX_COST_USD_MICROS)
    measured = amount.model_copy(update={"tokens": tokens, "cost_usd_micros": cost})
    return Amount(**{unit: max(getattr(earlier, unit), getattr(measured, unit)) for unit in Amount.model_fields})


def _loop_time_s() -> float:
    return asyncio.get_running_loop().time()
