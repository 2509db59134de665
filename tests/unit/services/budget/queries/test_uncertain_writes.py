"""Budget tells which writes of a task may or may not have been done: from a journal that lacks nothing."""

import asyncio
import json

import pytest

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.journal.uncertain_writes import Write
from bulkhead.runtime.decider.history import TaskHistory
from bulkhead.runtime.decider.history_file import load_history
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.tool import ToolCallReplied, WritesReplied, WritesRequested
from bulkhead_services.budget.queries import uncertain_writes
from bulkhead_services.budget.queries.uncertain_writes import UncertainWriteQuery, writes_reply
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
        self.book = UncertainWriteQuery(MemoryBus(self.broker, "budget"))

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
        return await self.book.answer_writes(asked)


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
    monkeypatch.setattr(uncertain_writes, "PAUSE_S", 0.0)
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
    monkeypatch.setattr(uncertain_writes, "WRITES_TIMEOUT_MS", 50)
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
