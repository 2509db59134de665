"""Delegated steps whose calls are held back: handed to nobody for a while, and never stuck."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bulkhead.callers.step_keys import WorkerIdentity
from bulkhead_contracts.control import CallDeferred, CallResumed
from bulkhead_contracts.delegation import StepAnswer
from bulkhead_contracts.step import DelegationReplied
from bulkhead_contracts.task import RequesterClaim
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested, ToolSpec, WriteResolution
from bulkhead_services.doors.mcp.port import ParsedToolCall, ToolCallAnswer
from bulkhead_services.doors.port import Caller, DoorRefusal
from bulkhead_services.doors.steps import feed as feeds
from tests.eventually import until
from tests.unit.services.doors.steps_world import StepsWorld, steps_world

pytestmark = pytest.mark.virtual_time


async def held(here: StepsWorld, times: int = 1) -> None:
    """The worker has heard so often that the step is held back."""
    await until(lambda: told(here, CallDeferred, times))


async def told(here: StepsWorld, kind, times: int) -> bool:
    return len(await here.bodies(kind, "worker")) == times


async def test_a_step_whose_call_is_never_resumed_goes_to_the_next_holder(monkeypatch):
    monkeypatch.setattr(feeds, "HELD_MS", 1_000)
    async with steps_world(step_silent_s=0.2) as here:
        await here.hand_over()
        step = await here.take()
        await here.put_off(step, after_ms=0)
        await held(here)
        with pytest.raises(DoorRefusal, match="held back"):
            await here.desk().submit_answer(here.key(step), StepAnswer(failed="no model answers"))
        assert await here.take(0.5) is None, "nobody is handed what nobody may work on"
        again = await here.take()
        assert (again.id, again.number) == (step.id, 2)
        await until(lambda: told(here, CallResumed, 1))
        assert (await here.desk().submit_answer(here.key(again), StepAnswer(failed="its own reasons"))).accepted


async def test_each_taking_that_meets_the_same_is_followed_by_a_longer_wait(monkeypatch):
    monkeypatch.setattr(feeds, "HELD_MS", 100)
    async with steps_world(step_silent_s=0.1) as here:
        await here.hand_over()
        waits = []
        for number in (1, 2, 3):
            step = await here.take()
            assert step.number == number
            feed = here.desk().open.step_feed(*here.place(step))
            before = here.worker.clock()
            await here.put_off(step, after_ms=0)
            await held(here, number)
            await feed.refresh()
            waits.append(round((feed.held_until_unix_ms - before) / 100))
        assert waits == [1, 2, 4]
        await here.say("model_gateway", CallResumed(call_id=f"{step.id[:12]}-{'0' * 32}"), "resumed")
        await until(lambda: told(here, CallResumed, 3))
        assert feed.held_until_unix_ms == 0


async def test_a_call_that_waits_for_a_person_holds_its_step_as_long_as_he_may_take(monkeypatch):
    monkeypatch.setattr(feeds, "HELD_MS", 50)
    async with steps_world(step_silent_s=0.1) as here:
        await here.hand_over()
        step = await here.take()
        until_ms = here.worker.clock() + 1_500
        await here.put_off(step, after_ms=0, code="approval_wanted", until_unix_ms=until_ms)
        await held(here)
        assert await here.take(0.5) is None
        assert (await here.take()).number == 2
        assert here.worker.clock() >= until_ms


def resolved(call_id: str, happened: bool, **fields: Any) -> ToolCallReplied:
    word = WriteResolution(happened=happened, person="eve", role="operator", reason="I looked", resolved_unix_ms=1)
    outcome = "succeeded" if happened else "failed"
    return ToolCallReplied(call_id=call_id, step_id="a", outcome=outcome, resolution=word, **fields)


@pytest.mark.parametrize(
    ("happened", "code"), [(None, "uncertain_effect"), (True, "uncertain_effect"), (False, "worker_failed")]
)
async def test_a_step_that_failed_with_a_write_that_may_be_made_is_tried_by_no_other_attempt(happened, code):
    async with steps_world() as here:
        await here.hand_over()
        step = await here.take()
        call = f"{step.id[:12]}-{'0' * 48}"
        await here.say("tool_executor", ToolCallReplied(call_id=call, step_id="a", outcome="uncertain"), "reply")
        if happened is not None:
            await here.say("tool_executor", resolved(call, happened), "resolved")
        assert (await here.desk().submit_answer(here.key(step), StepAnswer(failed="the tool gave no answer"))).accepted
        [reply] = await until(lambda: here.bodies(DelegationReplied, "worker"))
        assert reply.failure.code == code


CallTool = Callable[[int, str], asyncio.Task[ToolCallAnswer]]


@asynccontextmanager
async def two_attempts() -> AsyncIterator[tuple[StepsWorld, CallTool, ToolCallRequested]]:
    """Two attempts in hand, and a write of the first that is in doubt."""
    pay = ToolSpec(name="pay", description="Pays.", parameters_json='{"type": "object"}', effect="write")
    async with steps_world() as here:
        other = WorkerIdentity("demo", "wrk_other")
        await here.hand_over()
        await here.hand_over(to=other)
        steps = [await here.take(), await here.take(by=other)]

        def call_tool(attempt: int, request: str) -> asyncio.Task[ToolCallAnswer]:
            tool_call = ParsedToolCall(pay, {"sum": 1}, request, unique=True, keyed=request.startswith("key/"))
            claim = RequesterClaim(tenant="demo", person="ann", role="submitter", via="api_key")
            caller = Caller(claim=claim, token="", step=here.key(steps[attempt]))
            return asyncio.create_task(here.doors().call_tool(caller, tool_call))

        first = call_tool(0, "request-1")
        [asked] = await until(lambda: here.bodies(ToolCallRequested, "tool_executor"))
        reply = ToolCallReplied(call_id=asked.call_id, step_id="a", outcome="uncertain")
        await here.say("tool_executor", reply, "reply")
        assert (await first).outcome == "uncertain"
        yield here, call_tool, asked


async def test_a_write_in_doubt_of_another_attempt_is_not_made_again():
    async with two_attempts() as (here, call_tool, _):
        with pytest.raises(DoorRefusal, match="in another step or attempt") as refused:
            await call_tool(1, "request-2")
        assert refused.value.code == "uncertain" and "idempotency-key" in refused.value.hint
        waiting = call_tool(1, "key/looked")
        await until(lambda: told_calls(here, 2))
        waiting.cancel()


@pytest.mark.parametrize("request_id", ["request-1", "request-2"])
async def test_a_write_of_another_attempt_that_happened_answers_the_call_alike_and_is_not_made_again(request_id):
    async with two_attempts() as (here, call_tool, asked):
        content = await here.worker.blobs.put("demo", "receipt 17")
        await here.say("tool_executor", resolved(asked.call_id, True, content=content), "resolved")
        answer = await call_tool(1, request_id)
        assert (answer.outcome, answer.text) == ("succeeded", "receipt 17")
        assert await call_tool(1, request_id) == answer, "the same request has the same answer"
        assert await told_calls(here, 1)
        waiting = call_tool(1, "request-3")
        await until(lambda: told_calls(here, 2))  # Its answer was heard: a call alike is another act again.
        waiting.cancel()


async def test_a_write_of_another_attempt_that_did_not_happen_is_made_by_the_call_alike():
    async with two_attempts() as (here, call_tool, asked):
        await here.say("tool_executor", resolved(asked.call_id, False), "resolved")
        waiting = call_tool(1, "request-2")
        await until(lambda: told_calls(here, 2))
        waiting.cancel()


async def told_calls(here: StepsWorld, times: int) -> bool:
    return len(await here.bodies(ToolCallRequested, "tool_executor")) == times
