"""Budget tells what the journal has of a task: all of it in order, of no other, and nobody's authority with it."""

from bulkhead.bus.port import StoredMessage
from bulkhead.journal.told import stored_of
from bulkhead.runtime.decider.history_secrets import strip_signature
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts import bounds
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.journal import TaskMessagesReplied, TaskMessagesRequested, ToldMessage
from bulkhead_contracts.task import TaskRequested
from bulkhead_contracts.tool import ToolCallRequested
from bulkhead_services.budget.queries.task_messages import TaskMessageQuery, messages_reply
from tests.unit.services.budget.queries.test_uncertain_writes import World, history


async def ask(world: World, tenant: str, task: str, after: int = 0) -> TaskMessagesReplied:
    body = TaskMessagesRequested(after=after)
    head = Envelope(id="1" * 32, type=body.ce_type(), source="gateway", time_unix_ms=1)
    return await TaskMessageQuery(world.book).answer_task_messages(
        ReceivedMessage(head, body, tenant, task, "gateway", 0, 1, 1)
    )


async def whole(world: World, tenant: str, task: str) -> list[ToldMessage]:
    found: list[ToldMessage] = []
    while True:
        page = await ask(world, tenant, task, found[-1].sequence if found else 0)
        assert page.failure is None and len(page.encode()) <= bounds.MAX_MESSAGE_BYTES
        found += page.messages
        if not page.more:
            return found


async def test_a_task_is_told_page_by_page_and_no_others():
    world, mine, other = World(), history("answered"), history("fork")
    for one in (mine, other):
        await world.say(one)
    found = await whole(world, mine.tenant, mine.task)
    assert sorted(one.headers["ce-id"] for one in found) == sorted(one.ce_id for one in mine.messages if one.ce_id)
    assert [one.sequence for one in found] == sorted(one.sequence for one in found)
    again = [stored_of(one, mine.tenant, mine.task) for one in found]
    assert {(one.subject, one.body) for one in again} == {(one.subject, one.body) for one in mine.messages}
    assert (await ask(world, "acme", mine.task)).messages == (), "another tenant has no such task"


async def test_no_grant_leaves_but_the_claims_of_calls_and_no_signature_at_all():
    world, mine = World(), history("keyed_write")
    await world.say(mine)
    found = await whole(world, mine.tenant, mine.task)
    with_grant = [one for one in found if "bulkhead-grant" in one.headers]
    assert {one.headers["ce-type"] for one in with_grant} == {ToolCallRequested.ce_type()}
    for one in with_grant:
        token = one.headers["bulkhead-grant"]
        assert token.endswith(".") and strip_signature(token) == token


def test_no_voucher_leaves():
    asked = TaskRequested(objective="Hello", voucher="a.b.c")
    stored = StoredMessage("mesh.gateway.gateway.p00.acme.t1", {"ce-type": asked.ce_type()}, asked.encode(), 1, 1)
    (row,) = messages_reply([stored], keep_grants=True).messages
    assert "voucher" in asked.encode().decode() and "voucher" not in row.body


def test_a_message_that_is_too_large_for_a_page_is_told_without_its_body():
    def message(sequence: int, size: int) -> StoredMessage:
        return StoredMessage("mesh.worker.planner.p00.acme.t1", {"ce-id": "1"}, b'"' * size, sequence, 1)

    page = messages_reply([message(1, 300_000), message(2, 10)])
    assert [(one.sequence, one.left_out_bytes) for one in page.messages] == [(1, 300_000), (2, 0)] and not page.more
    (unreadable,) = messages_reply([StoredMessage("mesh.worker.planner.p00.acme.t1", {}, b"\xff\xfe", 7, 1)]).messages
    assert (unreadable.body, unreadable.left_out_bytes) == ("", 2)
    page = messages_reply([message(1, 10), message(2, 300_000)])
    assert [one.sequence for one in page.messages] == [1] and page.more, "the next page begins with it"
