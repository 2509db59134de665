"""What the start of a local mesh is made of: keys for each process, its command, and how its readiness is asked.

In: the mesh's directory, the policy, what a process is told. Out: files of keys; a `Spawn` and a `Probe` per unit.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from bulkhead_infra.composition import newest_logic
from bulkhead_infra.identity import keys
from bulkhead_infra.identity.policy import Policy
from bulkhead_infra.local.rundir import PUBLISHERS_FILE, RunDir
from bulkhead_infra.processes.child import Child, OnLine
from bulkhead_infra.processes.http import unready
from bulkhead_infra.processes.supervised import Probe, Spawn

DEFAULT_TENANT = "demo"


def hand_out_keys(run: RunDir, rules: Policy, services: Iterable[str]) -> None:
    """Keys of all identities, to each service its own; API keys of the local user; what publishers may say."""
    keys.ensure(run.identity, rules)
    for name in services:
        keys.hand_over(run.identity, name, run.own_identity(name))
    run.ensure_api_keys(DEFAULT_TENANT)
    publishers = {name: row.model_dump() for name, row in rules.publishers.items()}
    keys.replace(run.path / PUBLISHERS_FILE, json.dumps(publishers, indent=1))


def newer_version(run: RunDir) -> str:
    """What waits because a newer version ran here before; "" where none did."""
    newest = newest_logic()
    if run.logic() <= newest:
        return ""
    return (
        f"{run.path} was last run by a newer version (decision logic {run.logic()}; this one has up to {newest}): what "
        "tasks that it began have under way waits, unread and unchanged, until that version runs here again; new tasks "
        "run"
    )


def offline_model(
    name: str, run: RunDir, outer: Mapping[str, str], port: int, arguments: Sequence[str], on_line: OnLine | None
) -> tuple[Spawn, Probe]:
    """The offline model on a port. outer: the environment of the person who starts the mesh."""
    command = [sys.executable, "-P", "-m", "bulkhead_infra.offline_model", "--port", str(port), *arguments]
    environ = {variable: outer[variable] for variable in ("PATH", "PYTHONPATH") if variable in outer}

    async def spawn() -> Child:
        return await Child.start(name, command, log=run.log(name), environ=environ, cwd=run.path, on_line=on_line)

    async def probe() -> str:
        return await unready(f"http://127.0.0.1:{port}/livez")

    return spawn, probe


def service(
    name: str, module: str, run: RunDir, environ: Callable[[], Mapping[str, str]], on_line: OnLine | None
) -> tuple[Spawn, Probe]:
    """One replica of a service. environ: asked at each start."""
    health = run.health_file(name)

    async def spawn() -> Child:
        health.unlink(missing_ok=True)
        command = [sys.executable, "-P", "-m", module]
        return await Child.start(name, command, log=run.log(name), environ=environ(), cwd=run.path, on_line=on_line)

    async def probe() -> str:
        try:
            port = json.loads(health.read_text())["port"]
        except (OSError, ValueError, KeyError):
            return "it has not opened its health port"
        return await unready(f"http://127.0.0.1:{port}/readyz")

    return spawn, probe
