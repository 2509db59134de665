"""The hand-over of delegated steps: to one holder at a time, whose key dies when the next one takes over.

In: `DelegationRequested` and cancels of the worker; takings, beats and answers of programs outside, at any replica.
Out: `StepTaken` and `StepAnswered` in the own inbox, by which replicas exclude each other; `DelegationReplied` to the
worker, said when the stored answer is handled, so that a kill between the two loses nothing. Beats are live words: a
replica that has begun anew believes in every holder until it has been silent for long enough.
"""

import asyncio
import hashlib
import uuid

from bulkhead.blobs import BlobCorrupt, BlobMissing
from bulkhead.bus.port import PubAck, WrongLastSequence
from bulkhead.callers.step_keys import StepKey, StepKeys, WorkerIdentity
from bulkhead.grants import GrantRefused
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import HandBack
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds, envelope, subjects
from bulkhead_contracts.control import CallResumed
from bulkhead_contracts.delegation import AnswerAccepted, HandedStep, OpenStepList, StepAnswer, StepBeaten
from bulkhead_contracts.result import Completeness, Failure, Label, Omission, Usage, digest_of
from bulkhead_contracts.step import (
    DelegationReplied,
    DelegationRequested,
    StepAnswered,
    StepBeat,
    StepCancelRequested,
    StepTaken,
)
from bulkhead_contracts.types import Body
from bulkhead_services.doors import refusals
from bulkhead_services.doors.feed import LAG_S, SERVICE, RunFeeds
from bulkhead_services.doors.port import DoorRefusal
from bulkhead_services.doors.settings import Settings
from bulkhead_services.doors.steps.feed import StepFeed
from bulkhead_services.doors.steps.open_steps import HandOverKey, OpenHandOver, OpenSteps
from bulkhead_services.doors.steps.step_documents import StepTexts, build_handed_step, open_step_list, texts_of
from bulkhead_services.doors.stored_bytes import StoredBytes

LAG_RETRY_S, LAGS = 0.05, "the inbox cannot be read up to this message yet"
CAS_TRIES, CAS_PAUSE_S = 8, 0.02
"""Replicas, and steps of one task, write under one subject."""
SHORT_OF = "what is missing was not said in words"
log = Log("doors.steps")


class StepHandOvers:
    """The desk at which programs outside take, hold and answer steps."""

    def __init__(self, context: Context, settings: Settings, feeds: RunFeeds, stored: StoredBytes) -> None:
        """stored: counts the bytes of answers, together with those of calls."""
        self._context, self._settings, self._stored = context, settings, stored
        self.keys = StepKeys(context.message_key)
        self.open = OpenSteps(context.bus, context.clock, feeds)

    def list_open(self, tenant: str) -> OpenStepList:
        """The steps of a tenant that wait for an answer. Every replica knows the same ones."""
        return open_step_list(self.open.of_tenant(tenant), self._context.clock())

    async def held_feed(self, key: StepKey) -> StepFeed:
        """The feed of a step, for a call of its holder. Raises DoorRefusal for who holds it no more, BusError."""
        feed = await self._feed_of_key(key)
        if reason := self._why_lost(feed, key):
            raise DoorRefusal(403, "step_lost", reason, "stop working on this step, and take another one")
        return feed

    async def _feed_of_key(self, key: StepKey) -> StepFeed:
        """The feed, with the taking that the key is of: a key that is sealed proves that it was stored. Raises
        DoorRefusal where the follower that answers lags, BusError.
        """
        feed = self.open.step_feed(key.tenant, key.task, key.call_id)
        await feed.refresh()
        for pause_s in LAG_S:
            if feed.knows_taking(key.number):
                return feed
            await asyncio.sleep(pause_s)
            await feed.refresh()
        if feed.knows_taking(key.number):
            return feed
        raise refusals.mesh_unavailable("the step cannot be read yet", retry_after_s=1.0)

    def _why_lost(self, feed: StepFeed, key: StepKey) -> str:
        """Reason why this taking is no longer the one that counts; "" when it is."""
        assert feed.taken is not None
        if feed.cancelled is not None:
            return f"the step was stopped: {feed.cancelled}"
        if feed.answered_by is not None:
            return "the step is answered"
        if feed.taken.number != key.number:
            return "another holder has the step: nothing was heard of this one for too long"
        if feed.deadline_unix_ms <= self._context.clock():
            return "the step's time is up"
        return ""

    # Taking

    async def take_step(self, identity: WorkerIdentity, role: str, holder: str, wait_s: float) -> HandedStep | None:
        """A step of this identity (role "": of any role), oldest first; None when there is none for so long, or this
        replica goes away. Raises DoorRefusal, BusError.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while True:
            wake = self.open.wake_event(identity)
            for hand_over, open_ in self.open.of_identity(identity):
                if self._is_for(open_, role) and (step := await self._try_taking(hand_over, open_, holder)):
                    return step
            left_s = until - loop.time()
            if left_s <= 0 or self.open.is_closing:
                return None
            try:
                # A holder may fall silent meanwhile, which nobody says.
                await asyncio.wait_for(wake.wait(), min(left_s, self._settings.step_silent_s / 4))
            except TimeoutError:
                pass

    def _is_for(self, open_: OpenHandOver, role: str) -> bool:
        request = open_.feed.request
        has_role = request is not None and (not role or request.delegated.role == role)
        return has_role and not open_.is_being_taken and self._is_free(open_)

    def _is_free(self, open_: OpenHandOver) -> bool:
        if open_.feed.is_over or open_.feed.deadline_unix_ms <= self._context.clock():
            return False
        if open_.feed.held_until_unix_ms > self._context.clock():
            return False  # Whoever took it now could make no call.
        self.open.note_heard(open_)
        silent_ms = self._context.clock() - open_.heard_unix_ms
        if open_.feed.taken is None or open_.feed.taken_id == open_.lost_taking:
            return True
        return silent_ms >= round(self._settings.step_silent_s * 1000)

    async def _try_taking(self, hand_over: HandOverKey, open_: OpenHandOver, holder: str) -> HandedStep | None:
        """The step, unless another is faster; of those who wait here one at a time tries for it."""
        open_.is_being_taken, step = True, None
        try:
            step = await self._take_if_free(hand_over, open_, holder)
        finally:
            open_.is_being_taken = False
            if step is None:
                self.open.wake_waiters(open_.identity)
        return step

    async def _take_if_free(self, hand_over: HandOverKey, open_: OpenHandOver, holder: str) -> HandedStep | None:
        feed, identity = open_.feed, open_.identity
        texts: StepTexts | None = None
        for _ in range(CAS_TRIES):
            await feed.refresh()
            if feed.answered_by is not None:
                self.open.drop_step(hand_over)
            if feed.request is None or not self._is_free(open_):
                return None
            number = feed.taken.number + 1 if feed.taken is not None else 1
            failure = self._misfit_failure(feed, identity, number)
            if failure is None and texts is None:
                try:
                    texts = await texts_of(self._context.blobs, feed)
                except (BlobMissing, BlobCorrupt) as error:
                    message = f"the task's objective cannot be read any more: {error}"
                    failure = Failure.from_text("content_missing", message, "submit the task again")
            if failure is not None or texts is None:
                await self._store_answer(feed, StepAnswered(call_id=feed.call_id, number=0, failure=failure))
                return None
            key = self.keys.format_key(StepKey(feed.tenant, identity.name, feed.task, feed.call_id, number))
            step = build_handed_step(feed, texts, key, number, self._settings.step_silent_s / 3)
            if await self._store_taking(open_, number, holder):
                log.info("step_taken", tenant=feed.tenant, task=feed.task, step=step.step, number=number)
                return step
            await asyncio.sleep(CAS_PAUSE_S)
        return None

    async def _store_taking(self, open_: OpenHandOver, number: int, holder: str) -> bool:
        """Store a taking, last of all: what fails from here on leaves a holder without a key. Raises BusError."""
        feed, done = open_.feed, False
        taking = StepTaken(call_id=feed.call_id, number=number, identity=open_.identity.name, holder=holder)
        # By chance: the broker must take another replica's taking of this number for another message.
        index = f"taken/{feed.call_id}/{number}/{uuid.uuid4().hex}"
        try:
            ack = await self._publish_fact(feed, taking, index)
            if ack is not None:
                await feed.read_up_to(ack.sequence)
                self.open.note_heard(open_, now=True)
            done = True
        finally:
            if not done:
                self.open.release_lost(open_, envelope.derive_id(SERVICE, feed.cause, index))
        return ack is not None

    def _misfit_failure(self, feed: StepFeed, identity: WorkerIdentity, number: int) -> Failure | None:
        """Reason why a step is handed to nobody: the worker is not believed, the signed grant is."""
        assert feed.request is not None
        if number > bounds.MAX_STEP_TRIES:
            message = f"{bounds.MAX_STEP_TRIES} holders took the step, and none of them answered"
            return Failure.from_text("too_many_tries", message, f"look at the log of {identity.name}")
        now_ms = self._context.clock()
        try:
            right = self._context.verifier.verify_authority(
                feed.grant, tenant=feed.tenant, task=feed.task, now_unix_ms=now_ms
            )
        except GrantRefused as error:
            return Failure.from_text("bad_grant", str(error), "submit the task again")
        step, request = right.step, feed.request
        if step is None or (step.step_id, step.attempt) != (request.step.id, request.attempt):
            return Failure.from_text(
                "bad_grant", "the grant is for another step", "this is a bug: look at the worker's log"
            )
        rows = [row for row in right.task.delegated if row.role == step.role and row.to == "worker"]
        if identity.name not in [row.name for row in rows]:
            message = f"the task's grant hands the role {step.role} to nobody of the name {identity.name}"
            return Failure.from_text("bad_grant", message, "this is a bug: look at the planner's log")
        return None

    # Holding

    async def record_beat(self, key: StepKey) -> StepBeaten:
        """The holder works on it. Raises DoorRefusal, BusError."""
        feed = await self._feed_of_key(key)
        if reason := self._why_lost(feed, key):
            return StepBeaten(go_on=False, reason=reason)
        self._note_beat((key.tenant, key.task, key.call_id), key.number)
        beat = StepBeat(beats=key.call_id, number=key.number).model_dump_json().encode()
        await self._context.bus.publish_live(subjects.live_subject(SERVICE, key.tenant, key.task), beat)
        hold_reason = feed.held.reason if feed.held is not None else ""
        return StepBeaten(go_on=True, reason=hold_reason, deadline_unix_ms=feed.deadline_unix_ms)

    def on_live_beat(self, subject: str, body: bytes) -> None:
        """Word of another replica, or of this one."""
        if body.startswith(b'{"beats":'):
            try:
                beat = StepBeat.model_validate_json(body)
            except ValueError:
                return
            tenant, task = subject.split(".")[2:4]
            self._note_beat((tenant, task, beat.beats), beat.number)

    def _note_beat(self, hand_over: HandOverKey, number: int) -> None:
        open_ = self.open.get(hand_over)
        if open_ is not None and open_.feed.taken is not None and open_.feed.taken.number <= number:
            self.open.note_heard(open_, now=True)

    async def submit_answer(self, key: StepKey, answer: StepAnswer) -> AnswerAccepted:
        """The holder's answer; a key dies with its taking. Raises DoorRefusal, BusError."""
        feed = await self._feed_of_key(key)
        if feed.answered_by is not None and _is_same(feed.answered_by, key, answer):
            return AnswerAccepted(repeated=True)
        if self._why_lost(feed, key):
            raise self._late_refusal(feed, key)
        failure = _failure_of(key, answer)
        if failure is not None and feed.held is not None:
            message = f"the step is held back, which fails no attempt: {feed.held.reason}"
            raise DoorRefusal(409, "held_back", message, "take it again: it is handed out when that is lifted")
        body = StepAnswered(call_id=feed.call_id, number=key.number, failure=failure)
        if failure is None:
            # Late and repeated ones are stored nowhere: a key has no end of its own.
            self._stored.count_contents(feed.tenant, key.identity, (answer.text.encode("utf-8", "replace"),))
            content = await self._context.blobs.put(feed.tenant, answer.text)
            body = body.model_copy(update={"content": content, "completeness": _completeness_of(answer)})
        if not await self._store_answer(feed, body):
            raise self._late_refusal(feed, key)
        return AnswerAccepted()

    def _late_refusal(self, feed: StepFeed, key: StepKey) -> DoorRefusal:
        reason = self._why_lost(feed, key) or "the step is answered"
        return DoorRefusal(409, "late", f"the answer comes too late: {reason}", "throw it away, and take another step")

    # The inbox

    async def on_stored_message(self, message: ReceivedMessage) -> None:
        """One stored message about a planned task's step."""
        body = message.body
        if isinstance(body, StepCancelRequested) and message.sender == "worker":
            await self._settle_cancelled(message, body)
        elif isinstance(body, StepAnswered):
            await self._reply_to_worker(message, body)
        elif not isinstance(body, DelegationRequested) and (call_id := getattr(body, "call_id", "")):
            await self._tell_hold_change(message, call_id)

    async def _steps_of_task(self, message: ReceivedMessage) -> list[HandOverKey]:
        places = await self.open.of_task(message.tenant, message.task, message.sequence)
        if places is None:
            raise HandBack(LAG_RETRY_S, LAGS)
        return places

    async def _tell_hold_change(self, message: ReceivedMessage, call_id: str) -> None:
        """A word about a call, or a taking: whether the step is held back may have changed; the worker is told."""
        for hand_over in await self._steps_of_task(message):
            feed = self.open.step_feed(*hand_over)
            if not call_id.startswith(feed.prefix) and call_id != feed.call_id:
                continue
            await self._read_up_to(feed, message.sequence)
            change = feed.hold_change_at(message.sequence)
            if change is None or feed.is_over or feed.request is None:
                continue
            call_fields = {"call_id": feed.call_id, "step_id": feed.request.step.id}
            body: Body = CallResumed(**call_fields)
            if (deferral := change[0]) is not None:
                body = deferral.model_copy(update={**call_fields, "paused": True, "usage": Usage()})
            await self._context.publisher.send("worker", body, **message.cause_fields, index="held", actor=feed.actor)

    async def _settle_cancelled(self, message: ReceivedMessage, body: StepCancelRequested) -> None:
        for hand_over in await self._steps_of_task(message):
            feed = self.open.step_feed(*hand_over)
            await self._read_up_to(feed, message.sequence)
            if feed.cancelled is not None and feed.answered_by is None:
                failure = Failure.from_text("cancelled", feed.cancelled)
                await self._store_answer(feed, StepAnswered(call_id=feed.call_id, number=0, failure=failure))

    async def _reply_to_worker(self, message: ReceivedMessage, body: StepAnswered) -> None:
        """Tell the worker, once: of two answers that were stored the first."""
        feed = self.open.step_feed(message.tenant, message.task, body.call_id)
        await self._read_up_to(feed, message.sequence)
        if feed.answered_sequence != message.sequence or feed.request is None:
            return
        self.open.drop_step((feed.tenant, feed.task, feed.call_id))
        label: tuple[Label, ...] = ()
        if body.content is not None and feed.taken is not None:
            unsigned = Label(
                sha256=body.content.sha256,
                kind="tool_result",
                source=feed.request.delegated.name,
                observed_by=SERVICE,
                step_id=feed.request.step.id,
            )
            label = (self._context.signer.sign_label(unsigned, feed.tenant, feed.task),)
        failure = body.failure
        if failure is not None and feed.may_have_written:
            # Another attempt might make the write a second time.
            failure = failure.model_copy(update={"code": "uncertain_effect"})
        reply = DelegationReplied(
            call_id=feed.call_id,
            step_id=feed.request.step.id,
            outcome="failed" if failure is not None else "succeeded",
            failure=failure,
            content=body.content,
            completeness=body.completeness,
            standing="ok" if body.completeness.complete else "degraded",
            standing_reason="" if body.completeness.complete else "it says that something is missing",
            provenance=label,
            usage=feed.usage,
            tries=feed.taken.number if feed.taken is not None else 0,
        )
        await self._context.publisher.send(
            "worker", reply, **message.cause_fields, index="replied", actor=feed.actor, traceparent=feed.traceparent
        )

    async def _read_up_to(self, feed: StepFeed, sequence: int) -> None:
        if not await feed.read_up_to(sequence):
            raise HandBack(LAG_RETRY_S, LAGS)

    async def _store_answer(self, feed: StepFeed, body: StepAnswered) -> bool:
        """Store an answer, unless there is one, or another holder has the step by now (number 0: of no holder)."""
        for _ in range(CAS_TRIES):
            await feed.refresh()
            if feed.answered_by is not None:
                return feed.answered_by == body
            if body.number and feed.taken is not None and feed.taken.number != body.number:
                return False
            digest = hashlib.blake2b(body.encode(), digest_size=16).hexdigest()
            if await self._publish_fact(feed, body, f"answered/{feed.call_id}/{digest}") is not None:
                return True
            await asyncio.sleep(CAS_PAUSE_S)
        raise refusals.mesh_unavailable("many answers come at once", retry_after_s=1.0)

    async def _publish_fact(self, feed: StepFeed, body: Body, index: str) -> PubAck | None:
        """Store a fact; None where another one was stored meanwhile."""
        try:
            return await self._context.publisher.send(
                SERVICE,
                body,
                tenant=feed.tenant,
                task=feed.task,
                cause=feed.cause,
                index=index,
                actor=feed.actor,
                grant_digest=envelope.grant_digest(feed.grant),
                traceparent=feed.traceparent,
                expect_last_on_subject=feed.own_sequence,
            )
        except WrongLastSequence:
            return None


def _failure_of(key: StepKey, answer: StepAnswer) -> Failure | None:
    if not answer.failed and answer.text.strip():
        return None
    reason = answer.failed or "it answered with nothing"
    return Failure.from_text("worker_failed", f"{key.identity}: {reason}", f"look at the log of {key.identity}")


def _completeness_of(answer: StepAnswer) -> Completeness:
    lost = tuple(Omission(reason="failed_part", what=missing_part or SHORT_OF) for missing_part in answer.missing)
    return Completeness.with_omissions(*lost) if lost else Completeness()


def _is_same(answered: StepAnswered, key: StepKey, answer: StepAnswer) -> bool:
    """True when this is the answer that counts, by its digest."""
    if answered.number != key.number or answered.failure != (failure := _failure_of(key, answer)):
        return False
    if failure is not None or answered.content is None:
        return failure is not None
    same = answered.content.sha256 == digest_of(answer.text)
    return same and answered.completeness == _completeness_of(answer)
