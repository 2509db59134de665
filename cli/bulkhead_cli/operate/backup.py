"""`bulkhead backup` and `bulkhead restore`: what is copied, how far it is, what is not in it, and what comes next.

In: a mesh of this machine (--data), or a broker's address with folders (--nats, --identity, --documents). Out: a
file, a restored mesh; with --json one document per thing that was copied, and one at the end.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulkhead.text.amounts import format_count, format_time
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.screen import err, out

if TYPE_CHECKING:
    from bulkhead_infra.backup.archive import ArchiveReader, BackupManifest
    from bulkhead_infra.backup.backup import CopyProgress
    from bulkhead_infra.backup.locations import RemoteMesh

MIB = 1024**2
NEVER_IN_A_BACKUP = (
    "Redis (budget rebuilds its ledger from the facts), the journal (rebuilt from the inboxes), logs and traces, the "
    "files of `up --config` and `--tenants`, the provider's key"
)
WITHOUT_KEYS_NOTE = (
    "without the keys of this mesh, a restored mesh cannot continue running tasks, and rejects outside publishers: "
    "keep a copy of the folder identity/ elsewhere, or add it, encrypted, with --keys-passphrase"
)


@dataclass(frozen=True, slots=True)
class MeshLocation:
    """The options that name a mesh."""

    data: Path
    nats: str = ""
    identity: Path | None = None
    documents: Path | None = None
    replicas: int = 1
    callers: Path | None = None
    config: Path | None = None

    def find_config(self) -> Path | None:
        """The folder of files of one's own: of the option, of the mesh in --data, or of the environment."""
        from bulkhead_infra.local.rundir import config_folder_of

        return config_folder_of(Path(os.devnull) if self.nats else self.data, self.config, os.environ)

    def remote_mesh(self) -> "RemoteMesh | None":
        """The broker behind --nats; None for a mesh of this machine. Raises CommandError."""
        from bulkhead_infra.backup.locations import RemoteMesh

        if not self.nats:
            if self.identity or self.documents or self.callers:
                raise CommandError(
                    Exit.USAGE, "--identity, --documents and --callers belong to --nats", "name a mesh here by --data"
                )
            return None
        if self.identity is None:
            raise CommandError(Exit.USAGE, "--nats needs --identity", "name the folder with the keys of this mesh")
        return RemoteMesh(
            self.nats, self.identity, self.documents, self.replicas, self.callers, config=self.find_config()
        )


async def back_up(where: MeshLocation, to: Path, passphrase_file: Path | None, *, as_json: bool) -> None:
    """Make a file. Raises CommandError."""
    from bulkhead_infra.backup import key_sealing, locations

    with _command_errors():
        remote = where.remote_mesh()
        passphrase = key_sealing.read_passphrase(passphrase_file) if passphrase_file else ""
        target = _backup_file(to)
        report = _progress_reporter(as_json)
        if remote is None:
            manifest = await locations.back_up_local(where.data, target, passphrase, report, where.find_config())
        else:
            manifest = await locations.back_up_remote(remote, target, passphrase, report)
    size = target.stat().st_size
    if as_json:
        print_json(
            {"event": "done", "file": str(target), "bytes": size}
            | _manifest_summary(manifest)
            | {"notes": _left_out(manifest)}
        )
        return
    out.print(
        f"[bold green]backed up[/bold green] {_describe_contents(manifest)}: {size / MIB:.1f} MiB", highlight=False
    )
    out.print(str(target), markup=False, soft_wrap=True)
    always, *lacks = _left_out(manifest)
    out.print(always, style="dim", markup=False)
    for note in lacks:
        out.print(note, style="yellow", markup=False)


def _left_out(manifest: "BackupManifest") -> list[str]:
    """Parts that no backup has, and parts that this one lacks."""
    keys = [] if manifest.has_keys else [f"no keys are in it: {WITHOUT_KEYS_NOTE}"]
    documents = ["no documents are in it: name rag's folder with --documents, on its machine"]
    return [f"not in it: {NEVER_IN_A_BACKUP}", *keys, *([] if manifest.has_documents else documents)]


async def restore_mesh(
    where: MeshLocation,
    source: Path,
    passphrase_file: Path | None,
    *,
    check: bool,
    as_json: bool,
    shards: Mapping[str, int] | None = None,
) -> None:
    """Check a file, and make a mesh of it. Raises CommandError."""
    from bulkhead_infra.backup import key_sealing, locations
    from bulkhead_infra.backup import restore as backup_restore
    from bulkhead_infra.backup.archive import ArchiveReader
    from bulkhead_infra.identity.config_folder import load_identities
    from bulkhead_infra.nats.streams import Layout

    with _command_errors():
        remote = None if check else where.remote_mesh()
        passphrase = key_sealing.read_passphrase(passphrase_file) if passphrase_file else ""
        with ArchiveReader(source) as reader:
            if check:
                divided = backup_restore.shard_counts(reader.manifest, shards)
                rules = load_identities(where.find_config())
                backup_restore.check_streams(reader, Layout(divided).with_outside(rules))
                if passphrase:
                    backup_restore.read_sealed_keys(reader, passphrase)
            elif remote is None:
                say, config = _progress_reporter(as_json), where.find_config()
                await locations.restore_local(reader, where.data, passphrase, say, shards, config)
            else:
                await locations.restore_remote(reader, remote, passphrase, _progress_reporter(as_json), shards)
            divided = backup_restore.shard_counts(reader.manifest, shards)
    _tell_restored(reader, where, passphrase, divided, check=check, as_json=as_json)


def _tell_restored(
    reader: "ArchiveReader",
    where: MeshLocation,
    passphrase: str,
    shards: Mapping[str, int],
    *,
    check: bool,
    as_json: bool,
) -> None:
    manifest = reader.manifest
    notes = [] if check else _left_to_do(where, shards, with_keys=bool(passphrase))
    if as_json:
        print_json(
            {"event": "checked" if check else "done", "file": str(reader.path)}
            | _manifest_summary(manifest)
            | {"shards": dict(shards), "notes": notes}
        )
        return
    origin = f"made {format_time(manifest.created_unix_ms)} by bulkhead {manifest.version}"
    if check:
        out.print(
            f"[bold green]whole[/bold green]: {_describe_contents(manifest)}, {origin}; nothing restored",
            highlight=False,
        )
        return
    out.print(f"[bold green]restored[/bold green] {_describe_contents(manifest)}, {origin}", highlight=False)
    for note in notes[:-1]:
        out.print(note, style="yellow", markup=False)
    out.print(notes[-1], markup=False)


def _left_to_do(where: MeshLocation, shards: Mapping[str, int], *, with_keys: bool) -> list[str]:
    """Parts that a restored mesh lacks, and the command that starts it."""
    notes = (
        [] if with_keys else ["keys were not restored: with other keys, tasks that were running fail with that reason"]
    )
    notes.append(
        "the tenants file is not in the backup: a mesh that had files of its own needs them again (up --config DIR, "
        "--tenants FILE; elsewhere BULKHEAD_TENANTS_FILE of signer and gateway), otherwise it has "
        "only the tenants demo and acme"
    )
    divided = "".join(f" --shards {service}={count}" for service, count in shards.items())
    next_step = (
        f"start it: bulkhead up --data {where.data}{divided}"
        if not where.nats
        else (f"start the services{' with' if divided else ''}{divided}")
    )
    return [*notes, f"{next_step} (events after the backup are missing: see docs/how-to/backup-and-restore.md)"]


def _manifest_summary(manifest: "BackupManifest") -> dict[str, Any]:
    return {
        "format": manifest.format,
        "version": manifest.version,
        "created_unix_ms": manifest.created_unix_ms,
        "streams": {stream.name: stream.messages for stream in manifest.streams},
        "documents": [tenant_documents.tenant for tenant_documents in manifest.documents],
        "keys": manifest.has_keys,
        "messages": sum(stream.messages for stream in manifest.streams),
        "age_s": max(0, int(time.time() - manifest.created_unix_ms / 1000)),
    }


def _describe_contents(manifest: "BackupManifest") -> str:
    messages = sum(stream.messages for stream in manifest.streams)
    return (
        f"{format_count(messages, 'message')} of {format_count(len(manifest.streams), 'stream')}, documents of "
        f"{format_count(len(manifest.documents), 'tenant')}{', keys (sealed)' if manifest.has_keys else ''}"
    )


def _progress_reporter(as_json: bool) -> Callable[["CopyProgress"], None]:
    def report_progress(progress: "CopyProgress") -> None:
        if as_json:
            print_json(
                {"event": progress.what, "name": progress.name, "bytes": progress.bytes, "messages": progress.messages}
            )
        else:
            messages = f", {format_count(progress.messages, 'message')}" if progress.what == "stream" else ""
            err.print(
                f"  {progress.what} {progress.name}: {progress.bytes / MIB:.1f} MiB{messages}",
                style="dim",
                markup=False,
            )

    return report_progress


def _backup_file(to: Path) -> Path:
    """The file; in a folder it is named by the time. Raises CommandError."""
    from bulkhead_infra.backup.archive import SUFFIX

    if to.is_dir():
        return to / f"mesh-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}{SUFFIX}"
    if not to.absolute().parent.is_dir():
        raise CommandError(Exit.USAGE, f"there is no folder {to.absolute().parent}", "make it, or choose another place")
    if "." not in to.name and not to.exists():
        # Most likely meant as a folder: a file of its name would surprise, and only the first backup would go there.
        raise CommandError(
            Exit.USAGE,
            f"{to} is not there; is it a folder or a file?",
            f"make the folder first (mkdir {to}), or name the file {to}{SUFFIX}",
        )
    return to


@contextmanager
def _command_errors() -> Iterator[None]:
    """Turn expected errors into one line and an exit code."""
    from bulkhead_infra.backup.archive import BackupError, BackupPathError
    from bulkhead_infra.identity.keys import KeyFileError
    from bulkhead_infra.identity.policy import IdentityPolicyError
    from bulkhead_infra.local.rundir import DirectoryInUse, DirectoryUnfit
    from bulkhead_infra.nats.provision import ProvisionError
    from bulkhead_infra.processes.child import StartFailed

    expected = (
        BackupError,
        KeyFileError,
        IdentityPolicyError,
        StartFailed,
        DirectoryInUse,
        DirectoryUnfit,
        ProvisionError,
    )
    try:
        yield
    except expected as error:
        raise CommandError(
            Exit.USAGE if isinstance(error, BackupPathError | DirectoryUnfit) else Exit.FAILED, str(error)
        ) from error
