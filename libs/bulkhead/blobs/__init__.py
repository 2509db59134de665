"""Content by digest: put once, read anywhere, verified on reading.

In: text or bytes. Out: a ContentRef whose author the broker enforces by subject. A text that its summary tells whole is
stored nowhere: its reference carries it (ADR 0048).
"""

import asyncio
import hashlib
import secrets
from collections import OrderedDict

from bulkhead.bus.port import Bus, PublishRefused, StoredMessage
from bulkhead.flow.content import reference as reference
from bulkhead.flow.content import summarise as summarise
from bulkhead_contracts import bounds, envelope, subjects
from bulkhead_contracts.result import ContentRef

FOLLOWER_LAGS_S = (0.01, 0.04, 0.16)
"""What was acked may not be seen yet by the follower that answers a read: pauses before looking again."""


BELIEVED_S = 300.0
"""So long a writer believes that a content is still stored: its erasure may have taken it since."""


class BlobMissing(LookupError):
    """Missing blob under this reference (expired, or it was never stored)."""


class BlobCorrupt(ValueError):
    """The stored bytes do not have the requested digest."""


class Blobs:
    """A service's view of the blob stream, with a small cache: a blob never changes."""

    def __init__(self, bus: Bus, author: str, cache_bytes: int = 32 * 1024 * 1024) -> None:
        self._bus = bus
        self._author = author
        # The subject is written once anyway; the id must only be one that no other author can occupy.
        self._key = secrets.token_bytes(32)
        self._cache: OrderedDict[tuple[str, str, str], bytes] = OrderedDict()
        self._seen_at_s: dict[tuple[str, str, str], float] = {}
        self._room = cache_bytes

    async def put(
        self,
        tenant: str,
        data: str | bytes,
        media_type: str = "text/plain",
        summary: str | None = None,
        *,
        may_be_gone: bool = False,
        is_for_asker: bool = False,
    ) -> ContentRef:
        """Store once; storing the same again costs nothing. may_be_gone: what was stored may have been removed since.
        is_for_asker: nobody but the receiver of the reference reads it, so that it may carry more than a summary.
        Raises ValueError over MAX_BLOB_BYTES."""
        raw = data.encode() if isinstance(data, str) else data
        if len(raw) > bounds.MAX_BLOB_BYTES:
            raise ValueError(f"content of {len(raw)} bytes exceeds {bounds.MAX_BLOB_BYTES}; split it")
        ref = reference(self._author, raw, media_type, summary)
        if ref.carried_text is not None:
            return ref
        if is_for_asker and isinstance(data, str) and len(data) <= bounds.MAX_CARRIED_CHARS:
            return ref.model_copy(update={"text": data})
        key = (ref.author, tenant, ref.sha256)
        now_s = asyncio.get_running_loop().time()
        if key in self._cache and not may_be_gone and now_s - self._seen_at_s[key] < BELIEVED_S:
            return ref
        subject = subjects.blob_subject(ref.author, tenant, ref.sha256)
        try:
            await self._bus.publish(subject, raw, {"content-type": media_type}, envelope.message_id(self._key, subject))
        except PublishRefused:
            # The stream holds one message per subject and refuses a second: fine when it is there.
            if await self._find_stored(subject) is None:
                raise
        self._cache_blob(key, raw)
        return ref

    def find_cached(self, tenant: str, ref: ContentRef) -> bytes | None:
        """The bytes of a reference that are at hand: whoever has many of them needs no task for each."""
        if (text := ref.carried_text) is not None:
            return text.encode()
        key = (ref.author, tenant, ref.sha256)
        if key not in self._cache:
            return None
        self._cache.move_to_end(key)
        return self._cache[key]

    async def get(self, tenant: str, ref: ContentRef) -> bytes:
        """The bytes of a reference. Raises BlobMissing, BlobCorrupt."""
        if (cached := self.find_cached(tenant, ref)) is not None:
            return cached
        key = (ref.author, tenant, ref.sha256)
        stored = await self._find_stored(subjects.blob_subject(*key))
        if stored is None:
            raise BlobMissing(f"no content {ref.sha256[:12]} by {ref.author}; it may have expired")
        if hashlib.sha256(stored.body).hexdigest() != ref.sha256:
            raise BlobCorrupt(f"content {ref.sha256[:12]} by {ref.author} does not match its digest")
        self._cache_blob(key, stored.body)
        return stored.body

    async def _find_stored(self, subject: str) -> StoredMessage | None:
        stored = await self._bus.last(subjects.BLOBS_STREAM, subject)
        for pause_s in FOLLOWER_LAGS_S:
            if stored is not None:
                break
            await asyncio.sleep(pause_s)
            stored = await self._bus.last(subjects.BLOBS_STREAM, subject)
        return stored

    async def get_text(self, tenant: str, ref: ContentRef) -> str:
        """Text of a reference's blob; bytes that are not UTF-8 are replaced."""
        return (await self.get(tenant, ref)).decode("utf-8", "replace")

    def _cache_blob(self, key: tuple[str, str, str], raw: bytes) -> None:
        self._seen_at_s[key] = asyncio.get_running_loop().time()
        if key in self._cache:
            return
        self._cache[key] = raw
        self._room -= len(raw)
        while self._room < 0 and self._cache:
            evicted_key, evicted = self._cache.popitem(last=False)
            del self._seen_at_s[evicted_key]
            self._room += len(evicted)
