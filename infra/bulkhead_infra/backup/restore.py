"""A mesh from a backup: read the whole file first, then streams, positions, documents, keys into empty places.

In: an `ArchiveReader`, a broker that has none of our streams. Out: a broker as it was, with every durable at
its position, and everything else as the provisioner makes it. Redis gets nothing: budget makes its ledger of
the facts at its start.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bulkhead_contracts import catalog, subjects
from bulkhead_infra.backup import documents, key_sealing
from bulkhead_infra.backup.archive import ArchiveReader, BackupError, BackupManifest, BackupPathError
from bulkhead_infra.backup.backup import API_KEYS_FILE, CREDENTIALS_FILE, KEYS_PART, CopyProgress, ReportProgress
from bulkhead_infra.backup.stream_copies import BackupConnection, CopyRefused
from bulkhead_infra.identity import keys
from bulkhead_infra.nats.provision import StartSequences
from bulkhead_infra.nats.streams import STORE_FORMAT, Layout, stream_configs

COPY_ATTEMPTS, COPY_PAUSE_S = 4, 2.0
"""Of one stream: a broker that had no time gave it up."""


def check_streams(reader: ArchiveReader, layout: Layout) -> dict[str, dict[str, Any]]:
    """The settings for every stream in the backup: this version's. Raises BackupError for what it does not know."""
    configs = {config["name"]: config for config in stream_configs(layout)}
    way = f"restore it with version {reader.manifest.version} of bulkhead and upgrade then"
    if reader.manifest.store_format != STORE_FORMAT:
        raise BackupError(
            f"{reader.path} is of a store of format {reader.manifest.store_format} and this version of bulkhead reads "
            f"format {STORE_FORMAT}; {way}"
        )
    for copy in reader.manifest.streams:
        if copy.name not in configs or copy.name == subjects.JOURNAL_STREAM:
            if copy.name.startswith(subjects.published_stream("")):
                way = "name the folder whose identities.yaml has the publisher: --config DIR"
                raise BackupPathError(f"{reader.path} holds {copy.name}, of a publisher that no file here names; {way}")
            raise BackupError(f"{reader.path} holds a stream {copy.name}, which this version does not have; {way}")
    for documents_copy in reader.manifest.documents:
        documents.tenant_name(documents_copy.tenant)
    return configs


def shard_counts(manifest: BackupManifest, shards: Mapping[str, int] | None) -> dict[str, int]:
    """By service, durables of its inbox: as in the backup, but for those of which another number is wanted."""
    merged = {**manifest.shards, **(shards or {})}
    return {service: count for service, count in merged.items() if count > 1}


async def restore_streams(
    broker: BackupConnection, reader: ArchiveReader, layout: Layout, report: ReportProgress = lambda progress: None
) -> None:
    """Every stream of the backup, in its order. Raises BackupError."""
    configs = check_streams(reader, layout)
    if present := sorted(set(await broker.stream_names()) & set(configs)):
        way = "a backup is restored into an empty one; name another broker or directory, or remove its streams first"
        raise BackupPathError(f"the broker has a mesh already (stream {present[0]} and {len(present) - 1} more): {way}")
    for copy in reader.manifest.streams:
        name = f"streams/{copy.name}"
        # Sources come last: a stream that is restored with them fetches again all that it has fetched before.
        without_sources = {key: value for key, value in configs[copy.name].items() if key != "sources"}
        # It may come from a mesh that was given more disk than anybody has said of this one.
        without_sources["max_bytes"] = max(without_sources["max_bytes"], 2 * copy.bytes)
        for retries_left in reversed(range(COPY_ATTEMPTS)):
            try:
                await broker.restore_stream(without_sources, copy, reader.read_chunks(name))
                break
            except CopyRefused:
                if not retries_left:
                    raise
                await asyncio.sleep(COPY_PAUSE_S)
        report(CopyProgress("stream", copy.name, reader.manifest.parts[name].size, copy.messages))


def durable_start_sequences(manifest: BackupManifest, layout: Layout) -> dict[str, int]:
    """By durable, the sequence with which it begins.

    With another number of shards than there was, every one begins where the slowest stood: too early is harmless.
    """
    by_service: dict[str, list[int]] = {}
    for position in manifest.positions:
        by_service.setdefault(position.durable.rpartition("-")[0], []).append(position.floor)
    exact = {position.durable: position.floor for position in manifest.positions}
    sequences = {}
    for service in catalog.INBOXES:
        count, floors = layout.shards_of(service), by_service.get(service, [0])
        for shard in range(count):
            durable = subjects.durable_name(service, shard)
            sequences[durable] = 1 + (exact[durable] if len(floors) == count and durable in exact else min(floors))
    return sequences


async def start_sequences(broker: BackupConnection, reader: ArchiveReader, layout: Layout) -> StartSequences:
    """Set the positions: durables by their positions, what inboxes copy by the last of it that they hold."""
    sources = {}
    for service in catalog.DECIDERS:
        inbox = subjects.inbox_stream(service)
        sources[subjects.timers_stream(service)] = 1 + await broker.last_source_sequence(
            inbox, f"mesh.{service}.{service}.>"
        )
    for name in layout.publishers:
        last = await broker.last_source_sequence(subjects.inbox_stream("gateway"), f"mesh.{name}.gateway.>")
        sources[subjects.published_stream(name)] = 1 + last
    subscriber_starts = {
        position.durable: position.floor + 1
        for position in reader.manifest.positions
        if position.stream == subjects.EVENTS_STREAM
    }
    return StartSequences(durable_start_sequences(reader.manifest, layout) | subscriber_starts, sources)


def restore_documents(reader: ArchiveReader, folder: Path, report: ReportProgress = lambda progress: None) -> None:
    """The stores of all tenants; none may be there. Raises BackupError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for place, documents_copy in enumerate(reader.manifest.documents):
        name = f"documents/{place}"
        documents.restore_store(folder, documents_copy.tenant, reader.read_chunks(name))
        report(CopyProgress("documents", documents_copy.tenant, reader.manifest.parts[name].size))


def read_sealed_keys(reader: ArchiveReader, passphrase: str) -> Mapping[str, str]:
    """The key files in the backup. Raises BackupError."""
    if not reader.has_part(KEYS_PART):
        raise BackupPathError(
            f"{reader.path} holds no keys; leave the passphrase out, and put DIR/identity there yourself"
        )
    return key_sealing.unseal_files(reader.read_small_part(KEYS_PART), passphrase)


def restore_keys(files: Mapping[str, str], data: Path, identity: Path) -> None:
    """Key files where the mesh keeps them, mode 0600; what is there stays, and differing from it is an error."""
    identity.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in files.items():
        path = (data if name == CREDENTIALS_FILE else identity) / name
        if not keys.write_new(path, text) and path.read_text() != text and name not in keys.PUBLIC_FILES:
            raise BackupError(f"{path} is there and is another key than the one in the backup; move one of them away")


def restore_api_keys(reader: ArchiveReader, data: Path) -> None:
    """Digests of the API keys that people hold, unless there are some."""
    if reader.has_part(API_KEYS_FILE):
        keys.write_new(data / API_KEYS_FILE, reader.read_small_part(API_KEYS_FILE).decode())
