"""A call that was put off is asked anew under the same key: each request has its answer, however often it comes."""

import json

import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead.runtime.context import Context
from bulkhead.runtime.doer.idempotency import IdempotencyRecord, RequestAnswer
from bulkhead.runtime.errors import Deferred
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import envelope, subjects
from bulkhead_contracts.budget import Amount
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.result import Failure, Usage
from bulkhead_contracts.tool import ToolCallReplied
from tests.unit.bulkhead.runtime.doer.test_handler import Purse, Recording, call, grant, replies

pytestmark = pytest.mark.virtual_time


class Failing(Recording):
    """A keyless write that does nothing at its first three tries."""

    def __init__(self) -> None:
        super().__init__(writes=True)
        self.tried: list[str] = []

    async def act(self, job, hands, turn):
        self.tried.append(job.envelope.id)
        if len(self.tried) > 3:
            return await super().act(job, hands, turn)
        failure = Failure(code="down", message=f"certainly not done, for the {len(self.tried)}. time")
        return ToolCallReplied(call_id=job.request.call_id, step_id="s", outcome="failed", failure=failure)


async def delivered_again(mesh: MemoryMesh, one: StoredMessage) -> None:
    """Under another message id: the broker takes it for another message, as it does a redelivery."""
    await mesh.context("worker").bus.publish(one.subject, one.body, dict(one.headers), f"again/{one.sequence}")


async def test_a_request_that_was_told_that_nothing_was_done_does_nothing_when_it_comes_again() -> None:
    """Its asker has been told, and knows of no other answer: what it did now, nobody would hear of."""
    doer = Failing()
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        token = grant(mesh)
        for index in range(2):
            await call(mesh, token, index=index)
            await replies(mesh, index + 1)
        asked = await mesh.messages("INBOX_TOOL_EXECUTOR", "mesh.worker.tool_executor.>")
        for one in asked:
            await delivered_again(mesh, one)
        await call(mesh, token, index=2)
        await replies(mesh, 3)
        await call(mesh, token, index=3)
        told = await replies(mesh, 4)
    requests = [one.ce_id for one in asked]
    assert doer.tried[:2] == requests and not set(doer.tried[2:]) & set(requests), "each was tried once"
    assert [body["outcome"] for _, body in told] == ["failed"] * 3 + ["succeeded"] and doer.done == 1


class PutOff(Recording):
    """It is cut at its first try, when it has spent something; then it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.tried: list[str] = []

    async def act(self, job, hands, turn):
        self.tried.append(job.envelope.id)
        if len(self.tried) > 1:
            return await super().act(job, hands, turn)
        held = await hands.reserve_attempt(
            job, "c", 0, purpose="tool", resource="t", worst_case=Amount(cost_usd_micros=9)
        )
        held.settle(Usage(cost_usd_micros=7))
        raise Deferred(1, "halted", paused=True)


async def test_a_request_that_was_put_off_does_nothing_when_it_comes_again() -> None:
    """Its answer would have the id of what it was told: nobody would hear of it. What it spent is told once, then."""
    doer = PutOff()
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        token = grant(mesh)
        await call(mesh, token)
        await replies(mesh, 1)
        [asked] = await mesh.messages("INBOX_TOOL_EXECUTOR", "mesh.worker.tool_executor.>")
        await delivered_again(mesh, asked)
        await call(mesh, token, index=1)
        told = await replies(mesh, 2)
        assert len(told) == 2 and [kind for kind, _ in told] == [CallDeferred.ce_type(), ToolCallReplied.ce_type()]
    assert doer.tried[0] == asked.ce_id and len(doer.tried) == 2 and doer.tried[1] != doer.tried[0]
    assert [body["usage"]["cost_usd_micros"] for _, body in told] == [7, 0]


class Overtaken(Recording):
    """A keyed write; while it is done, another replica fails to do the other request for it."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context

    async def act(self, job, hands, turn):
        no = ToolCallReplied(
            call_id=job.request.call_id, step_id="s", outcome="failed", failure=Failure(code="down", message="not done")
        )
        record = IdempotencyRecord(request="other", undone=True, reply_type=no.ce_type(), reply=no.encode().decode())
        subject = subjects.record_subject(
            "tool_executor", job.tenant, job.task, envelope.derive_id(job.sender, job.request.call_id, "record")
        )
        await self.context.bus.publish(subject, record.model_dump_json().encode(), {}, "by another replica")
        return await super().act(job, hands, turn)


async def test_what_was_done_is_told_although_another_replica_failed_to_meanwhile() -> None:
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": Overtaken}) as mesh:
        await call(mesh, grant(mesh))
        [(_, told)] = await replies(mesh, 1)
    assert told["outcome"] == "succeeded"


def test_what_was_told_before_is_found_and_a_record_of_an_earlier_version_is_read() -> None:
    record = IdempotencyRecord.model_validate_json(
        json.dumps({"request": "a", "undone": True, "reply_type": "t", "reply": "1"})
    )
    later = IdempotencyRecord(request="b", undone=True, reply_type="t", reply="2", earlier=record.answers_to_keep())
    assert later.answer_to("a") == RequestAnswer(request="a", reply_type="t", reply="1")
    assert later.answer_to("b") is later and later.answer_to("c") is None
    done = IdempotencyRecord(request="c", reply_type="t", reply="3", earlier=later.answers_to_keep())
    assert [done.answer_to(one).reply for one in "abcd"] == ["1", "2", "3", "3"]
    assert IdempotencyRecord(request="d", claimed=True, earlier=later.answers_to_keep()).answer_to("d") is None
