"""From one decision logic to the next on a running mesh, in both directions: nothing is lost, nothing is mixed."""

import asyncio
import time

import pytest

from bulkhead.runtime.decider.history import TaskHistory
from bulkhead.runtime.decider.history_file import load_history
from bulkhead.runtime.decider.replay import CannotReplay, Logics, ReplayReport, replay_deciders
from bulkhead.runtime.process.service import Service
from bulkhead_contracts import subjects
from bulkhead_contracts.catalog import DECIDERS
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.task import TaskCancelRequested, TaskEnded
from tests.replay import next_logic
from tests.replay.next_logic import BEFORE, NEXT
from tests.replay.record import UPGRADE
from tests.replay.scenes import upgraded
from tests.replay.stage import FACT_TIMEOUT_S, LOGICS, TENANT, Exchange, Stage, plan, stage
from tests.unit.services.model_gateway.scripted_provider import says

OLD, NEW = LOGICS, next_logic.LOGICS
HISTORIES = {path.name.partition(".")[0]: path for path in sorted(UPGRADE.iterdir())}


async def versions(on: Stage, task: str) -> dict[str, set[str]]:
    """Under which logic each decider spoke in a task."""
    found: dict[str, set[str]] = {}
    for one in (await on.history(task)).messages:
        sender = one.subject.split(".")[1]
        if sender in DECIDERS:
            found.setdefault(sender, set()).add(one.headers["ce-logicversion"])
    return found


async def replayed(history: TaskHistory, logics: Logics = NEW) -> ReplayReport:
    async def fetch(ref: ContentRef) -> str:
        return history.text_of(ref)

    return await replay_deciders(history.messages, logics, fetch)


async def test_a_task_goes_on_under_the_logic_that_it_began_with(tmp_path):
    async with stage(tmp_path) as on, asyncio.timeout(FACT_TIMEOUT_S):
        first, second = await upgraded(on)
        until = time.monotonic() + FACT_TIMEOUT_S / 2
        assert await versions(on, first) == {name: {str(BEFORE)} for name in DECIDERS}
        assert await versions(on, second) == {name: {str(NEXT)} for name in DECIDERS}
        for task in (first, second):
            # What the planner was about to tell when it was killed is told when its message comes again.
            while (found := (await replayed(await on.history(task))).divergences) and time.monotonic() < until:
                await asyncio.sleep(0.05)
            assert found == []


@pytest.mark.parametrize(("name", "version"), [("before", BEFORE), ("after", NEXT)])
async def test_a_recorded_upgrade_replays(name, version):
    """Two recorded tasks: one that ran while the mesh was rolled to the next version, one that began after that."""
    history = load_history(HISTORIES[name])
    said = {one.headers["ce-logicversion"] for one in history.messages if one.subject.split(".")[1] in DECIDERS}
    assert said == {str(version)}
    report = await replayed(history)
    assert report.divergences == [] and report.outstanding == 0 and report.ended and report.compared >= 10


async def test_a_recorded_upgrade_replays_under_no_other_version():
    swapped = {name: {BEFORE: table[NEXT], NEXT: table[BEFORE]} for name, table in NEW.items()}
    for history in map(load_history, HISTORIES.values()):
        assert (await replayed(history, swapped)).divergences
    with pytest.raises(CannotReplay, match=f"logic {NEXT}; this program has planner logic {BEFORE}"):
        await replayed(load_history(HISTORIES["after"]), OLD)


async def test_a_replica_without_the_logic_hands_the_task_back_untouched(tmp_path):
    async with stage(tmp_path, logic=NEXT) as on, asyncio.timeout(FACT_TIMEOUT_S):
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
            assert await on.mesh.messages("JOURNAL", f"mesh.planner.*.*.{TENANT}.{task.id}.*") == []
            on.logics.update(NEW)
            await on.restart(*DECIDERS)
            assert (await task.wait_until_ended())["status"] == "succeeded"
        assert await versions(on, task.id) == {name: {str(NEXT)} for name in DECIDERS}
        assert not [
            one for one in await on.mesh.messages("JOURNAL") if one.headers["ce-type"].startswith(MessageRejected.TYPE)
        ]


async def handed_back(on: Stage, replica: Service, sequence: int) -> None:
    """Wait until the planner was given a message and does not work on it any more: the broker still has it."""
    durable = on.mesh.broker._durables["INBOX_PLANNER", subjects.durable_name("planner", 0)]
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

    async with stage(tmp_path, logic=NEXT, logics=NEW) as on, asyncio.timeout(FACT_TIMEOUT_S):
        on.model.will(plan({"id": "a"}), a=[held])
        async with on.client() as client:
            task = await client.submit("Stop me.")
            await reached.wait()
            await task.cancel()
            assert (await task.wait_until_ended())["status"] == "cancelled"
        history = await on.history(task.id)
        logic = {
            one.headers["ce-type"]: one.headers["ce-logicversion"]
            for one in history.messages
            if one.subject.split(".")[2] == "planner" or one.subject.split(".")[1] == "planner"
        }
        assert logic[TaskCancelRequested.ce_type()] == "1" and logic[StepAssigned.ce_type()] == str(NEXT)
        assert logic[TaskEnded.ce_type()] == str(NEXT)
        assert (await replayed(history)).divergences == []
