"""Garbage over HTTP, over the bus and from the model: a clear refusal or an honest answer, and nothing lost."""

import asyncio
import json
from typing import Any

import pytest

from bulkhead_contracts import subjects
from bulkhead_infra.demo.corpus import generate_demo
from tests.e2e.fixtures.outsider import headers, raw
from tests.e2e.fixtures.world import World, until, verdict

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENANT = "t22"
DEMO = generate_demo(22)
MANY = 1_000
STREAMED = '"stream": ?true'


def step(name: str, instruction: str, *inputs: str, tools: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "id": name,
        "title": name,
        "instruction": instruction,
        "tools": list(tools),
        "inputs": list(inputs),
        "acceptance": "Says something.",
        "kind": "agent",
    }


# Over the bus


async def test_garbage_on_the_bus_is_kept_with_its_reason_and_nothing_stops(world: World) -> None:
    body = json.dumps({"objective": "x"}).encode()
    sent = {
        "bus-nohead": ({}, body, "bad_envelope"),
        "bus-binary": (headers("bus-binary"), bytes(range(256)), "malformed_body"),
        "bus-long": (headers("bus-long"), b'{"objective": "' + b"x" * 400_000 + b'"}', "malformed_body"),
        "bus-type": (headers("bus-type") | {"ce-type": "mesh.task.ended.v1"}, b"{}", "not_in_catalog"),
        "bus-minus": (headers("bus-minus"), b'{"objective": "x", "limits": {"tokens": -5}}', "malformed_body"),
    }
    for task, (head, content, _) in sent.items():
        await raw(world, task, head, content)
    wanted = {task: code for task, (_, _, code) in sent.items()}
    seen: dict[str, str] = {}

    async def buried() -> bool:
        seen.update({one["subject"].rpartition(".")[2]: one["code"] for one in await world.letters()})
        return wanted.items() <= seen.items()

    try:
        await until(buried, "all of it lies with the dead letters")
    except AssertionError:
        raise AssertionError({task: (code, seen.get(task)) for task, code in wanted.items()}) from None
    assert (await world.finish(await world.submit("demo", "Say something.")))["status"] == "succeeded"


async def test_an_unknown_version_from_outside_is_kept_with_the_dead_letters(world: World) -> None:
    """Waiting, it would hold a place in the durable's window: an outsider could fill that."""
    await raw(world, "from-tomorrow", headers("from-tomorrow", version=9), b'{"of": "tomorrow"}')

    async def buried() -> list[dict[str, Any]]:
        return [one for one in await world.letters() if one["subject"].endswith(".from-tomorrow")]

    [letter] = await until(buried, "it lies with the dead letters")
    assert letter["code"] == "unknown_version" and "upgrade" in letter["reason"] and "tomorrow" in letter["body"]
    document = await world.client("demo").task("from-tomorrow").show()
    assert (document["status"], document["failure"]["code"]) == ("rejected", "unknown_version")


async def test_an_unknown_version_of_a_service_waits_and_is_not_lost(world: World) -> None:
    """Handed back for an upgraded replica: no dead letter, still in the inbox; others are served meanwhile."""
    subject = subjects.mesh_subject("gateway", "planner", "demo", "from-tomorrow")
    head = headers("from-tomorrow", source="gateway") | {"ce-type": "mesh.task.submitted.v9"}
    async with world.bus("gateway") as bus:
        await bus.publish(subject, b'{"of": "tomorrow"}', head, "from-tomorrow")
    log = world.mesh.directory / "logs" / "planner-0.log"

    async def handed_back() -> bool:
        return log.read_text().count("waits_for_upgrade") >= 2

    await until(handed_back, "the planner handed it back, twice")
    assert (await world.finish(await world.submit("demo", "Say something.")))["status"] == "succeeded"
    assert not [one for one in await world.letters() if one["subject"] == subject]
    async with world.bus() as bus:
        assert [one.body for one in await bus.read("INBOX_PLANNER", subject)] == [b'{"of": "tomorrow"}']


# From the model


MENDED = {
    "429": {"retry_after_s": 0.2},
    "500": {},
    "503": {},
    "error_200": {},
    "malformed_json": {},
    "cut_stream": {"abrupt": True},
    "context_overflow": {},
    "missing_usage": {"times": MANY},
    "malformed_arguments": {},
    "wrong_arguments": {},
    "invented_tool": {},
    "bad_plan_cyclic": {},
    "bad_plan_huge": {},
    "bad_plan_no_acceptance": {},
    "judge_reject": {},
    "stall": {"streamed": True},
    "timeout": {"streamed": True},
}
"""One such fault, and the task ends with the right answer."""

NAMED = {
    "429": "rate_limited",
    "500": "step_failed",
    "503": "step_failed",
    "error_200": "step_failed",
    "malformed_json": "step_failed",
    "cut_stream": "step_failed",
    "context_overflow": "step_failed",
    "malformed_arguments": "step_failed",
    "wrong_arguments": "step_failed|loop_stopped",
    "invented_tool": "step_failed",
    "runaway": "loop_stopped",
}
"""Such faults without end, and the task ends with this failure."""


@pytest.mark.timeout(400)
async def test_one_fault_of_the_model_is_mended(world: World) -> None:
    await world.ingest(TENANT, DEMO)
    slots = asyncio.Semaphore(6)

    async def one(fault: str, how: dict[str, Any]) -> str:
        how = dict(how)
        mark = f"mended{fault.replace('_', '')}x"
        # Anchored: a search that begins anew at each character would hold up the model's only thread for minutes.
        pattern = rf"(?s)\A(?=.*{mark})" + (f"(?=.*{STREAMED})" if how.pop("streamed", False) else "")
        async with slots:
            await world.arm(fault, pattern=pattern, **how)
            task = await world.submit(TENANT, f"The file is {mark}. {DEMO.objective}", deadline_s=60)
            document = await world.finish(task, 90)
        if document["status"] != "succeeded":
            return f"{fault}, {task.id}: {document['status']}: {document['failure']}"
        found = verdict(DEMO, document)
        return "" if found.ok else f"{fault}, {task.id}: {found.differences}; {document['answer']}"

    problems = await asyncio.gather(*(one(fault, how) for fault, how in MENDED.items()))
    taken = {one["fault"] for one in (await world.model.get("/admin/faults")).json()["armed"] if one["taken"]}
    await world.disarm()
    assert [problem for problem in problems if problem] == []
    assert taken >= set(MENDED), set(MENDED) - taken


@pytest.mark.timeout(400)
async def test_faults_without_end_end_in_a_named_failure(world: World) -> None:
    await world.ingest(TENANT, DEMO)
    slots = asyncio.Semaphore(6)

    async def one(fault: str, code: str) -> str:
        mark = f"named{fault.replace('_', '')}x"
        async with slots:
            await world.arm(fault, mark, times=MANY, retry_after_s=0.1)
            task = await world.submit(TENANT, f"The file is {mark}. {DEMO.objective}", deadline_s=60)
            document = await world.finish(task, 90)
        failure = document["failure"] or {}
        # The same wrong call again and again ends at the step's cap or as a loop, whichever is seen first.
        ends = [("halted" if one == "loop_stopped" else "failed", one) for one in code.split("|")]
        if (document["status"], failure.get("code")) not in ends or not failure.get("message"):
            return f"{fault}, {task.id}: wanted {code}, it is {document['status']}: {failure} {document['answer']}"
        return ""

    problems = await asyncio.gather(*(one(fault, code) for fault, code in NAMED.items()))
    await world.disarm()
    assert [problem for problem in problems if problem] == []


# A context that is too small, a provider that is out
