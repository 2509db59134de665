"""The command line on a mesh in containers: `python -m infra.docker.operate [--project P] timeline TASK`.

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

from bulkhead.cli.output import counted
from bulkhead.testing.relay import Relay
from infra.backup.archive import BackupError
from infra.backup.taking import Progress
from infra.docker.images import ImageError
from infra.docker.stack import PROJECT, SERVICE, StackError, docker
from infra.identity import tls
from infra.identity.keys import KeyFileError
from infra.identity.policy import PolicyError
from infra.nats.provision import ProvisionError

DOCUMENTS = "rag"
"""Below the volume `documents`: where rag has its stores."""
PORTS = {"nats": 4222, "redis": 6379, "gateway": 8080}
REMOTE = ("backup",)
"""Commands that take a broker's address and folders where others take a data directory."""
RESTORE, CHECK = "restore", "--check"
"""Into containers, but for the check of a file: infra/docker/refill.py."""
READ = """
import json, pathlib
files = [one for one in pathlib.Path("/k").rglob("*") if one.is_file()]
print(json.dumps({str(one.relative_to("/k")): one.read_text() for one in files}))
"""


def main(arguments: list[str]) -> int:
    """The command's exit code; 1 with what is wrong and what to do."""
    parser = argparse.ArgumentParser(prog="python -m infra.docker.operate", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
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
    from infra.docker.refill import refill

    parser = argparse.ArgumentParser(
        prog="python -m infra.docker.operate --project P restore", description="Make a mesh in containers of a backup. "
        "The project must have none; BULKHEAD_SHARDS_<SERVICE> and the other variables with which it is to run are "
        "taken from the environment.")  # fmt: skip
    parser.add_argument("file", type=Path, help="what `backup` made; with --check it is read and nothing is restored")
    parser.add_argument("--keys-passphrase", type=Path, metavar="FILE", help="opens the keys that are sealed in it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args(arguments)
    if not project:
        parser.error("say with --project into which compose project")

    def say(progress: Progress) -> None:
        print(f"  {progress.what} {progress.name}: {progress.bytes:,} bytes", file=sys.stderr)

    done = asyncio.run(refill(project, asked.file, asked.keys_passphrase, say))
    messages = sum(one.messages for one in done.manifest.streams)
    if asked.json:
        print(json.dumps({"event": "done", "project": project, "messages": messages, "shards": dict(done.shards),
                          "documents": [one.tenant for one in done.manifest.documents],
                          "keys": bool(asked.keys_passphrase)}))  # fmt: skip
        return 0
    print(f"restored {counted(messages, 'message')} and the documents of "
          f"{counted(len(done.manifest.documents), 'tenant')}")  # fmt: skip
    if not asked.keys_passphrase:
        print("keys were not restored: tasks that were in flight fail, saying so")
    print(f"start it: docker-compose --project-name {project} --profile core up --detach")
    return 0


async def operate(project: str, command: list[str]) -> int:
    """Raises ImageError, StackError."""
    project = project or _only_project()
    found = {name: _container(project, name) for name in PORTS}
    if not found["nats"]:
        raise StackError(f"no broker of project {project} runs: `docker-compose --profile core up --detach` starts it")
    relays = {name: relay_to(project, name) for name, one in found.items() if one}
    with tempfile.TemporaryDirectory(prefix="bulkhead-operate-") as folder:
        try:
            for relay in relays.values():
                await relay.open()
            environ, more = _prepare(Path(folder), project, found["nats"], {n: r.port for n, r in relays.items()})
            wanted = [*command, *(more if command[0] in REMOTE else ())]
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bulkhead.cli.main", *wanted, env={**os.environ, **environ})  # fmt: skip
            return await process.wait()
        finally:
            for relay in relays.values():
                await relay.close()


def relay_to(project: str, name: str) -> Relay:
    """From a port of this machine to a container that listens."""
    host = _address(_container(project, name))
    return Relay(lambda: (host, PORTS[name]))


def write(folder: Path, files: Mapping[str, str]) -> None:
    """What `keys_of` found, for its owner's eyes alone, and the CA where the commands look for it: beside the keys."""
    ca = files[f"identity/tls/{tls.CA_FILE}"]
    for path, text in {**files, f"identity/{tls.CA_FILE}": ca}.items():
        place = folder / path
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.touch(mode=0o600)
        place.write_text(text)


def _prepare(
    folder: Path, project: str, broker: Mapping[str, Any], ports: Mapping[str, int]
) -> tuple[dict[str, str], list[str]]:
    """A data directory as `bulkhead up` would have it: the environment that names it, and options for REMOTE."""
    identity = folder / "identity"
    write(folder, keys_of(project, broker["Config"]["Image"]))
    url = f"tls://127.0.0.1:{ports['nats']}"
    mesh: dict[str, Any] = {"nats_url": url, "own_broker": False, "identity_dir": str(identity)}
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


def _said(project: str) -> dict[str, str]:
    """{container: what it says of itself}, of those that were not well when Docker last asked: they may be by now."""
    ids = docker("ps", "--quiet", f"--filter=label={PROJECT}={project}").stdout.split()
    found: dict[str, str] = {}
    for one in json.loads(docker("inspect", *ids).stdout) if ids else []:
        log = (one["State"].get("Health") or {}).get("Log") or []
        if log and log[-1]["ExitCode"]:
            said = docker("exec", one["Id"], "python3", "-S", "-P", "-m", "bulkhead.runtime.probe", check=False)
            found[one["Name"].lstrip("/")] = said.stdout.strip()
    return found


def keys_of(project: str, image: str) -> dict[str, str]:
    """{path in a data directory: text}: every identity's key, and the API keys of who runs the mesh."""
    mounts = (f"{project}_keys_all:/k/identity:ro", f"{project}_keys_operator:/k/operator:ro")
    volumes = [part for one in mounts for part in ("--volume", one)]
    done = docker("run", "--rm", "--network", "none", *volumes, "--entrypoint", "python3", image, "-c", READ)
    files: dict[str, str] = json.loads(done.stdout)
    return {path.removeprefix("operator/"): text for path, text in files.items()}


def _only_project() -> str:
    said = docker("ps", "--filter", "label=bulkhead.service=nats", "--format", f'{{{{.Label "{PROJECT}"}}}}').stdout
    found = sorted(set(filter(None, said.split())))
    if len(found) == 1:
        return found[0]
    which = f"several run ({', '.join(found)}): name one with --project" if found else (
        "none runs here: `docker-compose --profile core up --detach` starts one")  # fmt: skip
    raise StackError(f"which mesh is not clear, {which}")


def _container(project: str, service: str) -> dict[str, Any]:
    """What Docker knows of the first that runs; {} when none does."""
    filters = [f"--filter=label={PROJECT}={project}", f"--filter=label={SERVICE}={service}"]
    ids = docker("ps", "--quiet", *filters).stdout.split()
    found: list[dict[str, Any]] = json.loads(docker("inspect", ids[0]).stdout) if ids else [{}]
    return found[0]


def _address(container: Mapping[str, Any]) -> str:
    networks = container["NetworkSettings"]["Networks"].values()
    return str(next(one["IPAddress"] for one in networks if one["IPAddress"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
