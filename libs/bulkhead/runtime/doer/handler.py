"""The doer shell: one request in, one reply out, done at most once.

verify the grant -> look up the record -> claim (writes) -> act (which reserves) -> record -> settle -> reply -> ack.
A crash anywhere is met by the record: what was recorded is answered again, what was claimed and has no record may
have happened, what was neither is done now.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from bulkhead.bus.port import BusError, Stored, WrongLastSequence
from bulkhead.grants import Authority, GrantRefused
from bulkhead.runtime import crash_points
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.consume.inbound import Received
from bulkhead.runtime.consume.loop import HANDLER_FAILED
from bulkhead.runtime.context import Context
from bulkhead.runtime.doer.deferred_calls import BACKSTOP_MS, Call, DeferredCalls
from bulkhead.runtime.doer.idempotency import Answered, Record, parse, spent, with_spent
from bulkhead.runtime.doer.protocol import PAUSE_FIRST_MS, Doer, Hands, Job
from bulkhead.runtime.doer.reservations import Reserver, settlements
from bulkhead.runtime.errors import Deferred, Refused, Unreadable
from bulkhead.runtime.halts.live import Halts, of_breaker
from bulkhead.runtime.publish.publisher import persist
from bulkhead.telemetry.annotate import annotate
from bulkhead.telemetry.log import Log
from bulkhead_contracts import catalog, envelope, subjects
from bulkhead_contracts.budget import Settled
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.result import Failure
from bulkhead_contracts.types import Body, Contract

log = Log("doer")

EXPIRED = "expired"
"""What the verifier calls a grant whose time is over and that is good otherwise."""
Stands = tuple[Record | None, int]
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
        subject = self._subject(message, request)
        async with self._alone(subject):
            if await self._known(message, request, subject):
                return
            record, sequence = parse(await self._context.bus.last(self._records, subject))
            what = f"{self._context.service} cannot handle this request and has given up; no outcome is on record"
            hint = "see `bulkhead dead-letters` for the reason; repair it, then ask anew"
            failure = Failure.of(code[:64], what, hint)
            # What was given up before it was handled (unreadable, not of the catalog) has certainly done nothing.
            begun = code == HANDLER_FAILED and self._doer.changes(request)
            reply = self._doer.uncertain(request) if begun else self._doer.refuse(request, failure)
            await self._finish(message, subject, (record, sequence), reply, ())

    async def handle(self, message: Received) -> None:
        """See the module's docstring for the order."""
        request = message.body
        if not isinstance(request, self._doer.handles):
            # It asks for no reply, and needs neither a record nor a grant: the broker vouches for its sender.
            if (take := self._doer.side_handlers.get(type(message.body))) is not None:
                await take(message)
            return
        subject = self._subject(message, request)
        try:
            authority = self._authority(message, self._context.clock())
        except GrantRefused as refusal:
            await self._refuse(message, request, refusal, subject)
            return
        crash_points.passes("after_verify")
        job = Job.of(message, request, authority, self._context.clock())
        try:
            async with self._alone(subject):
                await self._once(job, subject)
        except Deferred as wait:
            await self._put_off(message, request, wait)

    async def _put_off(self, message: Received, request: Any, wait: Deferred) -> None:
        """Ask again later; or when woken, where a halt holds it."""
        call_id, step_id = self._doer.key(request), getattr(request, "step_id", "")
        why = {name: getattr(wait, name) for name in ("after_ms", "reason", "paused", "code", "usage", "until_unix_ms")}
        body, halt = CallDeferred(call_id=call_id, step_id=step_id, **why), wait.halt
        if halt is not None and not of_breaker(halt[0]):
            # A breaker's time is told: when it is over, trials are wanted.
            body = body.model_copy(update={"after_ms": max(wait.after_ms, BACKSTOP_MS)})
        await self._reply(message, body, ())
        if wait.then is not None:
            await wait.then()
        if halt is not None:
            # Register after the deferral is published, so that a wake-up cannot precede it.
            self.deferred_calls.put_off(*halt, Call.of(message, body.call_id, body.step_id))

    def _subject(self, message: Received, request: Any) -> str:
        """Where the record of a request stands."""
        # By sender: nobody can write down an answer for somebody else's call by choosing its id.
        key = envelope.derive_id(message.sender, self._doer.key(request), "record")
        return subjects.record(self._context.service, message.tenant, message.task, key)

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

    async def _refuse(self, message: Received, request: Any, refusal: GrantRefused, subject: str) -> None:
        """No: unless it was done while the grant still held, for what was done is no longer to be refused."""
        failure = Failure.of(refusal.code, str(refusal), "submit the task again")
        if refusal.code == EXPIRED:
            with suppress(GrantRefused):
                job = Job.of(message, request, self._authority(message, 0), self._context.clock())
                async with self._alone(subject):
                    if not await self._known(message, request, subject):
                        # On record, too: a replica whose clock is behind would do what its asker was told was not done.
                        stands = parse(await self._context.bus.last(self._records, subject))
                        await self._finish(message, subject, stands, await self._doer.refused(job, failure), ())
                    return
        await self._reply(message, self._doer.refuse(request, failure), ())

    async def _known(self, message: Received, request: Any, subject: str) -> bool:
        """Answer from the record, if there is one; a claim without an outcome may have been done."""
        record, sequence = parse(await self._context.bus.last(self._records, subject))
        if record is None:
            return False
        if (told := record.answer_to(message.envelope.id)) is not None:
            await self._answer(message, told)
        elif record.claimed:
            await self._finish(message, subject, (record, sequence), self._doer.uncertain(request), ())
        return told is not None or record.claimed

    def _authority(self, message: Received, now_unix_ms: int) -> Authority:
        return self._context.verifier.authority(
            message.envelope.grant, tenant=message.tenant, task=message.task, now_unix_ms=now_unix_ms
        )

    async def _once(self, job: Job[Any], subject: str) -> None:
        found = await self._context.bus.last(self._records, subject)
        record, sequence = parse(found)
        if record is not None and (known := record.answer_to(job.envelope.id)) is not None:
            await self._answer(job, known)
            return
        if record is not None and record.put_off(job.envelope.id):
            # Its asker was told, or is now, and asks again: what was done under this one nobody would hear of, and what
            # it had spent would be told twice.
            wait = Deferred(PAUSE_FIRST_MS, "the call was put off")
            wait.usage = spent(record.settled)
            raise wait
        hands = self._hands()
        if record is not None and record.claimed:
            # Before anything could refuse it: what may have been done is never told to be refused.
            begun_unix_ms = found.time_unix_ms if found is not None else 0
            told = await self._doer.resolve(job, hands, begun_unix_ms) or self._doer.uncertain(job.request)
            await self._finish(job, subject, (record, sequence), with_spent(told, record.lost), ())
            return
        try:
            # Before the claim: who dies while it waits has done nothing.
            async with self._doer.turn(job, hands):
                await self._do(job, subject, (record, sequence), hands)
        except Refused as refusal:
            reply = await self._doer.refused(job, refusal.failure)
            await self._finish(job, subject, (record, sequence), reply, ())

    async def _do(self, job: Job[Any], subject: str, stands: Stands, hands: Hands) -> None:
        """Claim it, do it, record it, answer."""
        record, sequence = stands
        earlier = record.answered() if record is not None else ()
        lost = record.lost if record is not None else ()
        claims = self._doer.writes(job)
        if claims:
            claim = Record(request=job.envelope.id, claimed=True, earlier=earlier, lost=lost)
            sequence = await self._put(subject, claim, sequence)
            crash_points.passes("after_claim")
        try:
            reply = await self._doer.act(job, hands)
        except Refused as refusal:
            reply = await self._doer.refused(job, refusal.failure)
        except Deferred as wait:
            settled = settlements(hands)
            wait.usage = spent((*lost, *settled))
            await asyncio.shield(self._settle(job, settled))
            if claims or settled or lost:
                # Nothing was done: whoever asks again must not meet this claim, but is told what was spent until now.
                released = Record(request=job.envelope.id, undone=True, settled=(*lost, *settled), earlier=earlier)
                await self._put(subject, released, sequence)
            raise
        except BaseException:
            # What was reserved and not settled is charged in full, also when the handler dies.
            settled = settlements(hands)
            await asyncio.shield(self._settle(job, settled))
            if settled:
                cut = Record(request=job.envelope.id, claimed=claims, earlier=earlier, lost=(*lost, *settled))
                with suppress(BusError):
                    await asyncio.shield(self._put(subject, cut, sequence))
            raise
        crash_points.passes("after_act")
        anew = Record(earlier=earlier, lost=lost), sequence
        await self._finish(job, subject, anew, with_spent(reply, lost), settlements(hands))

    async def _finish(
        self, message: Received, subject: str, stands: Stands, reply: Body, settled: tuple[Settled, ...]
    ) -> None:
        try:
            told = await self._recorded(message, subject, stands, reply, settled)
        except BusError:
            # It is done anew, under another reservation: nobody else knows what this one used.
            await self._settle(message, settled)
            raise
        crash_points.passes("after_record")
        await self._answer(message, told)

    async def _recorded(
        self, message: Received, subject: str, stands: Stands, reply: Body, settled: tuple[Settled, ...]
    ) -> Answered:
        """What the request is answered from now on: this, or what another replica recorded first. Raises BusError."""
        head, (before, expect) = message.envelope, stands
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
        known = before.lost if before is not None else ()
        reply = with_spent(reply, tuple(row for row in other.lost if row not in known))
        return await self._recorded(message, subject, (other, sequence), reply, settled)

    async def _put(self, subject: str, record: Record, expect: int) -> int:
        # Of this handling alone, which a delivery's number does not tell: two must not take one claim for their own.
        handling = f"{self._context.instance}/{self._context.clock()}/{next(self._serial)}"
        message_id = envelope.message_id(self._context.message_key, f"{subject}/{record.request}/{handling}")
        headers = {"content-type": envelope.CONTENT_TYPE}
        body = record.model_dump_json(exclude=set() if record.lost else {"lost"}).encode()
        try:
            ack = await persist(
                lambda: self._context.bus.publish(subject, body, headers, message_id, expect_last_on_subject=expect),
                patience_s=0.0 if record.claimed or record.lost else OUTCOME_PATIENCE_S,
            )
        except WrongLastSequence:
            found = await self._context.bus.last(self._records, subject)
            # A retry after a lost ack meets its own message.
            if found is not None and found.body == body and found.sequence > expect and not record.claimed:
                return found.sequence
            raise
        return ack.sequence

    async def _answer(self, message: Received, record: Answered) -> None:
        reply = catalog.decode(record.reply_type, record.reply.encode())
        await self._reply(message, reply, record.settled)

    async def _reply(self, message: Received, reply: Body, settled: tuple[Settled, ...]) -> None:
        annotate(reply, message.body)
        head, publisher = message.envelope, self._context.publisher
        # No answer is from before its request: whoever is put off would ask again at once, for ever.
        now = max(self._context.clock(), message.time_unix_ms)

        async def tell() -> None:
            await publisher.send(
                message.sender,
                reply,
                **message.caused,
                actor=head.actor,
                grant_digest=head.grant_digest,
                approval=head.approval,
                logic=head.logic,
                time_unix_ms=now,
            )
            crash_points.passes("after_reply")

        await asyncio.gather(tell(), self._settle(message, settled))

    async def _settle(self, message: Received, settled: tuple[Settled, ...]) -> None:
        await asyncio.gather(*(self._charge(message, body) for body in settled))
        if settled:
            crash_points.passes("after_settle")

    async def _charge(self, message: Received, body: Settled) -> None:
        head, place = message.envelope, message.caused
        place["cause"] = body.reservation_id
        actor, logic, patience_s = head.actor, head.logic, OUTCOME_PATIENCE_S
        await self._context.publisher.send(
            "budget", body, **place, index="settled", actor=actor, logic=logic, patience_s=patience_s
        )

    def _hands(self) -> Hands:
        async def live(tenant: str, task: str, body: Contract) -> None:
            subject = subjects.live(self._context.service, tenant, task)
            await self._context.bus.publish_live(subject, body.model_dump_json().encode())

        context, halts = self._context, self._halts
        given = context.blobs, context.signer, context.clock
        return Hands(
            *given, self._reserver.reserve, halts.find, halts.event, live, halts.held, _end_event=halts.end_event
        )
