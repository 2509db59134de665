"""Whose tools are slow holds up itself: the executor in the doer shell, over the in-memory bus, in virtual time."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.control import CallDeferred, Halt
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.quota import Quota
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested
from bulkhead_services.tool_executor.app import build
from bulkhead_services.tool_executor.settings import Settings
from tests.open_policy import permitted
from tests.samples import sample
from tests.simulation.mesh.loop import LoopClock
from tests.unit.services.tool_executor.test_in_mesh import Purse

pytestmark = pytest.mark.virtual_time
BEGINS_MS = 1_700_000_000_000
SLOW_S = 8.0
KEYED, UNKEYED = "counter_increment", "counter_increment_unkeyed"
SETTINGS = Settings(counter_url="http://counter")


class Outside(httpx.AsyncBaseTransport):
    """A counter that is slow for names that say so."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.done: Counter[str] = Counter()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        name = json.loads(await request.aread())["name"]
        self.begun.append(name)
        await asyncio.sleep(SLOW_S if name.startswith("slow") else 0)
        self.done[name] += 1
        return httpx.Response(200, stream=httpx.ByteStream(json.dumps({"value": self.done[name]}).encode()))


class Play:
    """A mesh with one executor; tenants ask it."""

    def __init__(self, settings: Settings) -> None:
        self.outside, self._loop = Outside(), asyncio.get_running_loop()
        builds = {
            "budget": lambda context: Purse(),
            "tool_executor": lambda context: build(context, settings, self.outside, rule=permitted),
        }
        self.mesh = MemoryMesh(builds, clock=LoopClock(self._loop, BEGINS_MS), slots=settings.slots, ack_wait_ms=2_500)

    async def asks(self, tenant: str, name: str, tool: str = KEYED, in_s: float = 3_600) -> None:
        """A call of a task of its own, to be done in so many seconds."""
        due = BEGINS_MS + int((self._loop.time() + in_s) * 1000)
        task = sample(TaskGrant, tenant=tenant, task=name, tools=(tool,))
        step = StepGrant(
            tenant=tenant, task=name, step_id="s", attempt=1, plan_version=1, tools=(tool,), expires_unix_ms=2**50
        )
        token = self.mesh.context("planner").signer.sign_grant(
            step, parent=self.mesh.context("signer").signer.sign_grant(task)
        )
        body = ToolCallRequested(
            call_id=name,
            step_id="s",
            attempt=1,
            tool=tool,
            deadline_unix_ms=due,
            arguments_json=json.dumps({"name": name}),
        )
        await self.mesh.context("worker").publisher.send(
            "tool_executor", body, tenant=tenant, task=name, cause=name, grant=token
        )

    async def said(self, name: str) -> Any:
        """What a call is told first, once it is."""
        while True:
            if found := await self.mesh.messages("INBOX_WORKER", f"mesh.tool_executor.worker.*.*.{name}.*"):
                return catalog.decode_body(found[0].ce_type, found[0].body)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def playing(**knobs: Any) -> AsyncIterator[Play]:
    stage = Play(SETTINGS.model_copy(update=knobs))
    try:
        async with stage.mesh:
            yield stage
    finally:
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)


async def test_a_tenants_many_slow_calls_keep_another_tenants_quick_one_from_nothing() -> None:
    """As many as its quota of running tasks lets it make, and each task three at once."""
    many = 3 * Quota().running

    async with playing() as stage:
        for number in range(many):
            await stage.asks("acme", f"slow{number}")
        await asyncio.sleep(SLOW_S / 4)
        began = asyncio.get_running_loop().time()
        await stage.asks("bolt", "quick")
        assert (await stage.said("quick")).outcome == "succeeded"
        assert asyncio.get_running_loop().time() - began < 0.5
        assert [(await stage.said(f"slow{number}")).outcome for number in range(many)] == ["succeeded"] * many
        assert stage.outside.done == Counter([*(f"slow{number}" for number in range(many)), "quick"])
        # Nor do they wait for long for who asks for little: three rounds of its share.
        assert asyncio.get_running_loop().time() - began < 3 * SLOW_S


async def test_who_came_first_with_everything_shares_with_who_comes_after() -> None:
    async with playing(tool_places=8) as stage:
        for tenant in ("acme", "bolt"):
            for number in range(20):
                await stage.asks(tenant, f"slow-{tenant}{number}")
        await asyncio.sleep(SLOW_S / 2)
        begun = [Counter(name[5:9] for name in stage.outside.begun)]
        for _ in range(2):
            await asyncio.sleep(SLOW_S)
            begun.append(Counter(name[5:9] for name in stage.outside.begun) - sum(begun, Counter()))
        assert begun == [{"acme": 6, "bolt": 2}, {"acme": 4, "bolt": 4}, {"acme": 4, "bolt": 4}]


async def test_a_halt_or_its_deadline_ends_the_wait_and_says_so() -> None:
    async with playing(tool_places=2) as stage:
        for name in ("slow1", "slow2"):
            await stage.asks("acme", name)
        await stage.asks("acme", "late", in_s=3)
        await stage.asks("acme", "paused", UNKEYED)
        await stage.asks("acme", "ended", UNKEYED)
        await asyncio.sleep(1)
        for task, pauses in (("paused", True), ("ended", False)):
            halt = Halt(
                scope="task",
                tenant="acme",
                name=task,
                reason="look first",
                by="operator:ada",
                code="halted",
                pauses=pauses,
                active=True,
                at_unix_ms=1,
            )
            await stage.mesh.context("budget").bus.publish(
                subjects.halt_key("task", "acme", task), halt.model_dump_json().encode(), {}, f"halt-{task}"
            )
        assert isinstance(paused := await stage.said("paused"), CallDeferred) and paused.paused
        ended = await stage.said("ended")
        assert (ended.outcome, ended.failure.code) == ("refused", "halted") and "look first" in ended.failure.message
        late = await stage.said("late")
        assert (late.outcome, late.failure.code) == ("refused", "busy")
        assert late.failure.message == "no place became free before the call's deadline: 2 tools are running"
        assert asyncio.get_running_loop().time() < SLOW_S
        assert stage.outside.begun == ["slow1", "slow2"]
        records = [one.body for one in await stage.mesh.messages(subjects.records_stream("tool_executor"))]
        assert not any(json.loads(one)["claimed"] for one in records), "what has not begun was never claimed"


@pytest.mark.parametrize("how", ["drained", "killed"])
async def test_what_waits_when_its_replica_ends_has_not_begun_and_is_done_by_another(how) -> None:
    """Also what must not be sent twice: nobody has to look whether it was."""

    async with playing(tool_places=4, slots=64) as stage:
        for number in range(12):
            await stage.asks("acme", f"slow{number}", UNKEYED)
        await asyncio.sleep(1)
        assert len(stage.outside.begun) == 3
        if how == "killed":
            stage.mesh.kill_replica("tool_executor")
        else:
            stage.mesh.running["tool_executor", "0"].service.drain()
        await stage.mesh.start("tool_executor", "1")
        said: dict[str, ToolCallReplied] = {f"slow{n}": await stage.said(f"slow{n}") for n in range(12)}
        first = stage.outside.begun[:3]
        assert {said[name].outcome for name in first} == {"uncertain" if how == "killed" else "succeeded"}
        assert {one.outcome for name, one in said.items() if name not in first} == {"succeeded"}
        assert Counter(stage.outside.begun) == Counter(said.keys()), "each once"


async def test_a_replica_that_comes_later_takes_its_share_of_what_waits_already() -> None:
    async with playing(tool_places=4) as stage:
        for number in range(12):
            await stage.asks("acme", f"slow{number:02}")
        await asyncio.sleep(1)
        await stage.mesh.start("tool_executor", "1")
        assert {(await stage.said(f"slow{number:02}")).outcome for number in range(12)} == {"succeeded"}
        assert asyncio.get_running_loop().time() < 3.5 * SLOW_S, "alone it takes four rounds of three"


async def test_who_fills_every_slot_does_not_keep_others_from_the_line() -> None:
    async with playing(tool_places=4, slots=16) as stage:
        for number in range(60):
            await stage.asks("acme", f"slow{number}")
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        await stage.asks("bolt", "quick")
        assert (await stage.said("quick")).outcome == "succeeded"
        assert asyncio.get_running_loop().time() - began < 0.5


def test_the_line_before_the_places_is_longer_than_what_one_tenants_tasks_ask_for_at_once() -> None:
    """Else another tenant's calls would not come to stand in it."""
    assert SETTINGS.slots >= 8 * Quota().running + SETTINGS.tool_places
