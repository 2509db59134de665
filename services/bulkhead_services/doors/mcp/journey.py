"""One call of a tool on its way through the mesh: sent, put off perhaps and sent again, answered.

In: the feed of its run. Out: the request, the same message from every replica; the outcome from the
record, or a DoorRefusal. Every wait is bounded: by the call's own time, and by `hold_s` where a halt, a
ceiling, a person who must approve it or a part of the mesh that is away puts it off.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import ValidationError

from bulkhead.blobs import BlobCorrupt, BlobMissing
from bulkhead.runtime.context import Context
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.result import Failure
from bulkhead_contracts.retrieval import RetrievalReplied, RetrievalRequested
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested, ToolSpec
from bulkhead_contracts.wording import describe_error
from bulkhead_services.doors import refusals
from bulkhead_services.doors.feed import RunFeed
from bulkhead_services.doors.journey import publish_call
from bulkhead_services.doors.mcp.port import ToolCallAnswer
from bulkhead_services.doors.port import DoorRefusal
from bulkhead_services.doors.settings import Settings

MARGIN_S = 12.0
"""After its deadline the word that it is over is waited for so long."""
Request = ToolCallRequested | RetrievalRequested
Outcome = Literal["succeeded", "refused", "failed", "uncertain"]


def request_of(tool: ToolSpec, call_id: str, feed: RunFeed, arguments_json: str, until_unix_ms: int) -> Request:
    """The message of a call. Raises DoorRefusal."""
    assert feed.assigned is not None
    place = {"call_id": call_id, "step_id": feed.assigned.step.id, "attempt": feed.assigned.attempt}
    until = {"deadline_unix_ms": until_unix_ms}
    if tool.served_by != "rag":
        # Without an attribution: its arguments come from nowhere that the mesh knows.
        return ToolCallRequested.model_validate(place | until | {"tool": tool.name, "arguments_json": arguments_json})
    arguments = json.loads(arguments_json)
    try:
        return RetrievalRequested.model_validate(
            place | until | {"query": arguments.get("query"), "k": arguments.get("k", 8)}
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        message = f"{'.'.join(map(str, first['loc']))}: {describe_error(first)}"
        raise DoorRefusal(400, "bad_arguments", message, "send what the tool's schema asks for") from error


class ToolCallExchange:
    """One call, from this replica's view."""

    def __init__(self, context: Context, settings: Settings, feed: RunFeed, request: Request) -> None:
        self._context, self._settings, self._feed, self._request = context, settings, feed, request
        self._to = "rag" if isinstance(request, RetrievalRequested) else "tool_executor"
        self._after = 0
        """Of the newest message about it that was heeded."""
        self.sent = False
        """Whether the mesh may have it."""

    def outcome_unknown(self, why: str) -> DoorRefusal:
        """It was sent, and what became of it cannot be told: made again it might be made twice."""
        message = (
            f"call {self._request.call_id} of task {self._feed.task} was sent, and its outcome is not known here: {why}"
        )
        return DoorRefusal(
            502, "outcome_unknown", message, "it may have been made: look at the task before you make it again"
        )

    async def send_or_resend(self) -> None:
        """Send it; again where it was put off. Raises DoorRefusal, BusError."""
        call_state = self._feed.calls.get(self._request.call_id)
        if call_state is None:
            await self._publish_request(self._feed.cause, "call")
        elif call_state.kind != "replied":
            self._after = call_state.sequence
            await self._publish_request(call_state.message_id, "again")

    async def _publish_request(self, cause: str, index: str) -> None:
        self.sent = True
        try:
            await publish_call(
                self._context, self._feed, self._to, self._request, cause, f"{index}/{self._request.call_id}"
            )
        except TimeoutError as error:
            raise self.outcome_unknown("the message broker has not said in time that it stored it") from error

    async def wait_for_answer(self) -> ToolCallAnswer:
        """Its outcome. Raises DoorRefusal, BusError."""
        loop, feed = asyncio.get_running_loop(), self._feed
        left_s = (self._request.deadline_unix_ms - self._context.clock()) / 1000
        until = loop.time() + max(0.0, left_s) + MARGIN_S
        put_off: CallDeferred | None = None
        resend_at = patience = until
        cause = ""
        while True:
            version, now_s = feed.version, loop.time()
            call_state = feed.calls.get(self._request.call_id)
            if call_state is not None and call_state.sequence > self._after:
                self._after, cause = call_state.sequence, call_state.message_id
                if call_state.kind == "replied":
                    return await self._read_answer()
                if call_state.deferred is not None:
                    patience = min(patience, now_s + self._settings.hold_s) if put_off is None else patience
                    put_off, resend_at = call_state.deferred, now_s + call_state.deferred.after_ms / 1000
                elif put_off is not None:
                    resend_at = now_s
            elif feed.ended is not None and put_off is not None:
                raise refusals.of_end(feed.task, feed.ended, self._settings.idle_s)
            elif feed.ended is not None:
                until = min(until, now_s + MARGIN_S)  # A write that has begun is made to its end, and told.
            if now_s >= until:
                raise self.outcome_unknown("it has none yet" if feed.ended is None else "its run has ended")
            if put_off is not None and now_s >= patience:
                raise _refusal_of_hold(put_off)
            if put_off is not None and now_s >= resend_at:
                await self._publish_request(cause, "again")
                put_off, resend_at = None, until
                continue
            await feed.wait_for_change(
                version, min(until, resend_at, patience if put_off is not None else until) - now_s
            )

    async def _read_answer(self) -> ToolCallAnswer:
        """The outcome on record. Raises DoorRefusal, BusError."""
        feed, call_id = self._feed, self._request.call_id
        try:
            reply = await feed.reply_of(call_id)
            outcome: Outcome
            passages: list[dict[str, Any]] = []
            if isinstance(reply, RetrievalReplied):
                passages = await self._read_passages(reply)
                text, outcome = _list_passages(passages), "succeeded" if reply.outcome == "found" else reply.outcome
            elif isinstance(reply, ToolCallReplied):
                outcome = reply.outcome
                text = (
                    await self._context.blobs.get_text(feed.tenant, reply.content) if reply.content is not None else ""
                )
            else:
                raise LookupError("it is a call of a model")
        except (LookupError, BlobMissing, BlobCorrupt) as error:
            message = f"the outcome of call {call_id} cannot be read any more: {error}"
            raise DoorRefusal(
                502, "content_missing", message, "it was made: look at the task before making it again"
            ) from error
        failure = reply.failure
        if outcome != "succeeded" and failure is None:
            failure = Failure.from_text("tool_failed", "the tool gave no reason")
        left_out = tuple(
            f"{omission.what}: {omission.detail}" if omission.detail else omission.what
            for omission in reply.completeness.omissions
        )
        return ToolCallAnswer(feed.task, call_id, outcome, text, failure, reply.standing, left_out, tuple(passages))

    async def _read_passages(self, reply: RetrievalReplied) -> list[dict[str, Any]]:
        """The passages, each with the place where it stands."""
        texts = await asyncio.gather(
            *(self._context.blobs.get_text(self._feed.tenant, passage.content) for passage in reply.passages)
        )
        return [
            row.citation.model_dump(mode="json") | {"title": row.title, "text": text}
            for row, text in zip(reply.passages, texts, strict=True)
        ]


def _list_passages(passages: Sequence[Mapping[str, Any]]) -> str:
    return "\n\n".join(
        f"[{row['document']} {row['start']}-{row['end']}] {row['title']}\n{row['text']}" for row in passages
    )


def _refusal_of_hold(put_off: CallDeferred) -> DoorRefusal:
    if put_off.code == refusals.APPROVAL_WANTED:
        hint = "call it again with the same arguments when that is done; it is not made before"
        return DoorRefusal(409, put_off.code, put_off.reason, hint, retry=True)
    return refusals.of_deferral(put_off)
