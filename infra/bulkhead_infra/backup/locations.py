"""Locations of a mesh's data: on this machine, or behind a broker's address with folders of its own.

In: a data directory, or an address and folders. Out: an open broker, whole backups, whole restores. A restore on this
machine that is cut off leaves a mark: `up` refuses the directory, and the next restore begins anew.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bulkhead.bus.jetstream.connection import ca_beside
from bulkhead.http_server.tcp_ports import free_port
from bulkhead_infra.backup import backup, restore
from bulkhead_infra.backup.archive import ArchiveReader, BackupManifest, BackupPathError
from bulkhead_infra.backup.backup import BackupOptions, ReportProgress
from bulkhead_infra.backup.stream_copies import open_backup_connection
from bulkhead_infra.identity import keys, policy, render
from bulkhead_infra.identity.config_folder import load_identities
from bulkhead_infra.local.rundir import MESH_FILE, RESTORING_FILE, DirectoryInUse, RunDir, read_object
from bulkhead_infra.nats.configuration import ServerPlan
from bulkhead_infra.nats.provision import provision
from bulkhead_infra.nats.server import NatsServer
from bulkhead_infra.nats.streams import Layout


@dataclass(frozen=True, slots=True)
class RemoteMesh:
    """A broker that somebody else runs. identity: where keys of `backup` and `provisioner` lie; documents: rag's.

    callers: where api_keys.json and credentials.json lie. ranked: as in Layout. config: folder of files of one's own.
    """

    url: str
    identity: Path
    documents: Path | None = None
    replicas: int = 1
    callers: Path | None = None
    ranked: bool = True
    config: Path | None = None


async def back_up_local(
    data: Path, to: Path, passphrase: str, report: ReportProgress, config: Path | None = None
) -> BackupManifest:
    """A mesh of this machine; stopped, its broker is started for it. config: folder of files of one's own. Raises
    BackupError and what a start raises."""
    async with _open_local(data, config) as (url, identity):
        options = BackupOptions(data / "rag", data, identity, passphrase, config)
        async with open_backup_connection(url, identity) as broker:
            return await backup.write_backup(broker, to, options, report)


async def back_up_remote(remote: RemoteMesh, to: Path, passphrase: str, report: ReportProgress) -> BackupManifest:
    """A mesh behind an address. Raises BackupError, KeyFileError."""
    options = BackupOptions(
        documents=remote.documents,
        data=remote.callers,
        identity=remote.identity,
        passphrase=passphrase,
        config=remote.config,
    )
    async with open_backup_connection(remote.url, remote.identity) as broker:
        return await backup.write_backup(broker, to, options, report)


async def restore_local(
    reader: ArchiveReader,
    data: Path,
    passphrase: str,
    report: ReportProgress,
    shards: Mapping[str, int] | None = None,
    config: Path | None = None,
) -> None:
    """Into a directory that has no mesh; its keys may be there already. shards: other ones than the backup's. config:
    folder of files of one's own. Raises BackupError and what a start raises."""
    files = await asyncio.to_thread(restore.read_sealed_keys, reader, passphrase) if passphrase else {}
    rules = load_identities(config)
    layout = Layout(restore.shard_counts(reader.manifest, shards)).with_outside(rules)
    restore.check_streams(reader, layout)
    run = RunDir(data, restoring=True)
    try:
        _make_room(run.path)
        restore.restore_keys(files, run.path, run.identity)
        restore.restore_api_keys(reader, run.path)
        async with _own_broker(run, layout, rules) as url:
            await _fill_broker(RemoteMesh(url, run.identity), reader, layout, report)
        restore.restore_documents(reader, run.path / "rag", report)
        os.sync()  # The broker has not waited for the disk: what follows must not be older than what it means.
        (run.path / RESTORING_FILE).unlink()
    finally:
        run.close()


async def restore_remote(
    reader: ArchiveReader,
    remote: RemoteMesh,
    passphrase: str,
    report: ReportProgress,
    shards: Mapping[str, int] | None = None,
) -> None:
    """Into a broker without streams; shards as above. Raises BackupError, KeyFileError, ProvisionError."""
    layout = Layout(restore.shard_counts(reader.manifest, shards), remote.replicas, ranked=remote.ranked)
    layout = layout.with_outside(load_identities(remote.config))
    restore.check_streams(reader, layout)
    if passphrase:
        files = await asyncio.to_thread(restore.read_sealed_keys, reader, passphrase)
        restore.restore_keys(files, remote.callers or remote.identity, remote.identity)
    if remote.callers is not None:
        restore.restore_api_keys(reader, remote.callers)
    if reader.manifest.documents and remote.documents is None:
        raise BackupPathError("the backup holds documents; say with --documents where rag of this mesh keeps them")
    if remote.documents is not None:
        restore.restore_documents(reader, remote.documents, report)
    await _fill_broker(remote, reader, layout, report)


async def _fill_broker(remote: RemoteMesh, reader: ArchiveReader, layout: Layout, report: ReportProgress) -> None:
    async with open_backup_connection(remote.url, remote.identity) as broker:
        await restore.restore_streams(broker, reader, layout, report)
        begin = await restore.start_sequences(broker, reader, layout)
    seed = keys.nkey_seed(remote.identity, policy.PROVISIONER)
    await provision(remote.url, seed, layout, begin, ca_file=ca_beside(remote.identity))


@asynccontextmanager
async def _open_local(data: Path, config: Path | None) -> AsyncIterator[tuple[str, Path]]:
    """Address of the broker and folder of the keys."""
    mesh = read_object(data / MESH_FILE)
    if not mesh:
        raise BackupPathError(f"no mesh has run in {data}; name its directory with --data, or its broker with --nats")
    try:
        run = RunDir(data)
    except DirectoryInUse:
        yield str(mesh["nats_url"]), data / "identity"
        return
    try:
        if mesh.get("own_broker", True):
            layout = Layout(mesh.get("shards") or {}, store_gib=run.last_store_gib())
            async with _own_broker(run, layout, load_identities(config)) as url:
                yield url, run.identity
        else:
            yield str(mesh["nats_url"]), run.identity
    finally:
        run.close()


@asynccontextmanager
async def _own_broker(run: RunDir, layout: Layout, rules: policy.IdentityPolicy) -> AsyncIterator[str]:
    """The broker of a directory that is ours, for as long as it is copied or filled."""
    keys.ensure_keys(run.identity, rules)
    accounts = render.render_accounts(rules, keys.public_nkeys(run.identity, rules), layout.shards)
    plan = ServerPlan(run.path / "nats", free_port(), free_port(), store_gib=layout.store_gib)
    server = NatsServer(plan, accounts, os.environ)
    await server.start()
    try:
        yield plan.url
    finally:
        await server.stop()


def _make_room(data: Path) -> None:
    """Set the mark; what a restore that was cut off has left goes. Raises BackupError where a mesh is."""
    mark, streams = data / RESTORING_FILE, data / "nats" / "store" / "jetstream"
    stores = list((data / "rag").glob("*.sqlite*"))
    if mark.exists():
        shutil.rmtree(data / "nats", ignore_errors=True)
        for path in stores:
            path.unlink()
    elif streams.exists() or stores:
        way = "restore into another directory (--data), and remove this one when you are sure that nobody needs it"
        raise BackupPathError(f"{data} holds a mesh already; {way}")
    keys.replace_file(mark, "A backup is being restored into this directory.\n")
