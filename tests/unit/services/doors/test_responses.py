"""Responses that later requests go on from: found by their id, by their own caller, and by nobody else."""

import json

import pytest

from bulkhead.flow.content import in_list
from bulkhead_contracts.model import ModelCallReplied, ToolCall
from bulkhead_contracts.result import REFERENCES
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.doors.port import DoorRefusal
from tests.eventually import until
from tests.unit.services.doors.doors_world import TENANT, caller, world

pytestmark = pytest.mark.virtual_time

BEN = RequesterClaim(tenant=TENANT, person="ben", role="submitter", via="api_key")
OTHERS = RequesterClaim(tenant="acme", person="ann", role="submitter", via="api_key")
USER = {"role": "user", "content": "hello"}


async def sent(here, at: int = -1) -> list[dict[str, object]]:
    """The messages of a call, as a model gateway reads them."""
    blobs, found = here.mesh.context("model_gateway").blobs, []
    for ref in here.models.asked[at].conversation.messages:
        found += in_list(ref, await blobs.get(TENANT, ref)) if ref.media_type == REFERENCES else (ref,)
    return [json.loads(await blobs.get_text(TENANT, ref)) for ref in found]


def call(here, *said, **more):
    return here.call(*said, **{"api": "openai-responses", **more})


async def first(here, **more):
    stored = await call(here, keep=True, **more)
    await stored.wait_for_answer()
    return stored


async def test_a_request_goes_on_from_a_response_with_its_messages_and_its_answer():
    async with world() as here:
        one = await first(here, messages=(USER,), options={"instructions": "Old."})
        new = {"role": "user", "content": "And?"}
        two = await call(here, messages=(new,), options={"instructions": "New."}, previous=one.kept_as, keep=True)
        await two.wait_for_answer()
        answer = {"type": "message", "role": "assistant", "content": "answer 1"}
        assert await sent(here) == [USER, answer, new], "instructions count for one request alone"
        await (await call(here, "Third", previous=two.kept_as)).wait_for_answer()
        assert await sent(here) == [
            *(USER, answer, new),
            *({**answer, "content": "answer 2"}, {"role": "user", "content": "Third"}),
        ]
        assert len({one.run_spending.task, two.run_spending.task}) == 1 and one.kept_as != two.kept_as


async def test_a_long_conversation_is_gone_on_with():
    async with world() as here:
        long = tuple({"role": "user", "content": f"{number}"} for number in range(70))
        one = await first(here, messages=long)
        await (await call(here, "And?", previous=one.kept_as)).wait_for_answer()
        said = [row["content"] for row in await sent(here)]
        assert said == [*(row["content"] for row in long), "answer 1", "And?"]


async def test_tool_calls_of_a_response_stand_before_their_results():
    async def uses_a_tool(models, message, request):
        reply = await models.answer(message, request, "")
        use = ToolCall(id="call_1", name="look", arguments_json="{}")
        return reply.model_copy(update={"content": None, "tool_calls": (use,), "finish": "tool_calls"})

    async with world() as here:
        here.models.script = uses_a_tool
        one = await first(here)
        result = {"type": "function_call_output", "call_id": "call_1", "output": "found"}
        await (await call(here, messages=(result,), previous=one.kept_as)).wait_for_answer()
        use = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"}
        assert await sent(here) == [USER, use, result]


async def test_it_says_which_run_a_request_belongs_to_unless_a_header_does():
    async with world() as here:
        one = await first(here, by=caller(run="r1"))
        then = {"previous": one.kept_as}
        assert (await call(here, "a", **then, session="s")).run_spending.task == one.run_spending.task
        assert (await call(here, "b", **then, by=caller(run="r2"))).run_spending.task != one.run_spending.task
        other = await call(here, "c", by=caller(run="r3"))
        named = await call(here, "d", **then, by=caller(task=other.run_spending.task))
        assert named.run_spending.task == other.run_spending.task


async def test_a_response_of_a_run_that_is_over_goes_on_in_the_next_one():
    async with world() as here:
        one = await first(here)
        await here.doors().end_run(caller(), one.run_spending.task)
        two = await call(here, "And?", previous=one.kept_as)
        await two.wait_for_answer()
        assert two.run_spending.task != one.run_spending.task
        assert [row["content"] for row in await sent(here)] == ["hello", "answer 1", "And?"]


async def test_the_same_request_again_is_the_same_response_also_at_another_replica():
    async with world() as here:
        one = await first(here)
        two = await call(here, "And?", previous=one.kept_as, keep=True)
        await two.wait_for_answer()
        await here.mesh.start("doors", "1")
        again = await call(here, "And?", previous=one.kept_as, keep=True, by=caller(retry=True), instance="1")
        assert (again.call_id, again.kept_as) == (two.call_id, two.kept_as)
        assert (await again.wait_for_answer()).text == "answer 2" and len(here.models.asked) == 2


@pytest.mark.parametrize("claim", [BEN, OTHERS])
async def test_a_response_of_another_person_or_tenant_is_not_there(claim):
    async with world() as here:
        one = await first(here)
        with pytest.raises(DoorRefusal) as told:
            await call(here, "mine?", previous=one.kept_as, by=caller(claim=claim))
        assert (told.value.status, told.value.code) == (404, "previous_response_not_found")
        assert told.value.field == "previous_response_id" and len(here.gateway.requested) == 1


async def test_what_is_not_kept_not_known_or_no_response_is_not_there():
    async with world() as here:
        stored = await call(here)
        await stored.wait_for_answer()
        assert stored.kept_as == ""
        [message] = here.models.asked[0].conversation.messages
        for name in (f"resp_{stored.call_id}", f"resp_{'0' * 64}", f"resp_{message.sha256}", "x" * 150):
            with pytest.raises(DoorRefusal, match="there is no response") as told:
                await call(here, "on", previous=name)
            assert told.value.status == 404


async def test_a_response_that_failed_or_is_not_there_yet_is_no_response():
    async with world() as here:
        here.models.script = lambda models, message, request: refused(models, request)
        stored = await call(here, keep=True)
        with pytest.raises(DoorRefusal):
            await stored.wait_for_answer()
        with pytest.raises(DoorRefusal, match="there is no response"):
            await call(here, "on", previous=stored.kept_as)
        here.models.away = True
        waiting = await call(here, "slow", keep=True)
        with pytest.raises(DoorRefusal, match="there is no response"):
            await call(here, "on", previous=waiting.kept_as)
        await until(lambda: here.doors().calls.in_flight.count == 1)


async def refused(models, request) -> ModelCallReplied:
    return models.refused(request, "provider_error", "no")


async def test_nobody_writes_the_record_of_a_response_himself():
    """Options are stored as the agent sent them, under an id that it can compute."""
    async with world() as here:
        one = await first(here)
        forged = {"task": one.run_spending.task, "call_id": one.call_id, "instructed": False}
        forged["conversation"] = here.models.asked[0].conversation.model_dump(mode="json")
        await (await call(here, "a", options=forged)).wait_for_answer()
        stored = here.models.asked[-1].conversation.options
        with pytest.raises(DoorRefusal, match="there is no response"):
            await call(here, "b", previous=f"resp_{stored.sha256}")
