"""Messages as blobs: each is stored once, however often it is sent.

In: messages and options in OpenAI's chat form. Out: a Conversation of their references, or a Refusal (413, 429).
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from bulkhead.flow.content import LISTED, in_list, list_of
from bulkhead.health.sources.outside_acts import acts_of, thread_of
from bulkhead.runtime.context import Context
from bulkhead_contracts import bounds
from bulkhead_contracts.model import Conversation
from bulkhead_contracts.result import REFERENCES, ContentRef
from bulkhead_services.doors.port import Asked, Refusal
from bulkhead_services.doors.stored_bytes import StoredBytes

PUTS_AT_ONCE = 16


class Contents:
    """The blobs of conversations."""

    def __init__(self, context: Context, stored: StoredBytes) -> None:
        self._context, self._stored = context, stored

    async def stored(
        self, tenant: str, asked: Asked, before: tuple[ContentRef, ...], answer: Any, thread: str
    ) -> Conversation:
        """The conversation by reference. before: messages that stand already, which `answer` ends, and their thread;
        instructions come before all of them. Raises BusError, Refusal."""
        messages: list[Mapping[str, Any]] = list(asked.messages)
        if answer is not None:
            messages.insert(int(asked.instructed), answer)
        raw = [_content(row, f"message {number}") for number, row in enumerate(messages, 1)]
        options = [_content(asked.options, "what is beside the messages")] if asked.options else []
        found = await self.put(tenant, *raw, *options)
        own, first = found[: len(raw)], int(asked.instructed)
        refs = (*own[:first], *before, *own[first:])
        if len(refs) > bounds.MAX_CONVERSATION:
            raise too_many(len(refs))
        return Conversation(
            messages=refs,
            options=found[-1] if options else None,
            reads_calls=True,
            acts=(acts := acts_of(messages))[: bounds.MAX_CALLS_PER_TURN],
            more_acts=acts[bounds.MAX_CALLS_PER_TURN :],
            thread=thread or thread_of(messages),
            embeds=asked.embeds,
        )

    async def put(self, tenant: str, *contents: bytes, media_type: str = LISTED) -> tuple[ContentRef, ...]:
        """Blobs of JSON, counted and stored. Raises BusError, Refusal."""
        self._stored.count(tenant, contents)
        places = asyncio.Semaphore(PUTS_AT_ONCE)

        async def put(raw: bytes) -> ContentRef:
            async with places:
                return await self._context.blobs.put(tenant, raw, media_type, summary="")

        return tuple(await asyncio.gather(*map(put, contents)))

    async def listed(self, tenant: str, conversation: Conversation) -> Conversation:
        """The same in few references: its oldest messages by lists, which the next turns share. Raises BusError,
        Refusal."""
        refs, size = conversation.messages, bounds.LISTED_REFERENCES
        whole = (len(refs) - 1) // size * size
        lists = [list_of(refs[at : at + size]) for at in range(0, whole, size)]
        found = await self.put(tenant, *lists, media_type=REFERENCES)
        return conversation.model_copy(update={"messages": (*found, *refs[whole:])})

    async def whole(self, tenant: str, conversation: Conversation) -> tuple[ContentRef, ...]:
        """The reference of each message. Raises BlobMissing, BlobCorrupt, ValueError, BusError."""
        found: list[ContentRef] = []
        for ref in conversation.messages:
            listed = ref.media_type == REFERENCES
            found += in_list(ref, await self._context.blobs.get(tenant, ref)) if listed else (ref,)
        return tuple(found)


def too_many(count: int) -> Refusal:
    """More messages than a model gateway takes."""
    what = f"the conversation has {count} messages, and may have {bounds.MAX_CONVERSATION}"
    return Refusal(400, "too_many_messages", what, "send its newest part")


def canonical(value: object) -> bytes:
    """The same bytes for the same message, however it was written."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def _content(value: object, what: str) -> bytes:
    """The bytes of one blob. Raises Refusal."""
    raw = canonical(value)
    if len(raw) > bounds.MAX_BLOB_BYTES:
        text = f"{what} has {len(raw)} bytes, and may have {bounds.MAX_BLOB_BYTES}"
        raise Refusal(413, "too_large", text, "send less of it")
    return raw
