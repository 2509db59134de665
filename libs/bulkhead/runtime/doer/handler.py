"""The doer shell: one request in, one reply out, done at most once.

verify the grant -> look up the record -> claim (writes) -> act (which reserves) -> record -> settle -> reply -> ack.
A crash anywhere is met by the record: what was recorded is answered again, what was claimed and has no record may
have happened, what was neither is done now.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any

from bulkhead.bus.port import BusError, BusUnavailable, NobodyAnswers, Stored, WrongLastSequence
from bulkhead.grants import Authority, GrantRefused
from bulkhead.runtime import crash_points
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.consume.inbound import Unreadable
from bulkhead.runtime.consume.loop import HANDLER_FAILED, Handed
from bulkhead.runtime.context import Context
from bulkhead.runtime.doer.deferred_calls import BACKSTOP_MS, SINCE_LOGIC, Call, Parked
from bulkhead.runtime.doer.idempotency import Answered, Record, parse, told_when_put_off, untold, with_spent
from bulkhead.runtime.doer.protocol import (
    CEILING,
    PAUSE_FIRST_MS,
    Deferred,
    Doer,
    Hands,
    Job,
    Keep,
    Refused,
    Reservation,
    agent_of,
)
from bulkhead.runtime.edge import side_messages
from bulkhead.runtime.halts.live import Halts, of_breaker
from bulkhead.runtime.publish.publisher import RpcRefused, persist
from bulkhead.telemetry.annotate import annotate
from bulkhead.telemetry.log import Log
from bulkhead_contracts import catalog, envelope, subjects
from bulkhead_contracts.budget import Amount, ReserveReplied, ReserveRequested, Settled
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.result import Failure, Usage
from bulkhead_contracts.subjects import Address
from bulkhead_contracts.types import Body, Contract

log = Log("doer")

EXPIRED = "expired"
"""What the verifier calls a grant whose time is over and that is good otherwise."""
REJECTED = 0
"""Number of a delivery that is not handled any more; names what is said instead of an outcome."""
OUTCOME_PATIENCE_S = 600.0
"""So long, as a reservation's lease, a doer keeps an outcome and what it used while the broker is away (ADR 0028)."""
BUDGET_PATIENCE_S = 2.0
"""So long a doer waits for an admission in place; after that it defers, and the requester asks again."""


class DoerHandler:
    """Handles a doer's inbox."""

    ordered = False

    def __init__(self, context: Context, doer: Doer[Any], halts: Halts) -> None:
        self._context = context
        self._doer = doer
        self._halts = halts
        self._records = subjects.records_stream(context.service)
        self._busy: dict[str, tuple[asyncio.Lock, int]] = {}
        self._serial = itertools.count()
        self.parked = Parked(context.publisher, halts)

    def forget(self, tenant: str, task: str) -> None:
        """Nothing is remembered between messages."""

    async def rejected(self, stored: Stored, code: str, reason: str) -> None:
        """Whoever asked is told now rather than at its deadline, and so is whoever has the request sent again.

        A write may have been done, claimed or not: who was told `refused` would do it again under another key. Of
        anything else no outcome is on record, and that is recorded: a redrive of the request must not do what its asker
        was told not to count on.
        """
        try:
            message = inbound.read(stored, self._context.service)
        except Unreadable:
            return  # Nothing in it can be relied on, not even who asked for what.
        request = message.body
        if not isinstance(request, self._doer.handles):
            return
        handed = Handed(message, stored, REJECTED, 0)
        subject = self._subject(message.address, request)
        async with self._alone(subject):
            if await self._known(handed, request, subject):
                return
            record, sequence = parse(await self._context.bus.last(self._records, subject))
            failure = Failure(
                code=code[:64],
                message=f"{self._context.service} cannot handle this request and has given up; no outcome is on record",
                hint="see `bulkhead dead-letters` for the reason; repair it, then ask anew",
            )
            # What was given up before it was handled (unreadable, not of the catalog) has certainly done nothing.
            begun = code == HANDLER_FAILED and getattr(self._doer, "changes", _nothing)(request)
            reply = self._doer.uncertain(request) if begun else self._doer.refuse(request, failure)
            await self._finish(handed, subject, (record, sequence), reply, ())

    async def handle(self, handed: Handed) -> None:
        """See the module's docstring for the order."""
        request = handed.message.body
        if not isinstance(request, self._doer.handles):
            await side_messages.take(getattr(self._doer, "asides", {}), handed)
            return
        address = handed.message.address
        subject = self._subject(address, request)
        try:
            authority = self._authority(handed, self._context.clock())
        except GrantRefused as refusal:
            await self._refuse(handed, request, refusal, subject)
            return
        crash_points.passes("after_verify")
        job = Job(
            request,
            handed.message.envelope,
            address.tenant,
            address.task,
            address.sender,
            authority,
            handed.attempts,
            self._context.clock(),
        )
        try:
            async with self._alone(subject):
                await self._once(handed, job, subject)
        except Deferred as wait:
            await self._put_off(handed, request, wait)

    async def _put_off(self, handed: Handed, request: Any, wait: Deferred) -> None:
        """Ask again later; or when woken, where a halt holds it and the asker knows of waking."""
        head = handed.message.envelope
        body = CallDeferred(
            call_id=self._doer.key(request),
            step_id=getattr(request, "step_id", ""),
            after_ms=wait.after_ms,
            reason=wait.reason,
            paused=wait.paused,
            code=wait.code,
            usage=wait.usage,
        )
        halt = wait.halt if head.logic >= SINCE_LOGIC else None
        if halt is not None and not of_breaker(halt[0]):
            # A breaker's time is told: when it is over, trials are wanted.
            body = body.model_copy(update={"after_ms": max(wait.after_ms, BACKSTOP_MS)})
        await self._reply(handed, body, ())
        if halt is not None:
            # Once it is said: nobody is woken before he sleeps.
            self.parked.put_off(*halt, Call(handed.message.address, head, body.call_id, body.step_id))

    def _subject(self, address: Address, request: Any) -> str:
        """Where the record of a request stands."""
        # By sender: nobody can write down an answer for somebody else's call by choosing its id.
        key = envelope.derive_id(address.sender, self._doer.key(request), "record")
        return subjects.record(self._context.service, address.tenant, address.task, key)

    @asynccontextmanager
    async def _alone(self, subject: str) -> AsyncIterator[None]:
        """One at a time under one key in this process; the record keeps other processes apart."""
        lock, holders = self._busy.get(subject, (asyncio.Lock(), 0))
        self._busy[subject] = (lock, holders + 1)
        try:
            async with lock:
                yield
        finally:
            _, holders = self._busy[subject]
            if holders == 1:
                del self._busy[subject]
            else:
                self._busy[subject] = (lock, holders - 1)

    async def _refuse(self, handed: Handed, request: Any, refusal: GrantRefused, subject: str) -> None:
        """No: unless it was done while the grant still held, for what was done is no longer to be refused."""
        failure = Failure(code=refusal.code, message=str(refusal), hint="submit the task again")
        if refusal.code == EXPIRED:
            with suppress(GrantRefused):
                self._authority(handed, 0)
                async with self._alone(subject):
                    if not await self._known(handed, request, subject):
                        # On record, too: a replica whose clock is behind would do what its asker was told was not done.
                        stands = parse(await self._context.bus.last(self._records, subject))
                        await self._finish(handed, subject, stands, self._doer.refuse(request, failure), ())
                    return
        await self._reply(handed, self._doer.refuse(request, failure), ())

    async def _known(self, handed: Handed, request: Any, subject: str) -> bool:
        """Answer from the record, if there is one; a claim without an outcome may have been done."""
        record, sequence = parse(await self._context.bus.last(self._records, subject))
        if record is None:
            return False
        if (told := record.answer_to(handed.message.envelope.id)) is not None:
            await self._answer(handed, told)
        elif record.claimed:
            await self._finish(handed, subject, (record, sequence), self._doer.uncertain(request), ())
        return told is not None or record.claimed

    def _authority(self, handed: Handed, now_unix_ms: int) -> Authority:
        address = handed.message.address
        return self._context.verifier.authority(
            handed.message.envelope.grant, tenant=address.tenant, task=address.task, now_unix_ms=now_unix_ms
        )

    async def _once(self, handed: Handed, job: Job[Any], subject: str) -> None:
        found = await self._context.bus.last(self._records, subject)
        record, sequence = parse(found)
        if record is not None and (known := record.answer_to(job.envelope.id)) is not None:
            await self._answer(handed, known)
            return
        if record is not None and record.put_off(job.envelope.id):
            # Its asker was told, or is now, and asks again: what was done under this one nobody would hear of, and what
            # it had spent would be told twice.
            wait = Deferred(PAUSE_FIRST_MS, "the call was put off")
            wait.usage = told_when_put_off(record.settled, job.envelope)
            raise wait
        hands = self._hands()
        try:
            # Before the claim: who dies while it waits has done nothing.
            async with getattr(self._doer, "turn", lambda *_: nullcontext())(job, hands):
                await self._do(handed, job, subject, (record, sequence), hands)
        except Refused as refusal:
            reply = with_spent(self._doer.refuse(job.request, refusal.failure), untold(record, job.envelope))
            await self._finish(handed, subject, (record, sequence), reply, ())

    async def _do(
        self, handed: Handed, job: Job[Any], subject: str, stands: tuple[Record | None, int], hands: Hands
    ) -> None:
        """Claim it, do it, record it, answer. stands: what is under the key, and where."""
        record, sequence = stands
        earlier = record.answered() if record is not None else ()
        before = untold(record, job.envelope)
        claims = self._doer.writes(job)
        if claims:
            if record is not None and record.claimed:
                await self._finish(handed, subject, (record, sequence), self._doer.uncertain(job.request), ())
                return
            claim = Record(request=job.envelope.id, claimed=True, earlier=earlier)
            sequence = await self._put(subject, claim, sequence)
            crash_points.passes("after_claim")
        try:
            reply = await self._doer.act(job, hands)
        except Refused as refusal:
            reply = self._doer.refuse(job.request, refusal.failure)
        except Deferred as wait:
            settled = _settlements(hands)
            wait.usage = told_when_put_off((*before, *settled), job.envelope)
            await asyncio.shield(self._settle(job, settled))
            if claims or settled:
                # Nothing was done: whoever asks again must not meet this claim, but is told what was spent until now.
                released = Record(request=job.envelope.id, undone=True, settled=(*before, *settled), earlier=earlier)
                await self._put(subject, released, sequence)
            raise
        except BaseException:
            # What was reserved and not settled is charged in full, also when the handler dies.
            await asyncio.shield(self._settle(job, _settlements(hands)))
            raise
        crash_points.passes("after_act")
        anew = Record(earlier=earlier), sequence
        await self._finish(handed, subject, anew, with_spent(reply, before), _settlements(hands))

    async def _finish(
        self, handed: Handed, subject: str, stands: tuple[Record | None, int], reply: Body, settled: tuple[Settled, ...]
    ) -> None:
        """stands: what is under the key, and where."""
        try:
            told = await self._recorded(handed, subject, stands, reply, settled)
        except BusError:
            # It is done anew, under another reservation: nobody else knows what this one used.
            address = handed.message.address
            await self._settle_for(address.tenant, address.task, handed.message.envelope, settled)
            raise
        crash_points.passes("after_record")
        await self._answer(handed, told)

    async def _recorded(
        self, handed: Handed, subject: str, stands: tuple[Record | None, int], reply: Body, settled: tuple[Settled, ...]
    ) -> Answered:
        """What the request is answered from now on: this, or what another replica recorded first. Raises BusError."""
        head, (before, expect) = handed.message.envelope, stands
        record = Record(
            request=head.id,
            undone=getattr(reply, "outcome", "") in ("refused", "failed"),
            reply_type=reply.ce_type(),
            reply=reply.encode().decode(),
            settled=settled,
            earlier=before.answered() if before is not None else (),
        )
        try:
            await self._put(subject, record, expect)
            return record
        except WrongLastSequence:
            other, sequence = parse(await self._context.bus.last(self._records, subject))
            first = other.answer_to(head.id) if other is not None else None
            if first is not None:
                # The other's outcome is the outcome, and what this one spent is settled too.
                return first.model_copy(update={"settled": first.settled + settled})
            if other is None or other.claimed or sequence <= expect:
                raise
        # For another request nothing was done, which says nothing of this one; or the call had been put off, and who
        # looked it up read a follower that did not know yet.
        reply = with_spent(reply, untold(other, head))
        return await self._recorded(handed, subject, (other, sequence), reply, settled)

    async def _put(self, subject: str, record: Record, expect: int) -> int:
        # Of this handling alone, which a delivery's number does not tell: two must not take one claim for their own.
        handling = f"{self._context.instance}/{self._context.clock()}/{next(self._serial)}"
        message_id = envelope.message_id(self._context.message_key, f"{subject}/{record.request}/{handling}")
        headers = {"content-type": envelope.CONTENT_TYPE}
        body = record.model_dump_json().encode()
        try:
            ack = await persist(
                lambda: self._context.bus.publish(subject, body, headers, message_id, expect_last_on_subject=expect),
                patience_s=0.0 if record.claimed else OUTCOME_PATIENCE_S,
            )
        except WrongLastSequence:
            found = await self._context.bus.last(self._records, subject)
            # A retry after a lost ack meets its own message.
            if found is not None and found.body == body and found.sequence > expect and not record.claimed:
                return found.sequence
            raise
        return ack.sequence

    async def _answer(self, handed: Handed, record: Answered) -> None:
        reply = catalog.decode(record.reply_type, record.reply.encode())
        await self._reply(handed, reply, record.settled)

    async def _reply(self, handed: Handed, reply: Body, settled: tuple[Settled, ...]) -> None:
        message = handed.message
        annotate(reply, message.body)
        head = message.envelope
        publisher = self._context.publisher

        # No answer is from before its request: whoever is put off would ask again at once, for ever.
        now = max(self._context.clock(), message.time_unix_ms)

        async def tell() -> None:
            await publisher.send(
                message.address.sender,
                reply,
                tenant=message.address.tenant,
                task=message.address.task,
                cause=head.id,
                index=0,
                actor=head.actor,
                grant_digest=head.grant_digest,
                approval=head.approval,
                logic=head.logic,
                time_unix_ms=now,
            )
            crash_points.passes("after_reply")

        await asyncio.gather(tell(), self._settle_for(message.address.tenant, message.address.task, head, settled))

    async def _settle(self, job: Job[Any], settled: tuple[Settled, ...]) -> None:
        await self._settle_for(job.tenant, job.task, job.envelope, settled)

    async def _settle_for(self, tenant: str, task: str, head: Envelope, settled: tuple[Settled, ...]) -> None:
        await asyncio.gather(
            *(
                self._context.publisher.send(
                    "budget",
                    one,
                    tenant=tenant,
                    task=task,
                    cause=one.reservation_id,
                    index="settled",
                    actor=head.actor,
                    logic=head.logic,
                    patience_s=OUTCOME_PATIENCE_S,
                )
                for one in settled
            )
        )
        if settled:
            crash_points.passes("after_settle")

    def _hands(self) -> Hands:
        async def live(tenant: str, task: str, body: Contract) -> None:
            subject = subjects.live(self._context.service, tenant, task)
            await self._context.bus.publish_live(subject, body.model_dump_json().encode())

        return Hands(
            blobs=self._context.blobs,
            signer=self._context.signer,
            now_unix_ms=self._context.clock,
            _reserve=self._reserve,
            _halt_of=self._halts.find,
            _halt_event=self._halts.event,
            _live=live,
            _held=self._halts.held,
        )

    async def _reserve(
        self,
        job: Job[Any],
        call_id: str,
        attempt: int,
        purpose: str,
        resource: str,
        worst_case: Amount,
        price_digest: str,
        keep: Keep,
    ) -> Reservation:
        """See Hands.reserve. keep: called with what is to be settled: the reservation; or, where it is given up and may
        be held all the same, one that is settled with nothing."""
        # Of this handling alone: a call that is asked again after a deferral, or done again after a crash, is a new
        # reservation; one that was settled must not carry a second spending. A delivery's number does not tell them
        # apart: a broker that has lost what it handed out begins again.
        handling = f"{self._context.instance}/{job.now_unix_ms}/{job.deliveries}"
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
        )  # type: ignore[arg-type]
        doubtful, waited = False, 0.0
        try:
            while True:
                before, doubtful = doubtful, True  # Until it is answered, it may be held.
                answer = await self._ask(job, body)
                doubtful = before or answer.doubtful
                if answer.decision != "wait":
                    break
                pause = max(0.02, answer.retry_after_ms / 1000)
                if waited + pause > BUDGET_PATIENCE_S:
                    raise Deferred(max(500, answer.retry_after_ms), answer.reason or "budget asks to wait")
                waited += pause
                await asyncio.sleep(pause)
            if answer.decision == "refused":
                raise _refusal(job, answer)
        except BaseException:
            if doubtful:
                # Nobody else asks under this id, and what is asked late is answered to nobody.
                given_up = Reservation(reservation_id, call_id, worst_case, clock=self._context.clock)
                given_up.settle(Usage())
                keep(given_up)
            raise
        crash_points.passes("after_reserve")
        held = Reservation(reservation_id, call_id, worst_case, clock=self._context.clock)
        keep(held)
        return held

    async def _ask(self, job: Job[Any], body: ReserveRequested) -> ReserveReplied:
        try:
            answer = await self._context.publisher.request(
                "budget",
                body,
                tenant=job.tenant,
                task=job.task,
                grant=job.authority.token,
                actor=job.envelope.actor,
                cause=job.envelope.id,
                index=body.reservation_id,
                logic=job.envelope.logic,
            )
        except (BusUnavailable, RpcRefused) as error:
            # No reservation, no call: budget down means wait, not spend.
            return _unheard(body, f"budget does not answer: {error}", doubtful=not isinstance(error, NobodyAnswers))
        if not isinstance(answer, ReserveReplied) or answer.reservation_id != body.reservation_id:
            return _unheard(body, "budget answered something else", doubtful=True)
        return answer


def _unheard(body: ReserveRequested, reason: str, *, doubtful: bool) -> ReserveReplied:
    """Stands for an answer that did not come."""
    return ReserveReplied(
        reservation_id=body.reservation_id, decision="wait", retry_after_ms=500, reason=reason, doubtful=doubtful
    )


def _refusal(job: Job[Any], answer: ReserveReplied) -> Deferred | Refused:
    """What follows from a refusal: it is final, or holds until somebody raises the ceiling."""
    if answer.pauses:
        halt = (("task", job.tenant, job.task), answer.halted_unix_ms)
        return Deferred(PAUSE_FIRST_MS, answer.reason, paused=True, code=CEILING, halt=halt)
    hint = "raise the task's or the tenant's limit and submit again"
    return Refused(Failure(code="refused_by_budget", message=answer.reason, hint=hint))


def _nothing(request: Body) -> bool:
    return False


def _settlements(hands: Hands) -> tuple[Settled, ...]:
    """What each reservation used; one that nobody settled is charged in full."""
    found = []
    for held in hands.reservations:
        if held.settled is None:
            worst = held.worst_case
            held.settle(
                Usage(
                    model_calls=worst.model_calls,
                    tool_calls=worst.tool_calls,
                    input_tokens=worst.tokens,
                    cost_usd_micros=worst.cost_usd_micros,
                ),
                estimated=True,
            )
        assert held.settled is not None
        found.append(held.settled)
    return tuple(found)
