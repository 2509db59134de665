"""Reservations of a doer: asked of budget before an outward attempt, or held ahead; settled with zero when given up.

In: a job, and the most that its next attempt may use. Out: a Reservation, or JobRefused, or Deferred; and
the real usage of each reservation of a job.
"""

import asyncio
from typing import Any

from bulkhead.bus.port import BusError, BusUnavailable, NoResponders
from bulkhead.runtime import crash_points
from bulkhead.runtime.context import Context
from bulkhead.runtime.doer.protocol import FIRST_PAUSE_MS, Job, JobContext, Keep, Purpose, Reservation, agent_of
from bulkhead.runtime.doer.reservations_ahead import CLOSED, LOOK_EVERY_S, ReservationsAhead, StepPlace
from bulkhead.runtime.errors import Deferred, JobRefused, RpcRefused
from bulkhead.runtime.halts.live import CEILING_CODE
from bulkhead.telemetry.log import Log
from bulkhead_contracts import envelope
from bulkhead_contracts.budget import Amount, ReserveReplied, ReserveRequested, Settled, id_ahead
from bulkhead_contracts.result import Failure, Usage
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

    async def reserve(
        self,
        job: Job[Any],
        call_id: str,
        attempt: int,
        purpose: Purpose,
        resource: str,
        worst_case: Amount,
        price_digest: str,
        keep: Keep,
    ) -> Reservation:
        """See JobContext.reserve_attempt. keep: called with what is to be settled: the reservation; or, where it is
        given up and may be held all the same, one that is settled with nothing.
        """

        def keep_unused(reservation_id: str) -> None:
            given_up = Reservation(reservation_id, reservation_id, worst_case, clock=self._context.clock)
            given_up.settle(Usage())
            keep(given_up)

        step = self.ahead.begin_call(job, purpose, resource, price_digest, worst_case)
        if (drawn := self.ahead.draw(step)) is not None:
            crash_points.pass_point("after_reserve")
            reservation = Reservation(drawn.reservation_id, call_id, drawn.amount, clock=self._context.clock)
            keep(reservation)
            return reservation
        for reservation_id in self.ahead.give_back(step):
            keep_unused(reservation_id)
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
            step_id=getattr(job.request, "step_id", ""),
            purpose=purpose,
            resource=resource,
            worst_case=worst_case,
            price_digest=price_digest,
            agent=agent_of(job),
            ahead=self.ahead.foresee_calls(step),
        )
        ids_ahead = [id_ahead(reservation_id, number) for number in range(1, len(body.ahead) + 1)]
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
                for unused_id in (*reversed(ids_ahead), reservation_id):
                    keep_unused(unused_id)
            raise
        crash_points.pass_point("after_reserve")
        reservation = Reservation(reservation_id, call_id, worst_case, clock=self._context.clock)
        if answer.wall_ms:
            reservation.wall_until_unix_ms = reservation.since_unix_ms + answer.wall_ms
        keep(reservation)
        self.ahead.watch_settlement(step, reservation_id)
        self.ahead.hold(step, ids_ahead[: answer.ahead], body.ahead, began_s + answer.ahead_ms / 1000)
        if doubtful:
            for unused_id in reversed(ids_ahead[answer.ahead :]):
                keep_unused(unused_id)
        return reservation

    async def give_back_periodically(self) -> None:
        """Give back what steps have not used, until cancelled."""
        while True:
            await self.ahead.has_some.wait()
            await asyncio.sleep(LOOK_EVERY_S)
            await self.give_back_unused()

    async def give_back_unused(self, *, everything: bool = False) -> None:
        """Settle with nothing what is held ahead for steps that make no calls any more; everything: for all, at the
        end, when nobody waits for a broker."""
        for step in self.ahead.close_due(everything=everything):
            # Last first. Each stays held until it is given back: who is cancelled in between begins there again.
            while step.held and step.until_s == CLOSED:
                last = step.held[-1]
                body = Settled(reservation_id=last.reservation_id, call_id=last.reservation_id, usage=Usage())
                try:
                    await self.publish_settlement(step.place, body, 0.0 if everything else OUTCOME_PATIENCE_S)
                except BusError as error:
                    log.warning("not_given_back", reservation=last.reservation_id, reason=str(error))
                    if everything:
                        return  # Its lease ends.
                if step.held and step.held[-1] is last:
                    step.held.pop()

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
        try:
            grant, actor, index = job.authority.token, job.envelope.actor, body.reservation_id
            answer = await self._context.publisher.request(
                "budget", body, **job.cause_fields, grant=grant, actor=actor, index=index, logic=job.envelope.logic
            )
        except (BusUnavailable, RpcRefused) as error:
            # No reservation, no call: budget down means wait, not spend.
            return _missing_answer(
                body, f"budget does not answer: {error}", doubtful=not isinstance(error, NoResponders)
            )
        if not isinstance(answer, ReserveReplied) or answer.reservation_id != body.reservation_id:
            return _missing_answer(body, "budget answered something else", doubtful=True)
        return answer


def _missing_answer(body: ReserveRequested, reason: str, *, doubtful: bool) -> ReserveReplied:
    """Stands for an answer that did not come."""
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


def collect_settlements(hands: JobContext) -> tuple[Settled, ...]:
    """The usage of each reservation; an unsettled one is charged in full."""
    facts = []
    for reservation in hands.reservations:
        if reservation.settled is None:
            same = reservation.worst_case.model_dump(include={"model_calls", "tool_calls", "cost_usd_micros"})
            full_usage = Usage(input_tokens=reservation.worst_case.tokens, **same)
            reservation.settle(full_usage.as_estimate(), estimated=True)
        assert reservation.settled is not None
        facts.append(reservation.settled)
    return tuple(facts)
