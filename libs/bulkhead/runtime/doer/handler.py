"""The doer shell: one request in, one reply out, done at most once.

verify the grant -> look up the outcome -> claim (unkeyed writes) -> act (which reserves) -> reply (settles) -> ack.
The reply in the asker's inbox is the record of the outcome, under the call's key (ADR 0045). A crash anywhere is met by
what is stored: what was answered is answered, what was claimed and has no answer may have happened, what was neither is
done now.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

from bulkhead.bus.port import BusError, StoredMessage, WrongLastSequence
from bulkhead.grants import EXPIRED, GrantRefused
from bulkhead.runtime import crash_points
from bulkhead.runtime.background import finish_despite_cancel
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.consume.loop import HANDLER_FAILED
from bulkhead.runtime.context import Context
from bulkhead.runtime.doer.deferred_calls import BACKSTOP_MS, DeferredCall, DeferredCalls
from bulkhead.runtime.doer.idempotency import (
    CallPlace,
    IdempotencyRecord,
    KeyedCall,
    StoredOutcome,
    is_undone,
    parse_call,
    parse_outcome,
    total_usage,
    with_lost_usage,
)
from bulkhead.runtime.doer.protocol import FIRST_PAUSE_MS, Doer, Job, JobContext
from bulkhead.runtime.doer.reservations import OUTCOME_PATIENCE_S, Reserver
from bulkhead.runtime.doer.reservations_ahead import StepPlace
from bulkhead.runtime.errors import Deferred, JobRefused, Unreadable
from bulkhead.runtime.halts.live import Halts, is_breaker_key
from bulkhead.runtime.publish.publisher import publish_persistently
from bulkhead.telemetry.annotate import annotate_span
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds, envelope, subjects
from bulkhead_contracts.budget import Settled
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.result import Failure
from bulkhead_contracts.settlement import DoerReply
from bulkhead_contracts.types import Body, Contract

log = Log("doer")


class DoerHandler:
    """Handles a doer's inbox."""

    ordered = False

    def __init__(self, context: Context, doer: Doer[Any], halts: Halts) -> None:
        self._context, self._doer, self._halts = context, doer, halts
        self._records = subjects.records_stream(context.service)
        # As long as somebody holds one, or waits for it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._serial = itertools.count()
        self.reserver = Reserver(context)
        self.deferred_calls = DeferredCalls(context.publisher, halts)

    def forget_task(self, tenant: str, task: str) -> None:
        """Forget nothing: no state is kept between messages."""

    async def on_rejected(self, stored: StoredMessage, code: str, reason: str) -> None:
        """Tell whoever asked now rather than at its deadline, and whoever has the request sent again.

        A write may have been done, claimed or not: who was told `refused` would do it again under another key. Of
        anything else there is no outcome, and that is one: a redrive of the request must not do what its asker was
        told not to count on.
        """
        try:
            message = inbound.read_message(stored, self._context.service)
        except Unreadable:
            return  # Nothing in it can be relied on, not even who asked for what.
        request = message.body
        if not isinstance(request, self._doer.handles):
            return
        async with self._hold_call(message) as call:
            if await self._answer_if_begun(message, call):
                return
            # What was given up before it was handled (unreadable, not of the catalog) has certainly done nothing.
            if code == HANDLER_FAILED and self._doer.may_change_world(request):
                await self._store_outcome(message, call, self._doer.uncertain_reply(request))
                return
            description = (
                f"{self._context.service} cannot handle this request and has given up; no outcome is on record"
            )
            hint = "see `bulkhead dead-letters` for the reason; repair it, then ask anew"
            reply = self._doer.refusal_reply(request, Failure.from_text(code[:64], description, hint))
            await self._refuse_call(message, call, reply, claims=True)

    async def handle_message(self, message: ReceivedMessage) -> None:
        """See the module's docstring for the order."""
        request = message.body
        if not isinstance(request, self._doer.handles):
            # It asks for no reply, and needs neither a record nor a grant: the broker vouches for its sender.
            if (side_handler := self._doer.side_handlers.get(type(request))) is not None:
                await side_handler(message)
            return
        now_unix_ms = self._context.clock()
        try:
            if self._doer.idempotency_key(request) == subjects.NO_KEY:
                # Under it lies all that is no outcome: the last of that would pass for one.
                raise GrantRefused("bad_key", "a call cannot have the id `-`: give it another one")
            # Whether its time is over is looked at later: what was done is no longer to be refused.
            authority = self._context.verifier.verify_authority(
                message.envelope.grant, tenant=message.tenant, task=message.task, now_unix_ms=0
            )
        except GrantRefused as refusal:
            failure = Failure.from_text(refusal.code, str(refusal), "submit the task again")
            await self._send_reply(message, self._doer.refusal_reply(request, failure), ())
            return
        crash_points.pass_point("after_verify")
        job = Job.from_message(message, request, authority, now_unix_ms)
        try:
            async with self._hold_call(job) as call:
                await self._do_once(job, call)
        except Deferred as wait:
            await self._defer_request(message, wait)

    async def _defer_request(self, message: ReceivedMessage, wait: Deferred) -> None:
        """Ask again later; or when woken, where a halt holds it."""
        halt, after_ms = wait.halt, wait.after_ms
        if halt is not None and not is_breaker_key(halt[0]):
            # A breaker's time is told: when it is over, trials are wanted.
            after_ms = max(after_ms, BACKSTOP_MS)
        body = CallDeferred(
            call_id=self._doer.idempotency_key(message.body),
            step_id=getattr(message.body, "step_id", ""),
            after_ms=after_ms,
            **{name: getattr(wait, name) for name in ("reason", "paused", "code", "usage", "until_unix_ms")},
        )
        await self._send_reply(message, body, wait.settled)
        if wait.then is not None:
            await wait.then()
        if halt is not None:
            # Register after the deferral is published, so that a wake-up cannot precede it.
            place = message.sender, message.tenant, message.task
            self.deferred_calls.defer_call(*halt, DeferredCall(*place, body.call_id, body.step_id, message.envelope))

    def _place_of(self, message: ReceivedMessage) -> CallPlace:
        """Subjects of a call's outcome and record: by asker, so that nobody can write down an answer for another's call
        by choosing its id."""
        service, asker, tenant, task = self._context.service, message.sender, message.tenant, message.task
        key = self._doer.idempotency_key(message.body)
        record_key = envelope.derive_id(asker, key, "record")
        return CallPlace(
            key,
            subjects.inbox_stream(asker),
            subjects.mesh_subject(service, asker, tenant, task, key),
            subjects.record_subject(service, tenant, task, record_key),
        )

    @asynccontextmanager
    async def _hold_call(self, message: ReceivedMessage) -> AsyncIterator[KeyedCall]:
        """The call as it is stored, one handling at a time in this process; the record keeps other processes apart."""
        place, bus = self._place_of(message), self._context.bus
        async with self._locks.setdefault(place.record, asyncio.Lock()):
            reads = bus.last_on(place.inbox, place.reply), bus.last(self._records, place.record)
            yield parse_call(place, *await asyncio.gather(*reads))

    async def _answer_if_begun(
        self, message: ReceivedMessage, call: KeyedCall, hands: JobContext | None = None
    ) -> bool:
        """Answer it, if it has an outcome; a claim without one may have been done. hands: of a job, to find out."""
        if call.outcome.answers(message.envelope.id):
            await self._answer_again(message, call.outcome)
        elif call.record is not None and call.record.claimed:
            # Before anything could refuse it: what may have been done is never told to be refused.
            resolution: Body | None = None
            if hands is not None and isinstance(message, Job):
                resolution = await self._doer.resolve_claim(message, hands, call.recorded_unix_ms)
            await self._store_outcome(message, call, resolution or self._doer.uncertain_reply(message.body))
        else:
            return False
        return True

    async def _do_once(self, job: Job[Any], call: KeyedCall) -> None:
        """Do it, unless it was begun before; a refusal is its outcome."""
        shared = self._context.blobs, self._context.signer, self._context.clock
        hands = JobContext(*shared, self.reserver.reserve, self._halts, self._publish_live)
        is_expired = job.authority.expires_unix_ms <= job.now_unix_ms
        if await self._answer_if_begun(job, call, None if is_expired else hands):
            return
        if call.record is not None and call.was_put_off(job.envelope.id):
            # Its asker was told, or is now, and asks again: what was done under this one nobody would hear of, and what
            # it had spent would be told twice.
            wait = Deferred(FIRST_PAUSE_MS, "the call was put off")
            wait.usage, wait.settled = total_usage(call.record.used), call.record.used
            raise wait
        claims = self._doer.needs_claim(job)
        try:
            if is_expired:
                raise JobRefused(Failure.from_text("expired", EXPIRED, "submit the task again"))
            # Before the claim: who dies while it waits has done nothing.
            async with self._doer.hold_turn(job, hands) as turn:
                await self._claim_and_act(job, call, hands, turn, claims=claims)
        except JobRefused as refusal:
            # As its outcome: a replica whose clock is behind would do what its asker was told was not done.
            reply = await self._doer.refusal_after_start(job, refusal.failure)
            await self._refuse_call(job, call, reply, claims=claims)

    async def _claim_and_act(
        self, job: Job[Any], call: KeyedCall, hands: JobContext, turn: Any, *, claims: bool
    ) -> None:
        """Claim it, do it, answer."""
        request, place, lost, sequence = job.envelope.id, call.place, call.lost, call.record_sequence
        if claims:
            claim = IdempotencyRecord(request=request, claimed=True, used=lost)
            sequence = await self._put_record(place, claim, sequence)
            crash_points.pass_point("after_claim")
        await self._tell_watchers(job)
        try:
            reply = await self._doer.act(job, hands, turn)
        except JobRefused as refusal:
            reply = await self._doer.refusal_after_start(job, refusal.failure)
        except Deferred as wait:
            wait.settled = settled = hands.collect_settlements()
            wait.usage = total_usage((*lost, *settled))
            if claims or settled or lost:
                # Nothing was done: whoever asks again must not meet this claim, but is told what was spent until now.
                put_off = IdempotencyRecord(request=request, closed=True, used=(*lost, *settled))
                try:
                    await self._put_record(place, put_off, sequence)
                except BaseException:
                    # Its asker is told nothing.
                    await finish_despite_cancel(self._settle_all(job, settled))
                    raise
            raise
        except BaseException:
            # What was reserved and not settled is charged in full, also when the handler dies.
            if settled := hands.collect_settlements():
                cut_off = IdempotencyRecord(request=request, claimed=claims, used=(*lost, *settled))
                await finish_despite_cancel(self._settle_cut_off(job, settled, place, cut_off, sequence))
            raise
        crash_points.pass_point("after_act")
        await self._store_outcome(job, call, reply, hands.collect_settlements())

    async def _refuse_call(self, message: ReceivedMessage, call: KeyedCall, reply: Body, *, claims: bool) -> None:
        """Answer what was not begun. claims: another replica may be about to claim it, and must not then."""
        if claims and is_undone(reply):
            closed = IdempotencyRecord(request=message.envelope.id, closed=True, used=call.lost)
            await self._put_record(call.place, closed, call.record_sequence)
        await self._store_outcome(message, call, reply)

    async def _store_outcome(
        self, message: ReceivedMessage, call: KeyedCall, reply: Body, settled: tuple[Settled, ...] = ()
    ) -> None:
        """Store the reply as the outcome of the call, unless another replica was first: then that one's answer is the
        answer, and what this one spent is settled all the same. Raises BusError."""
        used, reply = (*settled, *call.lost), with_lost_usage(reply, call.lost)
        try:
            while True:
                try:
                    await self._send_reply(message, reply, used, call)
                    break
                except WrongLastSequence:
                    outcome = parse_outcome(await self._context.bus.last_on(call.place.inbox, call.place.reply))
                    if outcome.sequence <= call.outcome.sequence:
                        raise  # A follower that lags: whoever handles it again sees more.
                    call = replace(call, outcome=outcome)
                # Where it answers only another request, nothing was done for that one, which says nothing of this one.
                if outcome.answers(message.envelope.id):
                    await self._answer_again(message, outcome)
                    await self._settle_all(message, settled)
                    return
        except BusError:
            # It is done anew, under another reservation: nobody else knows what this one used.
            await self._settle_all(message, settled)
            raise
        await self._tell_watchers(message, reply)
        await self._doer.on_outcome_stored(message, reply)

    async def _answer_again(self, message: ReceivedMessage, outcome: StoredOutcome) -> None:
        """Answer a request of a call that has this outcome: where it was made for another request, with a copy."""
        assert outcome.body is not None
        if message.envelope.id not in outcome.answered:
            await self._send_reply(message, outcome.body, ())
        await self._doer.on_outcome_stored(message, outcome.body)

    async def _put_record(self, place: CallPlace, record: IdempotencyRecord, expect: int) -> int:
        subject, body = place.record, record.model_dump_json().encode()
        headers = {"content-type": envelope.CONTENT_TYPE}
        name = f"{subject}/{record.request}/{self._next_handling()}"
        message_id = envelope.message_id(self._context.message_key, name)
        ack = await publish_persistently(
            lambda: self._context.bus.publish(subject, body, headers, message_id, expect_last_on_subject=expect),
            patience_s=OUTCOME_PATIENCE_S if record.closed else 0.0,
        )
        return ack.sequence

    def _next_handling(self) -> str:
        """Name of one handling of a request, which a delivery's number is not: two must not take one claim, or one
        outcome, for their own."""
        return f"{self._context.instance}/{self._context.clock()}/{next(self._serial)}"

    async def _send_reply(
        self, message: ReceivedMessage, reply: Body, settled: tuple[Settled, ...], call: KeyedCall | None = None
    ) -> None:
        """Send the reply, with what is to be settled in it: what does not fit is settled by messages of its own. With a
        call it is its outcome, behind the one that lies there. Raises BusError."""
        carried: tuple[Settled, ...] = ()
        if isinstance(reply, DoerReply):
            carried = settled[: bounds.MAX_SETTLED_IN_REPLY]
            answered = call.outcome.answered if call is not None else ()
            if carried or answered:
                reply = reply.model_copy(update={"settled": carried, "answered": answered})
        annotate_span(reply, message.body)
        head, publisher = message.envelope, self._context.publisher
        reply_head = publisher.make_envelope(
            reply,
            cause=head.id,
            actor=head.actor,
            grant_digest=head.grant_digest,
            approval=head.approval,
            logic=head.logic,
            # No answer is from before its request: whoever is put off would ask again at once, for ever.
            time_unix_ms=max(self._context.clock(), message.time_unix_ms),
        )
        outgoing = publisher.make_message(
            message.sender,
            reply,
            reply_head,
            tenant=message.tenant,
            task=message.task,
            key=call.place.key if call is not None else subjects.NO_KEY,
            handling=self._next_handling() if call is not None else "",
        )
        ack = await publisher.put_message(
            outgoing,
            expect_last_on_subject=call.outcome.sequence if call is not None else None,
            patience_s=OUTCOME_PATIENCE_S if call is not None else 0.0,
        )
        crash_points.pass_point("after_reply")
        # A deferral that lies there already may be another replica's, and tell of other attempts.
        is_foreign = ack.duplicate and call is None
        if not is_foreign and carried == settled:
            self.reserver.ahead.on_settled(message)
        await self._settle_all(message, settled if is_foreign else settled[len(carried) :])

    async def _settle_all(self, message: ReceivedMessage, settled: tuple[Settled, ...]) -> None:
        """Settle by messages of their own: where no reply tells it."""
        place = StepPlace.of_message(message)
        await asyncio.gather(*(self.reserver.publish_settlement(place, body) for body in settled))

    async def _settle_cut_off(
        self,
        message: ReceivedMessage,
        settled: tuple[Settled, ...],
        place: CallPlace,
        record: IdempotencyRecord,
        sequence: int,
    ) -> None:
        """Settle what a call spent that ends without an outcome, and record it for whoever handles it again."""
        try:
            await self._settle_all(message, settled)
        finally:
            with suppress(BusError):
                await self._put_record(place, record, sequence)

    async def _tell_watchers(self, message: ReceivedMessage, reply: Body | None = None) -> None:
        """Say live that a call is taken up, or what its outcome is: nothing rests on whether it is heard."""
        live_call = self._doer.describe_call(message.body, reply, self._context.clock())
        if live_call is not None:
            with suppress(BusError):
                await self._publish_live(message.tenant, message.task, live_call)

    async def _publish_live(self, tenant: str, task: str, body: Contract) -> None:
        subject = subjects.live_subject(self._context.service, tenant, task)
        await self._context.bus.publish_live(subject, body.model_dump_json().encode())
