"""One call on its way through the mesh: sent, put off perhaps and sent again, answered.

In: the feed of its run. Out: `ModelCallRequested`, the same message from every replica; the answer from
the record, or a DoorRefusal. Every wait is bounded: by the call's own time, and by `hold_s` where a
halt, a ceiling, a breaker or a part of the mesh that is away puts it off.
"""

import asyncio
import json

from bulkhead.blobs import BlobCorrupt, BlobMissing
from bulkhead.runtime.context import Context
from bulkhead_contracts import bounds
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.result import REFERENCES, Failure, digest_of
from bulkhead_contracts.task import TaskEnded
from bulkhead_contracts.types import Body
from bulkhead_services.doors import refusals
from bulkhead_services.doors.conversations.tool_calls import calls_of, thoughts_of
from bulkhead_services.doors.feed import CallState, RunFeed
from bulkhead_services.doors.flight import InFlightCall
from bulkhead_services.doors.port import DoorRefusal, ModelCallAnswer
from bulkhead_services.doors.settings import Settings

MARGIN_S = 5.0
"""After its deadline the model gateway's word that it is over is waited for so long."""
END_WAIT_S = 2.0
STORE_WAIT_S = 15.0
"""So long the broker may take to store a call."""
NOTE = "Note of Bulkhead, which watches this run: {} If nothing changes, the run will be stopped."
SLOWER = 8
"""A call that is put off again and again is sent again so much later at most."""


async def publish_call(context: Context, feed: RunFeed, to: str, request: Body, cause: str, index: str) -> None:
    """Send a call under its run's grant. Raises TimeoutError when it is not known to be stored, BusError."""
    async with asyncio.timeout(STORE_WAIT_S):
        await context.publisher.send(
            to,
            request,
            tenant=feed.tenant,
            task=feed.task,
            cause=cause,
            index=index,
            actor=feed.actor,
            grant=feed.grant,
            traceparent=feed.traceparent,
        )


class ModelCallExchange:
    """One call, from this replica's view."""

    def __init__(
        self, context: Context, settings: Settings, flight: InFlightCall, feed: RunFeed, request: ModelCallRequested
    ) -> None:
        self._context, self._settings, self._flight, self._feed = context, settings, flight, feed
        self._request = request
        self._after = 0
        """Of the newest message about it that was heeded."""

    async def send_or_resend(self, notes: bool = True) -> None:
        """Send it; again where it was put off, or failed and may be tried again. notes: with what its agent is warned
        of. Raises DoorRefusal, BusError.
        """
        call_state = self._feed.calls.get(self._flight.call_id)
        if call_state is None:
            if notes and self._flight.warning:
                await self._append_warning_note(self._flight.warning)
            await self._publish_request(self._feed.cause, "call")
        elif call_state.kind != "replied" or (self._feed.is_open and await self._may_repeat(call_state)):
            self._after = call_state.sequence
            await self._publish_request(call_state.message_id, "again")

    async def _append_warning_note(self, warning: str) -> None:
        """A last message from the mesh itself. The call's id derives from what its agent has sent, without it."""
        talk = self._request.conversation
        if talk is None or talk.embeds:
            return
        count = sum(bounds.LISTED_REFERENCES if message.media_type == REFERENCES else 1 for message in talk.messages)
        if count >= bounds.MAX_CONVERSATION:
            return
        raw = json.dumps({"content": NOTE.format(warning), "role": "system"}, ensure_ascii=False)
        note = await self._context.blobs.put(self._feed.tenant, raw, "application/json", summary="")
        talk = talk.model_copy(update={"messages": (*talk.messages, note), "notes": 1})
        self._request = self._request.model_copy(update={"conversation": talk})

    async def _may_repeat(self, word: CallState) -> bool:
        """True when its recorded outcome is one after which its asker was told to send it again."""
        try:
            await self._read_answer(word)
        except DoorRefusal as refusal:
            return refusal.retry
        return False

    async def _publish_request(self, cause: str, index: str) -> None:
        feed, call_id = self._feed, self._flight.call_id
        try:
            await publish_call(self._context, feed, "model_gateway", self._request, cause, f"{index}/{call_id}")
        except TimeoutError as error:
            raise refusals.mesh_unavailable("the message broker has not stored the call in time") from error

    async def wait_for_answer(self) -> ModelCallAnswer:
        """Its answer. Raises DoorRefusal, BusError."""
        loop, feed = asyncio.get_running_loop(), self._feed
        until = loop.time() + self._settings.call_timeout_s + MARGIN_S
        put_off: CallDeferred | None = None
        resend_at = patience = until
        times, cause = 0, ""
        while True:
            version, now_s = feed.version, loop.time()
            call_state = feed.calls.get(self._flight.call_id)
            if call_state is not None and call_state.sequence > self._after:
                self._after, cause = call_state.sequence, call_state.message_id
                if call_state.kind == "replied":
                    return await self._read_answer(call_state)
                if call_state.deferred is not None:
                    patience = min(patience, now_s + self._settings.hold_s) if put_off is None else patience
                    put_off, times = call_state.deferred, times + 1
                    if put_off.paused and self._flight.told:
                        raise refusals.of_deferral(put_off)  # What was told of its answer would not go on.
                    slower = 1 if put_off.paused else min(times, SLOWER)
                    resend_at = now_s + put_off.after_ms * slower / 1000
                elif put_off is not None:
                    resend_at = now_s
            elif feed.ended is not None and feed.ended.failure is not None:
                raise refusals.of_end(feed.task, feed.ended, self._settings.idle_s)
            if now_s >= until:
                message = f"the call has no answer after {self._settings.call_timeout_s:g} s"
                raise refusals.mesh_unavailable(message, "send it again: it goes on, and its answer will be on record")
            if put_off is not None and now_s >= patience:
                raise refusals.of_deferral(put_off)
            if put_off is not None and self._flight.abandoned:
                raise refusals.call_abandoned()
            if put_off is not None and now_s >= resend_at:
                self._extend_deadline()
                await self._publish_request(cause, "again")
                put_off, resend_at = None, until
                continue
            await feed.wait_for_change(
                version, min(until, resend_at, patience if put_off is not None else until) - now_s
            )

    async def _wait_for_run_end(self) -> TaskEnded | None:
        """The end of a run whose call was cut short by it: the model gateway knows less of why than the planner, whose
        word is on its way."""
        loop, feed = asyncio.get_running_loop(), self._feed
        until = loop.time() + END_WAIT_S
        while feed.ended is None and (left_s := until - loop.time()) > 0:
            await feed.wait_for_change(feed.version, left_s)
        return feed.ended

    def _extend_deadline(self) -> None:
        """Extend its deadline by the time for which it was put off, which is not its own."""
        until = min(self._context.clock() + round(self._settings.call_timeout_s * 1000), self._feed.deadline_unix_ms)
        most = max(until, self._request.deadline_unix_ms)
        self._request = self._request.model_copy(update={"deadline_unix_ms": most})

    async def _read_answer(self, word: CallState) -> ModelCallAnswer:
        """The answer on record. Raises DoorRefusal, BusError."""
        call_id, tenant = self._flight.call_id, self._feed.tenant
        try:
            reply = await self._feed.model_reply_of(call_id)
            if reply.outcome != "answered":
                failure = reply.failure or Failure.from_text("model_failed", "the model gave no answer")
                if (
                    failure.code in (refusals.HALTED, refusals.RUN_OVER)
                    and (ended := await self._wait_for_run_end()) is not None
                ):
                    raise refusals.of_end(self._feed.task, ended, self._settings.idle_s)
                raise refusals.of_failure(failure)
            text = self._flight.heard_text if reply.content is not None else ""
            if reply.content is not None and digest_of(text) != reply.content.sha256:
                text = await self._context.blobs.get_text(tenant, reply.content)
            calls = await calls_of(self._context.blobs, tenant, reply)
            thoughts = await thoughts_of(self._context.blobs, tenant, reply)
        except (LookupError, BlobMissing, BlobCorrupt, ValueError) as error:
            message = f"the answer of call {call_id} cannot be read any more: {error}"
            raise DoorRefusal(502, "content_missing", message, "send the request in another run") from error
        return ModelCallAnswer(
            call_id=call_id,
            model=reply.model or self._request.tier,
            text=text,
            tool_calls=calls,
            finish=reply.finish,
            usage=reply.usage,
            created_unix_ms=word.time_unix_ms,
            degraded=reply.standing_reason if reply.standing == "degraded" else "",
            thoughts=thoughts,
        )
