"""The command line on a mesh in containers: `python -m bulkhead_cli.containers [--project P] timeline TASK`.

In: a command of `bulkhead` with its arguments; a compose project on this machine, whose Docker this user may use, which
is as good as every key in it. Out: what the command prints, and its exit code. As long as it runs, a folder of mode
0700 holds the keys, and relays in this process lead to the broker, Redis and the gateway: no port is published.
Needs Linux's own Docker (elsewhere containers cannot be reached) and, for `backup` with documents, root.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bulkhead.text.amounts import format_count
from bulkhead_cli.containers.access import (
    PORTS,
    container_address,
    inspect_containers,
    keys_of,
    relay_to,
    running_containers,
    write_key_files,
)
from bulkhead_infra.backup.archive import BackupError
from bulkhead_infra.backup.backup import CopyProgress
from bulkhead_infra.docker import redis_container
from bulkhead_infra.docker.images import DockerImageError
from bulkhead_infra.docker.stack import PROJECT_LABEL, SERVICE_LABEL, StackError, run_docker
from bulkhead_infra.identity.keys import KeyFileError
from bulkhead_infra.identity.policy import IdentityPolicyError
from bulkhead_infra.local.rundir import config_folder_of
from bulkhead_infra.nats.provision import ProvisionError

DOCUMENTS = "rag"
"""Below the volume `documents`: where rag has its stores."""
BROKERS = "BULKHEAD_BROKERS="
ASK_TIMEOUT_S = 2.0
REMOTE = ("backup",)
"""Commands that take a broker's address and folders where others take a data directory."""
RESTORE, CHECK = "restore", "--check"
"""Into containers, but for the check of a file: cli/bulkhead_cli/containers/restore.py."""


def main(arguments: list[str]) -> int:
    """The command's exit code; 1 with what is wrong and what to do."""
    parser = argparse.ArgumentParser(
        prog="python -m bulkhead_cli.containers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--project", default="", help="the compose project; not needed when one mesh runs here")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="of `bulkhead`, with its arguments")
    options = parser.parse_args(arguments)
    if not options.command:
        parser.error("write a command of `bulkhead`, e.g. `doctor` or `timeline TASK`")
    try:
        if options.command[0] == RESTORE and CHECK not in options.command:
            return _run_restore(options.project, options.command[1:])
        return asyncio.run(run_command(options.project, options.command))
    except (BackupError, DockerImageError, KeyFileError, IdentityPolicyError, ProvisionError, StackError) as error:
        print(error, file=sys.stderr)
        return 1


def _run_restore(project: str, arguments: list[str]) -> int:
    """Raises what `restore_into_containers` raises."""
    from bulkhead_cli.containers.restore import restore_into_containers

    parser = argparse.ArgumentParser(
        prog="python -m bulkhead_cli.containers --project P restore",
        description="Make a mesh in containers of a backup. "
        "The project must have none; BULKHEAD_SHARDS_<SERVICE> and the other variables with which it is to run are "
        "taken from the environment.",
    )
    parser.add_argument("file", type=Path, help="what `backup` made; with --check it is read and nothing is restored")
    parser.add_argument("--keys-passphrase", type=Path, metavar="FILE", help="opens the keys that are sealed in it")
    parser.add_argument("--cluster", action="store_true", help="into three brokers: docker-compose.cluster.yml")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    if not project:
        parser.error("say with --project into which compose project")

    def report_progress(progress: CopyProgress) -> None:
        print(f"  {progress.what} {progress.name}: {progress.bytes:,} bytes", file=sys.stderr)

    done = asyncio.run(
        restore_into_containers(
            project, options.file, options.keys_passphrase, report_progress, cluster=options.cluster
        )
    )
    messages = sum(stream.messages for stream in done.manifest.streams)
    if options.json:
        print(
            json.dumps(
                {
                    "event": "done",
                    "project": project,
                    "messages": messages,
                    "shards": dict(done.shards),
                    "documents": [tenant_documents.tenant for tenant_documents in done.manifest.documents],
                    "keys": bool(options.keys_passphrase),
                }
            )
        )
        return 0
    print(
        f"restored {format_count(messages, 'message')} and the documents of "
        f"{format_count(len(done.manifest.documents), 'tenant')}"
    )
    if not options.keys_passphrase:
        print("keys were not restored: tasks that were in flight fail, saying so")
    files = "-f docker-compose.yml -f docker-compose.cluster.yml " if options.cluster else ""
    print(f"start it: docker-compose {files}--project-name {project} --profile core up --detach")
    return 0


async def run_command(project: str, command: list[str]) -> int:
    """Raises DockerImageError, StackError."""
    project = project or _only_project()
    brokers = await asyncio.to_thread(running_containers, project, "nats")
    if not brokers:
        raise StackError(f"no broker of project {project} runs: `docker-compose --profile core up --detach` starts it")
    relays = [relay_to(container, PORTS["nats"]) for container in brokers.values()]
    with tempfile.TemporaryDirectory(prefix="bulkhead-operate-") as folder:
        place = Path(folder)
        write_key_files(place, keys_of(project, next(iter(brokers.values()))["Config"]["Image"]))
        password = (place / "identity" / "redis.password").read_text().strip()
        servers = await asyncio.to_thread(running_containers, project, "redis", redis_container.SERVERS)
        redis = await _find_redis_master(list(servers.values()), password)
        gateway = await asyncio.to_thread(running_containers, project, "gateway")
        other_containers = {"redis": redis, "gateway": next(iter(gateway.values()), {})}
        by_name = {name: relay_to(container, PORTS[name]) for name, container in other_containers.items() if container}
        try:
            for relay in (*relays, *by_name.values()):
                await relay.open()
            urls = ",".join(f"tls://127.0.0.1:{relay.port}" for relay in relays)
            environ, remote_options = _prepare_data_directory(
                place, project, urls, {n: r.port for n, r in by_name.items()}
            )
            command_words = [*command, *(remote_options if command[0] in REMOTE else ())]
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bulkhead_cli.main", *command_words, env={**os.environ, **environ}
            )
            return await process.wait()
        finally:
            for relay in (*relays, *by_name.values()):
                await relay.close()


async def _find_redis_master(servers: list[dict[str, Any]], password: str) -> dict[str, Any]:
    """The Redis server that is the master; the first of several where none says so, {} where none runs."""
    for server in servers if len(servers) > 1 else ():
        client = Redis.from_url(
            f"redis://:{password}@{container_address(server)}:{PORTS['redis']}/0",
            socket_timeout=ASK_TIMEOUT_S,
            socket_connect_timeout=ASK_TIMEOUT_S,
            decode_responses=True,
        )
        try:
            if (await client.info("replication"))["role"] == "master":
                return server
        except (RedisError, OSError):
            continue
        finally:
            await client.aclose()
    return servers[0] if servers else {}


def _prepare_data_directory(
    folder: Path, project: str, url: str, ports: Mapping[str, int]
) -> tuple[dict[str, str], list[str]]:
    """A data directory as `bulkhead up` would have it, beside the keys: the environment that names it, and options for
    REMOTE."""
    identity = folder / "identity"
    brokers = _broker_states(project)
    mesh: dict[str, Any] = {"nats_url": url, "own_broker": False, "identity_dir": str(identity)}
    if (config := config_folder_of(folder, None, os.environ)) is not None:
        mesh["config_dir"] = str(config)
    if len(brokers) > 1:
        mesh |= {"brokers": brokers, "replicas": len(brokers)}
    if "gateway" in ports:
        mesh["http_url"] = f"http://127.0.0.1:{ports['gateway']}"
    mesh["said"] = _unhealthy_reports(project)
    (folder / "mesh.json").write_text(json.dumps(mesh))
    environ = {"BULKHEAD_DATA": str(folder)}
    if "redis" in ports:
        password = (identity / "redis.password").read_text().strip()
        environ["BULKHEAD_REDIS_URL"] = f"redis://:{password}@127.0.0.1:{ports['redis']}/0"
    options = ["--nats", url, "--identity", str(identity), "--callers", str(folder)]
    volume = Path(json.loads(run_docker("volume", "inspect", f"{project}_documents").stdout)[0]["Mountpoint"])
    if os.access(volume, os.R_OK):
        options += ["--documents", str(volume / DOCUMENTS)]
    return environ, options


def _broker_states(project: str) -> dict[str, str]:
    """{name: how Docker sees it} of every broker that this mesh is to have, the missing ones among them."""
    containers = {
        container["Config"]["Labels"][SERVICE_LABEL]: container
        for container in inspect_containers(project, "nats", "--all")
    }
    named = {
        part
        for container in containers.values()
        for line in container["Config"]["Env"]
        if line.startswith(BROKERS)
        for part in line.partition("=")[2].split(",")
    }
    return {
        name: str(containers[name]["State"]["Status"]) if name in containers else "gone"
        for name in sorted(named | {*containers})
    }


def _unhealthy_reports(project: str) -> dict[str, str]:
    """{container: what it says of itself}, of those that were not well when Docker last asked: they may be by now."""
    ids = run_docker("ps", "--quiet", f"--filter=label={PROJECT_LABEL}={project}").stdout.split()
    reports: dict[str, str] = {}
    for container in json.loads(run_docker("inspect", *ids).stdout) if ids else []:
        log = (container["State"].get("Health") or {}).get("Log") or []
        if log and log[-1]["ExitCode"]:
            probe = run_docker(
                "exec",
                container["Id"],
                "python3",
                "-S",
                "-P",
                "-m",
                "bulkhead.runtime.process.container_probe",
                check=False,
            )
            reports[container["Name"].lstrip("/")] = probe.stdout.strip()
    return reports


def _only_project() -> str:
    listing = run_docker(
        "ps", "--filter", "label=bulkhead.service=nats", "--format", f'{{{{.Label "{PROJECT_LABEL}"}}}}'
    ).stdout
    projects = sorted(set(filter(None, listing.split())))
    if len(projects) == 1:
        return projects[0]
    which = (
        f"several run ({', '.join(projects)}): name one with --project"
        if projects
        else ("none runs here: `docker-compose --profile core up --detach` starts one")
    )
    raise StackError(f"which mesh is not clear, {which}")
