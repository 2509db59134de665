"""Messages as blobs: each is stored once, however often it is sent.

In: messages and options in the form of their API. Out: a Conversation of their references, or a DoorRefusal
(400, 413, 429).
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from bulkhead.flow.content import LISTED, in_list, list_of, reference
from bulkhead.health.sources.outside_acts import acts_of, thread_of
from bulkhead.model_apis.media import without_media
from bulkhead.model_apis.views import view_in_chat_form
from bulkhead.runtime.context import Context
from bulkhead_contracts import bounds
from bulkhead_contracts.model import Conversation
from bulkhead_contracts.result import REFERENCES, ContentRef
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.doors.feed import SERVICE
from bulkhead_services.doors.model_names import ModelNames
from bulkhead_services.doors.port import DoorRefusal, ParsedModelCall
from bulkhead_services.doors.stored_bytes import StoredBytes

PUTS_AT_ONCE = 16
MOST_BYTES_PER_TOKEN = 17
"""No estimate of the model gateway, corrected as far as it may be, says that a token has more."""
LEAST_JUDGED_BYTES = 500_000
"""What is smaller is not judged here: it fits the context that an unknown model is believed to have."""


class ConversationBlobs:
    """The blobs of conversations."""

    def __init__(self, context: Context, stored: StoredBytes, models: ModelNames) -> None:
        self._context, self._stored, self._models = context, stored, models

    async def store_conversation(
        self,
        claim: RequesterClaim,
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
        if len(before) + len(raw) > bounds.MAX_CONVERSATION_ROWS:
            raise too_many_messages(len(before) + len(raw))
        if not parsed_call.embeds:
            await self._check_room(claim, parsed_call.model, raw, options)
        stored_refs = await self.store_blobs(claim.tenant, claim.person, *raw, *options)
        refs, options_refs = (*before, *stored_refs[: len(raw)]), stored_refs[len(raw) :]
        chat = view_in_chat_form(parsed_call.api, messages, {}).messages
        conversation = Conversation(
            messages=await self._fold_into_lists(claim, refs),
            options=options_refs[0] if options_refs else None,
            reads_calls=True,
            acts=(acts := acts_of(chat))[: bounds.MAX_CALLS_PER_TURN],
            more_acts=acts[bounds.MAX_CALLS_PER_TURN :],
            thread=thread or thread_of(chat),
            embeds=parsed_call.embeds,
            api=parsed_call.api,
        )
        return conversation, (*refs, *options_refs)

    async def _check_room(
        self, claim: RequesterClaim, model: str, raw: Sequence[bytes], options: Sequence[bytes]
    ) -> None:
        """Refuse what fits no model of this name, before anything of it is stored. Raises DoorRefusal.

        Images and documents count by what they show: of those only the model gateway knows.
        """
        size = sum(map(len, (*raw, *options)))
        if size < LEAST_JUDGED_BYTES:
            return
        most = await self._models.most_context_tokens(claim, model) * MOST_BYTES_PER_TOKEN
        if not 0 < most < size:
            return
        text, _ = without_media(b'{"messages":[%b]}' % b",".join(raw))
        if (size := len(text) + sum(map(len, options))) > most:
            message = (
                f"the conversation has {size} bytes beside images and documents; {model} has room for {most} at most"
            )
            hint = "send fewer or shorter messages, or name another model"
            raise DoorRefusal(400, "context_overflow", message, hint)

    async def store_blobs(
        self, tenant: str, person: str, *contents: bytes, media_type: str = LISTED
    ) -> tuple[ContentRef, ...]:
        """Blobs of JSON, counted and stored. Raises BusError, DoorRefusal."""
        self._stored.count_contents(tenant, person, contents)
        blobs, places = self._context.blobs, asyncio.Semaphore(PUTS_AT_ONCE)
        refs = [reference(SERVICE, raw, media_type, summary="") for raw in contents]

        async def store_blob(raw: bytes) -> None:
            async with places:
                await blobs.put(tenant, raw, media_type, summary="")

        # Of a conversation that goes on nearly all is stored.
        new = [raw for ref, raw in zip(refs, contents, strict=True) if blobs.find_cached(tenant, ref) is None]
        await asyncio.gather(*map(store_blob, new))
        return tuple(refs)

    async def _fold_into_lists(self, claim: RequesterClaim, refs: tuple[ContentRef, ...]) -> tuple[ContentRef, ...]:
        """The messages in few references: the oldest ones by lists, which the next turns share."""
        size = bounds.LISTED_REFERENCES
        listed_count = (len(refs) - 1) // size * size
        lists = [list_of(refs[start : start + size]) for start in range(0, listed_count, size)]
        list_refs = await self.store_blobs(claim.tenant, claim.person, *lists, media_type=REFERENCES)
        return (*list_refs, *refs[listed_count:])

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
