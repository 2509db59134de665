"""One call of a model: what `RunCall` does for it, who follows its answer, and its end when nobody does.

In: the feed of its run, live pieces of its answer, followers, notices of other replicas. Out: `ModelCallRequested`; the
answer from the record, or a DoorRefusal; `CallAbandoned` for a call that nobody follows at any replica, so that its
provider is cancelled. Replicas hear each other on `live.doors.<tenant>.<task>`, which is lossy and not stored: one that
is asked and does not answer in `ANSWER_S` follows nothing.
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from bulkhead.blobs import BlobCorrupt, BlobMissing
from bulkhead.bounded_dict import BoundedDict
from bulkhead.bus.port import Bus, BusError, BusUnavailable, PublishRefused
from bulkhead.runtime.background import cancel_tasks
from bulkhead.runtime.context import Context
from bulkhead.runtime.errors import RpcRefused
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.budget import AllowanceReplied, AllowanceRequested
from bulkhead_contracts.catalog import DecodeError
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import CallAbandoned, CallFollowers, ModelCallRequested
from bulkhead_contracts.result import REFERENCES, Failure, Usage, digest_of
from bulkhead_contracts.task import TaskEnded
from bulkhead_contracts.types import Contract
from bulkhead_services.doors import refusals
from bulkhead_services.doors.conversations.answer_text import AnswerText
from bulkhead_services.doors.conversations.tool_calls import calls_of, native_answer_of, thoughts_of
from bulkhead_services.doors.feed import SERVICE, CallState, RunFeed
from bulkhead_services.doors.port import AnswerPiece, DoorRefusal, ModelCallAnswer, RunSpending
from bulkhead_services.doors.run_call import CallKey, Phase, RunCall
from bulkhead_services.doors.settings import Settings

MARGIN_S = 5.0
"""After its deadline the model gateway's word that it is over is waited for so long."""
END_WAIT_S = 2.0
ANSWER_S = 1.0
AGAIN_S = 1.0
"""A notice is repeated no sooner."""
MAX_QUESTIONS = 10_000
ALLOWANCE_WAIT_S = 1.0
ALLOWANCE_S = 1.0
"""So long it is believed what budget told of a run's allowance: a limit that is raised shows after it."""
MAX_ALLOWANCES = 1_024
NOTE = "Note of Bulkhead, which watches this run: {} If nothing changes, the run will be stopped."
SLOWER = 8
"""A call that is put off again and again is sent again so much later at most."""
log = Log("doors.model_call")


class PeerReplicas:
    """The other replicas, as far as they follow calls."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._questions = BoundedDict[CallKey, float](MAX_QUESTIONS)
        """When a replica asked last about a call that nobody follows here: its client may be on its way here."""
        self._publishing: set[asyncio.Task[None]] = set()

    def note_question(self, key: CallKey) -> None:
        """Note that a replica asks for followers of a call that has none here."""
        self._questions[key] = asyncio.get_running_loop().time()

    def announce_first_follower(self, key: CallKey) -> None:
        """Tell a replica that has asked a moment ago, and no other."""
        if asyncio.get_running_loop().time() - self._questions.pop(key, -ANSWER_S) < ANSWER_S:
            self.announce_followed(key)

    def announce_followed(self, key: CallKey) -> None:
        """Tell every replica that a call is followed here."""
        task = asyncio.create_task(self.publish_notice(key, CallFollowers(about=key[2], followed=True)))
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    async def publish_notice(self, key: CallKey, notice: Contract) -> None:
        """Publish a notice about a call, where the broker can be reached."""
        with contextlib.suppress(BusError):
            is_for_models = isinstance(notice, CallAbandoned)
            subject = (
                subjects.abandoned_subject(*key[:2]) if is_for_models else subjects.live_subject(SERVICE, *key[:2])
            )
            await self._bus.publish_live(subject, notice.model_dump_json().encode())

    async def close(self) -> None:
        """This replica goes away."""
        await cancel_tasks(*self._publishing)


class ModelRunCall(RunCall[ModelCallRequested, ModelCallAnswer]):
    """A call. warning: for its agent, beside the answer; where `notes`, its model is shown it, too."""

    def __init__(
        self,
        context: Context,
        settings: Settings,
        feed: RunFeed,
        request: ModelCallRequested,
        peers: PeerReplicas,
        warning: str,
        notes: bool,
    ) -> None:
        super().__init__(context, settings, feed, request, "model_gateway")
        self._peers, self.warning, self._notes = peers, warning, notes
        self.text = AnswerText(self.outcome)
        self._key = (feed.tenant, feed.task, request.call_id)
        self._followers = 0
        self._peer_follows = asyncio.Event()
        self._abandoning = asyncio.create_task(self._abandon_unfollowed_call())  # Its asker may be gone already.
        self.outcome.add_done_callback(lambda _: self._abandoning.cancel())

    # Followers

    async def follow_pieces(self) -> AsyncIterator[AnswerPiece]:
        """The answer from its beginning, in pieces as they come. Raises DoorRefusal."""
        with self._count_follower():
            async for piece in self.text.follow_pieces():
                yield piece

    async def wait_for_answer(self) -> ModelCallAnswer:
        """The answer. Raises DoorRefusal."""
        with self._count_follower():
            return await asyncio.shield(self.outcome)

    @contextlib.contextmanager
    def _count_follower(self) -> Iterator[None]:
        self._followers += 1
        if self._followers == 1 and self.phase is not Phase.ENDED:
            self._abandoning.cancel()
            self.abandoned = False
            self._peers.announce_first_follower(self._key)
        try:
            yield
        finally:
            self._followers -= 1
            if not self._followers and self.phase is not Phase.ENDED:
                self._abandoning = asyncio.create_task(self._abandon_unfollowed_call())

    async def _abandon_unfollowed_call(self) -> None:
        """Have its provider cancelled, unless another replica's client follows; looked at again until it ends: that
        replica may be killed, a notice may be lost, or come before the model gateway has begun the call."""
        after_s = self._settings.abandon_s
        await asyncio.sleep(after_s)  # It goes on for so long, for a retry.
        while True:
            self.abandoned = not await self._is_followed_elsewhere()
            if self.abandoned:
                await self._peers.publish_notice(self._key, CallAbandoned(call_id=self.call_id))
            await asyncio.sleep(max(after_s, AGAIN_S))

    async def _is_followed_elsewhere(self) -> bool:
        self._peer_follows.clear()
        try:
            await self._peers.publish_notice(self._key, CallFollowers(about=self.call_id))
            async with asyncio.timeout(min(ANSWER_S, self._settings.abandon_s)):
                return await self._peer_follows.wait()
        except TimeoutError:
            return False

    def on_peer_notice(self, notice: CallFollowers) -> None:
        """Notice of a replica, this one perhaps: it asks for followers, or has some."""
        if notice.followed:
            self._peer_follows.set()
        elif self._followers:
            self._peers.announce_followed(self._key)
        else:
            self._peers.note_question(self._key)

    # The way of a call

    async def _prepare_first_request(self) -> None:
        """Add a last message from the mesh itself. The call's id derives from what its agent has sent, without it."""
        conversation = self.request.conversation
        if not (self._notes and self.warning) or conversation is None or conversation.embeds:
            return
        messages = conversation.messages
        count = sum(bounds.LISTED_REFERENCES if message.media_type == REFERENCES else 1 for message in messages)
        if count >= bounds.MAX_CONVERSATION_ROWS:
            return
        raw = json.dumps({"content": NOTE.format(self.warning), "role": "system"}, ensure_ascii=False)
        note = await self._context.blobs.put(self.feed.tenant, raw, "application/json", summary="")
        conversation = conversation.model_copy(update={"messages": (*messages, note), "notes": 1})
        self.request = self.request.model_copy(update={"conversation": conversation})

    async def _may_repeat(self, call_state: CallState) -> bool:
        try:
            await self._read_answer(call_state)
        except DoorRefusal as refusal:
            return refusal.retry
        return False

    def _renew_request(self) -> None:
        until = min(self._context.clock() + round(self._settings.call_timeout_s * 1000), self.feed.deadline_unix_ms)
        most = max(until, self.request.deadline_unix_ms)
        self.request = self.request.model_copy(update={"deadline_unix_ms": most})

    def _resend_delay_ms(self, deferral: CallDeferred) -> int:
        if deferral.paused and self.text.was_given:
            raise refusals.of_deferral(deferral)  # What was given of its answer would not go on.
        return deferral.after_ms * (1 if deferral.paused else min(self._deferrals, SLOWER))

    def _answer_wait_s(self) -> float:
        return self._settings.call_timeout_s + MARGIN_S

    def _heed_run_end(self, ended: TaskEnded, now_s: float) -> None:
        if ended.failure is not None:
            raise refusals.of_end(self.feed.task, ended, self._settings.idle_s)

    def _refuse_overdue(self) -> DoorRefusal:
        message = f"the call has no answer after {self._settings.call_timeout_s:g} s"
        return refusals.mesh_unavailable(message, "send it again: it goes on, and its answer will be on record")

    def _refuse_deferral(self, deferral: CallDeferred) -> DoorRefusal:
        return refusals.of_deferral(deferral)

    def _refuse_broker_failure(self, reason: str) -> DoorRefusal:
        return refusals.mesh_unavailable(reason)

    async def _read_answer(self, call_state: CallState) -> ModelCallAnswer:
        try:
            reply = await self.feed.model_reply_of(self.call_id)
            if reply.outcome != "answered":
                raise await self._refuse_failure(reply.failure)
            text = self.text.heard_text if reply.content is not None else ""
            if reply.content is not None and digest_of(text) != reply.content.sha256:
                text = await self._context.blobs.get_text(self.feed.tenant, reply.content)
            calls = await calls_of(self._context.blobs, self.feed.tenant, reply)
            thoughts = await thoughts_of(self._context.blobs, self.feed.tenant, reply)
            native = await native_answer_of(self._context.blobs, self.feed.tenant, reply)
        except (LookupError, BlobMissing, BlobCorrupt, ValueError) as error:
            message = f"the answer of call {self.call_id} cannot be read any more: {error}"
            raise DoorRefusal(502, "content_missing", message, "send the request in another run") from error
        return ModelCallAnswer(
            call_id=self.call_id,
            model=reply.model or self.request.tier,
            text=text,
            tool_calls=calls,
            finish=reply.finish,
            usage=reply.usage,
            created_unix_ms=call_state.time_unix_ms,
            degraded=reply.standing_reason if reply.standing == "degraded" else "",
            thoughts=thoughts,
            native=native,
            left_out=tuple(
                f"{gap.what}: {gap.detail}" for gap in reply.completeness.omissions if gap.reason == "pruned"
            ),
        )

    async def _refuse_failure(self, failure: Failure | None) -> DoorRefusal:
        """The refusal of a call that failed. The model gateway knows less than the planner of why a run ended, whose
        word is on its way. Raises BusError.
        """
        failure = failure or Failure.from_text("model_failed", "the model gave no answer")
        feed, loop = self.feed, asyncio.get_running_loop()
        if failure.code in (refusals.HALTED, refusals.RUN_OVER):
            until_s = loop.time() + END_WAIT_S
            while feed.ended is None and (left_s := until_s - loop.time()) > 0:
                await feed.wait_for_change(feed.version, left_s)
            if feed.ended is not None:
                return refusals.of_end(feed.task, feed.ended, self._settings.idle_s)
        return refusals.of_failure(failure)


@dataclass(frozen=True, slots=True)
class Allowance:
    """The least that was left under any limit of a run's calls when the run had used so much; None: not known."""

    usage: Usage
    usd_micros: int | None = None
    tokens: int | None = None

    def left_after(self, usage: Usage) -> tuple[int | None, int | None]:
        """The cost and the tokens that are left when the run has used so much."""
        cost = usage.cost_usd_micros - self.usage.cost_usd_micros
        tokens = _count_tokens(usage) - _count_tokens(self.usage)
        return (
            None if self.usd_micros is None else max(0, self.usd_micros - cost),
            None if self.tokens is None else max(0, self.tokens - tokens),
        )


class Allowances:
    """Allowances of runs, as budget told them a moment ago: what a run itself spends since then its feed tells."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._told = BoundedDict[tuple[str, str, str], tuple[float, Allowance]](MAX_ALLOWANCES)

    async def find_allowance(self, feed: RunFeed) -> Allowance:
        """The rest under the limits of a run, and those of its person, feature and tenant."""
        key, now_s, usage = (feed.tenant, feed.task, feed.grant), asyncio.get_running_loop().time(), feed.usage
        told_s, allowance = self._told.get(key, (-ALLOWANCE_S, Allowance(usage)))
        if now_s - told_s < ALLOWANCE_S:
            return allowance
        try:
            reply = await self._context.publisher.request(
                "budget",
                AllowanceRequested(),
                tenant=feed.tenant,
                task=feed.task,
                index=f"allowance/{secrets.token_hex(8)}",
                actor=feed.actor,
                grant=feed.grant,
                timeout_s=ALLOWANCE_WAIT_S,
            )
        except (BusUnavailable, PublishRefused, RpcRefused, DecodeError) as error:
            log.debug("allowance_unknown", task=feed.task, reason=str(error))
            return Allowance(usage)
        assert isinstance(reply, AllowanceReplied)
        allowance = Allowance(usage, reply.cost_usd_micros, reply.tokens)
        self._told[key] = now_s, allowance
        return allowance


def _count_tokens(usage: Usage) -> int:
    return usage.input_tokens + usage.output_tokens


@dataclass(frozen=True, slots=True)
class FollowedCall:
    """A call as its asker has it; `port.StoredCall`. kept_as: the id by which a later request goes on from it; "" where
    it is not kept."""

    call: ModelRunCall
    kept_as: str
    allowance: Allowance

    @property
    def call_id(self) -> str:
        """Its id; the same for the same request."""
        return self.call.call_id

    @property
    def run_spending(self) -> RunSpending:
        """The run's spending, as far as it is known now: an answer's own cost is in it."""
        feed = self.call.feed
        left_usd_micros, left_tokens = self.allowance.left_after(feed.usage)
        return RunSpending(feed.task, feed.usage.cost_usd_micros, left_usd_micros, left_tokens, self.call.warning)

    def follow_pieces(self) -> AsyncIterator[AnswerPiece]:
        """Live pieces as they come, until the answer is there. Raises DoorRefusal."""
        return self.call.follow_pieces()

    async def wait_for_answer(self) -> ModelCallAnswer:
        """The answer. Raises DoorRefusal."""
        return await self.call.wait_for_answer()
