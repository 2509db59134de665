"""The first message of a task: whose word for it is believed, who asks for that word, and what happens without it."""

import pytest

from bulkhead.bus import wire
from bulkhead.flow import InboxMessage, Send, Transition
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import subjects
from bulkhead_contracts.result import Result
from bulkhead_contracts.step import StepProposed
from tests.eventually import until
from tests.unit.bulkhead.runtime.consume import test_loop as shells

pytestmark = pytest.mark.virtual_time


async def test_who_begins_a_task_is_believed_by_the_brokers_word_alone():
    """Then nothing is read; where something lies before it the message is said without that word, and all is read."""
    async with MemoryMesh({"worker": lambda c: {1: shells.Counting()}}) as mesh:
        await shells.say(mesh, shells.assigned(), task="new", first=True)
        assert await shells.summaries(mesh, 1, task="new") == ["open"]
        handler = mesh.running[("worker", "0")].service.handler
        assert handler.gap_reads == 0
        mesh.kill_replica("worker")
        for n in range(2):
            await shells.say(mesh, shells.cancel(f"m{n}"), task="known", index=n)
        await shells.say(mesh, shells.assigned(), task="known", index=2, first=True)
        await shells.say(mesh, shells.assigned(), task="known", index=2, first=True)
        assert len(await mesh.messages("INBOX_WORKER", subjects.task_filter("worker", "demo", "known"))) == 3
        # The word of another task, of another filter, of another count.
        for index, (on, count) in enumerate({"mesh.*.worker.0.demo.t2.*": "0", "known": "1", "": "0"}.items()):
            lie = {
                wire.EXPECTED_ON: on.replace("known", subjects.task_filter("worker", "demo", "known")),
                wire.EXPECTED_LAST_ON_SUBJECT: count,
            }
            assert not wire.was_first(lie, subjects.task_filter("worker", "demo", "known")), index
        await mesh.start("worker", "1")
        assert (await shells.summaries(mesh, 3, task="known"))[-1] == "open,m0,m1"
        assert mesh.running[("worker", "1")].service.handler.gap_reads > 0


async def test_a_task_that_a_newer_version_began_waits_unread_for_it_and_the_log_says_so(caplog):
    newer = {1: shells.Counting(), 2: shells.Counting()}
    logics = dict(newer)
    async with MemoryMesh({"worker": lambda c: dict(logics)}) as mesh:
        await shells.say(mesh, shells.assigned(), logic=2)
        assert await shells.summaries(mesh, 1) == ["open"]
        mesh.kill_replica("worker")
        del logics[2]
        await mesh.start("worker", "1")
        with caplog.at_level("WARNING", logger="bulkhead"):
            await shells.say(mesh, shells.cancel("m1"), index=1, logic=2)
            said = await until(lambda: [one for one in caplog.records if one.message == "waits_for_upgrade"])
        assert "logic version 2 is not on this replica" in said[0].__dict__["values"]["reason"]
        assert await shells.summaries(mesh, 1) == ["open"]
        mesh.kill_replica("worker", "1")
        logics |= newer
        await mesh.start("worker", "2")
        assert await shells.summaries(mesh, 2) == ["open", "open,m1"]


class Handing(shells.Counting):
    """Says of each message to the checker that a step is done: what begins a task there."""

    begins = frozenset({StepProposed})

    def decide(self, state: shells.Count, message: InboxMessage) -> Transition[shells.Count]:
        said = StepProposed(
            step=shells.assigned().step,
            attempt=1,
            plan_version=1,
            objective=shells.REF,
            result=Result(summary="done"),
            deadline_unix_ms=2**50,
        )
        return Transition(shells.Count((*state.heard, "x")), (Send("checker", said), Send("checker", said)))


async def test_the_first_word_to_another_decider_asks_the_broker_to_hold_that_it_is_the_first():
    async with MemoryMesh({"worker": lambda c: {1: Handing()}}) as mesh:
        await shells.say(mesh, shells.assigned())
        await shells.say(mesh, shells.cancel("m1"), index=1)
        wanted = subjects.task_filter("checker", "demo", "t1")

        async def told(count: int) -> list[bool]:
            found = await shells.mesh_messages(mesh, "INBOX_CHECKER", wanted, count)
            return [wire.was_first(one.headers, wanted) for one in found]

        assert await told(4) == [True, False, False, False]
        mesh.kill_replica("worker")
        await mesh.start("worker", "1")
        await shells.say(mesh, shells.cancel("m2"), index=2)
        assert await told(6) == [True, *[False] * 5], "a replica that folds the task knows what was begun"
