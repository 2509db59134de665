"""The doer over the in-memory bus: a call is done once; claims, grants, money, and bugs that end as dead letters."""

import json
from contextlib import asynccontextmanager

import pytest

from bulkhead.runtime.consume import loop as shells
from bulkhead.runtime.doer.protocol import Doer
from bulkhead.runtime.edge.protocol import EdgeComponent, ReceivedMessage
from bulkhead.runtime.errors import Deferred, JobRefused
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.budget import Amount, ReserveReplied, ReserveRequested, Settled
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.result import Failure, Usage
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested
from tests.samples import sample
from tests.settlements import settlements
from tests.unit.bulkhead.runtime.consume.test_loop import mesh_messages

pytestmark = pytest.mark.virtual_time


class Recording(Doer[ToolCallRequested]):
    """A doer that counts what it does."""

    service = "tool_executor"
    handles = (ToolCallRequested,)

    def __init__(self, writes: bool = False, crash: int = 0) -> None:
        self._writes, self.done, self._crash = writes, 0, crash

    def idempotency_key(self, request):
        return request.call_id

    def needs_claim(self, job):
        return self._writes

    async def act(self, job, hands, turn):
        held = await hands.reserve_attempt(
            job, job.request.call_id, 0, purpose="tool", resource=job.request.tool, worst_case=Amount(tool_calls=1)
        )
        self.done += 1
        if self.done <= self._crash:
            raise RuntimeError("dies between doing and recording")
        held.settle(Usage(tool_calls=1))
        return ToolCallReplied(call_id=job.request.call_id, step_id="s", outcome="succeeded", usage=Usage(tool_calls=1))

    def refusal_reply(self, request, failure: Failure):
        return ToolCallReplied(call_id=request.call_id, step_id="s", outcome="refused", failure=failure)

    def uncertain_reply(self, request):
        return ToolCallReplied(call_id=request.call_id, step_id="s", outcome="uncertain")


class Purse(EdgeComponent):
    """A budget that answers as told."""

    def __init__(self, decision: str = "reserved") -> None:
        self.decision, self.asked = decision, 0
        self.rpc = {ReserveRequested: self.reserve}

    async def reserve(self, received: ReceivedMessage):
        self.asked += 1
        return ReserveReplied(
            reservation_id=received.body.reservation_id, decision=self.decision, reason="because", retry_after_ms=10
        )

    async def handle_message(self, message: ReceivedMessage):
        """What is settled lies in the streams."""


def grant(mesh: MemoryMesh, task: str = "t1", expires: int = 2**50) -> str:
    top = sample(TaskGrant, task=task, tools=("add",), document_scopes=("default",), expires_unix_ms=expires)
    step = StepGrant(
        tenant="demo", task=task, step_id="s", attempt=1, plan_version=1, tools=("add",), expires_unix_ms=expires
    )
    return mesh.context("planner").signer.sign_grant(step, parent=mesh.context("signer").signer.sign_grant(top))


async def call(
    mesh: MemoryMesh,
    token: str,
    call_id: str = "c1",
    index: int = 0,
    task: str = "t1",
    logic: int = 1,
    sender: str = "worker",
) -> None:
    body = ToolCallRequested(
        call_id=call_id, step_id="s", attempt=1, tool="add", arguments_json="{}", deadline_unix_ms=2**50
    )
    await mesh.context(sender).publisher.send(
        "tool_executor", body, tenant="demo", task=task, cause="x", index=index, grant=token, logic=logic
    )


async def replies(mesh: MemoryMesh, count: int) -> list[tuple[str, dict]]:
    found = await mesh_messages(mesh, "INBOX_WORKER", "mesh.tool_executor.worker.>", count)
    return [(one.ce_type, json.loads(one.body)) for one in found]


async def test_one_call_is_done_once_however_often_it_is_asked():
    doer, purse = Recording(), Purse()
    async with MemoryMesh({"budget": lambda c: purse, "tool_executor": lambda c: doer}) as mesh:
        token = grant(mesh)
        for index in range(5):
            await call(mesh, token, index=index)
        found = await replies(mesh, 5)
        assert doer.done == 1 and all(body == found[0][1] for _, body in found)
        assert len(await settlements(mesh)) == 1 and all(len(body["settled"]) == 1 for _, body in found)
        assert not await mesh.messages("INBOX_BUDGET", "mesh.tool_executor.budget.>"), "the replies tell it"


class Deferring(Recording):
    """Spends something, and puts the call off."""

    async def act(self, job, hands, turn):
        await super().act(job, hands, turn)
        raise Deferred(1, "not now")


async def test_what_no_deferral_tells_for_sure_is_settled_by_a_message_of_its_own():
    """The one that lies there may be another replica's, and tell of other attempts."""
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: Deferring()}) as mesh:
        await call(mesh, grant(mesh))
        await replies(mesh, 1)
        assert not await mesh.messages("INBOX_BUDGET", "mesh.tool_executor.budget.>")
        [asked] = await mesh.messages("INBOX_TOOL_EXECUTOR", "mesh.worker.tool_executor.>")
        await mesh.context("worker").bus.publish(asked.subject, asked.body, asked.headers, "redelivered")
        [settled] = await mesh_messages(mesh, "INBOX_BUDGET", "mesh.tool_executor.budget.>", 1)
        assert settled.ce_type == Settled.ce_type() and len(await replies(mesh, 1)) == 1


class Costly(Recording):
    """Needs more attempts at a call than one reply has room for."""

    async def act(self, job, hands, turn):
        for attempt in range(1, bounds.MAX_SETTLED_IN_REPLY + 3):
            held = await hands.reserve_attempt(
                job, job.request.call_id, attempt, purpose="tool", resource="add", worst_case=Amount(tool_calls=1)
            )
            held.settle(Usage(tool_calls=1))
        return await super().act(job, hands, turn)


async def test_what_a_reply_has_no_room_for_is_settled_by_messages_of_its_own():
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: Costly()}) as mesh:
        await call(mesh, grant(mesh))
        [(_, told)] = await replies(mesh, 1)
        assert len(told["settled"]) == bounds.MAX_SETTLED_IN_REPLY
        assert len(await mesh_messages(mesh, "INBOX_BUDGET", "mesh.tool_executor.budget.>", 3)) == 3
        assert len(await settlements(mesh)) == bounds.MAX_SETTLED_IN_REPLY + 3


async def test_a_doer_that_dies_before_recording_is_charged_and_done_again():
    doer, purse = Recording(crash=1), Purse()
    async with MemoryMesh({"budget": lambda c: purse, "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        found = await replies(mesh, 1)
        assert found[0][1]["outcome"] == "succeeded" and doer.done == 2
        settled = await settlements(mesh)
        assert sorted(one.estimated for one in settled) == [False, True], "two reservations, the first in full"


async def test_a_claimed_write_without_a_record_is_uncertain_and_not_repeated():
    doer = Recording(writes=True, crash=1)
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        found = await replies(mesh, 1)
        assert found[0][1]["outcome"] == "uncertain" and doer.done == 1


async def test_a_doer_that_finds_out_what_became_of_a_claimed_write_is_believed():
    class Finding(Recording):
        async def resolve_claim(self, job, hands, begun_unix_ms):
            return ToolCallReplied(call_id=job.request.call_id, step_id="s", outcome="succeeded")

    doer = Finding(writes=True, crash=1)
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        [(_, told)] = await replies(mesh, 1)
        assert (told["outcome"], doer.done, told["usage"]["tool_calls"]) == ("succeeded", 1, 1), told


async def test_what_may_have_been_done_is_not_told_to_be_refused():
    class Closing(Recording):
        @asynccontextmanager
        async def hold_turn(self, job, hands):
            if self.done:
                raise JobRefused(Failure.from_text("forbidden", "the rules changed meanwhile", "ask"))
            yield

    doer = Closing(writes=True, crash=1)
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        assert (await replies(mesh, 1))[0][1]["outcome"] == "uncertain" and doer.done == 1


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
        [letter] = await mesh_messages(mesh, subjects.DEAD_LETTERS_STREAM)  # Told first, buried then.
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
        def may_change_world(self, request):
            return True

    doer = Keyed(crash=1)
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        assert (await replies(mesh, 1))[0][1]["outcome"] == "uncertain", "its asker must not do it under another key"
        await call(mesh, grant(mesh), index=1)
        assert (await replies(mesh, 2))[1][1]["outcome"] == "uncertain" and doer.done == 1


async def test_a_bug_that_also_keeps_the_refusal_from_being_said_still_ends_among_the_dead_letters(hasty):
    class Worse(Recording):
        def refusal_reply(self, request, failure):
            raise KeyError("no refusal either")

    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: Worse(crash=9)}) as mesh:
        await call(mesh, grant(mesh))
        assert len(await mesh_messages(mesh, subjects.DEAD_LETTERS_STREAM)) == 1


@pytest.mark.parametrize("token", ["", "nonsense", "foreign", "widened"])
async def test_no_valid_grant_no_call(token):
    doer = Recording()
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        if token == "foreign":
            token = grant(mesh, task="t2")
        elif token == "widened":
            top = sample(TaskGrant)
            wide = StepGrant(
                tenant="demo", task="t1", step_id="s", attempt=1, plan_version=1, tools=("add",), expires_unix_ms=2**50
            )
            token = mesh.context("planner").signer.sign_grant(
                wide, parent=mesh.context("signer").signer.sign_grant(top)
            )
        await call(mesh, token)
        found = await replies(mesh, 1)
        assert found[0][1]["outcome"] == "refused" and found[0][1]["failure"]["hint"] and doer.done == 0


async def test_a_worker_cannot_sign_its_own_grant():
    doer = Recording()
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        top = sample(TaskGrant, tools=("add",))
        await call(mesh, mesh.context("worker").signer.sign_grant(top))
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

    async def act(self, job, hands, turn):
        mood, self.first = self.first, ""
        if mood == "deferred":
            raise Deferred(10, "not now")
        if mood == "failed":
            failure = Failure(code="down", message="certainly not done")
            return ToolCallReplied(call_id=job.request.call_id, step_id="s", outcome="failed", failure=failure)
        return await super().act(job, hands, turn)


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
