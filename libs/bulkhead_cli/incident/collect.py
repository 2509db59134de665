"""The parts of an incident file, each gathered by itself: a mesh in trouble does not answer all that is asked.

In: a data directory with the operator's key, or a gateway. Out: parts by name, each with rows, or with the reason for
which there are none.
"""

import asyncio
import platform
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from bulkhead.bus.port import Bus, BusError
from bulkhead.bus.seek_time import last_before
from bulkhead.client import Mesh, MeshError
from bulkhead.journal.history import UnknownTask, entries, of_tenant
from bulkhead.journal.reader import read_journal
from bulkhead.journal.story.fold import tell
from bulkhead.journal.story.model import as_json
from bulkhead.runtime.context import unix_ms
from bulkhead.runtime.dead_letters import read_letters
from bulkhead.runtime.halts import operator
from bulkhead_cli.incident import redact
from bulkhead_cli.operate import doctor
from bulkhead_cli.output import Stop
from bulkhead_cli.target import Target, find, operator_bus, read_json
from bulkhead_contracts import subjects
from bulkhead_contracts.task import TaskEnded, TaskSubmitted

MAX_ROWS, MAX_TASKS, MAX_SEEN = 200, 40, 5_000
PART_TIMEOUT_S, ASK_TIMEOUT_S = 30.0, 3.0
FACTS = ("durability", "own_broker", "replicas", "store_gib", "shards", "logic", "scale", "given_up")
"""Of mesh.json: how the mesh was started."""
GOOD = ("succeeded", "cancelled")


@dataclass(slots=True)
class Part:
    """One part of the file. left_out: rows for which there was no room. error: why there are none."""

    rows: list[Any] = field(default_factory=list)
    left_out: int = 0
    error: str = ""


Gather = Callable[[], Awaitable[list[Any]]]


async def gathered(parts: dict[str, tuple[Gather, int]]) -> dict[str, Part]:
    """Each part, one after the other; what fails is said in its place. parts: how, and how many rows at most."""
    found = {}
    for name, (gather, most) in parts.items():
        try:
            rows = await asyncio.wait_for(gather(), PART_TIMEOUT_S)
            found[name] = Part(rows[:most], max(0, len(rows) - most))
        except TimeoutError:
            found[name] = Part(error=f"no answer within {PART_TIMEOUT_S:g} s")
        except (Stop, BusError, MeshError, OSError, ValueError) as error:
            found[name] = Part(error=redact.own_words(str(error) or type(error).__name__))
    return found


def of_directory(data: Path, since_unix_ms: int, task: str) -> dict[str, tuple[Gather, int]]:
    """What the machine of the mesh knows: of all tenants, under the operator's key."""
    local = _Local(data, since_unix_ms, task)
    remote = _Remote(lambda: find(data, "", ""), since_unix_ms, task)
    return {
        "versions": (local.versions, 1),
        "doctor": (local.findings, MAX_ROWS),
        "health": (local.health, MAX_ROWS),
        "metrics": (local.metrics, MAX_ROWS),
        "halts": (local.halts, MAX_ROWS),
        "breakers": (local.breakers, MAX_ROWS),
        "dead_letters": (local.letters, MAX_ROWS),
        "tasks": (local.tasks, MAX_TASKS),
        "limits": (remote.limits, MAX_ROWS),
        "alerts": (remote.alerts, MAX_ROWS),
        "approvals": (remote.approvals, MAX_ROWS),
    }


def of_gateway(target: Target, since_unix_ms: int, task: str) -> dict[str, tuple[Gather, int]]:
    """What a gateway tells the owner of an API key: of one tenant."""
    remote = _Remote(lambda: target, since_unix_ms, task)
    return {
        "versions": (remote.versions, 1),
        "halts": (remote.halts, MAX_ROWS),
        "breakers": (remote.breakers, MAX_ROWS),
        "tasks": (remote.tasks, MAX_TASKS),
        "limits": (remote.limits, MAX_ROWS),
        "alerts": (remote.alerts, MAX_ROWS),
        "approvals": (remote.approvals, MAX_ROWS),
    }


def _own() -> dict[str, Any]:
    return {"bulkhead": version("bulkhead"), "python": platform.python_version(), "system": platform.platform()}


@dataclass(frozen=True, slots=True)
class _Local:
    data: Path
    since_unix_ms: int
    task: str

    async def versions(self) -> list[Any]:
        mesh = read_json(self.data / "mesh.json")
        return [_own() | {"mesh": redact.plain({name: mesh[name] for name in FACTS if name in mesh})}]

    async def findings(self) -> list[Any]:
        found = [one async for one in doctor.examine(self.data)]
        return [
            {"what": one.what, "level": one.level, "detail": redact.own_words(one.detail), "todo": one.todo}
            for one in found
        ]

    async def health(self) -> list[Any]:
        found = await self._asked("/readyz")
        return [{"process": name, **redact.health(said)} for name, said in found]

    async def metrics(self) -> list[Any]:
        found = await self._asked("/metrics")
        return [
            {"process": name, "lines": [row for row in said.splitlines() if row and not row.startswith("#")]}
            for name, said in found
        ]

    async def _asked(self, path: str) -> list[tuple[str, str]]:
        files = [file for file in sorted((self.data / "run").glob("*-*.json")) if file.suffixes == [".json"]]
        ports = {file.stem: read_json(file).get("port") for file in files}
        found = []
        async with httpx.AsyncClient(timeout=ASK_TIMEOUT_S) as http:
            for name, port in ports.items():
                try:
                    found.append((name, (await http.get(f"http://127.0.0.1:{int(port or 0)}{path}")).text))
                except (httpx.HTTPError, httpx.InvalidURL):
                    found.append((name, ""))
        return found

    async def halts(self) -> list[Any]:
        async with operator_bus(self.data) as bus:
            return [redact.kept("halt", one.model_dump(mode="json")) for one in await operator.standing(bus)]

    async def breakers(self) -> list[Any]:
        async with operator_bus(self.data) as bus:
            return [_breaker(one.model_dump(mode="json")) for one in await operator.breakers(bus)]

    async def letters(self) -> list[Any]:
        async with operator_bus(self.data) as bus:
            found = [
                one for one in await read_letters(bus) if one.buried_unix_ms >= self.since_unix_ms or not one.marks
            ]
        return [
            redact.kept("letter", one.as_json() | {"standing": one.standing})
            | {"headers": {name: redact.plain(one.headers[name]) for name in redact.HEADERS if name in one.headers}}
            for one in reversed(found)
        ]

    async def tasks(self) -> list[Any]:
        """Stories of tasks that ended badly, and of those that go on, the newest first."""
        from bulkhead_infra.composition import newest_logic  # It imports every decider.

        async with operator_bus(self.data) as bus:
            wanted = [("", self.task)] if self.task else await _seen(bus, self.since_unix_ms)
            found = []
            for tenant, task in wanted[:MAX_TASKS]:
                try:
                    stored = await read_journal(bus, task, whole=False, reservations=False)
                    told = tell(entries(of_tenant(stored, task, tenant)), task, unix_ms(), {}, newest_logic())
                except UnknownTask:
                    continue
                found.append(redact.story(as_json(told)))
        return [*found, *({"task_id": task, "tenant": tenant} for tenant, task in wanted[MAX_TASKS:])]


@dataclass(frozen=True, slots=True)
class _Remote:
    target: Callable[[], Target]
    since_unix_ms: int
    task: str

    @asynccontextmanager
    async def _mesh(self) -> AsyncIterator[Mesh]:
        async with self.target().mesh() as mesh:
            yield mesh

    async def versions(self) -> list[Any]:
        return [_own()]

    async def halts(self) -> list[Any]:
        async with self._mesh() as mesh:
            return [redact.kept("halt", one) for one in (await mesh.get("/v1/halts"))["halts"]]

    async def breakers(self) -> list[Any]:
        async with self._mesh() as mesh:
            return [_breaker(one) for one in (await mesh.get("/v1/breakers"))["breakers"]]

    async def limits(self) -> list[Any]:
        async with self._mesh() as mesh:
            page = await mesh.get("/v1/limits")
        policy = [{"target": f"policy/{name}", "limit": redact.plain(row)} for name, row in _rows(page.get("policy"))]
        return [*policy, *(redact.kept("limit", row) for row in page.get("limits", ()))]

    async def alerts(self) -> list[Any]:
        async with self._mesh() as mesh:
            return [redact.kept("alert", row) for row in (await mesh.get("/v1/limits")).get("alerts", ())]

    async def approvals(self) -> list[Any]:
        async with self._mesh() as mesh:
            rows = (await mesh.approvals("waiting", self.task))["approvals"]
        return [redact.kept("approval", {**row.get("request", {}), **row}) for row in rows]

    async def tasks(self) -> list[Any]:
        async with self._mesh() as mesh:
            if self.task:
                return [redact.story((await mesh.task(self.task).why())["story"])]
            rows = [one for one in await mesh.tasks(MAX_ROWS) if one["updated_unix_ms"] >= self.since_unix_ms]
            rows = [one for one in rows if one["status"] not in GOOD]
            told = [redact.story((await mesh.task(row["task_id"]).why())["story"]) for row in rows[:MAX_TASKS]]
        return [*told, *(redact.kept("task", row) for row in rows[MAX_TASKS:])]


def _breaker(row: dict[str, Any]) -> dict[str, Any]:
    return redact.kept("breaker", row) | {"reason": redact.own_words(str(row.get("reason") or ""))}


def _rows(value: Any) -> list[tuple[str, Any]]:
    return sorted(value.items()) if isinstance(value, dict) else []


async def _seen(bus: Bus, since_unix_ms: int) -> list[tuple[str, str]]:
    """(tenant, task) of what began since then and has not ended, or ended badly since then; the newest first."""
    begun = await _messages(bus, "planner", "mesh.gateway.planner.>", since_unix_ms)
    ended = await _messages(bus, "gateway", "mesh.planner.gateway.>", since_unix_ms)
    found: dict[tuple[str, str], bool] = {}
    for one in (*begun, *ended):
        key = (one.tenant, one.task)
        if one.ce_type.startswith(f"{TaskSubmitted.TYPE}.v"):
            found.setdefault(key, True)
        elif one.ce_type.startswith(f"{TaskEnded.TYPE}.v"):
            try:
                found[key] = TaskEnded.model_validate_json(one.body).status not in GOOD
            except ValueError:
                found[key] = True
    return [key for key, wanted in reversed(found.items()) if wanted]


async def _messages(bus: Bus, inbox: str, subject: str, since_unix_ms: int) -> list[Any]:
    stream, found = subjects.inbox_stream(inbox), list[Any]()
    after = await last_before(bus, stream, subject, since_unix_ms, await bus.last_sequence(stream))
    while len(found) < MAX_SEEN and (page := await bus.read(stream, subject, after=after)):
        found += page
        after = page[-1].sequence
    return found
