"""One call of a tool: what `RunCall` does for it.

In: the feed of its run. Out: `ToolCallRequested` or `RetrievalRequested`; the outcome on record, or a DoorRefusal.
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
from bulkhead_contracts.task import TaskEnded
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested, ToolSpec
from bulkhead_contracts.wording import describe_error
from bulkhead_services.doors import refusals
from bulkhead_services.doors.feed import CallState, RunFeed
from bulkhead_services.doors.mcp.port import ToolCallAnswer
from bulkhead_services.doors.port import DoorRefusal
from bulkhead_services.doors.run_call import Phase, RunCall
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


class ToolCall(RunCall[Request, ToolCallAnswer]):
    """A call. A write that has begun is made to its end, also after its run has ended."""

    not_stored = "the message broker has not said in time that it stored it"

    def __init__(self, context: Context, settings: Settings, feed: RunFeed, request: Request) -> None:
        service = "rag" if isinstance(request, RetrievalRequested) else "tool_executor"
        super().__init__(context, settings, feed, request, service)

    def _answer_wait_s(self) -> float:
        return max(0.0, (self.request.deadline_unix_ms - self._context.clock()) / 1000) + MARGIN_S

    def _heed_run_end(self, ended: TaskEnded, now_s: float) -> None:
        if self.phase is Phase.DEFERRED:
            raise refusals.of_end(self.feed.task, ended, self._settings.idle_s)
        self._overdue_s = min(self._overdue_s, now_s + MARGIN_S)

    def _refuse_overdue(self) -> DoorRefusal:
        return self._refuse_unknown("it has none yet" if self.feed.ended is None else "its run has ended")

    def _refuse_deferral(self, deferral: CallDeferred) -> DoorRefusal:
        if deferral.code == refusals.APPROVAL_WANTED:
            hint = "call it again with the same arguments when that is done; it is not made before"
            return DoorRefusal(409, deferral.code, deferral.reason, hint, retry=True)
        return refusals.of_deferral(deferral)

    def _refuse_broker_failure(self, reason: str) -> DoorRefusal:
        return self._refuse_unknown(reason) if self.was_sent else refusals.mesh_unavailable(reason)

    def _refuse_unknown(self, reason: str) -> DoorRefusal:
        """It was sent, and what became of it cannot be told: made again it might be made twice."""
        message = f"call {self.call_id} of task {self.feed.task} was sent, and its outcome is not known here: {reason}"
        hint = "it may have been made: look at the task before you make it again"
        return DoorRefusal(502, "outcome_unknown", message, hint)

    async def _read_answer(self, call_state: CallState) -> ToolCallAnswer:
        feed, call_id = self.feed, self.call_id
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
            *(self._context.blobs.get_text(self.feed.tenant, passage.content) for passage in reply.passages)
        )
        return [
            row.citation.model_dump(mode="json") | {"title": row.title, "text": text}
            for row, text in zip(reply.passages, texts, strict=True)
        ]


def _list_passages(passages: Sequence[Mapping[str, Any]]) -> str:
    return "\n\n".join(
        f"[{row['document']} {row['start']}-{row['end']}] {row['title']}\n{row['text']}" for row in passages
    )
