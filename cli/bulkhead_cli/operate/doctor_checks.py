"""Checks of `bulkhead doctor` on the mesh's foundations: keys and rights, settings of streams, Redis, telemetry.

In: mesh.json, the keys of a data directory, addresses. Out: findings. Every service's key is tried for a moment, as the
service would use it; nothing is changed, nothing is stored.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any

import httpx

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.jetstream.connection import ca_beside
from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import Bus, BusError, PublishRefused
from bulkhead.runtime.decider.history import is_of_type
from bulkhead.text.amounts import format_count
from bulkhead_cli.operate.finding import DoctorFinding
from bulkhead_cli.target import nats_url
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.task import TaskEnded, TaskSubmitted

ASK_TIMEOUT_S = 3.0
RUNNING = "running"
"""As Docker says it."""
EVERYTHING = "mesh.>"
"""Subjects that the broker must refuse to every service."""
OTLP_PATH = "/v1/traces"
SETTINGS_TODO = "restart the mesh: `bulkhead up` provisions it again; it reports what it cannot change"
MIN_REDIS = (6, 2)
MAX_TASKS_LOOKED_AT = 256
"""Tasks of unknown logic of which it is looked up whether they have ended."""


async def check_identities(data: Path, mesh: Mapping[str, Any]) -> AsyncIterator[DoctorFinding]:
    """Every service's key: known to the broker, with the rights that the service needs and not with all there are."""
    # What the broker refuses here is what is asked for, and no news.
    logging.getLogger("bulkhead.bus").setLevel(logging.ERROR)
    tried = await asyncio.gather(*(_check_identity(data, nats_url(dict(mesh)), name) for name in catalog.SERVICES))
    wrong = [finding for finding in tried if finding is not None]
    for finding in wrong:
        yield finding
    if not wrong:
        yield DoctorFinding(
            "permissions",
            "ok",
            f"{len(tried)} services: the broker accepts each key, for its own inbox and not for others",
        )


async def check_logics(bus: Bus, held_versions: Collection[int]) -> DoctorFinding | None:
    """Tasks of the journal that began under a decision logic which this version of bulkhead does not hold. Raises
    BusError."""
    versions: dict[tuple[str, str], str] = {}
    async for stored in stored_messages(bus, subjects.JOURNAL_STREAM, "mesh.gateway.planner.>"):
        if is_of_type(stored, TaskSubmitted.TYPE):
            versions[stored.tenant, stored.task] = stored.header("ce-logicversion") or "1"
    unheld_tasks = [task for task, version in versions.items() if version not in map(str, held_versions)]
    if not unheld_tasks:
        return None
    unended_count = 0
    for tenant, task in unheld_tasks[:MAX_TASKS_LOOKED_AT]:
        subject = subjects.mesh_subject("planner", "gateway", tenant, task)
        last = await bus.last(subjects.JOURNAL_STREAM, subject)
        unended_count += last is None or not is_of_type(last, TaskEnded.TYPE)
    least = "at least " if len(unheld_tasks) > MAX_TASKS_LOOKED_AT else ""
    numbers = ", ".join(sorted({versions[task] for task in unheld_tasks}))
    return DoctorFinding(
        "decision logic",
        "problem" if unended_count else "warning",
        f"{format_count(len(unheld_tasks), 'task')} began under logic {numbers}, which this version does not hold: "
        f"none can be replayed, and {least}{unended_count} that have not ended do not go on",
        "go back to the version of bulkhead that began them until they have ended, or begin a new data directory",
    )


async def _check_identity(data: Path, url: str, service: str) -> DoctorFinding | None:
    subject = f"permissions of {service}"
    key = data / "identity" / f"{service}.nkey"
    try:
        seed = key.read_text().strip()
        bus = await JetStreamBus.connect(
            url, service=service, nkey_seed=seed, name="doctor", timeout_s=ASK_TIMEOUT_S, ca_file=ca_beside(key.parent)
        )
    except OSError as error:
        return DoctorFinding(
            subject,
            "problem",
            f"{key} cannot be read: {error.strerror}",
            "restore the key, or delete it and restart the mesh, which makes another one",
        )
    except (BusError, ValueError) as error:
        return DoctorFinding(
            subject,
            "problem",
            str(error),
            "restart the mesh; with a broker of your own: include `bulkhead render accounts`, reload it",
        )
    try:
        return await _check_rights(bus, service, subject)
    except BusError as error:
        return DoctorFinding(subject, "problem", str(error), "render the accounts again and reload the broker")
    finally:
        await bus.close()


async def _check_rights(bus: JetStreamBus, service: str, what: str) -> DoctorFinding | None:
    if service in catalog.INBOXES:
        await bus.open_consumer(subjects.inbox_stream(service), subjects.durable_name(service, 0))
    try:
        live = await bus.subscribe_live(EVERYTHING)
    except PublishRefused:
        return None
    await live.close()
    return DoctorFinding(
        what,
        "problem",
        f"it may listen to {EVERYTHING}: the broker does not isolate the services from each other",
        "include `bulkhead render accounts` in the broker's configuration, and no other user for these keys",
    )


def check_stream_settings(mesh: Mapping[str, Any], current: Mapping[str, Mapping[str, Any]]) -> list[DoctorFinding]:
    """Streams against what the provisioner would make, and whether all their copies are there. current: STREAM.INFO."""
    from bulkhead_infra.identity.config_folder import load_identities
    from bulkhead_infra.nats.provision import list_differences
    from bulkhead_infra.nats.streams import Layout, stream_configs

    store_gib = int(mesh.get("store_gib") or 0)
    layout = Layout(mesh.get("shards") or {}, int(mesh.get("replicas") or 1), store_gib)
    layout = layout.with_outside(load_identities(Path(mesh["config_dir"]) if mesh.get("config_dir") else None))
    findings = []
    for config in stream_configs(layout):
        info = current.get(config["name"])
        if not info:
            continue  # Told as missing.
        if not store_gib:
            config = {key: value for key, value in config.items() if key != "max_bytes"}
        if wrong := list_differences(config, info["config"]):
            findings.append(DoctorFinding(f"settings of {config['name']}", "problem", "; ".join(wrong), SETTINGS_TODO))
        findings += _check_replicas(config["name"], info.get("cluster") or {})
    return findings or [DoctorFinding("settings", "ok", "every stream is configured as this version expects")]


def check_store_room(given_gib: int, used: int, free: int) -> DoctorFinding | None:
    """Room on the disk for what the streams may still take. used: their bytes; free: of the disk."""
    remaining = given_gib * 1024**3 - used
    if not given_gib or free >= remaining:
        return None
    return DoctorFinding(
        "store",
        "warning",
        f"--store-gib {given_gib} lets the streams take {remaining / 1024**3:.0f} GiB more, "
        f"and the disk has {free / 1024**3:.0f}",
        f"free some, or start with --store-gib {max(4, int((used + free) * 0.9) // 1024**3)}: a full disk "
        "stops the broker, a full stream only refuses",
    )


def _check_replicas(stream: str, cluster: Mapping[str, Any]) -> list[DoctorFinding]:
    copies = cluster.get("replicas") or ()
    away = [str(replica.get("name")) for replica in copies if replica.get("offline") or not replica.get("current")]
    if cluster and not cluster.get("leader"):
        return [
            DoctorFinding(
                stream,
                "problem",
                "it has no leader: too few brokers of the cluster answer",
                "start the missing brokers; nothing is lost, what was acknowledged is on most of them",
            )
        ]
    if away:
        return [
            DoctorFinding(
                stream,
                "warning",
                f"copies on {', '.join(away)} are away or behind",
                "look at those brokers; until they have caught up, one more loss stops this stream",
            )
        ]
    return []


def check_cluster(mesh: Mapping[str, Any]) -> DoctorFinding | None:
    """Brokers of a cluster that run; None where it is not known which there are, or it is none."""
    brokers = {str(name): str(state) for name, state in (mesh.get("brokers") or {}).items()}
    away = {name: state for name, state in brokers.items() if state != RUNNING}
    if not brokers:
        return None
    detail = f"{len(brokers) - len(away)} of {len(brokers)} brokers run"
    if not away:
        return DoctorFinding("cluster", "ok", detail)
    detail += f"; {', '.join(f'{name} ({state})' for name, state in away.items())} away"
    if 2 * len(away) >= len(brokers):
        return DoctorFinding(
            "cluster",
            "problem",
            f"{detail}: no message is accepted without a majority of them",
            "start the missing ones; nothing is lost, and waiting work continues by itself",
        )
    return DoctorFinding(
        "cluster",
        "warning",
        detail,
        "start it; the mesh works without it, but one more loss stops the mesh. An empty broker copies all data first",
    )


async def check_redis(url: str) -> DoctorFinding:
    """State of the Redis that budget relies on. url: with its password, which is not shown."""
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    from bulkhead_services.budget.ledger.redis.sentinel import master_url

    try:
        client = Redis.from_url(
            await master_url(url, ASK_TIMEOUT_S),
            socket_timeout=ASK_TIMEOUT_S,
            socket_connect_timeout=ASK_TIMEOUT_S,
            decode_responses=True,
        )
    except RedisError as error:
        return DoctorFinding(
            "redis", "problem", f"{error}", "start the sentinels, or correct --redis (BULKHEAD_REDIS_URL)"
        )
    except ValueError as error:
        return DoctorFinding(
            "redis",
            "problem",
            f"its address cannot be used: {error}",
            "write it as redis://HOST:PORT, or redis+sentinel://HOST:PORT,HOST:PORT/NAME",
        )
    try:
        return judge_redis(await client.info())
    except (RedisError, OSError) as error:
        return DoctorFinding(
            "redis",
            "problem",
            f"it does not answer: {_without_password(str(error), url)}",
            "start it, or correct --redis (BULKHEAD_REDIS_URL); until then tasks wait and nothing is lost",
        )
    finally:
        await client.aclose()


def judge_redis(info: Mapping[str, Any]) -> DoctorFinding:
    """From its INFO."""
    version = str(info.get("redis_version", "?"))
    bound, policy = int(info.get("maxmemory") or 0), str(info.get("maxmemory_policy", "noeviction"))
    if info.get("role") not in (None, "master"):
        return DoctorFinding(
            "redis",
            "problem",
            f"{version} is a replica, which takes no writes",
            "name the master, or promote this one; budget rebuilds its ledger of the facts then",
        )
    if bound and policy != "noeviction":
        return DoctorFinding(
            "redis",
            "problem",
            f"{version} evicts keys when it is full (maxmemory-policy {policy})",
            "set maxmemory-policy noeviction: a ledger that loses keys allows overspending",
        )
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < MIN_REDIS:
        return DoctorFinding(
            "redis", "warning", f"{version}; tested from {'.'.join(map(str, MIN_REDIS))} on", "upgrade it"
        )
    used = int(info.get("used_memory") or 0)
    if bound and used > 0.8 * bound:
        return DoctorFinding(
            "redis", "warning", f"{version}, {used / bound:.0%} of its memory is used", "raise maxmemory"
        )
    persistence = (
        "append-only file" if info.get("aof_enabled") else "nothing on disk: each restart of it means a rebuild"
    )
    if info.get("aof_enabled") and info.get("aof_last_write_status") not in (None, "ok"):
        return DoctorFinding(
            "redis", "warning", f"{version} cannot write its append-only file", "look at its disk and log"
        )
    return DoctorFinding("redis", "ok", f"{version}, noeviction, {persistence}, {used / 1024**2:.1f} MiB")


def own_redis(data: Path, mesh: Mapping[str, Any]) -> str:
    """The address of the mesh's own Redis; "" when it has none here."""
    port = mesh.get("redis_port")
    try:
        password_match = re.search(r"^requirepass (\S+)", (data / "redis" / "redis.conf").read_text(), re.M)
    except OSError:
        return ""
    return f"redis://:{password_match[1]}@127.0.0.1:{port}/0" if password_match and port else ""


def _without_password(text: str, url: str) -> str:
    password = re.search(r"://[^:/@]*:([^@]*)@", url)
    return text.replace(password[1], "***") if password and password[1] else text


async def check_telemetry(http: httpx.AsyncClient, endpoint: str) -> DoctorFinding:
    """An OTLP receiver takes an empty export, which every one must."""
    url = endpoint.rstrip("/") + OTLP_PATH
    try:
        answer = await http.post(url, content=b"", headers={"content-type": "application/x-protobuf"})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return DoctorFinding(
            "telemetry",
            "warning",
            f"no collector accepts traces at {url}: {error or type(error).__name__}",
            "start the collector, or correct BULKHEAD_OTLP_ENDPOINT; the mesh continues, its traces are lost",
        )
    if answer.is_success:
        return DoctorFinding("telemetry", "ok", f"traces go to {url}")
    return DoctorFinding(
        "telemetry",
        "warning",
        f"{url} answers HTTP {answer.status_code}",
        "it must speak OTLP over HTTP with protobuf (port 4318 of most collectors); traces are lost",
    )
