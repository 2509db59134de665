"""The order in which a running mesh is copied so that a mesh restored from it goes on: positions first, blobs last.

In: a broker, folders. Out: a file (`archive`). Nothing is stopped and nobody waits. The streams are copied one after
the other, so that later ones know more; what follows from that for every pair of them, and so for the order:

1. Positions of the durables. What lies above them is handled once more after a restore, against everything below: the
   same decisions, the same ids, which are known. A position read after any stream could skip what that stream lacks.
2. Inboxes of deciders and doers, then the gateway's: only it hears outsiders, so that nothing is left to an inbox whose
   task it does not know.
3. Timers after the inboxes that source them: one that fired in between is fetched, not missed.
4. Records after the inboxes: no inbox holds a reply to a call that its doer does not remember having made.
5. The money's facts (the journal's and budget's inbox) after the records: no recorded call is missing in the ledger.
6. Documents and blobs after all that may name them.

Left out, since it is made of the rest: the stream JOURNAL (sources the inboxes) and Redis (the ledger is folded from
the facts at budget's start). Left out, since it is no state: logs and traces.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bulkhead_contracts import catalog, subjects
from infra.backup import documents, lockbox
from infra.backup.archive import (
    FORMAT,
    BackupError,
    DocumentsCopy,
    Manifest,
    Position,
    StreamCopy,
    Writer,
)
from infra.backup.stream_copies import Broker

MONEY = ("budget", catalog.JOURNAL)
API_KEYS_FILE = "api_keys.json"
KEYS_PART = "keys.sealed"
CREDENTIALS_FILE = "credentials.json"
START_ONCE = "start the mesh once, which makes what is missing, then try again"


@dataclass(frozen=True, slots=True)
class Progress:
    """One thing was copied or restored."""

    what: str
    name: str
    bytes: int
    messages: int = 0


Say = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to copy beside the streams. documents: rag's folder; data: of `bulkhead up`, for the digests of API keys.

    passphrase: seals the keys of `identity` (and the local user's credentials); without one no key is copied.
    """

    documents: Path | None = None
    data: Path | None = None
    identity: Path | None = None
    passphrase: str = ""


def order() -> Iterator[str]:
    """The streams, in the order in which they are copied."""
    for name in catalog.INBOXES:
        if name != "gateway" and name not in MONEY:
            yield subjects.inbox_stream(name)
    yield subjects.inbox_stream("gateway")
    yield from (subjects.timers_stream(name) for name in catalog.DECIDERS)
    yield from (subjects.records_stream(name) for name in catalog.DOERS)
    yield subjects.CONTROL_STREAM
    yield subjects.DEAD_LETTERS_STREAM
    yield from (subjects.inbox_stream(name) for name in MONEY)
    yield subjects.BLOBS_STREAM


async def take(broker: Broker, to: Path, wanted: Wanted, say: Say = lambda progress: None) -> Manifest:
    """Write a backup to a new file. Raises BackupError: then there is no file."""
    sealed = _sealed(wanted) if wanted.passphrase else b""
    with Writer(to) as file:
        positions = await _positions(broker)
        streams: list[StreamCopy] = []
        for name in order():
            if name == subjects.BLOBS_STREAM:
                found = _documents(file, wanted.documents, say)
            with file.open(f"streams/{name}") as part:
                copy = await broker.copy(name, part.write)
            if copy is None:
                raise BackupError(f"the broker has no stream {name}: it is no whole mesh; {START_ONCE}")
            streams.append(copy)
            say(Progress("stream", name, part.size, copy.messages))
        if wanted.data is not None and (wanted.data / API_KEYS_FILE).is_file():
            file.put(API_KEYS_FILE, [(wanted.data / API_KEYS_FILE).read_bytes()])
        if sealed:
            file.put(KEYS_PART, [sealed])
            say(Progress("keys", "keys", len(sealed)))
        manifest = Manifest(
            format=FORMAT, version=_version(), created_unix_ms=time.time_ns() // 1_000_000, shards=_shards(positions),
            streams=tuple(streams), positions=tuple(positions), documents=tuple(found),
            has_documents=wanted.documents is not None, has_keys=bool(sealed), parts=dict(file.parts),
        )  # fmt: skip
        file.finish(manifest)
    return manifest


async def _positions(broker: Broker) -> list[Position]:
    found = []
    for service in catalog.INBOXES:
        if service == catalog.JOURNAL:
            continue
        stream = subjects.inbox_stream(service)
        for durable in await broker.durables(stream):
            floor = await broker.floor(stream, durable)
            if floor is not None:
                found.append(Position(stream=stream, durable=durable, floor=floor))
        if not found or found[-1].stream != stream:
            raise BackupError(f"nobody has a position in {stream}: it is no whole mesh; {START_ONCE}")
    return found


def _shards(positions: list[Position]) -> dict[str, int]:
    """Services that have more than one durable."""
    counts: dict[str, int] = {}
    for one in positions:
        service = one.durable.rpartition("-")[0]
        counts[service] = counts.get(service, 0) + 1
    return {service: count for service, count in counts.items() if count > 1}


def _documents(file: Writer, folder: Path | None, say: Say) -> list[DocumentsCopy]:
    found: list[DocumentsCopy] = []
    for tenant in documents.tenants(folder) if folder is not None else ():
        assert folder is not None
        with documents.copied(folder, tenant, file.path) as pieces, file.open(f"documents/{len(found)}") as part:
            for piece in pieces:
                part.write(piece)
        found.append(DocumentsCopy(tenant=tenant))
        say(Progress("documents", tenant, part.size))
    return found


def _sealed(wanted: Wanted) -> bytes:
    """Every key file of the mesh, by name. Raises BackupError."""
    if wanted.identity is None or not wanted.identity.is_dir():
        raise BackupError(f"there are no keys in {wanted.identity}; leave the passphrase out to go without them")
    paths = [path for path in sorted(wanted.identity.iterdir()) if path.is_file() and not path.name.startswith(".")]
    if wanted.data is not None and (wanted.data / CREDENTIALS_FILE).is_file():
        paths.append(wanted.data / CREDENTIALS_FILE)
    return lockbox.seal({path.name: path.read_text() for path in paths}, wanted.passphrase)


def _version() -> str:
    try:
        return version("bulkhead")
    except PackageNotFoundError:
        return "unknown"
