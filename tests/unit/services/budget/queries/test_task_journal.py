"""Budget tells what the journal has of a task: its doubtful writes, a cited call, its messages without authority."""

import asyncio
import json

import pytest

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.bus.port import StoredMessage
from bulkhead.journal.order import stored_of
from bulkhead.journal.why.reason import Write
from bulkhead.runtime.decider.history import TaskHistory
from bulkhead.runtime.decider.history_file import load_history
from bulkhead.runtime.decider.history_secrets import strip_signature
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts import bounds, catalog, subjects
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.journal import TaskMessagesReplied, TaskMessagesRequested, ToldMessage
from bulkhead_contracts.task import TaskRequested
from bulkhead_contracts.tool import (
    CitedCallReplied,
    CitedCallRequested,
    ToolCallReplied,
    ToolCallRequested,
    WritesReplied,
    WritesRequested,
)
from bulkhead_services.budget.queries import task_journal
from bulkhead_services.budget.queries.task_journal import TaskJournalQuery, messages_reply, writes_reply
from tests.paths import HISTORIES


def history(name: str = "uncertain_write") -> TaskHistory:
    return load_history(next(iter(sorted(HISTORIES.glob(f"{name}.*")))))


class World:
    """A recorded task, said again over the in-memory bus. shown: so much of the journal, None for all of it."""

    def __init__(self) -> None:
        self.broker = MemoryBroker.for_mesh()
        self.shown: int | None = None
        self.looked = asyncio.Event()
        self.broker.horizon = self._horizon  # type: ignore[method-assign]
        self.query = TaskJournalQuery(MemoryBus(self.broker, "budget"))

    def _horizon(self, stream: str) -> int | None:
        if stream != subjects.JOURNAL_STREAM:
            return None
        self.looked.set()
        return self.shown

    async def say(self, told: TaskHistory) -> None:
        for one in told.messages:
            bus = MemoryBus(self.broker, one.subject.split(".")[1])
            await bus.publish(one.subject, one.body, one.headers, one.headers["ce-id"])

    async def ask(self, told: TaskHistory, tenant: str = "") -> WritesReplied:
        head = Envelope(id="1" * 32, type=WritesRequested.ce_type(), source="gateway", time_unix_ms=1)
        asked = ReceivedMessage(head, WritesRequested(), tenant or told.tenant, told.task, "gateway", 0, 1, 1)
        return await self.query.answer_writes(asked)


async def test_a_write_whose_outcome_was_lost_is_told_with_its_key_and_others_tasks_are_not() -> None:
    world, told = World(), history()
    for one in (told, history("keyed_write"), history("answered")):
        await world.say(one)
    reply = await world.ask(told)
    (write,) = reply.writes
    assert reply.failure is None and reply.more == 0 and write.outcome == "uncertain"
    assert write.tool == "counter_increment_unkeyed" and write.key.startswith(f"{told.tenant}.{told.task}.")
    assert json.loads(write.arguments_json) and write.asked_unix_ms > 0 and write.why
    assert (await world.ask(history("keyed_write"))) == WritesReplied(), "what was answered is in no doubt"


async def test_a_journal_that_lags_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_journal, "PAUSE_S", 0.0)
    world, told = World(), history()
    await world.say(told)
    answer = next(at for at, one in enumerate(told.messages) if one.headers["ce-type"] == ToolCallReplied.ce_type())
    world.shown = answer
    asking = asyncio.create_task(world.ask(told))
    await world.looked.wait()
    for _ in range(50):
        await asyncio.sleep(0)
    assert not asking.done(), "without the reply nothing can be said"
    world.shown = None
    assert [one.outcome for one in (await asking).writes] == ["uncertain"]


async def test_a_journal_that_does_not_catch_up_is_no_list_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_journal, "WRITES_TIMEOUT_MS", 50)
    world, told = World(), history()
    await world.say(told)
    world.shown = 1
    reply = await world.ask(told)
    assert reply.failure is not None and "lags" in reply.failure.message and "again" in reply.failure.hint


async def test_tasks_of_another_tenant_are_not_told() -> None:
    world, told = World(), history()
    await world.say(told)
    assert (await world.ask(told, tenant="other")) == WritesReplied(), "its task of the same id has said nothing"


@pytest.mark.parametrize(
    ("count", "size", "rows"), [(3, 10, 3), (40, 10, bounds.MAX_WRITES_LISTED), (12, bounds.MAX_ARGUMENTS_BYTES, 8)]
)
def test_a_reply_is_bounded_and_says_how_many_it_leaves_out(count: int, size: int, rows: int) -> None:
    found = [
        Write(f"s{number}", "", 1, "pay", '"' * size, "demo.t1.c", 1, "uncertain", "lost", "m")
        for number in range(count)
    ]
    reply = writes_reply(found)
    assert (len(reply.writes), reply.more) == (rows, count - rows)
    assert [one.step_id for one in reply.writes] == [f"s{number}" for number in range(rows)]
    assert len(reply.encode()) < bounds.MAX_MESSAGE_BYTES


def bodies(told: TaskHistory, kind: type) -> list:
    rows = [row for row in told.messages if row.headers["ce-type"] == kind.ce_type()]
    return [catalog.decode_body(row.headers["ce-type"], row.body) for row in rows]


async def ask_call(world: World, told: TaskHistory, sha256: str, task: str = "") -> CitedCallReplied:
    body = CitedCallRequested(sha256=sha256)
    head = Envelope(id="1" * 32, type=body.ce_type(), source="gateway", time_unix_ms=1)
    asked = ReceivedMessage(head, body, told.tenant, task or told.task, "gateway", 0, 1, 1)
    return await world.query.answer_cited_call(asked)


async def test_the_call_of_a_result_is_told_with_its_arguments():
    world, told, other = World(), history("fan_out_join"), history("answered")
    for one in (told, other):
        await world.say(one)
    calls = {call.call_id: call for call in bodies(told, ToolCallRequested)}
    replies = [reply for reply in bodies(told, ToolCallReplied) if reply.content]
    assert len(replies) > 1
    for reply in replies:
        found = (await ask_call(world, told, reply.content.sha256)).call
        call = calls[reply.call_id]
        assert found is not None and (found.step_id, found.tool) == (call.step_id, "calculate")
        assert found.arguments_json == call.arguments_json and found.asked_unix_ms > 0
    sha256 = replies[0].content.sha256
    assert (await ask_call(world, told, "f" * 64)) == CitedCallReplied()
    assert (await ask_call(world, other, sha256)) == CitedCallReplied(), "another task's calls are not told"


async def ask_page(world: World, tenant: str, task: str, after: int = 0) -> TaskMessagesReplied:
    body = TaskMessagesRequested(after=after)
    head = Envelope(id="1" * 32, type=body.ce_type(), source="gateway", time_unix_ms=1)
    return await world.query.answer_task_messages(ReceivedMessage(head, body, tenant, task, "gateway", 0, 1, 1))


async def whole(world: World, tenant: str, task: str) -> list[ToldMessage]:
    found: list[ToldMessage] = []
    while True:
        page = await ask_page(world, tenant, task, found[-1].sequence if found else 0)
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
    assert (await ask_page(world, "acme", mine.task)).messages == (), "another tenant has no such task"


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
    stored = StoredMessage("mesh.gateway.gateway.p00.acme.t1.-", {"ce-type": asked.ce_type()}, asked.encode(), 1, 1)
    (row,) = messages_reply([stored], keep_grants=True).messages
    assert "voucher" in asked.encode().decode() and "voucher" not in row.body


def test_a_message_that_is_too_large_for_a_page_is_told_without_its_body():
    def message(sequence: int, size: int) -> StoredMessage:
        return StoredMessage("mesh.worker.planner.p00.acme.t1.-", {"ce-id": "1"}, b'"' * size, sequence, 1)

    page = messages_reply([message(1, 300_000), message(2, 10)])
    assert [(one.sequence, one.left_out_bytes) for one in page.messages] == [(1, 300_000), (2, 0)] and not page.more
    (unreadable,) = messages_reply([StoredMessage("mesh.worker.planner.p00.acme.t1.-", {}, b"\xff\xfe", 7, 1)]).messages
    assert (unreadable.body, unreadable.left_out_bytes) == ("", 2)
    page = messages_reply([message(1, 10), message(2, 300_000)])
    assert [one.sequence for one in page.messages] == [1] and page.more, "the next page begins with it"
