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
from bulkhead.gateway_api.approvals import ApprovalListQuery
from bulkhead.gateway_api.histories import StoryQuery
from bulkhead.gateway_api.operators import BreakerListQuery, HaltListQuery, LimitsQuery
from bulkhead.journal.history import UnknownTask, build_entries, messages_of_tenant
from bulkhead.journal.reader import read_journal
from bulkhead.journal.story.fold import fold_story
from bulkhead.journal.story.model import as_json
from bulkhead.runtime.context import unix_ms
from bulkhead.runtime.dead_letters import read_letters
from bulkhead.runtime.halts import operator
from bulkhead_cli.incident import redact
from bulkhead_cli.operate import doctor
from bulkhead_cli.output import CommandError
from bulkhead_cli.target import GatewayTarget, find_target, operator_bus, read_json
from bulkhead_contracts import subjects
from bulkhead_contracts.task import TaskEnded, TaskSubmitted

MAX_ROWS, MAX_TASKS, MAX_SEEN = 200, 40, 5_000
PART_TIMEOUT_S, ASK_TIMEOUT_S = 30.0, 3.0
FACTS = ("durability", "own_broker", "replicas", "store_gib", "shards", "logic", "scale", "given_up")
"""Of mesh.json: how the mesh was started."""
GOOD = ("succeeded", "cancelled")


@dataclass(slots=True)
class IncidentPart:
    """One part of the file. left_out: rows for which there was no room. error: why there are none."""

    rows: list[Any] = field(default_factory=list)
    left_out: int = 0
    error: str = ""


Gather = Callable[[], Awaitable[list[Any]]]


async def gather_parts(parts: dict[str, tuple[Gather, int]]) -> dict[str, IncidentPart]:
    """Each part, one after the other; what fails is said in its place. parts: how, and how many rows at most."""
    collected = {}
    for name, (gather, most) in parts.items():
        try:
            rows = await asyncio.wait_for(gather(), PART_TIMEOUT_S)
            collected[name] = IncidentPart(rows[:most], max(0, len(rows) - most))
        except TimeoutError:
            collected[name] = IncidentPart(error=f"no answer within {PART_TIMEOUT_S:g} s")
        except (CommandError, BusError, MeshError, OSError, ValueError) as error:
            collected[name] = IncidentPart(error=redact.own_words(str(error) or type(error).__name__))
    return collected


def parts_of_directory(data: Path, since_unix_ms: int, task: str) -> dict[str, tuple[Gather, int]]:
    """Parts that the machine of the mesh has: of all tenants, under the operator's key."""
    local = _LocalIncidentSource(data, since_unix_ms, task)
    remote = _GatewayIncidentSource(lambda: find_target(data, "", ""), since_unix_ms, task)
    return {
        "versions": (local.collect_versions, 1),
        "doctor": (local.collect_findings, MAX_ROWS),
        "health": (local.collect_health, MAX_ROWS),
        "metrics": (local.collect_metrics, MAX_ROWS),
        "halts": (local.collect_halts, MAX_ROWS),
        "breakers": (local.collect_breakers, MAX_ROWS),
        "dead_letters": (local.collect_dead_letters, MAX_ROWS),
        "tasks": (local.collect_tasks, MAX_TASKS),
        "limits": (remote.collect_limits, MAX_ROWS),
        "alerts": (remote.collect_alerts, MAX_ROWS),
        "approvals": (remote.collect_approvals, MAX_ROWS),
    }


def parts_of_gateway(target: GatewayTarget, since_unix_ms: int, task: str) -> dict[str, tuple[Gather, int]]:
    """Parts that a gateway tells the owner of an API key: of one tenant."""
    remote = _GatewayIncidentSource(lambda: target, since_unix_ms, task)
    return {
        "versions": (remote.collect_versions, 1),
        "halts": (remote.collect_halts, MAX_ROWS),
        "breakers": (remote.collect_breakers, MAX_ROWS),
        "tasks": (remote.collect_tasks, MAX_TASKS),
        "limits": (remote.collect_limits, MAX_ROWS),
        "alerts": (remote.collect_alerts, MAX_ROWS),
        "approvals": (remote.collect_approvals, MAX_ROWS),
    }


def _local_versions() -> dict[str, Any]:
    return {"bulkhead": version("bulkhead"), "python": platform.python_version(), "system": platform.platform()}


@dataclass(frozen=True, slots=True)
class _LocalIncidentSource:
    data: Path
    since_unix_ms: int
    task: str

    async def collect_versions(self) -> list[Any]:
        mesh = read_json(self.data / "mesh.json")
        return [_local_versions() | {"mesh": redact.redact_value({name: mesh[name] for name in FACTS if name in mesh})}]

    async def collect_findings(self) -> list[Any]:
        findings = [finding async for finding in doctor.examine_mesh(self.data)]
        return [
            {
                "what": finding.what,
                "level": finding.level,
                "detail": redact.own_words(finding.detail),
                "todo": finding.todo,
            }
            for finding in findings
        ]

    async def collect_health(self) -> list[Any]:
        answers = await self._ask_processes("/readyz")
        return [{"process": name, **redact.redact_health(body)} for name, body in answers]

    async def collect_metrics(self) -> list[Any]:
        answers = await self._ask_processes("/metrics")
        return [
            {"process": name, "lines": [row for row in body.splitlines() if row and not row.startswith("#")]}
            for name, body in answers
        ]

    async def _ask_processes(self, path: str) -> list[tuple[str, str]]:
        files = [file for file in sorted((self.data / "run").glob("*-*.json")) if file.suffixes == [".json"]]
        ports = {file.stem: read_json(file).get("port") for file in files}
        answers = []
        async with httpx.AsyncClient(timeout=ASK_TIMEOUT_S) as http:
            for name, port in ports.items():
                try:
                    answers.append((name, (await http.get(f"http://127.0.0.1:{int(port or 0)}{path}")).text))
                except (httpx.HTTPError, httpx.InvalidURL):
                    answers.append((name, ""))
        return answers

    async def collect_halts(self) -> list[Any]:
        async with operator_bus(self.data) as bus:
            return [
                redact.redact_row("halt", halt.model_dump(mode="json")) for halt in await operator.standing_halts(bus)
            ]

    async def collect_breakers(self) -> list[Any]:
        async with operator_bus(self.data) as bus:
            return [_redact_breaker(breaker.model_dump(mode="json")) for breaker in await operator.read_breakers(bus)]

    async def collect_dead_letters(self) -> list[Any]:
        async with operator_bus(self.data) as bus:
            dead_letters = [
                letter
                for letter in await read_letters(bus)
                if letter.buried_unix_ms >= self.since_unix_ms or not letter.marks
            ]
        return [
            redact.redact_row("letter", letter.as_json() | {"standing": letter.standing})
            | {
                "headers": {
                    name: redact.redact_value(letter.headers[name]) for name in redact.HEADERS if name in letter.headers
                }
            }
            for letter in reversed(dead_letters)
        ]

    async def collect_tasks(self) -> list[Any]:
        """Stories of tasks that ended badly, and of those that go on, the newest first."""
        from bulkhead_infra.composition import newest_logic  # It imports every decider.

        async with operator_bus(self.data) as bus:
            task_keys = [("", self.task)] if self.task else await _find_recent_tasks(bus, self.since_unix_ms)
            stories = []
            for tenant, task in task_keys[:MAX_TASKS]:
                try:
                    stored = await read_journal(bus, task, whole=False, reservations=False)
                    story = fold_story(
                        build_entries(messages_of_tenant(stored, task, tenant)), task, unix_ms(), {}, newest_logic()
                    )
                except UnknownTask:
                    continue
                stories.append(redact.redact_story(as_json(story)))
        return [*stories, *({"task_id": task, "tenant": tenant} for tenant, task in task_keys[MAX_TASKS:])]


@dataclass(frozen=True, slots=True)
class _GatewayIncidentSource:
    target: Callable[[], GatewayTarget]
    since_unix_ms: int
    task: str

    @asynccontextmanager
    async def _open_mesh(self) -> AsyncIterator[Mesh]:
        async with self.target().mesh_client() as mesh:
            yield mesh

    async def collect_versions(self) -> list[Any]:
        return [_local_versions()]

    async def collect_halts(self) -> list[Any]:
        async with self._open_mesh() as mesh:
            return [redact.redact_row("halt", row) for row in (await mesh.read_json(HaltListQuery()))["halts"]]

    async def collect_breakers(self) -> list[Any]:
        async with self._open_mesh() as mesh:
            return [_redact_breaker(row) for row in (await mesh.read_json(BreakerListQuery()))["breakers"]]

    async def collect_limits(self) -> list[Any]:
        async with self._open_mesh() as mesh:
            page = await mesh.read_json(LimitsQuery())
        policy = [
            {"target": f"policy/{name}", "limit": redact.redact_value(row)}
            for name, row in sorted((page.get("policy") or {}).items())
        ]
        return [*policy, *(redact.redact_row("limit", row) for row in page.get("limits", ()))]

    async def collect_alerts(self) -> list[Any]:
        async with self._open_mesh() as mesh:
            return [redact.redact_row("alert", row) for row in (await mesh.read_json(LimitsQuery())).get("alerts", ())]

    async def collect_approvals(self) -> list[Any]:
        async with self._open_mesh() as mesh:
            rows = (await mesh.read_json(ApprovalListQuery(task=self.task)))["approvals"]
        return [redact.redact_row("approval", {**row.get("request", {}), **row}) for row in rows]

    async def collect_tasks(self) -> list[Any]:
        async with self._open_mesh() as mesh:
            if self.task:
                return [await _read_story(mesh, self.task)]
            rows = [row for row in await mesh.tasks(MAX_ROWS) if row["updated_unix_ms"] >= self.since_unix_ms]
            rows = [row for row in rows if row["status"] not in GOOD]
            stories = [await _read_story(mesh, row["task_id"]) for row in rows[:MAX_TASKS]]
        return [*stories, *(redact.redact_row("task", row) for row in rows[MAX_TASKS:])]


async def _read_story(mesh: Mesh, task: str) -> dict[str, Any]:
    return redact.redact_story((await mesh.read_json(StoryQuery(task_id=task)))["story"])


def _redact_breaker(row: dict[str, Any]) -> dict[str, Any]:
    return redact.redact_row("breaker", row) | {"reason": redact.own_words(str(row.get("reason") or ""))}


async def _find_recent_tasks(bus: Bus, since_unix_ms: int) -> list[tuple[str, str]]:
    """(tenant, task) of what began since then and has not ended, or ended badly since then; the newest first."""
    begun = await _read_messages(bus, "planner", "mesh.gateway.planner.>", since_unix_ms)
    ended = await _read_messages(bus, "gateway", "mesh.planner.gateway.>", since_unix_ms)
    selection: dict[tuple[str, str], bool] = {}
    for message in (*begun, *ended):
        key = (message.tenant, message.task)
        if message.ce_type.startswith(f"{TaskSubmitted.TYPE}.v"):
            selection.setdefault(key, True)
        elif message.ce_type.startswith(f"{TaskEnded.TYPE}.v"):
            try:
                selection[key] = TaskEnded.model_validate_json(message.body).status not in GOOD
            except ValueError:
                selection[key] = True
    return [key for key, is_selected in reversed(selection.items()) if is_selected]


async def _read_messages(bus: Bus, inbox: str, subject: str, since_unix_ms: int) -> list[Any]:
    stream, messages = subjects.inbox_stream(inbox), list[Any]()
    after = await last_before(bus, stream, subject, since_unix_ms, await bus.last_sequence(stream))
    while len(messages) < MAX_SEEN and (page := await bus.read(stream, subject, after=after)):
        messages += page
        after = page[-1].sequence
    return messages
