"""Trimming of the mesh's own books: messages that no start reads again.

In: a reader (the operator's bus), a way to ask the broker's API as the provisioner, and the first sequence of each
stream that must not be touched. Out: messages removed, by stream.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bulkhead.bus.memory.streams import subject_matches
from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import Bus, StoredMessage
from bulkhead.bus.seek_time import last_before
from bulkhead.runtime.decider.history import at_its_source, is_of_type
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import LedgerCheckpointed
from bulkhead_contracts.identity import LOGINS_BOOK
from bulkhead_contracts.retrieval import DocumentIngested
from bulkhead_contracts.task import PlacesGiven

GATEWAY, JOURNAL_INBOX = subjects.inbox_stream("gateway"), subjects.inbox_stream("journal")
PLACES_SUBJECT = subjects.mesh_subject("gateway", "gateway", "places", "places")
CHECKPOINT, SEALS, PARTS = (
    "mesh.budget.journal.*.checkpoint.*.*",
    *(subjects.mesh_subject("budget", "journal", "checkpoint", one) for one in ("seal", "part")),
)
"""Checkpoints of the ledger: see budget's checkpoint.py."""
REBUILD_MARKS = subjects.mesh_subject("budget", "journal", "ledger", "ledger")
SHARED_RESERVATIONS = "mesh.budget.journal.*.ledger.*.*"
LOGINS_SUBJECT = subjects.mesh_subject("identity", "journal", subjects.EVERYBODY, LOGINS_BOOK)
UNREADABLE = frozenset({"no_text", "empty_document", "encrypted_document", "damaged_document", "document_too_long"})
"""Codes of refusals for what a document holds."""
KEPT_CHECKPOINTS = 2
"""Whoever has read that the last but one is the newest, and has not read its parts yet, must find them."""
ApiRequest = Callable[[str, Mapping[str, object]], Awaitable[dict[str, Any]]]


async def trim_places(reader: Bus, request: ApiRequest, ends: Mapping[str, int]) -> dict[str, int]:
    """Decisions about places to run that no start of a gateway reads again: those before the newest that tells who
    runs, and before the oldest task that waits by it. Raises BusError, and what `request` raises."""
    newest = _parse_places(await reader.last(GATEWAY, PLACES_SUBJECT))
    if newest is None or not newest.snapshot:
        return {}
    base = _parse_places(
        next(iter(await reader.read(GATEWAY, PLACES_SUBJECT, after=newest.snapshot - 1, limit=1)), None)
    )
    if base is None:
        return {}
    until = min(newest.snapshot, base.waiting_from, ends[GATEWAY])
    removed = await _purge_messages(request, GATEWAY, filter=PLACES_SUBJECT, seq=until)
    return {GATEWAY: removed, subjects.JOURNAL_STREAM: await _trim_copies(reader, request, until)}


async def _purge_messages(request: ApiRequest, stream: str, **what: object) -> int:
    """Messages that were removed."""
    return int((await request(f"STREAM.PURGE.{stream}", what)).get("purged", 0))


async def _trim_copies(reader: Bus, request: ApiRequest, until: int) -> int:
    """The journal's copies of the same: it has other sequences, and what it still has and its inbox has not would pass
    for lost."""
    after = end = 0
    while not end and (page := await reader.read(subjects.JOURNAL_STREAM, PLACES_SUBJECT, after=after)):
        end = next((message.sequence for message in page if at_its_source(message).sequence >= until), 0)
        after = page[-1].sequence
    if not after:
        return 0
    return await _purge_messages(request, subjects.JOURNAL_STREAM, filter=PLACES_SUBJECT, seq=end or after + 1)


def is_trimmed(subject: str) -> bool:
    """True for a book of the mesh's own, of which the oldest leave the inbox, and a moment later the journal."""
    return subject == PLACES_SUBJECT or any(
        subject_matches(pattern, subject) for pattern in (CHECKPOINT, SHARED_RESERVATIONS, LOGINS_SUBJECT)
    )


def _parse_places(stored: StoredMessage | None) -> PlacesGiven | None:
    return PlacesGiven.model_validate_json(stored.body) if stored is not None else None


async def trim_checkpoints(reader: Bus, request: ApiRequest, ends: Mapping[str, int]) -> dict[str, int]:
    """Checkpoints of the ledger before the newest two that are whole; a rebuild reads the newest of them and the tail.
    Nothing goes while there are not two. Raises BusError, and what `request` raises."""
    needed = await _needed_checkpoints(reader)
    if not needed:
        return {}
    until = min(
        ends[JOURNAL_INBOX], *(min((stored.sequence, seal.journal_sequence, *seal.parts)) for stored, seal in needed)
    )
    removed = {
        JOURNAL_INBOX: await _purge_messages(request, JOURNAL_INBOX, filter=CHECKPOINT, seq=until),
        subjects.JOURNAL_STREAM: 0,
    }
    # The journal has other sequences: as many of each subject stay there as the inbox has, and those are the newest.
    for subject, count in (await _count_by_subject(request, CHECKPOINT)).items():
        removed[subjects.JOURNAL_STREAM] += await _purge_messages(
            request, subjects.JOURNAL_STREAM, filter=subject, keep=count
        )
    return removed


async def counted_replies(reader: Bus) -> dict[tuple[str, str], int]:
    """The sequence up to which the newest whole checkpoint has counted each doer's replies to each asker. Raises
    BusError."""
    for _, seal in reversed(await _read_seals(reader)):
        if await _is_whole_checkpoint(reader, seal):
            return {(position.doer, position.asker): position.sequence for position in seal.replies}
    return {}


async def trim_reservations(
    reader: Bus, request: ApiRequest, ends: Mapping[str, int], until_unix_ms: int
) -> dict[str, int]:
    """Reservations of several tasks that were stored together: those that were stored before that, and that the newest
    two whole checkpoints have counted. The newest message of each tenant stays. Raises BusError, and what `request`
    raises."""
    needed = await _needed_checkpoints(reader)
    if not needed:
        return {}
    counted = min(ends[JOURNAL_INBOX], *(seal.journal_sequence for _, seal in needed))
    return await _trim_old(reader, request, SHARED_RESERVATIONS, counted, until_unix_ms)


async def trim_refused_documents(
    reader: Bus, request: ApiRequest, ends: Mapping[str, int], until_unix_ms: int
) -> dict[str, int]:
    """Contents of documents that were refused before that for what they hold: nobody reads them again, and whoever
    sends one anew stores it anew. Raises BusError, and what `request` raises."""
    refused: set[str] = set()
    async for stored in stored_messages(reader, GATEWAY, "mesh.rag.gateway.>"):
        if stored.time_unix_ms > until_unix_ms or stored.sequence >= ends[GATEWAY]:
            break
        if is_of_type(stored, DocumentIngested.TYPE):
            body = DocumentIngested.model_validate_json(stored.body)
            if body.failure is not None and body.failure.code in UNREADABLE:
                refused.add(subjects.blob_subject("gateway", stored.tenant, body.sha256))
    removed = [await _purge_messages(request, subjects.BLOBS_STREAM, filter=subject) for subject in sorted(refused)]
    return {subjects.BLOBS_STREAM: sum(removed)} if any(removed) else {}


async def trim_logins(reader: Bus, request: ApiRequest, ends: Mapping[str, int], until_unix_ms: int) -> dict[str, int]:
    """Facts about logins that were stored before that; the newest stays. Raises BusError, and what `request` raises."""
    removed = await _trim_old(reader, request, LOGINS_SUBJECT, ends[JOURNAL_INBOX], until_unix_ms)
    return {stream: count for stream, count in removed.items() if count}  # Most meshes have no such facts.


async def _trim_old(reader: Bus, request: ApiRequest, pattern: str, before: int, until_unix_ms: int) -> dict[str, int]:
    """Messages of these subjects that are old, and have a sequence before that one; the newest of each stays."""
    removed = {JOURNAL_INBOX: 0, subjects.JOURNAL_STREAM: 0}
    for subject, count in (await _count_by_subject(request, pattern)).items():
        newest = await reader.last(JOURNAL_INBOX, subject)
        if subject == REBUILD_MARKS or newest is None:
            continue  # Each mark of a rebuild names the one before.
        old = await last_before(reader, JOURNAL_INBOX, subject, until_unix_ms, newest.sequence)
        if purged := await _purge_messages(
            request, JOURNAL_INBOX, filter=subject, seq=min(before, newest.sequence, old + 1)
        ):
            removed[JOURNAL_INBOX] += purged
            remaining = count - purged
            removed[subjects.JOURNAL_STREAM] += await _purge_messages(
                request, subjects.JOURNAL_STREAM, filter=subject, keep=remaining
            )
    return removed


async def _count_by_subject(request: ApiRequest, pattern: str) -> dict[str, int]:
    """Messages by subject."""
    info = await request(f"STREAM.INFO.{JOURNAL_INBOX}", {"subjects_filter": pattern})
    return info["state"].get("subjects") or {}


async def _needed_checkpoints(reader: Bus) -> list[tuple[StoredMessage, LedgerCheckpointed]]:
    """The newest two checkpoints that are whole; [] while there are not two."""
    checkpoints: list[tuple[StoredMessage, LedgerCheckpointed]] = []
    for stored, seal in reversed(await _read_seals(reader)):
        if len(checkpoints) < KEPT_CHECKPOINTS and await _is_whole_checkpoint(reader, seal):
            checkpoints.append((stored, seal))
    return checkpoints if len(checkpoints) == KEPT_CHECKPOINTS else []


async def _read_seals(reader: Bus) -> list[tuple[StoredMessage, LedgerCheckpointed]]:
    stored_seals = stored_messages(reader, JOURNAL_INBOX, SEALS)
    return [(stored, LedgerCheckpointed.model_validate_json(stored.body)) async for stored in stored_seals]


async def _is_whole_checkpoint(reader: Bus, seal: LedgerCheckpointed) -> bool:
    for sequence in seal.parts:
        part = await reader.read(JOURNAL_INBOX, PARTS, after=sequence - 1, limit=1)
        if not part or part[0].sequence != sequence or json.loads(part[0].body)["checkpoint"] != seal.checkpoint:
            return False
    return True
