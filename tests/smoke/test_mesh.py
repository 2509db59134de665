"""One mesh of processes for the whole of `make test`: an answer, a ceiling, a kill, an approval, a call at the doors.

Each shows that a promise of the README holds with every process real. What can go wrong beside it is in tests/e2e.
"""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio

from bulkhead_infra.demo.corpus import generate_demo
from tests.e2e.fixtures.world import World, until, verdict

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASKING = "t1"
"""A tenant whose policy asks a person about every write."""
ASK_FOR_WRITES = '@id("all") @effect("ask") forbid (principal, action in Action::"writes", resource);'


def counting(name: str) -> dict[str, Any]:
    """A plan whose one step writes once."""
    step = {
        "id": "s1",
        "title": "Count",
        "instruction": f"Use counter_increment with name={name} amount=1.",
        "tools": ["counter_increment"],
        "inputs": [],
        "acceptance": "It is counted.",
    }
    return {"steps": [step]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp('smoke of "Дані 数据"')
    world = World(folder, extra_env={"model_gateway": {"BULKHEAD_STALL_TIMEOUT_S": "3"}})
    (folder / "policy" / f"{ASKING}.cedar").write_text(ASK_FOR_WRITES)
    async with world:
        yield world


async def test_a_question_is_answered_from_documents_and_its_record_replays(mesh: World) -> None:
    demo = generate_demo(1)
    await mesh.ingest("demo", demo)
    task = await mesh.submit("demo", demo.objective)
    comparison = verdict(demo, await mesh.finish(task))
    assert comparison.ok, comparison.differences
    assert (await task.show())["answered"] == "yes"
    report = await mesh.replay(task)
    assert report.ended and report.compared > 20 and report.divergences == []


async def test_a_question_that_the_documents_do_not_answer_is_told_as_such(mesh: World) -> None:
    ended = await mesh.finish(await mesh.submit("demo", "Who won the chess championship of 1927?"))
    assert (ended["status"], ended["answered"]) == ("succeeded", "no") and ended["answered_reason"]
    rows = (await mesh.client("demo", "operator").get("/v1/tasks?answered=no"))["tasks"]
    assert ended["task_id"] in {row["task_id"] for row in rows}


async def test_a_task_stops_at_its_ceiling_and_spends_no_more_than_it(mesh: World) -> None:
    limit = 10_000  # Some of its steps, and not all.
    task = await mesh.submit("demo", generate_demo(1).objective, limit_tokens=limit)

    async def halted() -> Any:
        shown = await task.show()
        return shown["status"] == "paused" and shown

    await until(halted, "the task is halted at its ceiling")
    money = await mesh.money("demo", task)
    assert 0 < money.spent[0] <= limit
    await task.cancel("seen")


async def test_a_worker_killed_in_mid_write_goes_on_and_the_write_is_made_once(mesh: World) -> None:
    async with mesh.counter.held() as arrived:
        task = await mesh.submit("demo", "Count it.", plan=counting("killed"), check=False)
        await arrived()
        for service in ("worker", "tool_executor"):
            await mesh.mesh.kill_replica(service)
    assert (await mesh.finish(task))["status"] == "succeeded"
    assert mesh.counter.count("killed") == 1


async def test_a_write_waits_for_a_person_and_is_made_when_it_is_granted(mesh: World) -> None:
    task = await mesh.submit(ASKING, "Count it.", plan=counting("asked"), check=False)
    approver = mesh.client(ASKING, "approver")

    async def waiting() -> Any:
        return (await approver.approvals("waiting", task.id)).approvals

    [row] = await until(waiting, "the write waits for a person")
    assert mesh.counter.count("asked") == 0
    await approver.grant(row, "it is right")
    assert (await mesh.finish(task))["status"] == "succeeded"
    assert mesh.counter.count("asked") == 1


async def test_a_task_whose_one_write_is_denied_does_not_answer(mesh: World) -> None:
    task = await mesh.submit(ASKING, "Count it.", plan=counting("denied"))
    approver = mesh.client(ASKING, "approver")

    async def waiting() -> Any:
        return (await approver.approvals("waiting", task.id)).approvals

    [row] = await until(waiting, "the write waits for a person")
    await approver.deny(row, "not now")
    ended = await mesh.finish(task)
    assert mesh.counter.count("denied") == 0
    assert (ended["answered"], ended["steps"][0]["answered"]) == ("no", "no")
    assert ended["answered_reason"].startswith("counter_increment was not done: ")


async def test_an_openai_client_gets_an_answer_at_the_doors_and_is_a_task_of_the_mesh(mesh: World) -> None:
    key = mesh.mesh.add_api_key("demo", "agent", "submitter")
    async with openai.AsyncOpenAI(base_url=f"{mesh.mesh.doors_url}/openai/v1", api_key=key) as client:
        answer = await client.chat.completions.with_raw_response.create(
            model="offline-rules-1", messages=[{"role": "user", "content": "What is 17 * 23?"}]
        )
    assert answer.parse().choices[0].message.content
    run = answer.headers["x-bulkhead-task"]

    async def settled() -> Any:
        rows = (await mesh.client("demo", "operator").get("/v1/spend?by=task"))["rows"]
        return [row for row in rows if row["name"] == run and row["spent"]["tokens"] > 0 and row["held"]["calls"] == 0]

    await until(settled, "what the call used is settled")
