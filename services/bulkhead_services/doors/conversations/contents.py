"""Messages as blobs: each is stored once, however often it is sent.

In: messages and options in the form of their API. Out: a Conversation of their references, or a DoorRefusal
(413, 429).
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bulkhead.flow.content import LISTED, in_list, list_of
from bulkhead.health.sources.outside_acts import acts_of, thread_of
from bulkhead.model_apis.views import view_in_chat_form
from bulkhead.runtime.context import Context
from bulkhead_contracts import bounds
from bulkhead_contracts.model import Conversation
from bulkhead_contracts.result import REFERENCES, ContentRef
from bulkhead_services.doors.port import DoorRefusal, ParsedModelCall
from bulkhead_services.doors.stored_bytes import StoredBytes

PUTS_AT_ONCE = 16


class ConversationBlobs:
    """The blobs of conversations."""

    def __init__(self, context: Context, stored: StoredBytes) -> None:
        self._context, self._stored = context, stored

    async def store_conversation(
        self,
        tenant: str,
        parsed_call: ParsedModelCall,
        before: tuple[ContentRef, ...],
        answer: Sequence[Mapping[str, Any]],
        thread: str,
    ) -> tuple[Conversation, tuple[ContentRef, ...]]:
        """The conversation by reference, and every content of it: many messages stand in lists there. before: messages
        that stand already, which `answer` ends, and their thread. Raises BusError, DoorRefusal.
        """
        messages = [*answer, *parsed_call.messages]
        raw = [_blob_bytes(row, f"message {number}") for number, row in enumerate(messages, 1)]
        options = [_blob_bytes(parsed_call.options, "what is beside the messages")] if parsed_call.options else []
        stored_refs = await self.store_blobs(tenant, *raw, *options)
        refs, options_refs = (*before, *stored_refs[: len(raw)]), stored_refs[len(raw) :]
        if len(refs) > bounds.MAX_CONVERSATION_ROWS:
            raise too_many_messages(len(refs))
        chat = view_in_chat_form(parsed_call.api, messages, {}).messages
        conversation = Conversation(
            messages=await self._fold_into_lists(tenant, refs),
            options=options_refs[0] if options_refs else None,
            reads_calls=True,
            acts=(acts := acts_of(chat))[: bounds.MAX_CALLS_PER_TURN],
            more_acts=acts[bounds.MAX_CALLS_PER_TURN :],
            thread=thread or thread_of(chat),
            embeds=parsed_call.embeds,
            api=parsed_call.api,
        )
        return conversation, (*refs, *options_refs)

    async def store_blobs(self, tenant: str, *contents: bytes, media_type: str = LISTED) -> tuple[ContentRef, ...]:
        """Blobs of JSON, counted and stored. Raises BusError, DoorRefusal."""
        self._stored.count_contents(tenant, contents)
        places = asyncio.Semaphore(PUTS_AT_ONCE)

        async def store_blob(raw: bytes) -> ContentRef:
            async with places:
                return await self._context.blobs.put(tenant, raw, media_type, summary="")

        return tuple(await asyncio.gather(*map(store_blob, contents)))

    async def _fold_into_lists(self, tenant: str, refs: tuple[ContentRef, ...]) -> tuple[ContentRef, ...]:
        """The messages in few references: the oldest ones by lists, which the next turns share."""
        size = bounds.LISTED_REFERENCES
        listed_count = (len(refs) - 1) // size * size
        lists = [list_of(refs[start : start + size]) for start in range(0, listed_count, size)]
        return (*await self.store_blobs(tenant, *lists, media_type=REFERENCES), *refs[listed_count:])

    async def expand_lists(self, tenant: str, conversation: Conversation) -> tuple[ContentRef, ...]:
        """The reference of each message. Raises BlobMissing, BlobCorrupt, ValueError, BusError."""
        refs: list[ContentRef] = []
        for ref in conversation.messages:
            listed = ref.media_type == REFERENCES
            refs += in_list(ref, await self._context.blobs.get(tenant, ref)) if listed else (ref,)
        return tuple(refs)


def too_many_messages(count: int) -> DoorRefusal:
    """More messages than a model gateway takes."""
    message = f"the conversation has {count} messages, and may have {bounds.MAX_CONVERSATION_ROWS}"
    return DoorRefusal(400, "too_many_messages", message, "send its newest part")


def canonical_json(value: object) -> bytes:
    """The same bytes for the same message, however it was written."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def _blob_bytes(value: object, what: str) -> bytes:
    """The bytes of one blob. Raises DoorRefusal."""
    raw = canonical_json(value)
    if len(raw) > bounds.MAX_BLOB_BYTES:
        text = f"{what} has {len(raw)} bytes, and may have {bounds.MAX_BLOB_BYTES}"
        raise DoorRefusal(413, "too_large", text, "send less of it")
    return raw
