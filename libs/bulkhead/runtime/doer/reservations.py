"""Reservations of a doer: asked of budget before an outward attempt, settled with zero when given up.

In: a job, and the most that its next attempt may use. Out: a Reservation, or JobRefused, or Deferred; and
the real usage of each reservation of a job.
"""

import asyncio
from typing import Any

from bulkhead.bus.port import BusUnavailable, NoResponders
from bulkhead.runtime import crash_points
from bulkhead.runtime.context import Context
from bulkhead.runtime.doer.protocol import FIRST_PAUSE_MS, Job, JobContext, Keep, Purpose, Reservation, agent_of
from bulkhead.runtime.errors import Deferred, JobRefused, RpcRefused
from bulkhead.runtime.halts.live import CEILING_CODE
from bulkhead_contracts import envelope
from bulkhead_contracts.budget import Amount, ReserveReplied, ReserveRequested, Settled
from bulkhead_contracts.result import Failure, Usage

BUDGET_PATIENCE_S = 2.0
"""So long a doer waits for an admission in place; after that it defers, and the requester asks again."""


class Reserver:
    """Asks budget for the reservations of one service."""

    def __init__(self, context: Context) -> None:
        self._context = context

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
        )
        doubtful, waited = False, 0.0
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
                # No other job uses this id, and a late request has no reader for its reply.
                given_up = Reservation(reservation_id, call_id, worst_case, clock=self._context.clock)
                given_up.settle(Usage())
                keep(given_up)
            raise
        crash_points.pass_point("after_reserve")
        reservation = Reservation(reservation_id, call_id, worst_case, clock=self._context.clock)
        if answer.wall_ms:
            reservation.wall_until_unix_ms = reservation.since_unix_ms + answer.wall_ms
        keep(reservation)
        return reservation

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
