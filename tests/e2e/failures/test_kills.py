"""kill -9 of every process in the middle of a task: the answer is right, the write counted once, the money adds up.

"In the middle" is a fact and never a guess: a write stands at the counter's gate, a stream hangs in the provider, or
the service lies frozen with a message of the task delivered to it.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
from collections.abc import Awaitable, Callable

import httpx
import pytest
import pytest_asyncio

from bulkhead.client import Task
from bulkhead.telemetry import names
from bulkhead_infra.demo.corpus import Demo, generate_demo
from bulkhead_infra.local.supervisor import START_ORDER
from tests.e2e.fixtures.world import World, until, verdict

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def documents(own_world: World) -> None:
    """What the tasks of this file ask about."""
    await own_world.ingest(TENANT, DEMO)


SEED = 3
TENANT = "t3"
DEMO = generate_demo(SEED)
ROUNDS = 8
Middle = Callable[[World, "Run"], Awaitable[None]]
_numbers = itertools.count(1)


class Run:
    """One task that counts, looks up and computes; `name` is what it counts under."""

    def __init__(self, world: World, demo: Demo = DEMO, tool: str = "counter_increment") -> None:
        self.world, self.demo, self.tool = world, demo, tool
        self.task: Task | None = None
        self.rename()

    def rename(self) -> None:
        """Count under another name from now on."""
        self.name = f"kill-{next(_numbers)}"

    async def submit(self, **wishes) -> Task:
        objective = f"Use {self.tool} with name={self.name} amount=1. {self.demo.objective}"
        self.task = await self.world.submit(TENANT, objective, **wishes)
        return self.task

    async def ends_rightly(self) -> dict:
        """The answer, the count and the money; the record replays."""
        assert self.task is not None
        document = await self.world.finish(self.task)
        found = verdict(self.demo, document)
        assert found.ok, (found.differences, document["answer"])
        counted = [one for one in self.world.counter.increments_of(self.name) if not one["repeat"]]
        assert len(counted) == 1 and self.world.counter.count(self.name) == 1, counted
        await adds_up(self.world, self.task, document)
        report = await self.world.replay(self.task)
        assert report.divergences == [] and report.ended and report.compared > 20, report
        return document


async def adds_up(world: World, task: Task, document: dict) -> None:
    problems: list[str] = []

    async def settled() -> bool:
        money = await world.money(TENANT, task)
        problems[:] = money.problems()
        spent_usd = sum(cost for _, cost in money.settled.values())
        if spent_usd < document["usage"]["cost_usd_micros"]:
            problems.append(f"the answer cost {document['usage']['cost_usd_micros']}, only {spent_usd} is settled")
        return money.reserved and not problems

    try:
        await until(settled, "the money adds up", 20)
    except AssertionError:
        raise AssertionError(f"the money of {task.id} does not add up: {problems}") from None


async def queued(world: World, service: str) -> tuple[int, int]:
    """How many messages were delivered to the service and not acknowledged, and how many wait to be delivered."""
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{world.mesh.monitor_url}/jsz", params={"consumers": "true", "accounts": "true"})
    consumers = [
        consumer
        for account in answer.json()["account_details"]
        for stream in account.get("stream_detail", ())
        for consumer in stream.get("consumer_detail", ()) or ()
        if consumer["name"].startswith(f"{service}-")
    ]
    return sum(one["num_ack_pending"] for one in consumers), sum(one["num_pending"] for one in consumers)


async def at_the_gate(world: World, run: Run, service: str) -> None:
    """The write is under way."""
    async with world.counter.held() as arrived:
        await run.submit()
        await arrived()
        await world.mesh.kill_replica(service)


async def frozen(world: World, run: Run, service: str) -> None:
    """A message of the task was delivered to the service and is not handled.

    A service asks for messages anew every few seconds. Who is frozen just before that gets none: he is let go, the
    task ends, and another one is submitted.
    """
    for _ in range(ROUNDS):
        pid = world.mesh.unit_of(service).pid
        async with world.counter.held() as arrived:
            if service == "rag":
                # Retrievals are over before the write comes: it is frozen first.
                os.kill(pid, signal.SIGSTOP)
                await run.submit()
            else:
                await run.submit()
                await arrived()
                os.kill(pid, signal.SIGSTOP)
        try:
            await until(lambda: _any_queued(world, service), f"a message comes to {service}")
            if (await queued(world, service))[0]:
                return await world.mesh.kill_replica(service)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        await run.ends_rightly()
        run.rename()
    raise AssertionError(f"{service} was frozen {ROUNDS} times and never with a message in hand")


async def _any_queued(world: World, service: str) -> bool:
    return any(await queued(world, service))


async def streaming(world: World, run: Run, service: str) -> None:
    """The provider has sent the beginning of an answer and hangs."""
    await world.arm("stall", pattern=rf'(?s)\A(?=.*{run.name}\b)(?=.*"stream": ?true)', after_chunks=2)
    await run.submit()

    async def hangs() -> bool:
        return any(
            one["fault"] == "stall" and one["chunks_sent"] >= 2 and not one["finished"]
            for one in await world.model_requests()
        )

    await until(hangs, "a stream hangs in the provider")
    await world.mesh.kill_replica(service)


async def with_another_waiting(world: World, run: Run, service: str) -> None:
    """The write is under way, and the next task comes while nobody can sign its grant."""
    async with world.counter.held() as arrived:
        await run.submit()
        await arrived()
        await world.mesh.kill_replica(service, hold=True)
        after = Run(world)
        await after.submit()
        assert (await after.task.show())["status"] == "requested"
    await run.ends_rightly()
    await world.mesh.restart_replica(service)
    await after.ends_rightly()


MIDDLES = {
    "planner": frozen,
    "worker": frozen,
    "checker": frozen,
    "gateway": frozen,
    "rag": frozen,
    "tool_executor": at_the_gate,
    "budget": at_the_gate,
    "signer": with_another_waiting,
    "model_gateway": streaming,
}


async def test_every_service_is_killed_here() -> None:
    # No task of the squad goes through doors; they are killed in tests/e2e/doors.
    assert {*MIDDLES, "doors"} == set(START_ORDER), "add to MIDDLES in which moment each service is killed"


@pytest.mark.parametrize("service", MIDDLES)
async def test_a_service_killed_in_the_middle_changes_nothing(own_world: World, service: str) -> None:
    unit = own_world.mesh.unit_of(service)
    before, restarts = unit.pid, unit.restarts
    run = Run(own_world)
    await MIDDLES[service](own_world, run, service)
    await run.ends_rightly()
    if service == "tool_executor":
        told = own_world.counter.increments_of(run.name)
        assert [one["repeat"] for one in told] == [False, True], "counted for the dead one, and asked again by its heir"
    await unit.wait_until_ready(30)
    assert unit.pid not in (None, before) and (unit.restarts == restarts + 1 or service == "signer")


async def test_a_write_without_a_key_is_never_repeated(own_world: World) -> None:
    run = Run(own_world, tool="counter_increment_unkeyed")
    await at_the_gate(own_world, run, "tool_executor")
    assert run.task is not None
    document = await own_world.finish(run.task)
    assert (document["status"], document["failure"]["code"]) == ("failed", "uncertain_effect"), document
    assert "person" in document["failure"]["hint"], "it says what a person must do"
    assert own_world.counter.count(run.name) <= 1
    (write,) = document["uncertain_writes"]
    assert run.name in write["arguments_json"] and f".{run.task.id}." in write["key"], "which one, under which key"
    assert write["outcome"] == "uncertain" and document["more_uncertain_writes"] == 0
    await own_world.mesh.unit_of("tool_executor").wait_until_ready(30)


async def test_the_broker_killed_in_the_middle_changes_nothing(own_world: World) -> None:
    run = Run(own_world)
    async with own_world.counter.held() as arrived:
        await run.submit()
        await arrived()
        await own_world.mesh.kill_broker()
    await own_world.mesh.restart_broker()
    await run.ends_rightly()


@pytest.mark.parametrize("empty", [False, True], ids=["killed", "emptied"])
async def test_redis_lost_in_the_middle_changes_nothing(own_world: World, empty: bool) -> None:
    run = Run(own_world)
    async with own_world.counter.held() as arrived:
        await run.submit()
        await arrived()
        before = await own_world.money(TENANT, run.task)
        assert before.spent[1] > 0, "something was spent before"
        await own_world.mesh.kill_redis(empty=empty)
    await run.ends_rightly()
    assert (await own_world.money(TENANT, run.task)).spent[1] >= before.spent[1]


async def test_second_replicas_started_in_the_middle_take_part(own_world: World) -> None:
    """Last on this world: the replicas stay."""
    services = ("planner", "worker", "rag")
    first = Run(own_world)
    async with own_world.counter.held() as arrived:
        await first.submit()
        await arrived()
        instances = await asyncio.gather(*(own_world.mesh.start_replica(service) for service in services))
    assert instances == [1, 1, 1]
    await first.ends_rightly()
    assert first.task is not None
    tasks = {first.task.id}
    missing = list(services)
    for _ in range(ROUNDS):
        # Which replica gets a message is the broker's choice: work goes on until each has had some.
        runs = [Run(own_world) for _ in range(3)]
        tasks |= {(await run.submit()).id for run in runs}
        await asyncio.gather(*(run.ends_rightly() for run in runs))
        missing = [service for service in services if not _handled(own_world, service, 1, tasks)]
        if not missing:
            break
    assert missing == [], f"no message of {ROUNDS * 3} tasks went to the second {missing}"


def _handled(world: World, service: str, instance: int, tasks: set[str]) -> int:
    """Messages of these tasks that one replica handled, by its trace file."""
    path = world.mesh.directory / "traces" / f"{service}-{instance}.jsonl"
    found = 0
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            span = json.loads(line)
        except ValueError:
            continue
        found += span.get("kind") == "CONSUMER" and (span.get("attributes") or {}).get(names.TASK) in tasks
    return found
