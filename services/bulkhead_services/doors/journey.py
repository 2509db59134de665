"""One call on its way through the mesh: sent, put off perhaps and sent again, answered.

In: the feed of its run. Out: `ModelCallRequested`, the same message from every replica; the answer from the record, or
a Refusal. Every wait is bounded: by the call's own time, and by `hold_s` where a halt, a ceiling, a breaker or a part
of the mesh that is away puts it off.
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
from bulkhead_services.doors.feed import Feed, Outcome
from bulkhead_services.doors.flight import Flight
from bulkhead_services.doors.port import Answered, Refusal
from bulkhead_services.doors.settings import Settings

MARGIN_S = 5.0
"""After its deadline the model gateway's word that it is over is waited for so long."""
END_WAIT_S = 2.0
STORE_WAIT_S = 15.0
"""So long the broker may take to store a call."""
NOTE = "Note of Bulkhead, which watches this run: {} If nothing changes, the run will be stopped."
SLOWER = 8
"""A call that is put off again and again is sent again so much later at most."""


async def send(context: Context, feed: Feed, to: str, request: Body, cause: str, index: str) -> None:
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


class Journey:
    """One call, from this replica's view."""

    def __init__(
        self, context: Context, settings: Settings, flight: Flight, feed: Feed, request: ModelCallRequested
    ) -> None:
        self._context, self._settings, self._flight, self._feed = context, settings, flight, feed
        self._request = request
        self._after = 0
        """Of the newest message about it that was heeded."""

    async def depart(self, notes: bool = True) -> None:
        """Send it; again where it was put off, or failed and may be tried again. notes: with what its agent is warned
        of. Raises Refusal, BusError."""
        word = self._feed.calls.get(self._flight.call_id)
        if word is None:
            if notes and self._flight.warning:
                await self._note(self._flight.warning)
            await self._send(self._feed.cause, "call")
        elif word.kind != "replied" or (self._feed.is_open and await self._may_repeat(word)):
            self._after = word.sequence
            await self._send(word.message_id, "again")

    async def _note(self, warning: str) -> None:
        """A last message from the mesh itself. The call's id derives from what its agent has sent, without it."""
        talk = self._request.conversation
        if talk is None or talk.embeds:
            return
        count = sum(bounds.LISTED_REFERENCES if one.media_type == REFERENCES else 1 for one in talk.messages)
        if count >= bounds.MAX_CONVERSATION:
            return
        raw = json.dumps({"content": NOTE.format(warning), "role": "system"}, ensure_ascii=False)
        note = await self._context.blobs.put(self._feed.tenant, raw, "application/json", summary="")
        talk = talk.model_copy(update={"messages": (*talk.messages, note), "notes": 1})
        self._request = self._request.model_copy(update={"conversation": talk})

    async def _may_repeat(self, word: Outcome) -> bool:
        """Whether its recorded outcome is one that its asker was told to send it again after."""
        try:
            await self._answered(word)
        except Refusal as refusal:
            return refusal.retry
        return False

    async def _send(self, cause: str, index: str) -> None:
        feed, call_id = self._feed, self._flight.call_id
        try:
            await send(self._context, feed, "model_gateway", self._request, cause, f"{index}/{call_id}")
        except TimeoutError as error:
            raise refusals.unavailable("the message broker has not stored the call in time") from error

    async def arrive(self) -> Answered:
        """Its answer. Raises Refusal, BusError."""
        loop, feed = asyncio.get_running_loop(), self._feed
        until = loop.time() + self._settings.call_timeout_s + MARGIN_S
        put_off: CallDeferred | None = None
        again = patience = until
        times, cause = 0, ""
        while True:
            seen, now = feed.version, loop.time()
            word = feed.calls.get(self._flight.call_id)
            if word is not None and word.sequence > self._after:
                self._after, cause = word.sequence, word.message_id
                if word.kind == "replied":
                    return await self._answered(word)
                if word.deferred is not None:
                    patience = min(patience, now + self._settings.hold_s) if put_off is None else patience
                    put_off, times = word.deferred, times + 1
                    if put_off.paused and self._flight.told:
                        raise refusals.of_deferral(put_off)  # What was told of its answer would not go on.
                    slower = 1 if put_off.paused else min(times, SLOWER)
                    again = now + put_off.after_ms * slower / 1000
                elif put_off is not None:
                    again = now
            elif feed.ended is not None and feed.ended.failure is not None:
                raise refusals.of_end(feed.task, feed.ended, self._settings.idle_s)
            if now >= until:
                what = f"the call has no answer after {self._settings.call_timeout_s:g} s"
                raise refusals.unavailable(what, "send it again: it goes on, and its answer will be on record")
            if put_off is not None and now >= patience:
                raise refusals.of_deferral(put_off)
            if put_off is not None and self._flight.abandoned:
                raise refusals.abandoned()
            if put_off is not None and now >= again:
                self._longer()
                await self._send(cause, "again")
                put_off, again = None, until
                continue
            await feed.changed(seen, min(until, again, patience if put_off is not None else until) - now)

    async def _ended(self) -> TaskEnded | None:
        """The end of a run whose call was cut short by it: the model gateway knows less of why than the planner, whose
        word is on its way."""
        loop, feed = asyncio.get_running_loop(), self._feed
        until = loop.time() + END_WAIT_S
        while feed.ended is None and (left_s := until - loop.time()) > 0:
            await feed.changed(feed.version, left_s)
        return feed.ended

    def _longer(self) -> None:
        """The time for which a call was put off is not its own."""
        until = min(self._context.clock() + round(self._settings.call_timeout_s * 1000), self._feed.deadline_unix_ms)
        most = max(until, self._request.deadline_unix_ms)
        self._request = self._request.model_copy(update={"deadline_unix_ms": most})

    async def _answered(self, word: Outcome) -> Answered:
        """What is on record. Raises Refusal, BusError."""
        call_id, tenant = self._flight.call_id, self._feed.tenant
        try:
            reply = await self._feed.reply(call_id)
            if reply.outcome != "answered":
                failure = reply.failure or Failure.of("model_failed", "the model gave no answer")
                if failure.code in (refusals.HALTED, refusals.RUN_OVER) and (ended := await self._ended()) is not None:
                    raise refusals.of_end(self._feed.task, ended, self._settings.idle_s)
                raise refusals.of_failure(failure)
            text = self._flight.text if reply.content is not None else ""
            if reply.content is not None and digest_of(text) != reply.content.sha256:
                text = await self._context.blobs.text(tenant, reply.content)
            calls = await calls_of(self._context.blobs, tenant, reply)
            thoughts = await thoughts_of(self._context.blobs, tenant, reply)
        except (LookupError, BlobMissing, BlobCorrupt, ValueError) as error:
            what = f"the answer of call {call_id} cannot be read any more: {error}"
            raise Refusal(502, "content_missing", what, "send the request in another run") from error
        return Answered(
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
