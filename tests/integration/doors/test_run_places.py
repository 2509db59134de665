"""Places of outside agents' runs: held by calls, not by runs; a run that nobody waits for leaves the queue."""

import asyncio
import re

import httpx
import openai
import pytest

from bulkhead_contracts import subjects
from bulkhead_contracts.task import PlaceReturned, TaskEnded, TaskQueued, TaskSubmitted
from tests.eventually import until
from tests.integration.doors.test_whole_mesh import HELLO, hangs
from tests.integration.doors.whole_mesh import KEY, whole_mesh
from tests.unit.services.model_gateway.scripted_provider import says


async def ask(here, run: str, **more) -> str:
    client = here.client(max_retries=0, **more)
    answer = await client.chat.completions.create(
        model="default", messages=HELLO, extra_headers={"X-Bulkhead-Run": run}
    )
    return answer.choices[0].message.content


async def submit(here) -> str:
    headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": "one"}
    async with httpx.AsyncClient() as client:
        reply = await client.post(f"{here.gateway_url}/v1/tasks", json={"objective": "Find it"}, headers=headers)
    return reply.json()["task_id"]


async def begun(here) -> set[str]:
    stored = await here.mesh.messages(subjects.inbox_stream("planner"))
    return {row.task for row in stored if row.ce_type == TaskSubmitted.ce_type()}


@pytest.mark.slow
async def test_conversations_of_one_question_are_all_answered_and_no_task_waits_behind_them(tmp_path):
    async with whole_mesh(tmp_path, says("yes"), open_wait_s=60.0) as here:
        answers = await asyncio.gather(*(ask(here, f"run-{number}", timeout=60.0) for number in range(80)))
        assert answers == ["yes"] * 80
        await asyncio.sleep(0.6)
        task = await submit(here)
        await until(lambda: _contains(here, task))
        queued = [row for row in await here.mesh.messages(subjects.inbox_stream("gateway")) if row.task == task]
        assert not [row for row in queued if row.ce_type == TaskQueued.ce_type()]
        assert not await here.bodies(TaskEnded, "gateway"), "the runs go on, idle"


async def _contains(here, task: str) -> bool:
    return task in await begun(here)


async def ask_again(here, run: str) -> str:
    """As a client that does as refusals say."""
    while True:
        try:
            return await ask(here, run)
        except openai.InternalServerError as refusal:
            await asyncio.sleep(float(refusal.response.headers["Retry-After"]) / 2)


async def returned(here, count: int) -> None:
    """So many runs have given their places back."""

    async def are_returned() -> bool:
        return len(await here.bodies(PlaceReturned, "gateway")) >= count

    await until(are_returned)


@pytest.mark.slow
async def test_a_run_that_gave_its_place_back_waits_in_the_line_for_its_next_call(tmp_path, monkeypatch):
    monkeypatch.setattr("bulkhead_services.doors.refusals.SOON_S", 0.5)
    one_place = {"quota": {"running": 1}}
    answers = [says("yes"), hangs("slow"), says("again")]
    async with whole_mesh(tmp_path, *answers, policy=one_place, open_wait_s=0.5, abandon_s=0.2) as here:
        assert await ask(here, "r1") == "yes"
        await returned(here, 1)
        slow = asyncio.create_task(ask(here, "r2"))
        await until(lambda: len(here.provider.asked) == 2)
        with pytest.raises(openai.InternalServerError) as refused:
            await ask(here, "r1")
        assert refused.value.code == "no_place" and refused.value.response.headers["Retry-After"] == "1"
        assert len(here.provider.asked) == 2, "nothing is paid for before its turn"
        task = await submit(here)
        await until(lambda: here.bodies(TaskQueued, "gateway"))
        slow.cancel()
        assert await ask_again(here, "r1") == "again", "it stood before the task that came later"
        assert not await _contains(here, task)
        await until(lambda: _contains(here, task))


@pytest.mark.slow
async def test_a_run_keeps_its_place_while_another_replica_has_a_call_of_it_in_flight(tmp_path):
    one_place = {"quota": {"running": 1}}
    scripts = [says("yes"), hangs("slow"), says("then")]
    async with whole_mesh(tmp_path, *scripts, policy=one_place, open_wait_s=0.5, abandon_s=0.2) as here:
        assert await ask(here, "r1") == "yes"
        await here.mesh.start("doors", "1")
        await until(lambda: here.doors.port)
        slow = asyncio.create_task(ask(here, "r1"))
        await until(lambda: len(here.provider.asked) == 2)
        await returned(here, 1)
        with pytest.raises(openai.InternalServerError) as refused:
            await ask(here, "r2")
        assert refused.value.code == "no_place", "the first replica alone has given it back"
        slow.cancel()
        assert await ask_again(here, "r2") == "then"


async def test_a_run_goes_on_without_a_gateway_that_is_away(tmp_path, monkeypatch):
    monkeypatch.setattr("bulkhead_services.doors.run_places.AWAY_S", 0.3)
    async with whole_mesh(tmp_path, says("yes"), says("again")) as here:
        assert await ask(here, "r1") == "yes"
        await returned(here, 1)
        here.mesh.kill_replica("gateway")
        assert await ask(here, "r1") == "again"


async def test_a_refusal_names_its_wall_and_a_run_that_nobody_asks_for_again_leaves_the_queue(tmp_path, monkeypatch):
    monkeypatch.setattr("bulkhead_services.doors.refusals.SOON_S", 0.5)
    monkeypatch.setattr("bulkhead_services.doors.run_places.KEEP_IN_LINE_S", 0.5)
    one_place = {"quota": {"running": 1}}
    async with whole_mesh(tmp_path, hangs("slow"), policy=one_place, open_wait_s=0.3, abandon_s=60.0) as here:
        slow = asyncio.create_task(ask(here, "r1"))
        await until(lambda: here.provider.asked)
        for _ in range(2):
            with pytest.raises(openai.InternalServerError) as refused:
                await ask(here, "r2")
            assert refused.value.code == "no_place" and refused.value.response.headers["Retry-After"] == "1"
            assert re.search("1 of 1 tasks of your tenant.* 0 of your tenant waited before it", str(refused.value))
        assert len(await here.bodies(TaskQueued, "doors")) == 1, "asked again in time it stands where it stood"
        [end] = await until(lambda: here.bodies(TaskEnded, "gateway"))
        assert end.failure is not None and end.failure.code == "queue_timeout"
        with pytest.raises(openai.InternalServerError) as refused:
            await ask(here, "r2")
        assert refused.value.code == "no_place", "the session's next run may follow at once"
        slow.cancel()
