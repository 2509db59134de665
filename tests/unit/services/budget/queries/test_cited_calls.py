"""Budget tells which call gave a content that is cited: of the asker's task, and of no other."""

from bulkhead.runtime.decider.history import TaskHistory
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts import catalog
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.tool import CitedCallReplied, CitedCallRequested, ToolCallReplied, ToolCallRequested
from bulkhead_services.budget.queries.cited_calls import CitedCallQuery
from tests.unit.services.budget.queries.test_uncertain_writes import World, history


def bodies(told: TaskHistory, kind: type) -> list:
    rows = [row for row in told.messages if row.headers["ce-type"] == kind.ce_type()]
    return [catalog.decode_body(row.headers["ce-type"], row.body) for row in rows]


async def ask(world: World, told: TaskHistory, sha256: str, task: str = "") -> CitedCallReplied:
    body = CitedCallRequested(sha256=sha256)
    head = Envelope(id="1" * 32, type=body.ce_type(), source="gateway", time_unix_ms=1)
    asked = ReceivedMessage(head, body, told.tenant, task or told.task, "gateway", 0, 1, 1)
    return await CitedCallQuery(world.book).answer_cited_call(asked)


async def test_the_call_of_a_result_is_told_with_its_arguments():
    world, told, other = World(), history("fan_out_join"), history("answered")
    for one in (told, other):
        await world.say(one)
    calls = {call.call_id: call for call in bodies(told, ToolCallRequested)}
    replies = [reply for reply in bodies(told, ToolCallReplied) if reply.content]
    assert len(replies) > 1
    for reply in replies:
        found = (await ask(world, told, reply.content.sha256)).call
        call = calls[reply.call_id]
        assert found is not None and (found.step_id, found.tool) == (call.step_id, "calculate")
        assert found.arguments_json == call.arguments_json and found.asked_unix_ms > 0
    sha256 = replies[0].content.sha256
    assert (await ask(world, told, "f" * 64)) == CitedCallReplied()
    assert (await ask(world, other, sha256)) == CitedCallReplied(), "another task's calls are not told"
