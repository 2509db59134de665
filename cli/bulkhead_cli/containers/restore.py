"""Restore of a backup into an empty mesh in containers: `python -m bulkhead_cli.containers --project P restore FILE`.

In: what `bulkhead backup` made; a compose project without containers or volumes; BULKHEAD_SHARDS_<SERVICE> and the
other variables with which it is to run. Out: its volumes hold keys, streams, positions, documents and digests of API
keys, its broker runs; `docker-compose up` starts the rest. Keys come first: the provisioner makes only what is missing.
"""

import asyncio
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bulkhead_cli.containers import access
from bulkhead_contracts import catalog
from bulkhead_infra.backup import key_sealing, locations, restore
from bulkhead_infra.backup.archive import ArchiveReader, BackupManifest
from bulkhead_infra.backup.backup import ReportProgress
from bulkhead_infra.backup.locations import RemoteMesh
from bulkhead_infra.docker import provisioner
from bulkhead_infra.docker.stack import PROJECT_LABEL, Stack, StackError, run_docker
from bulkhead_infra.local.rundir import config_folder_of
from bulkhead_infra.nats.streams import Layout
from bulkhead_infra.render import cluster as cluster_of

COPY = """
import pathlib, shutil, sys
for one in sorted(pathlib.Path("/from").rglob("*")):
    if one.is_file():
        target = pathlib.Path(sys.argv[1]) / one.relative_to("/from")
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.touch(mode=0o600)
        shutil.copyfile(one, target)
"""
KEYS_AT, DOCUMENTS_AT = "/bulkhead/keys", "/bulkhead/data/rag"


@dataclass(frozen=True, slots=True)
class RestoredContents:
    """Streams, documents and shards that were restored."""

    manifest: BackupManifest
    shards: Mapping[str, int]


async def restore_into_containers(
    project: str, source: Path, passphrase_file: Path | None, report: ReportProgress, *, cluster: bool = False
) -> RestoredContents:
    """cluster: into three brokers, whatever the backup was taken of.
    Raises BackupError, DockerImageError, KeyFileError, IdentityPolicyError, ProvisionError, StackError."""
    layout = replace(provisioner.stream_layout(), replicas=len(cluster_of.BROKERS) if cluster else 1)
    passphrase = key_sealing.read_passphrase(passphrase_file) if passphrase_file else ""
    with ArchiveReader(source) as reader:
        restore.check_streams(reader, layout)
        files = await asyncio.to_thread(restore.read_sealed_keys, reader, passphrase) if passphrase else {}
        _require_empty_project(project)
        stack = Stack(project, cluster=cluster)
        with tempfile.TemporaryDirectory(prefix="bulkhead-operate-") as folder:
            try:
                await _fill_stack(stack, reader, files, Path(folder), layout, report)
            finally:
                stack.leave_running()
        return RestoredContents(reader.manifest, layout.shards)


async def _fill_stack(
    stack: Stack, reader: ArchiveReader, files: Mapping[str, str], folder: Path, layout: Layout, report: ReportProgress
) -> None:
    key_folder, identity, documents = folder / "given", folder / "identity", folder / "documents"
    (key_folder / "operator").mkdir(parents=True)
    brokers = cluster_of.BROKERS if layout.replicas > 1 else cluster_of.BROKERS[:1]
    # How many brokers there were is no key.
    files = {**files, provisioner.BROKERS_FILE: ",".join(brokers)}
    restore.restore_keys(files, key_folder / "operator", key_folder / provisioner.MASTER_FOLDER)
    restore.restore_api_keys(reader, key_folder / "operator")
    await asyncio.to_thread(_copy_into_volume, stack, "provision-keys", key_folder, KEYS_AT)
    # With what it depends on: the provisioner of keys, which makes what is missing.
    await asyncio.to_thread(stack.run_compose, "up", "--detach", "--no-build", *brokers)
    for name in brokers:
        await asyncio.to_thread(stack.wait_until_healthy, name)
    containers = access.running_containers(stack.project, "nats")
    relays = [access.relay_to(container, access.PORTS["nats"]) for container in containers.values()]
    try:
        for relay in relays:
            await relay.open()
        access.write_key_files(folder, access.keys_of(stack.project, stack.image_name("provisioner")))
        urls = ",".join(f"tls://127.0.0.1:{relay.port}" for relay in relays)
        config = config_folder_of(identity, None, os.environ)
        remote = RemoteMesh(urls, identity, documents, layout.replicas, ranked=layout.ranked, config=config)
        shards = {service: layout.shards_of(service) for service in catalog.INBOXES}
        await locations.restore_remote(reader, remote, "", report, shards)
    finally:
        for relay in relays:
            await relay.close()
    await asyncio.to_thread(_copy_into_volume, stack, "rag", documents, DOCUMENTS_AT)


def _copy_into_volume(stack: Stack, service: str, folder: Path, to: str) -> None:
    """Copy files into a service's volume as its own user, who may read them here: nobody else gets below our folder."""
    for place, _, names in os.walk(folder):
        Path(place).chmod(0o755)
        for name in names:
            (Path(place) / name).chmod(0o644)
    stack.run_compose(
        "run",
        "--rm",
        "-T",
        "--no-deps",
        "--volume",
        f"{folder}:/from:ro",
        "--entrypoint",
        "python3",
        service,
        "-c",
        COPY,
        to,
    )


def _require_empty_project(project: str) -> None:
    """Raises StackError where a mesh is, or was."""
    label = f"label={PROJECT_LABEL}={project}"
    containers = run_docker("ps", "--all", "--quiet", "--filter", label).stdout.split()
    volumes = run_docker("volume", "ls", "--quiet", "--filter", label).stdout.split()
    if containers or volumes:
        raise StackError(
            f"project {project} has {len(containers)} containers and {len(volumes)} volumes already: "
            "a backup is restored "
            "into a project that has none; name another one with --project, or remove this one when you are sure that "
            f"nobody needs it: docker-compose --project-name {project} --profile core down --volumes"
        )
