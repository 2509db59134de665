"""Parts of the start of a local mesh: keys for each process, its command, and how its readiness is asked.

In: the mesh's directory, the policy, what a process is told. Out: files of keys; a `Spawn` and a `Probe` per unit.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bulkhead.http_server.tcp_ports import PortInUse, claim_port, free_port
from bulkhead_infra.composition import newest_logic
from bulkhead_infra.identity import keys
from bulkhead_infra.identity.policy import IdentityPolicy
from bulkhead_infra.local.environment import settings_from
from bulkhead_infra.local.rundir import PUBLISHERS_FILE, RunDir
from bulkhead_infra.processes.child import ChildProcess, NotReady, OnLine
from bulkhead_infra.processes.http import readiness_problem
from bulkhead_infra.processes.supervised import Probe, Say, Spawn, SupervisedUnit, wait_until_all_ready
from bulkhead_infra.services import SERVICES
from bulkhead_services.model_gateway.routing import route_rows
from bulkhead_services.model_gateway.settings import Settings

DEFAULT_TENANT = "demo"
MODEL_GATEWAY = "model_gateway"
FRONT_SERVICE = "gateway"
"""The service that people reach: a mesh serves as soon as one replica of it is ready."""
DOORS = "doors"


def http_ports(gateway: int, doors: int | None) -> dict[str, int]:
    """The port of each service that listens, by its name. doors: None takes the usual one, or a free one when that is
    taken. Raises PortInUse."""
    gateway_port = claim_port(gateway, "the gateway's HTTP port")
    if doors is not None:
        return {FRONT_SERVICE: gateway_port, DOORS: claim_port(doors, "the port of doors")}
    try:
        return {FRONT_SERVICE: gateway_port, DOORS: claim_port(SERVICES[DOORS].port, "the port of doors")}
    except PortInUse:
        return {FRONT_SERVICE: gateway_port, DOORS: free_port()}


def hand_out_keys(run: RunDir, rules: IdentityPolicy, services: Iterable[str]) -> None:
    """Keys of all identities, to each service its own; API keys of the local user; who publishes and subscribes."""
    keys.ensure_keys(run.identity, rules)
    for name in services:
        keys.hand_over(run.identity, name, run.own_identity(name))
    run.ensure_api_keys(DEFAULT_TENANT)
    keys.replace_file(run.path / PUBLISHERS_FILE, rules.outside_programs_json())


def newer_version_note(run: RunDir) -> str:
    """Note on work that waits because a newer version ran here before; "" where none did."""
    newest = newest_logic()
    if run.last_logic() <= newest:
        return ""
    return (
        f"{run.path} was last run by a newer version (decision logic {run.last_logic()}; this one has up to {newest}): "
        "unfinished tasks of that version wait, unchanged, until that version runs here again; new tasks run"
    )


def model_routes(services: Iterable[str], environ: Callable[[str], Mapping[str, str]]) -> list[dict[str, Any]]:
    """Rows of the model gateway's routes, without secrets; none where it does not run."""
    if MODEL_GATEWAY not in services:
        return []
    settings = settings_from(MODEL_GATEWAY, environ(MODEL_GATEWAY))
    assert isinstance(settings, Settings)
    return route_rows.list_routes(settings)


async def wait_until_serving(
    units: Sequence[SupervisedUnit], services: Sequence[SupervisedUnit], timeout_s: float, say: Say
) -> asyncio.Task[None]:
    """Wait until all units are ready, or until the timeout when the mesh serves without those that are late.

    Returns a task that waits for the late ones. Raises NotReady when nothing serves after the timeout, StartFailed when
    a process ends again and again.
    """
    try:
        await wait_until_all_ready(units, timeout_s)
    except NotReady:
        front = [unit for unit in services if unit.name.startswith(f"{FRONT_SERVICE}-")] or services
        if not any(unit.state == "ready" for unit in front):
            raise
    late = [unit for unit in units if unit.state != "ready"]
    for unit in late:
        last_lines = f"\n{unit.child.describe_end()}" if unit.child is not None else ""
        say(f"{unit.name} is not ready after {timeout_s:g} s: {unit.detail or unit.state}{last_lines}")
    if late:
        say("the mesh serves without it and stays up; work for it waits until it is ready")
    return asyncio.create_task(_report_late_units(late, say))


async def _report_late_units(units: Iterable[SupervisedUnit], say: Say) -> None:
    """Report each unit as soon as it is ready after all."""

    async def report_when_ready(unit: SupervisedUnit) -> None:
        await unit.wait_until_ready(None)
        say(f"{unit.name} is ready now")

    await asyncio.gather(*(report_when_ready(unit) for unit in units), return_exceptions=True)


def offline_model_process(
    name: str, run: RunDir, outer: Mapping[str, str], port: int, arguments: Sequence[str], on_line: OnLine | None
) -> tuple[Spawn, Probe]:
    """The offline model on a port. outer: the environment of the person who starts the mesh."""
    command = [sys.executable, "-P", "-m", "bulkhead_infra.offline_model", "--port", str(port), *arguments]
    environ = {variable: outer[variable] for variable in ("PATH", "PYTHONPATH") if variable in outer}

    async def spawn_model() -> ChildProcess:
        return await ChildProcess.start(
            name, command, log=run.log_file(name), environ=environ, cwd=run.path, on_line=on_line
        )

    async def probe_model() -> str:
        return await readiness_problem(f"http://127.0.0.1:{port}/livez")

    return spawn_model, probe_model


def service_process(
    name: str, module: str, run: RunDir, environ: Callable[[], Mapping[str, str]], on_line: OnLine | None
) -> tuple[Spawn, Probe]:
    """One replica of a service. environ: asked at each start."""
    health = run.health_file(name)

    async def spawn_service() -> ChildProcess:
        health.unlink(missing_ok=True)
        command = [sys.executable, "-P", "-m", module]
        return await ChildProcess.start(
            name, command, log=run.log_file(name), environ=environ(), cwd=run.path, on_line=on_line
        )

    async def probe_service() -> str:
        try:
            port = json.loads(health.read_text())["port"]
        except (OSError, ValueError, KeyError):
            return "it has not opened its health port"
        return await readiness_problem(f"http://127.0.0.1:{port}/readyz")

    return spawn_service, probe_service
