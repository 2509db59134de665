"""The laws of a run, read after its last fault: from clients, the outside world, the provider's log, the streams.

In: a world, what its clients were told. Out: one line for each breach. Nothing here asks a service what only it knows
where the outside world can be asked.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from bulkhead.client.mesh import UNENDED
from bulkhead.journal.history import build_entries, each_fact
from bulkhead.journal.reader import read_journal, read_pages
from bulkhead_cli.replay.replay import replay_task
from bulkhead_contracts.budget import Reserved, Settled
from bulkhead_contracts.lease import LeaseEnded, LeaseGranted
from tests.e2e.fixtures.money import compare_ledger
from tests.faults.chaos.requests import Attempt, ClientRequest
from tests.faults.chaos.schedule import EVERYTHING, Blow
from tests.faults.chaos.world import ASKING, PUBLISHING, SERVERS, TENANTS, WORKING, ChaosWorld
from tests.faults.fixtures.errand import consumers

RETURN_S = 20.0
"""After a blow, so long a front may still be coming back, on a machine without other load."""
PLACES = re.compile(r'^bulkhead_tasks_places\{.*?"(running|waiting)".*?\} (\d+)', re.M)
OWNED = re.compile(r"bulkhead-(?:tool|mcp)-(\d+)\.\d+-")
PAUSE_S = 0.5
ACCUSATIONS = ("loop_stopped", "halted", "bad_grant", "refused_by_policy", "refused_by_budget")
"""Codes of what no client of these does."""
TRACEBACK = "Traceback (most recent call last):"


@dataclass(frozen=True, slots=True)
class Setting:
    """What the laws need to know of a run. patience: how much longer than on a quiet machine all takes."""

    blows: Sequence[Blow]
    patience: float

    @property
    def return_s(self) -> float:
        """So long after a blow its victim may be away."""
        return RETURN_S * self.patience


# What clients were told


def judge_requests(requests: Iterable[ClientRequest], setting: Setting) -> list[str]:
    """Every client was served, or told the truth and served when it asked again."""
    breaches = []
    last_s = max((blow.end_s for blow in setting.blows), default=0.0)
    for request in requests:
        who = f"{request.kind} {request.name} ({request.task or 'no task'})"
        if not request.is_served:
            latest = request.attempts[-1] if request.attempts else None
            breaches.append(f"{who} was never served; told last: {_words_of(latest)}")
        for attempt in request.attempts:
            if problem := _problem_of(attempt, request, setting, last_s):
                breaches.append(f"{who}, from {attempt.began_s:.1f} to {attempt.ended_s:.1f} s: {problem}")
    return breaches


def _words_of(attempt: Attempt | None) -> str:
    return f"{attempt.outcome} {attempt.code} {attempt.text}".strip() if attempt is not None else "nothing"


def _problem_of(attempt: Attempt, request: ClientRequest, setting: Setting, last_s: float) -> str:
    """Why what a client was told is no truth; "" where it is."""
    began_s = attempt.began_s - setting.return_s
    near = [blow for blow in setting.blows if blow.at_s <= attempt.ended_s and blow.end_s >= began_s]
    match attempt.outcome:
        case "silent" | "wrong":
            return f"{attempt.outcome}: {attempt.text}"
        case "lost":
            hit = {*request.fronts, EVERYTHING}
            return "" if any(blow.victim in hit for blow in near) else f"a connection is lost: {attempt.text}"
        case "refused" if not attempt.code or not attempt.text:
            return f"a refusal without code or words: {_words_of(attempt)}"
        case "refused" if attempt.code in ACCUSATIONS:
            return f"blamed for what others did: {_words_of(attempt)}"
        case "refused" if request.is_late and attempt.began_s > last_s + setting.return_s and not _is_asking(attempt):
            return f"refused when all was well again: {_words_of(attempt)}"
        case "refused" if not near and not _is_asking(attempt):
            return f"refused, and nothing was amiss: {_words_of(attempt)}"
    return ""


def _is_asking(attempt: Attempt) -> bool:
    """True for a call that waits for a person: that is no fault."""
    return attempt.code == "approval_wanted"


# Writes


def count_writes(world: ChaosWorld) -> Counter[str]:
    """How often each write was made, as the outside world counts it."""
    made = Counter(str(row["name"]) for row in world.counter.entries if not row["repeat"])
    lines = world.mcp_log.read_text().splitlines() if world.mcp_log.exists() else []
    made.update(line.split()[1] for line in lines if line.split()[0] in SERVERS)
    return made


def judge_writes(made: Mapping[str, int], requests: Iterable[ClientRequest]) -> list[str]:
    """No write was made twice, none that was acknowledged is lost, none was made that a person denied."""
    breaches = []
    for request in requests:
        for name, standing in request.writes.items():
            due = {"acknowledged": (1,), "forbidden": (0,)}.get(standing, (0, 1))
            if (count := made.get(name, 0)) not in due:
                breaches.append(f"{request.kind} {request.name}: write {name} ({standing}) was made {count} times")
    return breaches


# Tasks and their money


async def judge_tasks(world: ChaosWorld, provider_log: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """In each task no message is stored twice, deciders say the same again, facts and ledger agree; and what is charged
    is what the provider told, or the worst case."""
    breaches: list[str] = []
    calls = ModelCharges()
    async with world.bus() as bus:
        for tenant in TENANTS:
            for row in await world.client(tenant, "operator").tasks(10_000):
                task = str(row["task_id"])
                stored = await read_journal(bus, task)
                places = Counter((message.subject, message.ce_id) for message in stored)
                entries = each_fact(build_entries(stored))
                money = await compare_ledger(entries, world.mesh.redis_url, tenant, task)
                calls.add_facts(entry.body for entry in entries)
                replay = await replay_task(bus, task)
                problems = [*money.problems(may_lapse=True), *map(str, replay.divergences)]
                problems += [f"{subject} holds {name} twice" for (subject, name), count in places.items() if count > 1]
                breaches += [f"task {task} of {tenant}: {problem}" for problem in problems]
    return breaches + compare_log(calls.told, calls.guessed, provider_log.values())


class ModelCharges:
    """Calls of models as they are charged. told: tokens in and out, as the provider told them. guessed: tokens of calls
    of which it told nothing, or not all."""

    def __init__(self) -> None:
        self.told: Counter[tuple[int, int]] = Counter()
        self.guessed: list[int] = []

    def add_facts(self, facts: Iterable[object]) -> None:
        """Add the reservations of a task, and what became of them."""
        reserved: dict[str, Reserved] = {}
        settled: dict[str, Settled] = {}
        for fact in facts:
            match fact:
                case Reserved() if fact.service == "model_gateway":
                    reserved[fact.reservation_id] = fact
                case Settled():
                    settled[fact.reservation_id] = fact
        for name, reservation in reserved.items():
            usage = settled[name].usage if name in settled else None
            if usage is None or settled[name].estimated:
                self.guessed.append(reservation.amount.tokens)
            elif usage.estimated_tokens:
                self.guessed.append(usage.input_tokens + usage.output_tokens)
            elif usage.model_calls or usage.input_tokens:
                self.told[usage.input_tokens, usage.output_tokens] += 1


def compare_log(
    charged: Counter[tuple[int, int]], guessed: Sequence[int], provider_log: Iterable[Mapping[str, Any]]
) -> list[str]:
    """What was charged as told, and the tokens of calls of which nothing was told, against the provider's own log."""
    told = Counter(
        (row["usage"]["prompt_tokens"], row["usage"]["completion_tokens"]) for row in provider_log if row["usage"]
    )
    breaches = [f"{count} calls are charged {pair}, never told" for pair, count in (charged - told).items()]
    untold = told - charged
    if untold.total() > len(guessed):
        breaches.append(f"{untold.total()} answers of the provider are charged nowhere; {len(guessed)} are estimated")
    if (missing := sum(sum(pair) * count for pair, count in untold.items())) > sum(guessed):
        breaches.append(f"{missing} tokens that the provider counts are charged by {sum(guessed)}")
    return breaches


# What is left


async def judge_remains(world: ChaosWorld, within_s: float) -> list[str]:
    """Nothing is left behind: no message, task, place, reservation, approval, lease, folder or letter."""
    checks: dict[str, Callable[[], Awaitable[Any]]] = {
        "messages wait (pending, not acknowledged)": lambda: _waiting_messages(world),
        "tasks have not ended": lambda: _open_tasks(world),
        "places to run are taken or waited for": lambda: _taken_places(world),
        "calls are held in the ledger": lambda: _held_calls(world),
        "calls wait for a person": lambda: _waiting_approvals(world),
        "steps are handed out": lambda: _open_steps(world),
        "leases are held": lambda: _kept_leases(world),
        "folders of executors that are gone": lambda: _abandoned_folders(world),
    }
    left = await asyncio.gather(*(_until_none(check, within_s) for check in checks.values()))
    breaches = [f"{what}: {found}" for what, found in zip(checks, left, strict=True) if found]
    breaches += [f"a dead letter: {letter}" for letter in await world.letters()]
    return breaches


async def _until_none(check: Callable[[], Awaitable[Any]], within_s: float) -> Any:
    """What a check still finds after a while."""
    deadline = asyncio.get_running_loop().time() + within_s
    while (remains := await check()) and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(PAUSE_S)
    return remains


async def _waiting_messages(world: ChaosWorld) -> Any:
    return {
        name: (row["num_pending"], row["num_ack_pending"])
        for name, row in (await consumers(world)).items()
        # Nobody in this run reads the events of outside subscribers.
        if not name.startswith("sub_") and (row["num_pending"] or row["num_ack_pending"])
    }


async def _open_tasks(world: ChaosWorld) -> Any:
    rows = [
        (tenant, row["task_id"], row["status"], row["objective"][:60])
        for tenant in TENANTS
        for row in await world.client(tenant, "operator").tasks(10_000)
        if row["status"] in UNENDED
    ]
    return rows


async def _taken_places(world: ChaosWorld) -> Any:
    address = json.loads((world.mesh.directory / "run" / "gateway-0.json").read_text())
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"http://127.0.0.1:{address['port']}/metrics")).text
    places = {state: int(count) for state, count in PLACES.findall(text)}
    return {state: count for state, count in places.items() if count} if places else "the gateway does not tell"


async def _held_calls(world: ChaosWorld) -> Any:
    held: dict[str, Any] = {}
    for tenant in TENANTS:
        page = await world.client(tenant, "operator").get("/v1/spend", {"by": "task", "limit": "100"})
        held |= {row["name"]: row["held"] for row in page["rows"] if row["held"]["calls"]}
    return held


async def _waiting_approvals(world: ChaosWorld) -> Any:
    return (await world.client(ASKING, "approver").approvals("waiting")).approvals


async def _open_steps(world: ChaosWorld) -> Any:
    steps = []
    async with httpx.AsyncClient(base_url=world.mesh.doors_url) as http:
        for tenant in (WORKING, PUBLISHING):
            key = world.mesh.add_api_key(tenant, f"{tenant}-operator", "operator")
            answer = await http.get("/v1/steps/open", headers={"Authorization": f"Bearer {key}"})
            steps += answer.json().get("steps", [])
    return steps


async def _abandoned_folders(world: ChaosWorld) -> Any:
    return [
        folder.name
        for folder in Path(world.temporary).glob("bulkhead-*")
        if (owner := OWNED.match(folder.name)) and not psutil.pid_exists(int(owner[1]))
    ]


async def _kept_leases(world: ChaosWorld) -> Any:
    kept: set[str] = set()
    async with world.bus() as bus:
        async for page in read_pages(bus, "mesh.>"):
            for entry in build_entries(stored for stored in page if stored.ce_type.startswith("mesh.lease.")):
                match entry.body:
                    case LeaseGranted():
                        kept.add(entry.body.lease_id)
                    case LeaseEnded():
                        kept.discard(entry.body.lease_id)
    return sorted(kept)


def judge_logs(world: ChaosWorld) -> list[str]:
    """Whatever no service foresaw: a traceback in its log."""
    breaches = []
    for log in sorted((world.mesh.directory / "logs").glob("*.log")):
        for part in log.read_text(errors="replace").split(TRACEBACK)[1:]:
            error = next((line for line in part.splitlines() if line and not line.startswith((" ", "\t"))), "")
            breaches.append(f"{log.name}: a traceback that ends with: {error}")
    return breaches


async def judge_doctor(world: ChaosWorld) -> list[str]:
    """Whatever `bulkhead doctor` finds a problem or warns of."""
    _, output, error = await world.command("doctor", "--json")
    try:
        findings = json.loads(output)
    except ValueError:
        return [f"doctor says nothing readable: {output[-500:]} {error[-500:]}"]
    return [f"doctor: {row['what']} ({row['level']}): {row['detail']}" for row in findings if row["level"] != "ok"]
