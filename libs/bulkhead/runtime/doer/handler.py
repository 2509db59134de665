"""The doer shell: one request in, one reply out, done at most once.

verify the grant -> look up the record -> claim (writes) -> act (which reserves) -> record -> reply (settles) -> ack.
A crash anywhere is met by the record: what was recorded is answered again, what was claimed and has no record may
have happened, what was neither is done now.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from bulkhead.bus.port import BusError, StoredMessage, WrongLastSequence
from bulkhead.grants import Authority, GrantRefused
from bulkhead.runtime import crash_points
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.consume.loop import HANDLER_FAILED
from bulkhead.runtime.context import Context
from bulkhead.runtime.doer.deferred_calls import BACKSTOP_MS, DeferredCall, DeferredCalls
from bulkhead.runtime.doer.idempotency import (
    IdempotencyRecord,
    RequestAnswer,
    parse_record,
    total_usage,
    with_lost_usage,
)
from bulkhead.runtime.doer.protocol import FIRST_PAUSE_MS, Doer, Job, JobContext
from bulkhead.runtime.doer.reservations import Reserver, collect_settlements
from bulkhead.runtime.errors import Deferred, JobRefused, Unreadable
from bulkhead.runtime.halts.live import Halts, is_breaker_key
from bulkhead.runtime.publish.publisher import publish_persistently
from bulkhead.telemetry.annotate import annotate_span
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds, catalog, envelope, subjects
from bulkhead_contracts.budget import Settled
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.result import Failure
from bulkhead_contracts.settlement import SETTLED, DoerReply
from bulkhead_contracts.types import Body, Contract

log = Log("doer")

EXPIRED = "expired"
"""What the verifier calls a grant whose time is over and that is good otherwise."""
StoredRecord = tuple[IdempotencyRecord | None, int]
"""The record under a key, and its sequence."""
OUTCOME_PATIENCE_S = 600.0
"""So long, as a reservation's lease, a doer keeps an outcome and what it used while the broker is away (ADR 0028)."""


class DoerHandler:
    """Handles a doer's inbox."""

    ordered = False

    def __init__(self, context: Context, doer: Doer[Any], halts: Halts) -> None:
        self._context, self._doer, self._halts = context, doer, halts
        self._records = subjects.records_stream(context.service)
        self._busy: dict[str, tuple[asyncio.Lock, int]] = {}
        self._serial = itertools.count()
        self._reserver = Reserver(context)
        self.deferred_calls = DeferredCalls(context.publisher, halts)

    def forget_task(self, tenant: str, task: str) -> None:
        """Forget nothing: no state is kept between messages."""

    async def on_rejected(self, stored: StoredMessage, code: str, reason: str) -> None:
        """Tell whoever asked now rather than at its deadline, and whoever has the request sent again.

        A write may have been done, claimed or not: who was told `refused` would do it again under another key. Of
        anything else no outcome is on record, and that is recorded: a redrive of the request must not do what its
        asker was told not to count on.
        """
        try:
            message = inbound.read_message(stored, self._context.service)
        except Unreadable:
            return  # Nothing in it can be relied on, not even who asked for what.
        request = message.body
        if not isinstance(request, self._doer.handles):
            return
        subject = self._record_subject(message, request)
        async with self._hold_key(subject):
            if await self._answer_from_record(message, request, subject):
                return
            record, sequence = parse_record(await self._context.bus.last(self._records, subject))
            description = (
                f"{self._context.service} cannot handle this request and has given up; no outcome is on record"
            )
            hint = "see `bulkhead dead-letters` for the reason; repair it, then ask anew"
            failure = Failure.from_text(code[:64], description, hint)
            # What was given up before it was handled (unreadable, not of the catalog) has certainly done nothing.
            begun = code == HANDLER_FAILED and self._doer.may_change_world(request)
            reply = self._doer.uncertain_reply(request) if begun else self._doer.refusal_reply(request, failure)
            await self._record_and_answer(message, subject, (record, sequence), reply, ())

    async def handle_message(self, message: ReceivedMessage) -> None:
        """See the module's docstring for the order."""
        request = message.body
        if not isinstance(request, self._doer.handles):
            # It asks for no reply, and needs neither a record nor a grant: the broker vouches for its sender.
            if (side_handler := self._doer.side_handlers.get(type(message.body))) is not None:
                await side_handler(message)
            return
        subject = self._record_subject(message, request)
        try:
            authority = self._authority_of(message, self._context.clock())
        except GrantRefused as refusal:
            await self._refuse_request(message, request, refusal, subject)
            return
        crash_points.pass_point("after_verify")
        job = Job.from_message(message, request, authority, self._context.clock())
        try:
            async with self._hold_key(subject):
                await self._do_once(job, subject)
        except Deferred as wait:
            await self._defer_request(message, request, wait)

    async def _defer_request(self, message: ReceivedMessage, request: Any, wait: Deferred) -> None:
        """Ask again later; or when woken, where a halt holds it."""
        call_id, step_id = self._doer.idempotency_key(request), getattr(request, "step_id", "")
        deferral = {
            name: getattr(wait, name) for name in ("after_ms", "reason", "paused", "code", "usage", "until_unix_ms")
        }
        body, halt = CallDeferred(call_id=call_id, step_id=step_id, **deferral), wait.halt
        if halt is not None and not is_breaker_key(halt[0]):
            # A breaker's time is told: when it is over, trials are wanted.
            body = body.model_copy(update={"after_ms": max(wait.after_ms, BACKSTOP_MS)})
        await self._send_reply(message, body, wait.settled)
        if wait.then is not None:
            await wait.then()
        if halt is not None:
            # Register after the deferral is published, so that a wake-up cannot precede it.
            self.deferred_calls.defer_call(*halt, DeferredCall.from_message(message, body.call_id, body.step_id))

    def _record_subject(self, message: ReceivedMessage, request: Any) -> str:
        """Subject of the record of a request."""
        # By sender: nobody can write down an answer for somebody else's call by choosing its id.
        key = envelope.derive_id(message.sender, self._doer.idempotency_key(request), "record")
        return subjects.record_subject(self._context.service, message.tenant, message.task, key)

    @asynccontextmanager
    async def _hold_key(self, subject: str) -> AsyncIterator[None]:
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

    async def _refuse_request(
        self, message: ReceivedMessage, request: Any, refusal: GrantRefused, subject: str
    ) -> None:
        """Refuse it, unless it was done while the grant still held: what was done is no longer to be refused."""
        failure = Failure.from_text(refusal.code, str(refusal), "submit the task again")
        if refusal.code == EXPIRED:
            with suppress(GrantRefused):
                job = Job.from_message(message, request, self._authority_of(message, 0), self._context.clock())
                async with self._hold_key(subject):
                    if not await self._answer_from_record(message, request, subject):
                        # On record, too: a replica whose clock is behind would do what its asker was told was not done.
                        present = parse_record(await self._context.bus.last(self._records, subject))
                        await self._record_and_answer(
                            message, subject, present, await self._doer.refusal_after_start(job, failure), ()
                        )
                    return
        await self._send_reply(message, self._doer.refusal_reply(request, failure), ())

    async def _answer_from_record(self, message: ReceivedMessage, request: Any, subject: str) -> bool:
        """Answer from the record, if there is one; a claim without an outcome may have been done."""
        record, sequence = parse_record(await self._context.bus.last(self._records, subject))
        if record is None:
            return False
        if (answer := record.answer_to(message.envelope.id)) is not None:
            await self._send_answer(message, answer)
        elif record.claimed:
            await self._record_and_answer(message, subject, (record, sequence), self._doer.uncertain_reply(request), ())
        return answer is not None or record.claimed

    def _authority_of(self, message: ReceivedMessage, now_unix_ms: int) -> Authority:
        return self._context.verifier.verify_authority(
            message.envelope.grant, tenant=message.tenant, task=message.task, now_unix_ms=now_unix_ms
        )

    async def _do_once(self, job: Job[Any], subject: str) -> None:
        stored = await self._context.bus.last(self._records, subject)
        record, sequence = parse_record(stored)
        if record is not None and (answer := record.answer_to(job.envelope.id)) is not None:
            await self._send_answer(job, answer)
            return
        if record is not None and record.was_put_off(job.envelope.id):
            # Its asker was told, or is now, and asks again: what was done under this one nobody would hear of, and what
            # it had spent would be told twice.
            wait = Deferred(FIRST_PAUSE_MS, "the call was put off")
            wait.usage, wait.settled = total_usage(record.settled), record.settled
            raise wait
        hands = self._job_context()
        if record is not None and record.claimed:
            # Before anything could refuse it: what may have been done is never told to be refused.
            begun_unix_ms = stored.time_unix_ms if stored is not None else 0
            resolution = await self._doer.resolve_claim(job, hands, begun_unix_ms) or self._doer.uncertain_reply(
                job.request
            )
            await self._record_and_answer(
                job, subject, (record, sequence), with_lost_usage(resolution, record.lost), ()
            )
            return
        try:
            # Before the claim: who dies while it waits has done nothing.
            async with self._doer.hold_turn(job, hands) as turn:
                await self._claim_and_act(job, subject, (record, sequence), hands, turn)
        except JobRefused as refusal:
            reply = await self._doer.refusal_after_start(job, refusal.failure)
            await self._record_and_answer(job, subject, (record, sequence), reply, ())

    async def _claim_and_act(
        self, job: Job[Any], subject: str, stored: StoredRecord, hands: JobContext, turn: Any
    ) -> None:
        """Claim it, do it, record it, answer."""
        record, sequence = stored
        earlier = record.answers_to_keep() if record is not None else ()
        lost = record.lost if record is not None else ()
        claims = self._doer.needs_claim(job)
        if claims:
            claim = IdempotencyRecord(request=job.envelope.id, claimed=True, earlier=earlier, lost=lost)
            sequence = await self._put_record(subject, claim, sequence)
            crash_points.pass_point("after_claim")
        try:
            reply = await self._doer.act(job, hands, turn)
        except JobRefused as refusal:
            reply = await self._doer.refusal_after_start(job, refusal.failure)
        except Deferred as wait:
            wait.settled = settled = collect_settlements(hands)
            wait.usage = total_usage((*lost, *settled))
            if claims or settled or lost:
                # Nothing was done: whoever asks again must not meet this claim, but is told what was spent until now.
                released_claim = IdempotencyRecord(
                    request=job.envelope.id, undone=True, settled=(*lost, *settled), earlier=earlier
                )
                try:
                    await self._put_record(subject, released_claim, sequence)
                except BaseException:
                    await asyncio.shield(self._settle_all(job, settled))  # Its asker is told nothing.
                    raise
            raise
        except BaseException:
            # What was reserved and not settled is charged in full, also when the handler dies.
            settled = collect_settlements(hands)
            await asyncio.shield(self._settle_all(job, settled))
            if settled:
                cut_off = IdempotencyRecord(
                    request=job.envelope.id, claimed=claims, earlier=earlier, lost=(*lost, *settled)
                )
                with suppress(BusError):
                    await asyncio.shield(self._put_record(subject, cut_off, sequence))
            raise
        crash_points.pass_point("after_act")
        fresh = IdempotencyRecord(earlier=earlier, lost=lost), sequence
        await self._record_and_answer(job, subject, fresh, with_lost_usage(reply, lost), collect_settlements(hands))

    async def _record_and_answer(
        self, message: ReceivedMessage, subject: str, stored: StoredRecord, reply: Body, settled: tuple[Settled, ...]
    ) -> None:
        try:
            answer = await self._record_outcome(message, subject, stored, reply, settled)
        except BusError:
            # It is done anew, under another reservation: nobody else knows what this one used.
            await self._settle_all(message, settled)
            raise
        crash_points.pass_point("after_record")
        await self._send_answer(message, answer)

    async def _record_outcome(
        self, message: ReceivedMessage, subject: str, stored: StoredRecord, reply: Body, settled: tuple[Settled, ...]
    ) -> RequestAnswer:
        """Answer of the request from now on: this, or what another replica recorded first. Raises BusError."""
        head, (before, expect) = message.envelope, stored
        record = IdempotencyRecord(
            request=head.id,
            undone=getattr(reply, "outcome", "") in ("refused", "failed"),
            reply_type=reply.ce_type(),
            reply=reply.encode().decode(),
            settled=settled,
            earlier=before.answers_to_keep() if before is not None else (),
        )
        try:
            await self._put_record(subject, record, expect)
            return record
        except WrongLastSequence:
            present, sequence = parse_record(await self._context.bus.last(self._records, subject))
            first = present.answer_to(head.id) if present is not None else None
            if first is not None:
                # The other's outcome is the outcome, and its reply the reply: what this one spent is settled beside it.
                await self._settle_all(message, settled)
                return first
            if present is None or present.claimed or sequence <= expect:
                raise
        # For another request nothing was done, which says nothing of this one; or the call had been put off, and who
        # looked it up read a follower that did not know yet.
        known_charges = before.lost if before is not None else ()
        reply = with_lost_usage(reply, tuple(row for row in present.lost if row not in known_charges))
        return await self._record_outcome(message, subject, (present, sequence), reply, settled)

    async def _put_record(self, subject: str, record: IdempotencyRecord, expect: int) -> int:
        # Of this handling alone, which a delivery's number does not tell: two must not take one claim for their own.
        handling = f"{self._context.instance}/{self._context.clock()}/{next(self._serial)}"
        message_id = envelope.message_id(self._context.message_key, f"{subject}/{record.request}/{handling}")
        headers = {"content-type": envelope.CONTENT_TYPE}
        body = record.model_dump_json(exclude=set() if record.lost else {"lost"}).encode()
        try:
            ack = await publish_persistently(
                lambda: self._context.bus.publish(subject, body, headers, message_id, expect_last_on_subject=expect),
                patience_s=0.0 if record.claimed or record.lost else OUTCOME_PATIENCE_S,
            )
        except WrongLastSequence:
            stored = await self._context.bus.last(self._records, subject)
            # A retry after a lost ack meets its own message.
            if stored is not None and stored.body == body and stored.sequence > expect and not record.claimed:
                return stored.sequence
            raise
        return ack.sequence

    async def _send_answer(self, message: ReceivedMessage, record: RequestAnswer) -> None:
        reply = catalog.decode_body(record.reply_type, record.reply.encode())
        await self._send_reply(message, reply, record.settled)

    async def _send_reply(self, message: ReceivedMessage, reply: Body, settled: tuple[Settled, ...]) -> None:
        """Reply, with what is to be settled in it; what does not fit is settled by messages of its own."""
        carried: tuple[Settled, ...] = ()
        if settled and isinstance(reply, DoerReply):
            carried = settled[: bounds.MAX_SETTLED_IN_REPLY]
            reply = reply.model_copy(update={"settled": carried})
        annotate_span(reply, message.body)
        head, publisher = message.envelope, self._context.publisher
        # No answer is from before its request: whoever is put off would ask again at once, for ever.
        time_unix_ms = max(self._context.clock(), message.time_unix_ms)

        async def publish_reply() -> None:
            ack = await publisher.send(
                message.sender,
                reply,
                **message.cause_fields,
                actor=head.actor,
                grant_digest=head.grant_digest,
                approval=head.approval,
                logic=head.logic,
                time_unix_ms=time_unix_ms,
            )
            crash_points.pass_point("after_reply")
            if ack.duplicate:
                # The reply that lies there may be another replica's, and tell of other attempts.
                await self._settle_all(message, carried)

        await asyncio.gather(publish_reply(), self._settle_all(message, settled[len(carried) :]))

    async def _settle_all(self, message: ReceivedMessage, settled: tuple[Settled, ...]) -> None:
        """Settle by messages of their own: where no reply tells it."""
        await asyncio.gather(*(self._publish_settlement(message, body) for body in settled))

    async def _publish_settlement(self, message: ReceivedMessage, body: Settled) -> None:
        head, place = message.envelope, message.cause_fields
        place["cause"] = body.reservation_id
        actor, logic, patience_s = head.actor, head.logic, OUTCOME_PATIENCE_S
        await self._context.publisher.send(
            "budget", body, **place, index=SETTLED, actor=actor, logic=logic, patience_s=patience_s
        )

    def _job_context(self) -> JobContext:
        async def publish_live(tenant: str, task: str, body: Contract) -> None:
            subject = subjects.live_subject(self._context.service, tenant, task)
            await self._context.bus.publish_live(subject, body.model_dump_json().encode())

        context, halts = self._context, self._halts
        shared_parts = context.blobs, context.signer, context.clock
        return JobContext(
            *shared_parts, self._reserver.reserve, halts.find, halts.halt_event, publish_live, halts.holding_breaker
        )
