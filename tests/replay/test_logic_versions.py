"""From one decision logic to the next on a running mesh, in both directions: nothing is lost, nothing is mixed."""

import asyncio
import time

from bulkhead.runtime.process.service import Service
from bulkhead_cli.replay.replay import replay_history
from bulkhead_contracts import subjects
from bulkhead_contracts.catalog import DECIDERS
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.task import TaskCancelRequested, TaskEnded
from bulkhead_infra.composition import newest_logic
from tests.replay.stage import FACT_TIMEOUT_S, LOGICS, TENANT, Exchange, Stage, plan, stage
from tests.unit.model_gateway.scripted_provider import says

NEW = newest_logic()
BEFORE = NEW - 1
OLD = {name: {version: logic for version, logic in table.items() if version < NEW} for name, table in LOGICS.items()}


async def versions(on: Stage, task: str) -> dict[str, set[str]]:
    """Under which logic each decider spoke in a task."""
    found: dict[str, set[str]] = {}
    for one in (await on.history(task)).messages:
        sender = one.subject.split(".")[1]
        if sender in DECIDERS:
            found.setdefault(sender, set()).add(one.headers["ce-logicversion"])
    return found


async def test_a_task_goes_on_under_the_logic_that_it_began_with(tmp_path):
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def held(x: Exchange) -> None:
        reached.set()
        await go_on.wait()
        await says("A holds.")(x)

    async with stage(tmp_path, logic=BEFORE, logics=OLD) as on, asyncio.timeout(FACT_TIMEOUT_S):
        on.model.will(plan({"id": "a"}, {"id": "b", "inputs": ["a"]}), a=[held], b=[says("B holds.")])
        async with on.client() as client:
            first = await client.submit("Under the old logic.")
            await reached.wait()
            on.logics.update(LOGICS)
            on.starts["logic"] = NEW
            await on.restart(*DECIDERS, "gateway")
            go_on.set()
        async with on.client() as client:
            assert (await client.task(first.id).result())["status"] == "succeeded"
        until = time.monotonic() + FACT_TIMEOUT_S / 2
        on.model.will(plan({"id": "a"}), a=[says("A holds.")])
        second = await on.run("Under the new one.")
        assert second["status"] == "succeeded"
        assert await versions(on, first.id) == {name: {str(BEFORE)} for name in DECIDERS}
        assert await versions(on, second["task_id"]) == {name: {str(NEW)} for name in DECIDERS}
        for task in (first.id, second["task_id"]):
            # What the planner was about to tell when it was killed is told when its message comes again.
            while (found := (await replay_history(await on.history(task))).divergences) and time.monotonic() < until:
                await asyncio.sleep(0.05)
            assert found == []


async def test_a_replica_without_the_logic_hands_the_task_back_untouched(tmp_path):
    async with stage(tmp_path, logic=NEW, logics=OLD) as on, asyncio.timeout(FACT_TIMEOUT_S):
        on.model.will(plan({"id": "a"}), a=[says("A holds.")])
        old = on.mesh.running["planner", "0"].service
        async with on.client() as client:
            task = await client.submit("Too new for this planner.")
            while not await on.mesh.messages("INBOX_PLANNER", subjects.task_filter("planner", TENANT, task.id)):
                await asyncio.sleep(0.01)
            [waiting] = await on.mesh.messages("INBOX_PLANNER", subjects.task_filter("planner", TENANT, task.id))
            await handed_back(on, old, waiting.sequence)
            assert old.shell.handled == 0 and old.shell._failures == {}
            assert await on.mesh.messages("DEAD_LETTERS") == []
            assert await on.mesh.messages("JOURNAL", f"mesh.planner.*.*.{TENANT}.{task.id}") == []
            on.logics.update(LOGICS)
            await on.restart(*DECIDERS)
            assert (await task.result())["status"] == "succeeded"
        assert await versions(on, task.id) == {name: {str(NEW)} for name in DECIDERS}
        assert not [
            one for one in await on.mesh.messages("JOURNAL") if one.headers["ce-type"].startswith(MessageRejected.TYPE)
        ]


async def handed_back(on: Stage, replica: Service, sequence: int) -> None:
    """Wait until the planner was given a message and does not work on it any more: the broker still has it."""
    durable = on.mesh.broker._durables["INBOX_PLANNER", subjects.durable("planner", 0)]
    while not durable.attempts.get(sequence) or replica.shell._running:
        await asyncio.sleep(0.01)
    assert sequence in durable.pending


async def test_who_speaks_from_outside_does_not_change_a_tasks_logic(tmp_path):
    """A cancel names no logic; what follows from it still belongs to the task's."""
    reached = asyncio.Event()

    async def held(x: Exchange) -> None:
        reached.set()
        await x.begin()
        await x.hung_up()

    async with stage(tmp_path, logic=NEW) as on, asyncio.timeout(FACT_TIMEOUT_S):
        on.model.will(plan({"id": "a"}), a=[held])
        async with on.client() as client:
            task = await client.submit("Stop me.")
            await reached.wait()
            await task.cancel()
            assert (await task.result())["status"] == "cancelled"
        history = await on.history(task.id)
        logic = {
            one.headers["ce-type"]: one.headers["ce-logicversion"]
            for one in history.messages
            if one.subject.split(".")[2] == "planner" or one.subject.split(".")[1] == "planner"
        }
        assert logic[TaskCancelRequested.ce_type()] == "1" and logic[StepAssigned.ce_type()] == str(NEW)
        assert logic[TaskEnded.ce_type()] == str(NEW)
        assert (await replay_history(history)).divergences == []
