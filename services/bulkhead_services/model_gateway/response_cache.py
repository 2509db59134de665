"""Answers that are given again to the very same request of the same tenant and scope (ADR 0029).

Enters: a request in its provider's form, an answer. Leaves: an earlier answer, or nothing. Entries lie in a stream of
their own that this service alone writes; a tenant has so many places there, and what is new takes an old one's. One is
believed only under this service's own MAC, for its own tenant and key, and with content that has its digest.
"""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from bulkhead.blobs import BlobCorrupt, BlobMissing, Blobs
from bulkhead.bus.port import Bus, BusError, StoredMessage
from bulkhead.grants import Authority
from bulkhead.runtime.doer.protocol import Job
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds, envelope, subjects
from bulkhead_contracts.model import ModelCallRequested, ToolCall
from bulkhead_contracts.result import ContentRef, Usage
from bulkhead_services.model_gateway.providers.fields import read_object
from bulkhead_services.model_gateway.providers.port import Finish, ModelAnswer, ProviderRequest

log = Log("model_gateway.cache")
CACHE_HIT = Usage(cached_calls=1)


class CacheEntry(BaseModel):
    """An answer on record. mac: of the service, over everything else."""

    tenant: str
    key: str
    content: ContentRef | None
    calls: tuple[ToolCall, ...]
    finish: Finish
    model: str
    fingerprint: str
    stored_unix_ms: int
    mac: str = ""


def media_type_of(request: ModelCallRequested) -> str:
    """The media type of an answer."""
    return "text/plain" if request.response == "text" else "application/json"


class ResponseCache:
    """The cache of one service. addresses: where each provider is, by name: another endpoint gives other answers."""

    def __init__(
        self,
        service: str,
        bus: Bus,
        blobs: Blobs,
        message_key: bytes,
        clock: Callable[[], int],
        addresses: Mapping[str, str],
    ) -> None:
        self._service, self._bus, self._blobs, self._clock = service, bus, blobs, clock
        self._addresses = addresses
        self._message_key = message_key
        self._key = hmac.digest(message_key, b"response cache", "sha256")

    def request_key(
        self, job: Job[ModelCallRequested], provider: str, model: str, prompt_digest: str, outgoing: ProviderRequest
    ) -> str:
        """The same for the same request of the same tenant, by whoever may see the same. prompt_digest: its digest.

        Another attempt is another key: it is asked because the answer before was not good enough.
        """
        body = hashlib.sha256(outgoing.body).hexdigest()
        endpoint_parts = [provider, self._addresses.get(provider, ""), outgoing.path, model]
        parts = [job.tenant, _scope_of(job.authority), job.request.attempt, endpoint_parts, prompt_digest, body]
        return hmac.new(self._key, json.dumps(parts).encode(), "sha256").hexdigest()

    async def find_answer(self, tenant: str, key: str, ttl_s: int) -> ModelAnswer | None:
        """The answer under a key that is not older; None when there is none that can be believed."""
        try:
            entries = [self._believed_entry(stored, tenant) for _, stored in await self._read_places(tenant, key)]
            entry = next((row for row in entries if row is not None and row.key == key), None)
            if entry is None or not 0 <= self._clock() - entry.stored_unix_ms < ttl_s * 1000:
                return None
            text = await self._blobs.get_text(tenant, entry.content) if entry.content else ""
        except (BusError, BlobMissing, BlobCorrupt) as error:
            log.warning("cache_entry_unreadable", tenant=tenant, reason=type(error).__name__)
            return None
        return ModelAnswer(text, entry.calls, entry.finish, CACHE_HIT, entry.model, entry.fingerprint, cached=True)

    async def _read_places(self, tenant: str, key: str) -> list[tuple[str, StoredMessage | None]]:
        """The two places of a key, and what lies there: two requests that share one do not drive each other out."""
        numbers = {int(key[offset : offset + 8], 16) % bounds.MAX_CACHED_ANSWERS for offset in (0, 8)}
        names = [subjects.cache_entry(self._service, tenant, number) for number in sorted(numbers)]
        stored = await asyncio.gather(*(self._bus.last(subjects.CACHE_STREAM, name) for name in names))
        return list(zip(names, stored, strict=True))

    def _believed_entry(self, stored: StoredMessage | None, tenant: str) -> CacheEntry | None:
        if stored is None:
            return None
        try:
            entry = CacheEntry.model_validate_json(stored.body)
        except ValidationError:
            entry = None
        if entry is None or entry.tenant != tenant or not hmac.compare_digest(entry.mac, self._mac_of(entry)):
            log.warning("cache_entry_refused", tenant=tenant, sequence=stored.sequence)
            return None
        return entry

    async def keep_answer(self, job: Job[ModelCallRequested], key: str, answer: ModelAnswer) -> None:
        """Store an answer, when it is one that may be given again. That it cannot be stored changes nothing."""
        if not may_keep(job.request, answer):
            return
        try:
            content = None
            if answer.text:
                content = await self._blobs.put(job.tenant, answer.text, media_type_of(job.request))
            entry = CacheEntry(
                tenant=job.tenant,
                key=key,
                content=content,
                calls=answer.calls,
                finish=answer.finish,
                model=answer.model,
                fingerprint=answer.fingerprint,
                stored_unix_ms=self._clock(),
            )
            body = entry.model_copy(update={"mac": self._mac_of(entry)}).model_dump_json().encode()
            if len(body) > bounds.MAX_CACHED_ANSWER_BYTES:
                return
            # Over what it replaces, else where nothing lies, else over what has lain there longest.
            places = await self._read_places(job.tenant, key)
            entries = {name: self._believed_entry(stored, job.tenant) for name, stored in places}
            ages = {name: (row.key != key, row.stored_unix_ms) if row else (True, 0) for name, row in entries.items()}
            subject = min(ages, key=ages.__getitem__)
            message_id = envelope.message_id(self._message_key, f"{subject}/{job.envelope.id}/{entry.mac}")
            await self._bus.publish(subject, body, {"content-type": envelope.CONTENT_TYPE}, message_id)
        except (BusError, ValueError) as error:
            log.warning("cache_entry_not_stored", tenant=job.tenant, reason=type(error).__name__)

    def _mac_of(self, entry: CacheEntry) -> str:
        unsigned_json = entry.model_dump_json(exclude={"mac"}).encode()
        return hmac.new(self._key, unsigned_json, "sha256").hexdigest()


def may_keep(request: ModelCallRequested, answer: ModelAnswer) -> bool:
    """True when an answer is whole, and asks for nothing that changes the world."""
    if answer.cached or answer.omissions or answer.finish not in ("stop", "tool_calls"):
        return False
    effects = {tool.name: tool.effect for tool in request.tools}
    if any(effects.get(call.name) != "read" for call in answer.calls):
        return False
    if not answer.text.strip():
        return bool(answer.calls)
    return request.response == "text" or read_object(answer.text) is not None


def _scope_of(authority: Authority) -> dict[str, Any]:
    """Scope that the caller may see; neither who it is nor until when."""
    tools = authority.step.tools if authority.step is not None else authority.task.tools
    return {"tools": sorted(tools), "documents": sorted(authority.task.document_scopes)}
