"""The consume loop and the fold rule over the in-memory bus: order, replicas, rejections, dead letters."""

import asyncio
import json
from dataclasses import dataclass

import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead.flow import Decider, InboxMessage, Send, Transition
from bulkhead.runtime.consume import loop as shells
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import subjects
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.plan import PlanStep
from bulkhead_contracts.result import ContentRef, Result
from bulkhead_contracts.step import StepAssigned, StepCancelRequested, StepFinished
from tests.eventually import until
from tests.samples import sample

pytestmark = pytest.mark.virtual_time

REF = ContentRef(author="gateway", sha256="0" * 64, size_bytes=1)


@dataclass(frozen=True)
class Count:
    heard: tuple[str, ...] = ()


class Counting(Decider[Count]):
    """A decider that says how many messages it has folded."""

    service = "worker"
    opening = frozenset({StepAssigned})

    def initial_state(self):
        return Count()

    def wanted_contents(self, body):
        return ()

    def has_ended(self, state):
        return False

    def decide(self, state: Count, message: InboxMessage) -> Transition[Count]:
        name = getattr(message.body, "reason", "") or "open"
        assert name != "bug", "a planted bug"
        state = Count((*state.heard, name))
        text = ",".join(state.heard)
        return Transition(
            state,
            (
                Send(
                    "planner", StepFinished(step_id="s", attempt=1, plan_version=1, result=Result(summary=text[-150:]))
                ),
            ),
        )


def assigned() -> StepAssigned:
    return sample(StepAssigned, step=PlanStep(id="s", title="", instruction="i"), objective=REF, deadline_unix_ms=2**50)


def cancel(reason: str) -> StepCancelRequested:
    return StepCancelRequested(step_id="s", attempt=1, plan_version=1, reason=reason)


async def say(mesh: MemoryMesh, body, task: str = "t1", index: int | str = 0, **attributes) -> None:
    await mesh.context("planner").publisher.send(
        "worker", body, tenant="demo", task=task, cause="", index=f"{task}/{index}", **attributes
    )


async def mesh_messages(mesh: MemoryMesh, stream: str, subject: str = ">", count: int = 1) -> list[StoredMessage]:
    """What lies there, as soon as it is so much."""

    async def enough() -> list[StoredMessage]:
        found = await mesh.messages(stream, subject)
        return found if len(found) >= count else []

    return await until(enough, f"{count} of {subject} in {stream}")


async def summaries(mesh: MemoryMesh, count: int, task: str = "t1") -> list[str]:
    found = await mesh_messages(mesh, "INBOX_PLANNER", subjects.task_filter("planner", "demo", task), count)
    return [json.loads(one.body)["result"]["summary"] for one in found]


async def test_each_message_sees_the_fold_of_all_before_it():
    async with MemoryMesh({"worker": lambda c: {1: Counting()}}) as mesh:
        await say(mesh, assigned())
        for n in range(1, 4):
            await say(mesh, cancel(f"m{n}"), index=n)
        assert await summaries(mesh, 4) == ["open", "open,m1", "open,m1,m2", "open,m1,m2,m3"]
        handler = mesh.running[("worker", "0")].service.handler
        assert handler.gap_reads <= 1, "served without a gap, nothing is read again"


async def test_a_replica_that_never_saw_the_task_folds_it():
    async with MemoryMesh({"worker": lambda c: {1: Counting()}}) as mesh:
        await say(mesh, assigned())
        await say(mesh, cancel("m1"), index=1)
        await summaries(mesh, 2)
        mesh.kill_replica("worker")
        await mesh.start("worker", "1")
        await say(mesh, cancel("m2"), index=2)
        assert (await summaries(mesh, 3))[-1] == "open,m1,m2"


async def test_a_broker_that_restarts_may_give_a_number_again():
    """It had not written down yet that it gave it: another replica is served under it, and this one under the next."""
    async with MemoryMesh({"worker": lambda c: {1: Counting()}}) as mesh:
        await say(mesh, assigned())
        await summaries(mesh, 1)
        [durable] = [one for (stream, _), one in mesh.broker._durables.items() if stream == "INBOX_WORKER"]
        mesh.running[("worker", "0")].bus.break_connection()
        durable.consumer_sequence -= 1
        other = await mesh.context("worker").bus.open_consumer("INBOX_WORKER", durable.config.name)
        await say(mesh, cancel("m1"), index=1)
        [delivery] = await other.fetch(1)
        await delivery.ack()
        await other.close()
        assert delivery.consumer_sequence == 1
        await say(mesh, cancel("m2"), index=2)
        assert (await summaries(mesh, 2))[-1] == "open,m1,m2"


async def test_a_rejected_message_is_skipped_also_by_who_could_read_it():
    """Its content came too late, or a newer program has no bug with it: those that went on did so without it."""
    async with MemoryMesh({"worker": lambda c: {1: Counting()}}) as mesh:
        await say(mesh, assigned())
        await say(mesh, cancel("m1"), index=1)
        await summaries(mesh, 2)
        mesh.kill_replica("worker")
        fact = MessageRejected(sequence=2, code="content_missing", reason="gone", dead_letter_id="d")
        await mesh.context("worker").publisher.send("worker", fact, tenant="demo", task="t1", cause="d")
        await mesh.start("worker", "1")
        await say(mesh, cancel("m2"), index=2)
        assert (await summaries(mesh, 3))[-1] == "open,m2"


async def test_replicas_side_by_side_agree():
    async with MemoryMesh({"worker": lambda c: {1: Counting()}}) as mesh:
        await mesh.start("worker", "1")
        await mesh.start("worker", "2")
        await say(mesh, assigned())
        for n in range(1, 30):
            await say(mesh, cancel(f"m{n}"), index=n)
        found = await summaries(mesh, 30)
        wanted = ["open" + "".join(f",m{k}" for k in range(1, n + 1)) for n in range(30)]
        assert sorted(found, key=len) == [text[-150:] for text in wanted] or set(found) == {t[-150:] for t in wanted}


async def test_a_known_id_is_dropped_even_beyond_the_brokers_window():
    async with MemoryMesh({"worker": lambda c: {1: Counting()}}) as mesh:
        await say(mesh, assigned())
        context = mesh.context("planner")
        head = context.publisher.make_envelope(cancel("m1"), cause="c", index=1)
        subject = subjects.mesh_subject("planner", "worker", "demo", "t1")
        for message_id in ("one", "two"):
            await context.bus.publish(subject, cancel("m1").encode(), head.to_headers(), message_id)
        await say(mesh, cancel("m2"), index=2)
        assert await summaries(mesh, 3) == ["open", "open,m1", "open,m1,m2"]


async def test_a_malformed_message_is_buried_and_skipped_by_every_fold():
    async with MemoryMesh({"worker": lambda c: {1: Counting()}}) as mesh:
        await say(mesh, assigned())
        context = mesh.context("planner")
        head = context.publisher.make_envelope(cancel("x"), cause="c", index="bad")
        subject = subjects.mesh_subject("planner", "worker", "demo", "t1")
        await context.bus.publish(subject, b"{broken", head.to_headers(), "bad")
        await say(mesh, cancel("m2"), index=2)
        assert (await summaries(mesh, 2))[-1] == "open,m2"
        dead = await mesh.messages(subjects.DEAD_LETTERS_STREAM)
        assert dead[0].body == b"{broken" and dead[0].headers["bulkhead-dead-code"] == "malformed_body"
        assert dead[0].headers["bulkhead-dead-subject"] == subject
        facts = await mesh.messages("INBOX_WORKER", "mesh.worker.worker.>")
        assert [one.ce_type for one in facts] == [MessageRejected.ce_type()]
        mesh.kill_replica("worker")
        await mesh.start("worker", "1")
        await say(mesh, cancel("m3"), index=3)
        # A fresh replica skips it too, because the fact stands there.
        assert (await summaries(mesh, 3))[-1] == "open,m2,m3"


async def test_a_bug_becomes_a_dead_letter_and_the_task_goes_on(monkeypatch):
    monkeypatch.setattr(shells, "MAX_HANDLER_FAILURES", 2)
    async with MemoryMesh({"worker": lambda c: {1: Counting()}}) as mesh:
        await say(mesh, assigned())
        await say(mesh, cancel("bug"), index=1)
        await say(mesh, cancel("m2"), index=2)
        assert (await summaries(mesh, 2))[-1] == "open,m2"
        dead = await mesh.messages(subjects.DEAD_LETTERS_STREAM)
        assert dead[0].headers["bulkhead-dead-code"] == "handler_failed"
        assert "planted" in dead[0].headers["bulkhead-dead-reason"]


@pytest.mark.parametrize("kind", ["mesh.step.cancel_requested.v9", "mesh.task.submitted.v1"], ids=["version", "edge"])
async def test_what_a_newer_version_may_know_waits_and_blocks_its_task_only(kind):
    async with MemoryMesh({"worker": lambda c: {1: Counting()}}) as mesh:
        await say(mesh, assigned())
        context = mesh.context("planner")
        head = context.publisher.make_envelope(cancel("future"), cause="c", index="v9").to_headers()
        head["ce-type"] = kind
        await context.bus.publish(subjects.mesh_subject("planner", "worker", "demo", "t1"), b"{}", head, "v9")
        await say(mesh, cancel("after"), index=2)
        await say(mesh, assigned(), task="t2")
        assert await summaries(mesh, 1, task="t2") == ["open"]
        assert await summaries(mesh, 1) == ["open"], "what comes after the unread message waits with it"
        assert await mesh.messages(subjects.DEAD_LETTERS_STREAM) == []


@pytest.mark.parametrize(
    "change, code",
    [
        ({"ce-source": "gateway"}, "forged_source"),
        ({"ce-type": "mesh.task.submitted.v1"}, "not_in_catalog"),
        ({"ce-time": "never"}, "bad_envelope"),
    ],
)
async def test_liars_end_among_the_dead_letters(change, code, monkeypatch):
    if code == "not_in_catalog":
        monkeypatch.setattr(shells, "HAND_BACK_MAX_AGE_S", 0)
    async with MemoryMesh({"worker": lambda c: {1: Counting()}}) as mesh:
        context = mesh.context("planner")
        head = context.publisher.make_envelope(assigned(), cause="c", index=0).to_headers() | change
        await context.bus.publish(
            subjects.mesh_subject("planner", "worker", "demo", "t1"), assigned().encode(), head, "x"
        )
        await until_dead(mesh, code)


async def until_dead(mesh: MemoryMesh, code: str) -> None:
    [dead, *_] = await mesh_messages(mesh, subjects.DEAD_LETTERS_STREAM)
    assert dead.headers["bulkhead-dead-code"] == code


async def test_a_task_that_was_never_opened_is_refused(monkeypatch):
    monkeypatch.setattr("bulkhead.runtime.decider.fold.OPENING_MAX_AGE_MS", 0)
    async with MemoryMesh({"worker": lambda c: {1: Counting()}}) as mesh:
        await say(mesh, cancel("early"))
        await until_dead(mesh, "not_opened")


async def test_an_early_message_waits_for_the_one_that_opens_its_task():
    async with MemoryMesh({"worker": lambda c: {1: Counting()}}) as mesh:
        await say(mesh, cancel("early"), index=1)
        await asyncio.sleep(0)
        await say(mesh, assigned(), index=0)
        assert await summaries(mesh, 2) == ["open", "open,early"]
        await say(mesh, cancel("late"), index=2)
        assert (await summaries(mesh, 3))[-1] == "open,early,late"
        assert await mesh.messages(subjects.DEAD_LETTERS_STREAM) == []


async def test_a_chosen_cause_id_of_another_task_suppresses_nothing():
    async with MemoryMesh({"worker": lambda c: {1: Counting()}}) as mesh:
        publisher = mesh.context("planner").publisher
        for task in ("t1", "t2"):
            ack = await publisher.send("worker", assigned(), tenant="demo", task=task, cause="f" * 32, index=0)
            assert not ack.duplicate
        assert await summaries(mesh, 1, task="t2") == ["open"]
