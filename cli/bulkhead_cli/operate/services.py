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

from bulkhead.bus.port import Bus, BusError
from bulkhead.runtime.process import container_probe
from bulkhead.text.amounts import format_count
from bulkhead_cli.operate.finding import DoctorFinding
from bulkhead_cli.output import CommandError
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
class ServiceLag:
    """Sums over the durables of a service. pending: not delivered yet; unacked: delivered, not finished."""

    pending: int
    unacked: int


async def check_services(data: Path, mesh: dict[str, Any], *, asks_broker: bool) -> AsyncIterator[DoctorFinding]:
    """One finding for every service that this mesh was started with, and what keeps those that run from working."""
    # While the broker is away each says so: that is one finding, and made already.
    reports = await _collect_health(data, mesh) if asks_broker else {}
    for name, report in reports.items():
        cause, _, mend = unready_reason(report).partition("; ")
        if cause:
            yield DoctorFinding(name, "problem", f"it runs and is not ready: {cause}", mend or "its log says more")
    for name, report in reports.items():
        cause, _, mend = degraded_reason(report).partition("; ")
        if cause:
            yield DoctorFinding(name, "warning", f"it is degraded: {cause}", mend or "its log says more")
    for check in (policy_finding, isolation_finding):
        for finding in filter(None, map(check, reports.values())):
            yield finding
    scale = {str(name): int(count) for name, count in (mesh.get("scale") or {}).items()}
    if not scale:
        return  # Written by an older `up`.
    running = {service: _count_running(mesh, service) for service in scale}
    if not any(running.values()):
        yield DoctorFinding(
            "services",
            "problem",
            f"none of {len(scale)} runs",
            f"start the mesh with `bulkhead up`; why it ended is in {data / 'logs'}",
        )
        return
    lags = await _read_lags(data, mesh, list(scale)) if asks_broker else {}
    for service, replicas in scale.items():
        given_up = [name for name in mesh.get("given_up") or () if name.rpartition("-")[0] == service]
        if given_up:
            log = data / "logs" / f"{given_up[0]}.log"
            yield DoctorFinding(
                service,
                "problem",
                f"{format_count(len(given_up), 'process')} of {replicas} ended because of "
                "settings that cannot work, and will not be started again",
                f"mend what the last lines of {log} name, then restart the mesh",
            )
            continue
        yield judge_service(
            service, replicas, running[service], lags.get(service), data, supervised=is_supervised(mesh)
        )


async def _collect_health(data: Path, mesh: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{process or container: its health report}. A process is asked; what containers said, mesh.json holds
    (bulkhead_cli.containers)."""
    processes = [name for name, record in (mesh.get("processes") or {}).items() if _is_alive(record)]
    answers = await asyncio.gather(*(asyncio.to_thread(_ask_health, data, name) for name in processes))
    texts = dict(zip(processes, answers, strict=True)) | dict(mesh.get("said") or {})
    return {name: read_report(text) for name, text in texts.items()}


def _ask_health(data: Path, name: str) -> str:
    port = read_json(data / "run" / f"{name}.json").get("port")
    return container_probe.probe_url(f"http://127.0.0.1:{port}/readyz")[1] if port else ""


def read_report(text: str) -> dict[str, Any]:
    """The body of a service's `/readyz`; {} for what is none."""
    try:
        report = json.loads(text)
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}


def unready_reason(report: dict[str, Any]) -> str:
    """The reason for which a service is not ready; "" when it is ready, gives none, or did not answer."""
    return "" if report.get("ready", True) else str(report.get("why") or "")


def degraded_reason(report: dict[str, Any]) -> str:
    """The degraded part of a ready service; "" when there is none, or no answer."""
    return str(report.get("degraded") or "") if report.get("ready") else ""


def isolation_finding(report: dict[str, Any]) -> DoctorFinding | None:
    """The isolation of tools, as tool_executor reports it; None where it runs none that has any."""
    isolation = report.get("isolation")
    if not isinstance(isolation, dict):
        return None
    in_force = ", ".join(name for name, state in isolation["mechanisms"].items() if state == "in force")
    summary = f"levels {', '.join(isolation['levels'])}; in force: {in_force or 'nothing'}"
    walls = isolation["walls"].items()
    open_walls = [f"{name} ({state})" for name, state in walls if state != "held" and name != "disk"]
    if not open_walls:
        return DoctorFinding("isolation of tools", "ok", summary)
    return DoctorFinding(
        "isolation of tools",
        "warning",
        f"{summary}; does not hold: {', '.join(open_walls)}",
        "docs/explanation/isolation.md says what each wall needs; tools that ask for `process` are refused until then",
    )


def policy_finding(report: dict[str, Any]) -> DoctorFinding | None:
    """The rules that decide about tools, as tool_executor reports them; None for other services."""
    policy = report.get("policy")
    if not isinstance(policy, dict):
        return None
    packs = ", ".join(policy.get("packs") or ()) or "none"
    return DoctorFinding(
        "policy", "ok", f"{policy.get('folder')}, digest {str(policy.get('sha256'))[:12]}; packs: {packs}"
    )


def is_supervised(mesh: dict[str, Any]) -> bool:
    """True if the `bulkhead up` that wrote mesh.json runs: it starts again what ends."""
    pid = mesh.get("pid")
    return isinstance(pid, int) and pid > 0 and psutil.pid_exists(pid)


def judge_service(
    service: str, replicas: int, running: int, lag: ServiceLag | None, data: Path, *, supervised: bool = False
) -> DoctorFinding:
    """State of a service. supervised: somebody starts it again when it ends."""
    log = data / "logs" / f"{service}-0.log"
    detail = f"{running} of {format_count(replicas, 'process')}"
    if lag is not None:
        detail += f", {lag.pending:,} pending, {lag.unacked:,} in work"
    if running == 0 and not supervised:
        return DoctorFinding(service, "problem", detail, f"its `bulkhead up` has ended, too: start it; why is in {log}")
    if running == 0:
        return DoctorFinding(
            service,
            "warning",
            detail,
            "nothing is lost: `bulkhead up` starts it again within "
            f"{RESTART_WITHIN_S} s, and handles its waiting messages then. If it still does not run, the last lines of "
            f"{log} say what to correct; then restart the mesh",
        )
    if running < replicas:
        return DoctorFinding(
            service,
            "warning",
            detail,
            f"the others do its work; it is started again within "
            f"{RESTART_WITHIN_S} s. If the problem persists, read {data / 'logs'}",
        )
    if lag is not None and lag.pending > MANY_PENDING:
        return DoctorFinding(
            service, "warning", detail, f"it falls behind: start more with `bulkhead up --scale {service}=N`"
        )
    return DoctorFinding(service, "ok", detail)


def _count_running(mesh: dict[str, Any], service: str) -> int:
    records = mesh.get("processes") or {}
    return sum(name.rpartition("-")[0] == service and _is_alive(record) for name, record in records.items())


def _is_alive(record: dict[str, Any]) -> bool:
    # A number alone may be another process by now, after a mesh that was killed.
    try:
        return bool(abs(psutil.Process(record["pid"]).create_time() - record["started_unix_s"]) < SAME_PROCESS_S)
    except (psutil.Error, KeyError, TypeError):
        return False


async def _read_lags(data: Path, mesh: dict[str, Any], services: list[str]) -> dict[str, ServiceLag]:
    """By service, of those that have an inbox; {} when the broker may not be asked."""
    shards = mesh.get("shards") or {}
    lags: dict[str, ServiceLag] = {}
    try:
        async with operator_bus(data) as bus:
            for service in services:
                if service in catalog.INBOXES:
                    lags[service] = await _read_lag(bus, service, int(shards.get(service, 1)))
    except (BusError, CommandError):
        return {}  # The finding about the streams has said why.
    return lags


async def _read_lag(bus: Bus, service: str, shards: int) -> ServiceLag:
    pending = unacked = 0
    for shard in range(shards):
        durable = f"{subjects.inbox_stream(service)}.{subjects.durable_name(service, shard)}"
        answer = await bus.request(f"JSMESH.API.CONSUMER.INFO.{durable}", b"", timeout_s=ASK_TIMEOUT_S)
        info = json.loads(answer.body or b"{}")
        pending += int(info.get("num_pending") or 0)
        unacked += int(info.get("num_ack_pending") or 0)
    return ServiceLag(pending, unacked)
