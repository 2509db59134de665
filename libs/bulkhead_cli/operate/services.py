"""The services of a local mesh as `bulkhead doctor` lists them: processes that run, and messages that wait for them.

In: mesh.json, what each process says of its own health, and the broker's durable consumers under the operator's
identity. Out: one finding per service, and one for each that runs and cannot work.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bulkhead.amounts import counted
from bulkhead.bus.port import Bus, BusError
from bulkhead.runtime.process import container_probe
from bulkhead_cli.operate.finding import Finding
from bulkhead_cli.output import Stop
from bulkhead_cli.target import operator_bus, read_json
from bulkhead_contracts import catalog, subjects

ASK_TIMEOUT_S = 3.0
SAME_PROCESS_S = 2.0
"""A recorded start time may differ by so much from what the kernel says."""
RESTART_WITHIN_S = 10
"""The longest pause of the supervisor before it starts a process again (bulkhead_infra.processes.supervised)."""
MANY_PENDING = 1_000
"""Number of pending messages above which a service falls behind."""


@dataclass(frozen=True, slots=True)
class Lag:
    """Sums over the durables of a service. pending: not delivered yet; unacked: delivered, not finished."""

    pending: int
    unacked: int


async def look(data: Path, mesh: dict[str, Any], *, asks_broker: bool) -> AsyncIterator[Finding]:
    """One finding for every service that this mesh was started with, and what keeps those that run from working."""
    # While the broker is away each says so: that is one finding, and made already.
    said = await _said(data, mesh) if asks_broker else {}
    for name, why in ((name, why_not(answer)) for name, answer in said.items()):
        what, _, mend = why.partition("; ")
        if why:
            yield Finding(name, "problem", f"it runs and is not ready: {what}", mend or "its log says more")
    for name, found in ((name, degraded(answer)) for name, answer in said.items()):
        what, _, mend = found.partition("; ")
        if found:
            yield Finding(name, "warning", f"it is degraded: {what}", mend or "its log says more")
    for told in (read(answer) for read in (policy, isolation) for answer in said.values()):
        if told is not None:
            yield told
    wanted = {str(name): int(count) for name, count in (mesh.get("scale") or {}).items()}
    if not wanted:
        return  # Written by an older `up`.
    running = {service: _running(mesh, service) for service in wanted}
    if not any(running.values()):
        yield Finding(
            "services",
            "problem",
            f"none of {len(wanted)} runs",
            f"start the mesh with `bulkhead up`; why it ended is in {data / 'logs'}",
        )
        return
    lags = await _lags(data, mesh, list(wanted)) if asks_broker else {}
    for service, replicas in wanted.items():
        given_up = [name for name in mesh.get("given_up") or () if name.rpartition("-")[0] == service]
        if given_up:
            log = data / "logs" / f"{given_up[0]}.log"
            yield Finding(
                service,
                "problem",
                f"{counted(len(given_up), 'process')} of {replicas} ended because of "
                "settings that cannot work, and will not be started again",
                f"mend what the last lines of {log} name, then restart the mesh",
            )
            continue
        yield judge(service, replicas, running[service], lags.get(service), data, supervised=supervised(mesh))


async def _said(data: Path, mesh: dict[str, Any]) -> dict[str, str]:
    """{process or container: what it says of its health}. A process is asked; what containers said, mesh.json holds
    (bulkhead_cli.containers)."""
    asked = [name for name, record in (mesh.get("processes") or {}).items() if _alive(record)]
    answers = await asyncio.gather(*(asyncio.to_thread(_asked, data, name) for name in asked))
    return dict(zip(asked, answers, strict=True)) | dict(mesh.get("said") or {})


def _asked(data: Path, name: str) -> str:
    port = read_json(data / "run" / f"{name}.json").get("port")
    return container_probe.ask(f"http://127.0.0.1:{port}/readyz")[1] if port else ""


def why_not(said: str) -> str:
    """The reason in what a service's `/readyz` says; "" when it is ready, gives none, or did not answer."""
    try:
        found = json.loads(said)
    except ValueError:
        return ""
    return str(found.get("why") or "") if isinstance(found, dict) and not found.get("ready", True) else ""


def degraded(said: str) -> str:
    """The degraded part of a ready service, from its `/readyz`; "" when there is none, or no answer."""
    try:
        found = json.loads(said)
    except ValueError:
        return ""
    return str(found.get("degraded") or "") if isinstance(found, dict) and found.get("ready") else ""


def isolation(said: str) -> Finding | None:
    """The isolation of tools, from what tool_executor's `/readyz` says; None where it runs none that has any."""
    try:
        told = json.loads(said).get("isolation")
    except (ValueError, AttributeError):
        return None
    if not isinstance(told, dict):
        return None
    held = ", ".join(name for name, state in told["mechanisms"].items() if state == "in force")
    what = f"levels {', '.join(told['levels'])}; in force: {held or 'nothing'}"
    open_walls = [f"{name} ({state})" for name, state in told["walls"].items() if state != "held" and name != "disk"]
    if not open_walls:
        return Finding("isolation of tools", "ok", what)
    return Finding(
        "isolation of tools",
        "warning",
        f"{what}; does not hold: {', '.join(open_walls)}",
        "docs/explanation/isolation.md says what each wall needs; tools that ask for `process` are refused until then",
    )


def policy(said: str) -> Finding | None:
    """The rules that decide about tools, from what tool_executor's `/readyz` says; None where it says none."""
    try:
        told = json.loads(said).get("policy")
    except (ValueError, AttributeError):
        return None
    if not isinstance(told, dict):
        return None
    packs = ", ".join(told.get("packs") or ()) or "none"
    return Finding("policy", "ok", f"{told.get('folder')}, digest {str(told.get('sha256'))[:12]}; packs: {packs}")


def supervised(mesh: dict[str, Any]) -> bool:
    """Whether the `bulkhead up` that wrote mesh.json runs: it starts again what ends."""
    pid = mesh.get("pid")
    return isinstance(pid, int) and pid > 0 and psutil.pid_exists(pid)


def judge(
    service: str, replicas: int, running: int, lag: Lag | None, data: Path, *, supervised: bool = False
) -> Finding:
    """How a service stands. supervised: whether somebody starts it again when it ends."""
    log = data / "logs" / f"{service}-0.log"
    shown = f"{running} of {counted(replicas, 'process')}"
    if lag is not None:
        shown += f", {lag.pending:,} pending, {lag.unacked:,} in work"
    if running == 0 and not supervised:
        return Finding(service, "problem", shown, f"its `bulkhead up` has ended, too: start it; why is in {log}")
    if running == 0:
        return Finding(
            service,
            "warning",
            shown,
            "nothing is lost: `bulkhead up` starts it again within "
            f"{RESTART_WITHIN_S} s, and handles its waiting messages then. If it still does not run, the last lines of "
            f"{log} say what to correct; then restart the mesh",
        )
    if running < replicas:
        return Finding(
            service,
            "warning",
            shown,
            f"the others do its work; it is started again within "
            f"{RESTART_WITHIN_S} s. If the problem persists, read {data / 'logs'}",
        )
    if lag is not None and lag.pending > MANY_PENDING:
        return Finding(service, "warning", shown, f"it falls behind: start more with `bulkhead up --scale {service}=N`")
    return Finding(service, "ok", shown)


def _running(mesh: dict[str, Any], service: str) -> int:
    records = mesh.get("processes") or {}
    return sum(name.rpartition("-")[0] == service and _alive(record) for name, record in records.items())


def _alive(record: dict[str, Any]) -> bool:
    # A number alone may be another process by now, after a mesh that was killed.
    try:
        return bool(abs(psutil.Process(record["pid"]).create_time() - record["started_unix_s"]) < SAME_PROCESS_S)
    except (psutil.Error, KeyError, TypeError):
        return False


async def _lags(data: Path, mesh: dict[str, Any], services: list[str]) -> dict[str, Lag]:
    """By service, of those that have an inbox; {} when the broker may not be asked."""
    shards = mesh.get("shards") or {}
    found: dict[str, Lag] = {}
    try:
        async with operator_bus(data) as bus:
            for service in services:
                if service in catalog.INBOXES:
                    found[service] = await _lag(bus, service, int(shards.get(service, 1)))
    except (BusError, Stop):
        return {}  # The finding about the streams has said why.
    return found


async def _lag(bus: Bus, service: str, shards: int) -> Lag:
    pending = unacked = 0
    for shard in range(shards):
        durable = f"{subjects.inbox_stream(service)}.{subjects.durable(service, shard)}"
        answer = await bus.request(f"JSMESH.API.CONSUMER.INFO.{durable}", b"", timeout_s=ASK_TIMEOUT_S)
        info = json.loads(answer.body or b"{}")
        pending += int(info.get("num_pending") or 0)
        unacked += int(info.get("num_ack_pending") or 0)
    return Lag(pending, unacked)
