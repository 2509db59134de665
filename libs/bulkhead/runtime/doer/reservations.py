"""Reservations of a doer: asked of budget before an outward attempt, or held ahead; settled with zero when given up.

In: a job, and the most that its next attempt may use. Out: a Reservation, or JobRefused, or Deferred.
"""

import asyncio
from typing import Any

from bulkhead.bus.port import BusError, BusUnavailable, NoResponders
from bulkhead.runtime import crash_points
from bulkhead.runtime.context import Context
from bulkhead.runtime.doer.protocol import FIRST_PAUSE_MS, Job, Keep, Reservation
from bulkhead.runtime.doer.reservations_ahead import LOOK_EVERY_S, ReservationsAhead, StepCalls, StepPlace
from bulkhead.runtime.errors import Deferred, JobRefused, RpcRefused
from bulkhead.runtime.halts.live import CEILING_CODE
from bulkhead.telemetry.log import Log
from bulkhead_contracts import envelope
from bulkhead_contracts.budget import Amount, CallAhead, ReserveReplied, ReserveRequested, Settled, id_ahead
from bulkhead_contracts.result import Failure
from bulkhead_contracts.settlement import SETTLED

log = Log("reservations")

OUTCOME_PATIENCE_S = 600.0
"""So long, as a reservation's lease, a doer keeps an outcome and what it used while the broker is away (ADR 0045)."""
BUDGET_PATIENCE_S = 2.0
"""So long a doer waits for an admission in place; after that it defers, and the requester asks again."""


class Reserver:
    """Asks budget for the reservations of one service."""

    def __init__(self, context: Context) -> None:
        self._context, self.ahead = context, ReservationsAhead()
        self._closed_steps: list[StepCalls] = []

    async def reserve(self, job: Job[Any], call_id: str, attempt: int, call: CallAhead, keep: Keep) -> Reservation:
        """See JobContext.reserve_attempt. keep: called with what is to be settled: the reservation; or, where some are
        given up that may be held all the same, one that is settled with nothing.
        """

        def keep_reservation(reservation_id: str, amount: Amount) -> Reservation:
            reservation = Reservation(reservation_id, call_id, amount, clock=self._context.clock)
            keep(reservation)
            return reservation

        def keep_unused(ids: tuple[str, ...]) -> None:
            if ids:
                keep(Reservation(ids[0], ids[0], Amount(), Settled.with_nothing(*ids)))

        step = self.ahead.begin_call(job, call)
        if (drawn := self.ahead.draw(step, call)) is not None:
            crash_points.pass_point("after_reserve")
            return keep_reservation(*drawn)
        keep_unused(step.take_held())
        # Of this handling alone: a call that is asked again after a deferral, or done again after a crash, is a new
        # reservation; one that was settled must not carry a second spending. A delivery's number does not tell them
        # apart: a broker that has lost what it handed out begins again.
        handling = f"{self._context.instance}/{job.now_unix_ms}/{job.attempts}"
        reservation_id = envelope.derive_id(
            self._context.service, f"{job.tenant}/{job.task}/{call_id}/{job.envelope.id}", f"{handling}/{attempt}"
        )
        body = ReserveRequested(
            reservation_id=reservation_id,
            call_id=call_id,
            step_id=step.place.step_id,
            ahead=self.ahead.foresee_calls(step),
            **dict(call),
        )
        ids = (reservation_id, *(id_ahead(reservation_id, number + 1) for number in range(len(body.ahead))))
        doubtful, waited, began_s = False, 0.0, asyncio.get_running_loop().time()
        try:
            while True:
                before, doubtful = doubtful, True  # Until it is answered, it may be held.
                answer = await self._ask_budget(job, body)
                doubtful = before or answer.doubtful
                if answer.decision != "wait":
                    break
                pause = max(0.02, answer.retry_after_ms / 1000)
                if waited + pause > BUDGET_PATIENCE_S:
                    raise Deferred(max(500, answer.retry_after_ms), answer.reason or "budget asks to wait")
                waited += pause
                await asyncio.sleep(pause)
            if answer.decision == "refused":
                raise _refusal_of(job, answer)
        except BaseException:
            if doubtful:
                # No other job uses these ids, and a late request has no reader for its reply.
                keep_unused(ids)
            raise
        crash_points.pass_point("after_reserve")
        reservation = keep_reservation(reservation_id, call.worst_case)
        if answer.wall_ms:
            reservation.wall_until_unix_ms = reservation.since_unix_ms + answer.wall_ms
        if answer.ahead:
            step.held = tuple(zip(ids[1 : answer.ahead + 1], body.ahead, strict=False))
            step.until_s = began_s + answer.ahead_ms / 1000
        if doubtful:
            keep_unused(ids[answer.ahead + 1 :])
        return reservation

    async def give_back_periodically(self) -> None:
        """Give back what steps have not used, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.give_back_unused()

    async def give_back_unused(self, *, everything: bool = False) -> None:
        """Settle with nothing what is held ahead for steps that make no calls any more; everything: for all, at the
        end, when nobody waits for a broker."""
        self._closed_steps += self.ahead.close_steps(everything=everything)
        while self._closed_steps:
            # It stays here until it is given back: who is cancelled in between begins there again.
            step = self._closed_steps[0]
            body = Settled.with_nothing(*(unused_id for unused_id, _ in step.held))
            try:
                await self.publish_settlement(step.place, body, 0.0 if everything else OUTCOME_PATIENCE_S)
            except BusError as error:
                log.warning("not_given_back", reservation=body.reservation_id, reason=str(error))
                if everything:
                    return  # Its lease ends.
            del self._closed_steps[0]

    async def publish_settlement(self, place: StepPlace, body: Settled, patience_s: float = OUTCOME_PATIENCE_S) -> None:
        """Settle by a message of its own. Raises BusError."""
        cause = body.reservation_id
        await self._context.publisher.send(
            "budget",
            body,
            tenant=place.tenant,
            task=place.task,
            cause=cause,
            index=SETTLED,
            actor=place.actor,
            logic=place.logic,
            patience_s=patience_s,
        )

    async def _ask_budget(self, job: Job[Any], body: ReserveRequested) -> ReserveReplied:
        doubtful = True
        try:
            grant, actor, index = job.authority.token, job.envelope.actor, body.reservation_id
            answer = await self._context.publisher.request(
                "budget", body, **job.cause_fields, grant=grant, actor=actor, index=index, logic=job.envelope.logic
            )
            if isinstance(answer, ReserveReplied) and answer.reservation_id == body.reservation_id:
                return answer
            reason = "budget answered something else"
        except (BusUnavailable, RpcRefused) as error:
            # No reservation, no call: budget down means wait, not spend.
            reason, doubtful = f"budget does not answer: {error}", not isinstance(error, NoResponders)
        return ReserveReplied(
            reservation_id=body.reservation_id, decision="wait", retry_after_ms=500, reason=reason, doubtful=doubtful
        )


def _refusal_of(job: Job[Any], answer: ReserveReplied) -> Deferred | JobRefused:
    """The consequence of a refusal: it is final, or lasts until an operator raises the ceiling."""
    if answer.pauses:
        halt = (("task", job.tenant, job.task), answer.halted_unix_ms)
        return Deferred(FIRST_PAUSE_MS, answer.reason, paused=True, code=CEILING_CODE, halt=halt)
    if answer.ended:
        return JobRefused(Failure.from_text("task_ended", answer.reason, "ask in another task"))
    hint = "raise the task's or the tenant's limit and submit again"
    return JobRefused(Failure.from_text("refused_by_budget", answer.reason, hint))
