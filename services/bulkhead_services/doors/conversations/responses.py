"""Responses that a later request goes on from (`previous_response_id`).

In: a call and its conversation. Out: the id of its response, which is the digest of what is kept of it; from such an id
of the same caller, the run, the messages and the answer. The answer itself is the run's record: nothing of it is kept
here, and a response whose run is purged is gone with it.
"""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict

from bulkhead.blobs import BlobCorrupt, BlobMissing
from bulkhead.flow.content import LISTED
from bulkhead.model_apis.allowed import RESPONSES
from bulkhead.model_apis.native_answers import native_blocks
from bulkhead.runtime.context import Context
from bulkhead_contracts import bounds
from bulkhead_contracts.model import Conversation
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.types import Contract, Token
from bulkhead_services.doors.conversations.contents import ConversationBlobs
from bulkhead_services.doors.conversations.tool_calls import calls_of, native_answer_of
from bulkhead_services.doors.feed import SERVICE, RunFeed
from bulkhead_services.doors.port import Caller, DoorRefusal, ParsedModelCall
from bulkhead_services.doors.runs import RunDirectory

_ID = re.compile(r"resp_([0-9a-f]{64})")
FIELD = "previous_response_id"
MARK = b"response\n"
"""No JSON begins so: agents store nothing but JSON here, and could else write such a record of their own."""


class KeptResponse(Contract):
    """Record of a response."""

    model_config = ConfigDict(extra="forbid")

    task: Token
    call_id: Token
    conversation: Conversation


@dataclass(frozen=True, slots=True)
class PreviousResponse:
    """Response that a request goes on from. answer: its items. thread: of the conversation."""

    feed: RunFeed
    messages: tuple[ContentRef, ...]
    answer: list[dict[str, Any]]
    thread: str


class ResponseStore:
    """The kept responses of this mesh."""

    def __init__(self, context: Context, contents: ConversationBlobs) -> None:
        self._context, self._contents = context, contents

    async def keep_response(
        self, feed: RunFeed, call_id: str, parsed_call: ParsedModelCall, conversation: Conversation
    ) -> str:
        """Keep a response that is asked for; its id, or "". Raises BusError, DoorRefusal."""
        if not parsed_call.keep:
            return ""
        record = KeptResponse(task=feed.task, call_id=call_id, conversation=conversation)
        [ref] = await self._contents.store_blobs(feed.tenant, feed.actor, MARK + record.model_dump_json().encode())
        return f"resp_{ref.sha256}"

    async def find_previous(self, runs: RunDirectory, caller: Caller, name: str) -> PreviousResponse:
        """The response of this id, of one of this caller's own runs. Raises DoorRefusal, BusError."""
        matched = _ID.fullmatch(name)
        if matched is None:
            raise _unknown_response(name)
        tenant = caller.claim.tenant
        ref = ContentRef(author=SERVICE, sha256=matched[1], size_bytes=0, media_type=LISTED)
        try:
            raw = await self._context.blobs.get(tenant, ref)
            if not raw.startswith(MARK):
                raise ValueError(name)
            record = KeptResponse.model_validate_json(raw.removeprefix(MARK))
            if record.conversation.api != RESPONSES:
                raise ValueError(name)
            feed = await runs.own_run(caller, record.task)
            answer = await self._recorded_answer(feed, record.call_id)
            messages = await self._contents.expand_lists(tenant, record.conversation)
        except DoorRefusal as refusal:
            raise _unknown_response(name) from refusal
        except (BlobMissing, BlobCorrupt, ValueError, LookupError) as error:
            raise _unknown_response(name) from error
        return PreviousResponse(feed, messages, answer, record.conversation.thread)

    async def _recorded_answer(self, feed: RunFeed, call_id: str) -> list[dict[str, Any]]:
        """An answer on record as items. Raises LookupError, BlobMissing, BlobCorrupt, ValueError, BusError."""
        if not feed.has_reply(call_id):
            raise LookupError(call_id)
        reply = await feed.model_reply_of(call_id)
        if reply.outcome != "answered":
            raise LookupError(call_id)
        blobs, tenant = self._context.blobs, feed.tenant
        if native := native_blocks(await native_answer_of(blobs, tenant, reply)):
            return native
        text = await blobs.get_text(tenant, reply.content) if reply.content is not None else ""
        calls = await calls_of(blobs, tenant, reply)
        items = [{"type": "message", "role": "assistant", "content": text}] if text or not calls else []
        return items + [
            {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments_json}
            for call in calls
        ]


def _unknown_response(name: str) -> DoorRefusal:
    message = f"there is no response {name[: bounds.MAX_SUMMARY_CHARS]!r} of yours on record"
    hint = "send the id of a response that is complete and was not asked for with store: false, or the whole input"
    return DoorRefusal(404, "previous_response_not_found", message, hint, field=FIELD)
