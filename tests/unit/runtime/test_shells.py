"""The runtime shells over the in-memory bus: the fold rule, records, claims, rejections, requests."""

import asyncio
import json
from dataclasses import dataclass

import pytest

from bulkhead.flow import Decider, Decision, Message, Send
from bulkhead.runtime.consume import loop as shells
from bulkhead.runtime.doer.protocol import Doer
from bulkhead.runtime.edge.protocol import Edge, Received
from bulkhead.runtime.errors import Deferred
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import Amount, ReserveReplied, ReserveRequested, Settled
from bulkhead_contracts.control import CallDeferred, MessageRejected
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.plan import PlanStep
from bulkhead_contracts.result import ContentRef, Failure, Result, Usage
from bulkhead_contracts.step import StepAssigned, StepCancelRequested, StepFinished
from bulkhead_contracts.task import TaskLimits
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested

REF = ContentRef(author="gateway", sha256="0" * 64, size_bytes=1)


@dataclass(frozen=True)
class Count:
    heard: tuple[str, ...] = ()


class Counting(Decider[Count]):
    """A decider that says how many messages it has folded."""

    service = "worker"
    opening = frozenset({StepAssigned})

    def initial(self):
        return Count()

    def wants(self, body):
        return ()

    def ended(self, state):
        return False

    def decide(self, state: Count, message: Message) -> Decision[Count]:
        name = getattr(message.body, "reason", "") or "open"
        assert name != "bug", "a planted bug"
        state = Count((*state.heard, name))
        text = ",".join(state.heard)
        return Decision(
            state,
            (
                Send(
                    "planner", StepFinished(step_id="s", attempt=1, plan_version=1, result=Result(summary=text[-150:]))
                ),
            ),
        )


def assigned() -> StepAssigned:
    return StepAssigned(
        step=PlanStep(id="s", title="", instruction="i"),
        attempt=1,
        plan_version=1,
        objective=REF,
        deadline_unix_ms=2**50,
    )


def cancel(reason: str) -> StepCancelRequested:
    return StepCancelRequested(step_id="s", attempt=1, plan_version=1, reason=reason)


async def say(mesh: MemoryMesh, body, task: str = "t1", index: int | str = 0, **attributes) -> None:
    await mesh.context("planner").publisher.send(
        "worker", body, tenant="demo", task=task, cause="", index=f"{task}/{index}", **attributes
    )


async def summaries(mesh: MemoryMesh, count: int, task: str = "t1") -> list[str]:
    subject = subjects.task_filter("planner", "demo", task)
    for _ in range(2000):
        found = [json.loads(one.body)["result"]["summary"] for one in await mesh.messages("INBOX_PLANNER", subject)]
        if len(found) >= count:
            return found
        await asyncio.sleep(0.005)
    raise TimeoutError(f"{len(found)} of {count}: {found}")


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
        mesh.kill("worker")
        await mesh.start("worker", "1")
        await say(mesh, cancel("m2"), index=2)
        assert (await summaries(mesh, 3))[-1] == "open,m1,m2"


async def test_a_broker_that_restarts_may_give_a_number_again():
    """It had not written down yet that it gave it: another replica is served under it, and this one under the next."""
    async with MemoryMesh({"worker": lambda c: {1: Counting()}}) as mesh:
        await say(mesh, assigned())
        await summaries(mesh, 1)
        [durable] = [one for (stream, _), one in mesh.broker._durables.items() if stream == "INBOX_WORKER"]
        mesh.running[("worker", "0")].bus.lose()
        durable.consumer_sequence -= 1
        other = await mesh.context("worker").bus.consumer("INBOX_WORKER", durable.config.name)
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
        mesh.kill("worker")
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
        head = context.publisher.envelope(cancel("m1"), cause="c", index=1)
        subject = subjects.mesh("planner", "worker", "demo", "t1")
        for message_id in ("one", "two"):
            await context.bus.publish(subject, cancel("m1").encode(), head.headers(), message_id)
        await say(mesh, cancel("m2"), index=2)
        assert await summaries(mesh, 3) == ["open", "open,m1", "open,m1,m2"]


async def test_a_malformed_message_is_buried_and_skipped_by_every_fold():
    async with MemoryMesh({"worker": lambda c: {1: Counting()}}) as mesh:
        await say(mesh, assigned())
        context = mesh.context("planner")
        head = context.publisher.envelope(cancel("x"), cause="c", index="bad")
        subject = subjects.mesh("planner", "worker", "demo", "t1")
        await context.bus.publish(subject, b"{broken", head.headers(), "bad")
        await say(mesh, cancel("m2"), index=2)
        assert (await summaries(mesh, 2))[-1] == "open,m2"
        dead = await mesh.messages(subjects.DEAD_LETTERS_STREAM)
        assert dead[0].body == b"{broken" and dead[0].headers["bulkhead-dead-code"] == "malformed_body"
        assert dead[0].headers["bulkhead-dead-subject"] == subject
        facts = await mesh.messages("INBOX_WORKER", "mesh.worker.worker.>")
        assert [one.ce_type for one in facts] == [MessageRejected.ce_type()]
        mesh.kill("worker")
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


async def test_an_unknown_version_waits_and_blocks_its_task_only():
    async with MemoryMesh({"worker": lambda c: {1: Counting()}}) as mesh:
        await say(mesh, assigned())
        context = mesh.context("planner")
        head = context.publisher.envelope(cancel("future"), cause="c", index="v9").headers()
        head["ce-type"] = "mesh.step.cancel_requested.v9"
        await context.bus.publish(subjects.mesh("planner", "worker", "demo", "t1"), b"{}", head, "v9")
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
async def test_liars_end_among_the_dead_letters(change, code):
    async with MemoryMesh({"worker": lambda c: {1: Counting()}}) as mesh:
        context = mesh.context("planner")
        head = context.publisher.envelope(assigned(), cause="c", index=0).headers() | change
        await context.bus.publish(subjects.mesh("planner", "worker", "demo", "t1"), assigned().encode(), head, "x")
        await until_dead(mesh, code)


async def until_dead(mesh: MemoryMesh, code: str) -> None:
    for _ in range(1000):
        dead = await mesh.messages(subjects.DEAD_LETTERS_STREAM)
        if dead:
            assert dead[0].headers["bulkhead-dead-code"] == code
            return
        await asyncio.sleep(0.005)
    raise TimeoutError("no dead letter")


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


# Doers


class Recording(Doer[ToolCallRequested]):
    """A doer that counts what it does."""

    service = "tool_executor"
    handles = (ToolCallRequested,)

    def __init__(self, writes: bool = False, crash: int = 0) -> None:
        self._writes, self.done, self._crash = writes, 0, crash

    def key(self, request):
        return request.call_id

    def writes(self, job):
        return self._writes

    async def act(self, job, hands):
        held = await hands.reserve(
            job, job.request.call_id, 0, purpose="tool", resource=job.request.tool, worst_case=Amount(tool_calls=1)
        )
        self.done += 1
        if self.done <= self._crash:
            raise RuntimeError("dies between doing and recording")
        held.settle(Usage(tool_calls=1))
        return ToolCallReplied(call_id=job.request.call_id, step_id="s", outcome="succeeded", usage=Usage(tool_calls=1))

    def refuse(self, request, failure: Failure):
        return ToolCallReplied(call_id=request.call_id, step_id="s", outcome="refused", failure=failure)

    def uncertain(self, request):
        return ToolCallReplied(call_id=request.call_id, step_id="s", outcome="uncertain")


class Purse(Edge):
    """A budget that answers as told."""

    def __init__(self, decision: str = "reserved") -> None:
        self.decision, self.settled, self.asked = decision, [], 0
        self.rpc = {ReserveRequested: self.reserve}

    async def reserve(self, received: Received):
        self.asked += 1
        return ReserveReplied(
            reservation_id=received.body.reservation_id, decision=self.decision, reason="because", retry_after_ms=10
        )

    async def handle(self, message: Received):
        if isinstance(message.body, Settled):
            self.settled.append(message.body)


def grant(mesh: MemoryMesh, task: str = "t1", expires: int = 2**50) -> str:
    top = TaskGrant(
        tenant="demo",
        task=task,
        actor="ann",
        tools=("add",),
        document_scopes=("default",),
        limits=TaskLimits(),
        day_cost_usd_micros=10**9,
        day_tokens=10**9,
        expires_unix_ms=expires,
    )
    step = StepGrant(
        tenant="demo", task=task, step_id="s", attempt=1, plan_version=1, tools=("add",), expires_unix_ms=expires
    )
    return mesh.context("planner").signer.grant(step, parent=mesh.context("signer").signer.grant(top))


async def call(
    mesh: MemoryMesh, token: str, call_id: str = "c1", index: int = 0, task: str = "t1", logic: int = 1
) -> None:
    body = ToolCallRequested(
        call_id=call_id, step_id="s", attempt=1, tool="add", arguments_json="{}", deadline_unix_ms=2**50
    )
    await mesh.context("worker").publisher.send(
        "tool_executor", body, tenant="demo", task=task, cause="x", index=index, grant=token, logic=logic
    )


async def replies(mesh: MemoryMesh, count: int) -> list[tuple[str, dict]]:
    for _ in range(2000):
        found = await mesh.messages("INBOX_WORKER", "mesh.tool_executor.worker.>")
        if len(found) >= count:
            return [(one.ce_type, json.loads(one.body)) for one in found]
        await asyncio.sleep(0.005)
    raise TimeoutError(f"{len(found)} replies of {count}")


async def test_one_call_is_done_once_however_often_it_is_asked():
    doer, purse = Recording(), Purse()
    async with MemoryMesh({"budget": lambda c: purse, "tool_executor": lambda c: doer}) as mesh:
        token = grant(mesh)
        for index in range(5):
            await call(mesh, token, index=index)
        found = await replies(mesh, 5)
        assert doer.done == 1 and all(body == found[0][1] for _, body in found)
        assert {one.reservation_id for one in purse.settled} and len({s.reservation_id for s in purse.settled}) == 1


async def test_a_doer_that_dies_before_recording_is_charged_and_done_again():
    doer, purse = Recording(crash=1), Purse()
    async with MemoryMesh({"budget": lambda c: purse, "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        found = await replies(mesh, 1)
        assert found[0][1]["outcome"] == "succeeded" and doer.done == 2
        for _ in range(200):
            if len({one.reservation_id for one in purse.settled}) == 2:
                break
            await asyncio.sleep(0.01)
        assert sorted(one.estimated for one in purse.settled) == [False, True], "two reservations, the first in full"


async def test_a_claimed_write_without_a_record_is_uncertain_and_not_repeated():
    doer = Recording(writes=True, crash=1)
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        found = await replies(mesh, 1)
        assert found[0][1]["outcome"] == "uncertain" and doer.done == 1


@pytest.fixture
def hasty(monkeypatch):
    """A bug is believed at its first failure."""
    monkeypatch.setattr(shells, "MAX_HANDLER_FAILURES", 1)


async def test_who_asked_a_doer_with_a_bug_is_told_at_once_and_a_redrive_does_nothing(hasty):
    doer = Recording(crash=1)
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        [(_, told)] = await replies(mesh, 1)
        assert told["outcome"] == "refused" and told["failure"]["code"] == "handler_failed", told
        assert "no outcome is on record" in told["failure"]["message"] and told["failure"]["hint"]
        while not (letters := await mesh.messages(subjects.DEAD_LETTERS_STREAM)):
            await asyncio.sleep(0.01)  # Told first, buried then.
        [letter] = letters
        assert "dies between doing and recording" in letter.headers["bulkhead-dead-reason"]
        [asked] = await mesh.messages("INBOX_TOOL_EXECUTOR", "mesh.worker.tool_executor.>")
        await mesh.context("worker").bus.publish(asked.subject, asked.body, asked.headers, "redriven")
        await call(mesh, grant(mesh), index=1)
        assert (await replies(mesh, 2))[1][1]["outcome"] == "succeeded", "asked anew, it is done"
        assert doer.done == 2, "once in vain, once asked anew, not once for the redrive: what was told stays true"


async def test_a_claimed_write_with_a_bug_is_told_to_be_uncertain(hasty):
    doer = Recording(writes=True, crash=1)
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        assert (await replies(mesh, 1))[0][1]["outcome"] == "uncertain"
        await call(mesh, grant(mesh), index=1)
        assert (await replies(mesh, 2))[1][1]["outcome"] == "uncertain" and doer.done == 1


async def test_a_write_that_is_not_claimed_and_has_a_bug_is_told_to_be_uncertain_too(hasty):
    class Keyed(Recording):
        def changes(self, request):
            return True

    doer = Keyed(crash=1)
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        assert (await replies(mesh, 1))[0][1]["outcome"] == "uncertain", "its asker must not do it under another key"
        await call(mesh, grant(mesh), index=1)
        assert (await replies(mesh, 2))[1][1]["outcome"] == "uncertain" and doer.done == 1


async def test_a_bug_that_also_keeps_the_refusal_from_being_said_still_ends_among_the_dead_letters(hasty):
    class Worse(Recording):
        def refuse(self, request, failure):
            raise KeyError("no refusal either")

    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: Worse(crash=9)}) as mesh:
        await call(mesh, grant(mesh))
        for _ in range(400):
            if found := await mesh.messages(subjects.DEAD_LETTERS_STREAM):
                break
            await asyncio.sleep(0.01)
        assert len(found) == 1


@pytest.mark.parametrize("token", ["", "nonsense", "foreign", "widened"])
async def test_no_valid_grant_no_call(token):
    doer = Recording()
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        if token == "foreign":
            token = grant(mesh, task="t2")
        elif token == "widened":
            top = TaskGrant(
                tenant="demo",
                task="t1",
                actor="a",
                tools=(),
                document_scopes=(),
                limits=TaskLimits(),
                day_cost_usd_micros=1,
                day_tokens=1,
                expires_unix_ms=2**50,
            )
            wide = StepGrant(
                tenant="demo", task="t1", step_id="s", attempt=1, plan_version=1, tools=("add",), expires_unix_ms=2**50
            )
            token = mesh.context("planner").signer.grant(wide, parent=mesh.context("signer").signer.grant(top))
        await call(mesh, token)
        found = await replies(mesh, 1)
        assert found[0][1]["outcome"] == "refused" and found[0][1]["failure"]["hint"] and doer.done == 0


async def test_a_worker_cannot_sign_its_own_grant():
    doer = Recording()
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        top = TaskGrant(
            tenant="demo",
            task="t1",
            actor="a",
            tools=("add",),
            document_scopes=(),
            limits=TaskLimits(),
            day_cost_usd_micros=1,
            day_tokens=1,
            expires_unix_ms=2**50,
        )
        await call(mesh, mesh.context("worker").signer.grant(top))
        assert (await replies(mesh, 1))[0][1]["failure"]["code"] == "wrong_issuer"


async def test_refused_money_refuses_and_waiting_defers(monkeypatch):
    monkeypatch.setattr("bulkhead.runtime.doer.reservations.BUDGET_PATIENCE_S", 0.05)
    doer, purse = Recording(), Purse("refused")
    async with MemoryMesh({"budget": lambda c: purse, "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        assert (await replies(mesh, 1))[0][1]["failure"]["code"] == "refused_by_budget"
        purse.decision = "wait"
        await call(mesh, grant(mesh), call_id="c2", index=1)
        assert (await replies(mesh, 2))[1][0] == CallDeferred.ce_type() and doer.done == 0


async def test_no_budget_no_call(monkeypatch):
    monkeypatch.setattr("bulkhead.runtime.doer.reservations.BUDGET_PATIENCE_S", 0.05)
    doer = Recording()
    async with MemoryMesh({"tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        assert (await replies(mesh, 1))[0][0] == CallDeferred.ce_type() and doer.done == 0


class Moody(Recording):
    """A keyless write that first fails (or is put off) before anything is done, then works."""

    def __init__(self, first: str) -> None:
        super().__init__(writes=True)
        self.first = first

    async def act(self, job, hands):
        mood, self.first = self.first, ""
        if mood == "deferred":
            raise Deferred(10, "not now")
        if mood == "failed":
            failure = Failure(code="down", message="certainly not done")
            return ToolCallReplied(call_id=job.request.call_id, step_id="s", outcome="failed", failure=failure)
        return await super().act(job, hands)


@pytest.mark.parametrize("first", ["failed", "deferred"])
async def test_what_was_certainly_not_done_may_be_tried_again_by_another_request(first):
    doer = Moody(first)
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        token = grant(mesh)
        await call(mesh, token)
        kind, body = (await replies(mesh, 1))[0]
        assert body.get("outcome") == "failed" if first == "failed" else kind == CallDeferred.ce_type()
        await call(mesh, token, index=1)
        assert (await replies(mesh, 2))[1][1]["outcome"] == "succeeded" and doer.done == 1
        await call(mesh, token, index=2)
        assert (await replies(mesh, 3))[2][1]["outcome"] == "succeeded" and doer.done == 1
