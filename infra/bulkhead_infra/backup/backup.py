"""Backup of a running mesh that a restored mesh goes on from: held for a moment, positions first, blobs last.

In: a broker, folders. Out: a file (`archive`). No process is stopped and nothing is refused: tasks are taken,
calls that are under way end. But from before the first copy to after the last one of what messages live in,
nothing new is handed out. Without that, a decider could act on a message that its inbox's copy lacks while
other copies have what it said: after a restore the message comes once more, at another time, and is decided
once more and otherwise. With it, whoever still acts does so on what every copy has. The broker lets go by
itself when a backup dies.

The streams are copied one after the other, later ones know more, and from that follows the order:

1. Positions of the durables. Messages above them are handled once more after a restore, against everything
   below: the same decisions, the same ids, which are known. A position read after any stream could skip what
   that stream lacks.
2. Inboxes of deciders and doers, then the gateway's: only it hears outsiders, so that nothing is left to an
   inbox whose task it does not know.
3. Timers after the inboxes that source them: one that fired in between is fetched, not missed.
4. Records after the inboxes: no inbox holds a reply to a call that its doer does not remember having made.
5. The money's facts (the journal's and budget's inbox) after the records: no recorded call is missing in the
   ledger.
6. Events for subscribers after the positions of gateway and subscribers: what was handled has its events
   here.
7. Documents and blobs after all that may name them, and when everything runs again: they only grow.

Left out, since it is made of the rest: the stream JOURNAL (sources the inboxes) and Redis (the ledger is
folded from the facts at budget's start). Left out, since it is no state: logs and traces.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bulkhead.bus.jetstream.connection import CA_FILE
from bulkhead_contracts import catalog, subjects
from bulkhead_infra.backup import documents, key_sealing
from bulkhead_infra.backup.archive import (
    FORMAT,
    ArchiveWriter,
    BackupError,
    BackupManifest,
    BackupPathError,
    DocumentsCopy,
    DurablePosition,
    StreamCopy,
)
from bulkhead_infra.backup.stream_copies import BackupConnection
from bulkhead_infra.identity.config_folder import load_identities

MONEY_INBOXES = ("budget", catalog.JOURNAL)
API_KEYS_FILE = "api_keys.json"
KEYS_PART = "keys.sealed"
CREDENTIALS_FILE = "credentials.json"
START_ONCE = "start the mesh once, which makes what is missing, then try again"


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """One thing was copied or restored."""

    what: str
    name: str
    bytes: int
    messages: int = 0


ReportProgress = Callable[[CopyProgress], None]
Durable = tuple[str, str]
"""Stream and name."""
HOLD_S = 30.0
"""Time for which a backup that died may still keep a mesh waiting."""


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """Parts to copy beside the streams. documents: rag's folder; data: of `bulkhead up`, for the digests of API keys.

    passphrase: seals the keys of `identity` (and the local user's credentials); without one no key is copied. config:
    folder of files of one's own, which names publishers.
    """

    documents: Path | None = None
    data: Path | None = None
    identity: Path | None = None
    passphrase: str = ""
    config: Path | None = None


def stream_copy_order(publishers: Iterable[str]) -> Iterator[str]:
    """The streams that are copied while nothing is handed out, in their order."""
    for name in catalog.INBOXES:
        if name != "gateway" and name not in MONEY_INBOXES:
            yield subjects.inbox_stream(name)
    yield subjects.inbox_stream("gateway")
    yield from (subjects.published_stream(name) for name in publishers)
    yield from (subjects.timers_stream(name) for name in catalog.DECIDERS)
    yield from (subjects.records_stream(name) for name in catalog.DOERS)
    yield subjects.CONTROL_STREAM
    yield subjects.PROMPTS_STREAM
    yield subjects.DEAD_LETTERS_STREAM
    yield from (subjects.inbox_stream(name) for name in MONEY_INBOXES)
    yield subjects.EVENTS_STREAM


async def write_backup(
    broker: BackupConnection, to: Path, options: BackupOptions, report: ReportProgress = lambda progress: None
) -> BackupManifest:
    """Write a backup to a new file. Raises BackupError: then there is no file."""
    sealed = _seal_keys(options) if options.passphrase else b""
    publishers = load_identities(options.config).publishers
    with ArchiveWriter(to) as file:
        async with hold_deliveries(broker, await _inbox_durables(broker)) as durables:
            subscriber_durables = [
                (subjects.EVENTS_STREAM, name) for name in await broker.durable_names(subjects.EVENTS_STREAM)
            ]
            pairs = [*durables, *subscriber_durables]  # Subscribers are not held: they change nothing of the mesh.
            positions = [DurablePosition(stream=s, durable=d, floor=await broker.ack_floor(s, d)) for s, d in pairs]
            streams = [await _copy_stream(broker, file, name, report) for name in stream_copy_order(publishers)]
        documents_copies = _copy_documents(file, options.documents, report)
        streams.append(await _copy_stream(broker, file, subjects.BLOBS_STREAM, report))
        if options.data is not None and (options.data / API_KEYS_FILE).is_file():
            file.put(API_KEYS_FILE, [(options.data / API_KEYS_FILE).read_bytes()])
        if sealed:
            file.put(KEYS_PART, [sealed])
            report(CopyProgress("keys", "keys", len(sealed)))
        manifest = BackupManifest(
            format=FORMAT,
            version=_installed_version(),
            store_format=await broker.store_format(),
            created_unix_ms=time.time_ns() // 1_000_000,
            shards=_shard_counts(positions),
            streams=tuple(streams),
            positions=tuple(positions),
            documents=tuple(documents_copies),
            has_documents=options.documents is not None,
            has_keys=bool(sealed),
            parts=dict(file.parts),
        )
        file.finish(manifest)
    return manifest


@asynccontextmanager
async def hold_deliveries(broker: BackupConnection, durables: list[Durable]) -> AsyncIterator[list[Durable]]:
    """Hold deliveries from these durables meanwhile. Raises BackupError when that cannot be kept up."""

    async def pause_all(seconds: float) -> None:
        await asyncio.gather(*(broker.pause_durable(*durable, seconds) for durable in durables))

    async def renew_pauses() -> None:
        while True:
            await asyncio.sleep(HOLD_S / 3)
            await pause_all(HOLD_S)

    try:
        await pause_all(HOLD_S)
        keeping = asyncio.create_task(renew_pauses())
        try:
            yield durables
        finally:
            keeping.cancel()
            [ended] = await asyncio.gather(keeping, return_exceptions=True)
        if isinstance(ended, BackupError):
            raise ended
    finally:
        with suppress(BackupError):  # Then it ends by itself.
            await pause_all(0)


async def _copy_stream(broker: BackupConnection, file: ArchiveWriter, name: str, report: ReportProgress) -> StreamCopy:
    with file.open(f"streams/{name}") as part:
        copy = await broker.copy_stream(name, part.write)
    if copy is None:
        raise BackupError(f"the broker has no stream {name}: it is no whole mesh; {START_ONCE}")
    report(CopyProgress("stream", name, part.size, copy.messages))
    return copy


async def _inbox_durables(broker: BackupConnection) -> list[Durable]:
    durables: list[Durable] = []
    for service in catalog.INBOXES:
        if service == catalog.JOURNAL:
            continue  # Facts that nobody acts on.
        stream = subjects.inbox_stream(service)
        # Whoever looks at an inbox for a moment has a consumer there too; only a service's own have positions.
        own_names = [name for name in await broker.durable_names(stream) if re.fullmatch(rf"{service}-\d+", name)]
        if not own_names:
            raise BackupError(f"nobody has a position in {stream}: it is no whole mesh; {START_ONCE}")
        durables += [(stream, durable) for durable in own_names]
    return durables


def _shard_counts(positions: list[DurablePosition]) -> dict[str, int]:
    """Services that have more than one durable."""
    inboxes = [position for position in positions if position.stream != subjects.EVENTS_STREAM]
    counts = Counter(position.durable.rpartition("-")[0] for position in inboxes)
    return {service: count for service, count in counts.items() if count > 1}


def _copy_documents(file: ArchiveWriter, folder: Path | None, report: ReportProgress) -> list[DocumentsCopy]:
    copies: list[DocumentsCopy] = []
    for tenant in documents.tenants_with_documents(folder) if folder is not None else ():
        assert folder is not None
        with (
            documents.open_store_copy(folder, tenant, file.path) as pieces,
            file.open(f"documents/{len(copies)}") as part,
        ):
            for piece in pieces:
                part.write(piece)
        copies.append(DocumentsCopy(tenant=tenant))
        report(CopyProgress("documents", tenant, part.size))
    return copies


def _seal_keys(options: BackupOptions) -> bytes:
    """Every key file of the mesh, by name. Raises BackupError."""
    if options.identity is None or not options.identity.is_dir():
        raise BackupPathError(f"there are no keys in {options.identity}; leave the passphrase out to go without them")
    # The CA is its broker's, and another broker has one of its own.
    paths = [
        path
        for path in sorted(options.identity.iterdir())
        if path.is_file() and not path.name.startswith(".") and path.name != CA_FILE
    ]
    if options.data is not None and (options.data / CREDENTIALS_FILE).is_file():
        paths.append(options.data / CREDENTIALS_FILE)
    return key_sealing.seal_files({path.name: path.read_text() for path in paths}, options.passphrase)


def _installed_version() -> str:
    try:
        return version("bulkhead")
    except PackageNotFoundError:
        return "unknown"
