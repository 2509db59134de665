"""A mesh in one process whose tools, agents, models or tenants are halted: work waits, and goes on where it stood."""

import asyncio
from pathlib import Path

import pytest

from bulkhead.runtime.halts.operator import OPERATOR, HaltRequest, standing_halts, switch_halt
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.control import CallDeferred, Switched
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.plan import Plan, PlanStep
from bulkhead_contracts.task import TaskLimits, TaskSubmitted
from bulkhead_contracts.tool import ToolCallReplied
from tests.integration.memory_mesh.test_whole import SPECS, answer_of, ended, grant, mesh_in

QUESTION = "What is 17 * 23?"


async def submit(mesh: MemoryMesh) -> None:
    """One step that calculates once."""
    context = mesh.context("gateway")
    plan = Plan(
        steps=(
            PlanStep(
                id="s1",
                title="Calculate",
                instruction=QUESTION,
                tools=("calculate",),
                acceptance="The product is a number.",
            ),
        )
    )
    body = TaskSubmitted(
        objective=await context.blobs.put("demo", QUESTION),
        limits=TaskLimits(deadline_ms=60_000),
        submitted_unix_ms=context.clock(),
        tools=SPECS,
        plan=plan,
        check=False,
    )
    await context.publisher.send(
        "planner", body, tenant="demo", task="t1", cause="t1", actor="ann", grant=grant(mesh, "t1")
    )


async def told(mesh: MemoryMesh, kind: type, stream: str = "INBOX_WORKER") -> list:
    found = [catalog.decode_body(one.ce_type, one.body) for one in await mesh.messages(stream, "mesh.>")]
    return [one for one in found if isinstance(one, kind)]


async def press(mesh: MemoryMesh, scope: str, name: str, *, active: bool, by: str = f"{OPERATOR}ada") -> object:
    context = mesh.context("budget")
    tenant = "demo" if scope == "task" else ""
    wish = HaltRequest(scope, tenant, name, active, "look at it first", by, context.clock())  # type: ignore[arg-type]
    return await switch_halt(context.bus, context.publisher, wish)


@pytest.mark.parametrize(
    ("scope", "name"),
    [("tool", "calculate"), ("agent", "worker.step"), ("tenant", "demo"), ("task", "t1"), ("model", "offline-rules-1")],
)
async def test_work_waits_and_goes_on_where_it_stood(tmp_path: Path, scope: str, name: str) -> None:
    async with mesh_in(tmp_path) as mesh:
        await press(mesh, scope, name, active=True)
        await submit(mesh)
        put_off = await mesh.wait_for_fact(
            subjects.mesh_subject("tool_executor" if scope == "tool" else "model_gateway", "worker", "demo", "t1"),
            CallDeferred,
        )
        assert put_off.paused and "look at it first" in put_off.reason and "ada" in put_off.reason
        assert "`bulkhead resume --" in put_off.reason, "the whole command"
        answered = len(await told(mesh, ModelCallReplied))
        assert await told(mesh, ToolCallReplied) == [] and answered == (1 if scope == "tool" else 0)
        await press(mesh, scope, name, active=False)
        assert "391" in await answer_of(mesh, await ended(mesh))
        # Nothing was repeated: one tool call, and a model call before and after it.
        assert len(await told(mesh, ToolCallReplied)) == 1 and len(await told(mesh, ModelCallReplied)) == 2
        facts = await told(mesh, Switched, "INBOX_JOURNAL")
        assert [(one.halt.scope, one.halt.active, one.halt.by) for one in facts] == [
            (scope, True, f"{OPERATOR}ada"),
            (scope, False, f"{OPERATOR}ada"),
        ]
        assert await standing_halts(mesh.context("budget").bus) == []


async def test_two_who_halt_at_once_leave_one_halt_and_each_an_answer(tmp_path: Path) -> None:
    async with mesh_in(tmp_path) as mesh:
        found = await asyncio.gather(
            *(press(mesh, "tool", "calculate", active=True, by=f"{OPERATOR}p{number}") for number in range(6))
        )
        (stands,) = await standing_halts(mesh.context("gateway").bus)
        assert set(found) == {stands}
        assert len(await told(mesh, Switched, "INBOX_JOURNAL")) == 1
