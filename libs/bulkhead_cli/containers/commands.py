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

from bulkhead.amounts import counted
from bulkhead_cli.containers.access import PORTS, address, inspected, keys_of, relay_to, running, write
from bulkhead_infra.backup.archive import BackupError
from bulkhead_infra.backup.backup import Progress
from bulkhead_infra.docker import redis_container
from bulkhead_infra.docker.images import ImageError
from bulkhead_infra.docker.stack import PROJECT, SERVICE, StackError, docker
from bulkhead_infra.identity.keys import KeyFileError
from bulkhead_infra.identity.policy import PolicyError
from bulkhead_infra.nats.provision import ProvisionError

DOCUMENTS = "rag"
"""Below the volume `documents`: where rag has its stores."""
BROKERS = "BULKHEAD_BROKERS="
ASK_TIMEOUT_S = 2.0
REMOTE = ("backup",)
"""Commands that take a broker's address and folders where others take a data directory."""
RESTORE, CHECK = "restore", "--check"
"""Into containers, but for the check of a file: libs/bulkhead_cli/containers/restore.py."""


def main(arguments: list[str]) -> int:
    """The command's exit code; 1 with what is wrong and what to do."""
    parser = argparse.ArgumentParser(
        prog="python -m bulkhead_cli.containers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--project", default="", help="the compose project; not needed when one mesh runs here")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="of `bulkhead`, with its arguments")
    asked = parser.parse_args(arguments)
    if not asked.command:
        parser.error("write a command of `bulkhead`, e.g. `doctor` or `timeline TASK`")
    try:
        if asked.command[0] == RESTORE and CHECK not in asked.command:
            return _restore(asked.project, asked.command[1:])
        return asyncio.run(operate(asked.project, asked.command))
    except (BackupError, ImageError, KeyFileError, PolicyError, ProvisionError, StackError) as error:
        print(error, file=sys.stderr)
        return 1


def _restore(project: str, arguments: list[str]) -> int:
    """Raises what `refill` raises."""
    from bulkhead_cli.containers.restore import refill

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
    asked = parser.parse_args(arguments)
    if not project:
        parser.error("say with --project into which compose project")

    def say(progress: Progress) -> None:
        print(f"  {progress.what} {progress.name}: {progress.bytes:,} bytes", file=sys.stderr)

    done = asyncio.run(refill(project, asked.file, asked.keys_passphrase, say, cluster=asked.cluster))
    messages = sum(one.messages for one in done.manifest.streams)
    if asked.json:
        print(
            json.dumps(
                {
                    "event": "done",
                    "project": project,
                    "messages": messages,
                    "shards": dict(done.shards),
                    "documents": [one.tenant for one in done.manifest.documents],
                    "keys": bool(asked.keys_passphrase),
                }
            )
        )
        return 0
    print(
        f"restored {counted(messages, 'message')} and the documents of "
        f"{counted(len(done.manifest.documents), 'tenant')}"
    )
    if not asked.keys_passphrase:
        print("keys were not restored: tasks that were in flight fail, saying so")
    files = "-f docker-compose.yml -f docker-compose.cluster.yml " if asked.cluster else ""
    print(f"start it: docker-compose {files}--project-name {project} --profile core up --detach")
    return 0


async def operate(project: str, command: list[str]) -> int:
    """Raises ImageError, StackError."""
    project = project or _only_project()
    brokers = await asyncio.to_thread(running, project, "nats")
    if not brokers:
        raise StackError(f"no broker of project {project} runs: `docker-compose --profile core up --detach` starts it")
    relays = [relay_to(one, PORTS["nats"]) for one in brokers.values()]
    with tempfile.TemporaryDirectory(prefix="bulkhead-operate-") as folder:
        place = Path(folder)
        write(place, keys_of(project, next(iter(brokers.values()))["Config"]["Image"]))
        password = (place / "identity" / "redis.password").read_text().strip()
        servers = await asyncio.to_thread(running, project, "redis", redis_container.SERVERS)
        redis = await _master(list(servers.values()), password)
        gateway = await asyncio.to_thread(running, project, "gateway")
        others = {"redis": redis, "gateway": next(iter(gateway.values()), {})}
        by_name = {name: relay_to(one, PORTS[name]) for name, one in others.items() if one}
        try:
            for relay in (*relays, *by_name.values()):
                await relay.open()
            urls = ",".join(f"tls://127.0.0.1:{relay.port}" for relay in relays)
            environ, more = _prepare(place, project, urls, {n: r.port for n, r in by_name.items()})
            wanted = [*command, *(more if command[0] in REMOTE else ())]
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bulkhead_cli.main", *wanted, env={**os.environ, **environ}
            )
            return await process.wait()
        finally:
            for relay in (*relays, *by_name.values()):
                await relay.close()


async def _master(servers: list[dict[str, Any]], password: str) -> dict[str, Any]:
    """Of several Redis the one that is the master; the first where none says so, {} where none runs."""
    for one in servers if len(servers) > 1 else ():
        client = Redis.from_url(
            f"redis://:{password}@{address(one)}:{PORTS['redis']}/0",
            socket_timeout=ASK_TIMEOUT_S,
            socket_connect_timeout=ASK_TIMEOUT_S,
            decode_responses=True,
        )
        try:
            if (await client.info("replication"))["role"] == "master":
                return one
        except (RedisError, OSError):
            continue
        finally:
            await client.aclose()
    return servers[0] if servers else {}


def _prepare(folder: Path, project: str, url: str, ports: Mapping[str, int]) -> tuple[dict[str, str], list[str]]:
    """A data directory as `bulkhead up` would have it, beside the keys: the environment that names it, and options for
    REMOTE."""
    identity = folder / "identity"
    brokers = _brokers(project)
    mesh: dict[str, Any] = {"nats_url": url, "own_broker": False, "identity_dir": str(identity)}
    if len(brokers) > 1:
        mesh |= {"brokers": brokers, "replicas": len(brokers)}
    if "gateway" in ports:
        mesh["http_url"] = f"http://127.0.0.1:{ports['gateway']}"
    mesh["said"] = _said(project)
    (folder / "mesh.json").write_text(json.dumps(mesh))
    environ = {"BULKHEAD_DATA": str(folder)}
    if "redis" in ports:
        password = (identity / "redis.password").read_text().strip()
        environ["BULKHEAD_REDIS_URL"] = f"redis://:{password}@127.0.0.1:{ports['redis']}/0"
    options = ["--nats", url, "--identity", str(identity), "--callers", str(folder)]
    volume = Path(json.loads(docker("volume", "inspect", f"{project}_documents").stdout)[0]["Mountpoint"])
    if os.access(volume, os.R_OK):
        options += ["--documents", str(volume / DOCUMENTS)]
    return environ, options


def _brokers(project: str) -> dict[str, str]:
    """{name: how Docker sees it} of every broker that this mesh is to have, the missing ones among them."""
    there = {one["Config"]["Labels"][SERVICE]: one for one in inspected(project, "nats", "--all")}
    named = {
        part
        for one in there.values()
        for line in one["Config"]["Env"]
        if line.startswith(BROKERS)
        for part in line.partition("=")[2].split(",")
    }
    return {name: str(there[name]["State"]["Status"]) if name in there else "gone" for name in sorted(named | {*there})}


def _said(project: str) -> dict[str, str]:
    """{container: what it says of itself}, of those that were not well when Docker last asked: they may be by now."""
    ids = docker("ps", "--quiet", f"--filter=label={PROJECT}={project}").stdout.split()
    found: dict[str, str] = {}
    for one in json.loads(docker("inspect", *ids).stdout) if ids else []:
        log = (one["State"].get("Health") or {}).get("Log") or []
        if log and log[-1]["ExitCode"]:
            said = docker(
                "exec", one["Id"], "python3", "-S", "-P", "-m", "bulkhead.runtime.process.container_probe", check=False
            )
            found[one["Name"].lstrip("/")] = said.stdout.strip()
    return found


def _only_project() -> str:
    said = docker("ps", "--filter", "label=bulkhead.service=nats", "--format", f'{{{{.Label "{PROJECT}"}}}}').stdout
    found = sorted(set(filter(None, said.split())))
    if len(found) == 1:
        return found[0]
    which = (
        f"several run ({', '.join(found)}): name one with --project"
        if found
        else ("none runs here: `docker-compose --profile core up --detach` starts one")
    )
    raise StackError(f"which mesh is not clear, {which}")
