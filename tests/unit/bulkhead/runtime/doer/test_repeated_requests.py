"""A call that was put off is asked anew under the same key: each request has its answer, however often it comes."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead.runtime.context import Context
from bulkhead.runtime.doer.idempotency import CallPlace, IdempotencyRecord, StoredOutcome, parse_call
from bulkhead.runtime.errors import Deferred, JobRefused
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.budget import Amount, Settled
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.result import Failure, Usage
from bulkhead_contracts.tool import ToolCallReplied
from tests.eventually import until
from tests.unit.bulkhead.runtime.consume.test_loop import mesh_messages
from tests.unit.bulkhead.runtime.doer.test_handler import Purse, Recording, call, grant, replies, settlements
from tests.unit.bulkhead.runtime.doer.test_reservations import Slow

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
        subject = subjects.mesh_subject("tool_executor", job.sender, job.tenant, job.task, job.request.call_id)
        head = self.context.publisher.make_envelope(no, cause="other")
        await self.context.bus.publish(subject, no.encode(), head.to_headers(), "by another replica")
        return await super().act(job, hands, turn)


async def test_what_was_done_is_told_although_another_replica_failed_to_meanwhile() -> None:
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": Overtaken}) as mesh:
        await call(mesh, grant(mesh))
        [_, (_, told)] = await replies(mesh, 2)
    assert (told["outcome"], told["answered"]) == ("succeeded", ["other"])


def outcome_of(cause: str, outcome: str, before: StoredOutcome | None = None) -> StoredOutcome:
    answered = before.answered if before is not None else ()
    return StoredOutcome(ToolCallReplied(call_id="c", step_id="s", outcome=outcome, answered=answered), cause, 1)


def test_an_outcome_answers_its_request_those_before_it_and_where_something_was_done_all_others() -> None:
    first = outcome_of("a", "failed")
    second = outcome_of("b", "refused", first)
    assert [second.answers(name) for name in "abc"] == [True, True, False]
    done = outcome_of("c", "succeeded", second)
    assert done.answered == ("a", "b", "c") and done.answers("d")
    assert not StoredOutcome().answers("a")
    many = first
    for number in range(20):
        many = outcome_of(str(number), "failed", many)
    assert len(many.answered) == bounds.MAX_ANSWERED_BEFORE and many.answers("19") and not many.answers("a")


PLACE = CallPlace("c", "INBOX_WORKER", "mesh.x", "record.x")


@pytest.mark.parametrize("claimed", [True, False])
def test_a_record_counts_until_the_request_that_it_is_of_is_answered(claimed: bool) -> None:
    used = (Settled(reservation_id="r", call_id="c", usage=Usage(tool_calls=1)),)
    record = IdempotencyRecord(request="a", claimed=claimed, used=used)
    stored = StoredMessage("record.x", {}, record.model_dump_json().encode(), 7, 5)
    open_call = parse_call(PLACE, None, stored)
    assert open_call.record == record and open_call.lost == used and open_call.record_sequence == 7
    body = ToolCallReplied(call_id="c", step_id="s", outcome="failed")
    reply = StoredMessage("mesh.x", {"ce-type": body.ce_type(), "ce-causeid": "a"}, body.encode(), 9, 9)
    answered = parse_call(PLACE, reply, stored)
    assert answered.record is None and answered.lost == () and answered.record_sequence == 7, (
        "the next claim follows it"
    )
    of_another = parse_call(PLACE, replace(reply, headers={**reply.headers, "ce-causeid": "b"}), stored)
    assert of_another.record == record, "what another request was told says nothing of this claim"


async def test_a_call_whose_id_is_that_of_all_that_is_no_outcome_is_refused() -> None:
    """Under it the newest message of any kind would pass for its outcome."""
    doer = Recording()
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh), call_id="-")
        [(_, told)] = await replies(mesh, 1)
    assert told["failure"]["code"] == "bad_key" and told["failure"]["hint"] and doer.done == 0


async def test_the_reply_is_the_only_record_of_what_was_done_and_lies_under_the_key_of_the_call() -> None:
    doer = Recording(writes=True)
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh), call_id="c-1")
        await replies(mesh, 1)
        [reply] = await mesh.messages("INBOX_WORKER", "mesh.tool_executor.worker.>")
        [claim] = await mesh.messages("RECORDS_TOOL_EXECUTOR")
        assert reply.key == "c-1" and IdempotencyRecord.model_validate_json(claim.body).claimed
        [asked] = await mesh.messages("INBOX_TOOL_EXECUTOR", "mesh.worker.tool_executor.>")
        await delivered_again(mesh, asked)
        await call(mesh, grant(mesh), call_id="c-1", index=1)
        [_, copy] = await mesh_messages(mesh, "INBOX_WORKER", "mesh.tool_executor.worker.>", 2)
        assert copy.key == subjects.NO_KEY and copy.body == reply.body and doer.done == 1
        await call(mesh, grant(mesh), call_id="c-2", index=2)
        await mesh_messages(mesh, "INBOX_WORKER", "mesh.tool_executor.worker.>", 3)
        assert doer.done == 2, "another call's outcome is no outcome of this one"


async def test_two_replicas_that_do_one_call_leave_one_outcome_and_settle_what_each_used() -> None:
    """The second to end takes the first one's outcome for its own; what it spent is charged all the same."""
    doer = Slow()
    doer._writes = False
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        await doer.began.wait()
        mesh.running[("tool_executor", "0")].bus.break_connection()
        await mesh.start("tool_executor", "1")
        [durable] = [one for (stream, _), one in mesh.broker._durables.items() if stream == "INBOX_TOOL_EXECUTOR"]
        mesh.broker.wait_for_ack(durable, 1, 0)
        await until(lambda: doer.done == 2)
        doer.may_end.set()
        await asyncio.sleep(30)
        [_] = await replies(mesh, 1)
        assert len({one.reservation_id for one in await settlements(mesh)}) == 2


@pytest.mark.parametrize(("writes", "outcome", "done"), [(True, "uncertain", 1), (False, "succeeded", 2)])
async def test_a_request_that_comes_again_when_its_outcome_was_purged_meets_its_claim_or_is_done_anew(
    writes: bool, outcome: str, done: int
) -> None:
    doer = Recording(writes=writes)
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        await replies(mesh, 1)
        inbox = mesh.broker.get_stream("INBOX_WORKER")
        for stored in inbox.read("mesh.tool_executor.>", 0, 10):
            inbox.delete(stored.sequence)
        [asked] = await mesh.messages("INBOX_TOOL_EXECUTOR", "mesh.worker.tool_executor.>")
        await delivered_again(mesh, asked)
        [(_, told)] = await replies(mesh, 1)
    assert (told["outcome"], doer.done) == (outcome, done)


class Refused(Recording):
    """An unkeyed write that is refused while another replica waits for its turn with it."""

    def __init__(self) -> None:
        super().__init__(writes=True)
        self.waiting, self.may_go_on, self.turns = asyncio.Event(), asyncio.Event(), 0

    @asynccontextmanager
    async def hold_turn(self, job, hands):
        self.turns += 1
        if self.turns > 1:
            raise JobRefused(Failure.from_text("forbidden", "the rules changed meanwhile", "ask"))
        self.waiting.set()
        await self.may_go_on.wait()
        yield


async def test_what_its_asker_was_told_was_not_done_is_not_claimed_by_another_replica_afterwards() -> None:
    doer = Refused()
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        await doer.waiting.wait()
        mesh.running[("tool_executor", "0")].bus.break_connection()
        await mesh.start("tool_executor", "1")
        [durable] = [one for (stream, _), one in mesh.broker._durables.items() if stream == "INBOX_TOOL_EXECUTOR"]
        mesh.broker.wait_for_ack(durable, 1, 0)
        assert (await replies(mesh, 1))[0][1]["outcome"] == "refused"
        doer.may_go_on.set()
        await asyncio.sleep(30)
        assert doer.done == 0 and len(await replies(mesh, 1)) == 1
