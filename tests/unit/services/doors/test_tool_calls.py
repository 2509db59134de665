"""Calls of tools in flight: each is of its caller's share from its start to its end, whoever waits for it."""

import asyncio

import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.result import Failure
from bulkhead_contracts.tool import ToolCallReplied, ToolCallRequested, ToolSpec
from bulkhead_contracts.types import Body
from bulkhead_services.doors.mcp import calls as tool_calls
from bulkhead_services.doors.mcp.port import ParsedToolCall, ToolCallAnswer
from bulkhead_services.doors.port import DoorRefusal
from tests.eventually import until
from tests.unit.services.doors.doors_world import CLAIM, TENANT, World, caller, world

pytestmark = pytest.mark.virtual_time

LOOK = ToolSpec(name="look", description="Looks.", parameters_json='{"type": "object"}')


def look(here: World, number: int, **more: object) -> asyncio.Task[ToolCallAnswer]:
    asked = ParsedToolCall(LOOK.model_copy(update=more), {"number": number}, f"request-{number}", unique=True)
    return asyncio.create_task(here.doors().call_tool(caller(), asked))


async def sent(here: World, count: int) -> list[StoredMessage]:
    """The calls that the tool executor has, once they are so many."""

    async def enough() -> list[StoredMessage]:
        found = await here.mesh.messages("INBOX_TOOL_EXECUTOR", "mesh.doors.>")
        return found if len(found) >= count else []

    found: list[StoredMessage] = await until(enough)
    return found


async def answered(here: World, stored: StoredMessage, outcome: str = "succeeded", code: str = "") -> None:
    request = ToolCallRequested.model_validate_json(stored.body)
    reply = ToolCallReplied(call_id=request.call_id, step_id=request.step_id, outcome="succeeded")
    if code:
        failure = Failure.from_text(code, "the reason")
        reply = reply.model_copy(update={"outcome": outcome, "failure": failure, "standing": "failed"})
    await tell(here, stored, reply)


async def tell(here: World, stored: StoredMessage, body: Body) -> None:
    publisher, task = here.mesh.context("tool_executor").publisher, stored.task
    await publisher.send("doors", body, tenant=TENANT, task=task, cause=stored.ce_id, index="reply")


@pytest.mark.parametrize(
    ("bound", "status"), [("max_calls", 503), ("max_calls_per_tenant", 429), ("max_calls_per_person", 429)]
)
async def test_more_tool_calls_in_flight_than_are_allowed_are_told_to_come_again(bound, status):
    async with world(**{bound: 2}) as here:
        calls = [look(here, number) for number in range(2)]
        first, second = await sent(here, 2)
        calls[0].cancel()  # Who goes away leaves the call in flight, and in the share.
        with pytest.raises(DoorRefusal) as told:
            await look(here, 2)
        assert (told.value.status, told.value.code) == (status, "too_many_calls")
        assert (told.value.retry, told.value.retry_after_s) == (True, 1.0)
        for stored in (first, second):
            await answered(here, stored)
        assert (await calls[1]).outcome == "succeeded"
        await until(lambda: not here.doors().tool_calls.in_flight.count)
        calls = [look(here, number) for number in (3, 4)]
        for stored in (await sent(here, 4))[2:]:
            await answered(here, stored)
        assert [(await call).outcome for call in calls] == ["succeeded"] * 2


async def test_as_many_calls_at_once_are_no_more_than_are_allowed():
    async with world(max_calls_per_person=2) as here:
        calls = [look(here, number) for number in range(5)]
        await until(lambda: sum(call.done() for call in calls) >= 3)
        for stored in await sent(here, 2):
            await answered(here, stored)
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(end, DoorRefusal) and end.code == "too_many_calls" for end in ends) == 3
        assert len(await sent(here, 2)) == 2


async def test_the_same_request_twice_at_once_is_one_call_and_each_asker_has_its_outcome():
    async with world() as here:
        calls = [look(here, 1) for _ in range(2)]
        [stored] = await sent(here, 1)
        calls[0].cancel()
        await answered(here, stored)
        assert (await calls[1]).outcome == "succeeded" and len(await sent(here, 1)) == 1


async def test_a_replica_that_goes_away_tells_those_who_wait_to_come_again():
    async with world() as here:
        waiting = look(here, 1)
        await sent(here, 1)
        await here.doors().tool_calls.in_flight.cancel_calls()
        with pytest.raises(DoorRefusal, match="this replica goes away") as told:
            await waiting
        assert (told.value.status, told.value.retry_after_s) == (503, 1.0)


PAY = ToolSpec(name="pay", description="Pays.", parameters_json='{"type": "object"}', effect="write")


def pay(here: World, request: int, instance: str = "0") -> asyncio.Task[ToolCallAnswer]:
    asked = ParsedToolCall(PAY, {"sum": 1}, f"request-{request}", unique=True)
    return asyncio.create_task(here.doors(instance).call_tool(caller(), asked))


@pytest.mark.parametrize("killed", [False, True], ids=["its client went away", "its replica was killed"])
async def test_a_write_whose_answer_nobody_heard_is_joined_at_another_replica(killed):
    async with world() as here:
        await here.mesh.start("doors", "1")
        first = pay(here, 1)
        [stored] = await sent(here, 1)
        beside = pay(here, 2, "1")
        [_, other] = await sent(here, 2)  # Somebody waits for the first: this is another act.
        await answered(here, other)
        await beside
        first.cancel()
        if killed:
            here.mesh.kill_replica("doors", "0")
        again = pay(here, 3, "1")
        await asyncio.sleep(1.2)
        assert len(await sent(here, 2)) == 2, "nobody waits for it any more: it is the same act"
        await answered(here, stored)
        assert (await again).outcome == "succeeded"
        assert (await pay(here, 3, "1")).outcome == "succeeded", "a request that joined a call is that call"
        assert len(await sent(here, 2)) == 2
        last = pay(here, 4, "1")
        [*_, newest] = await sent(here, 3)
        await answered(here, newest)
        assert (await last).outcome == "succeeded", "once it was heard, a call alike is another act"


async def test_a_key_stands_for_its_call_in_the_runs_that_follow():
    async with world() as here:

        def keyed(number: int) -> asyncio.Task[ToolCallAnswer]:
            asked = ParsedToolCall(LOOK, {"number": number}, "key/k", unique=True, keyed=True)
            return asyncio.create_task(here.doors().call_tool(caller(), asked))

        for run in range(3):
            begun = look(here, run) if run else keyed(0)
            stored = (await sent(here, run + 1))[run]
            await answered(here, stored)
            assert (await begun).outcome == "succeeded"
            await here.planner.end(stored.task, "succeeded")
        assert len({stored.task for stored in await sent(here, 3)}) == 3
        assert (await keyed(0)).outcome == "succeeded" and len(await sent(here, 3)) == 3
        with pytest.raises(DoorRefusal) as refused:
            await keyed(1)
        assert (refused.value.status, refused.value.code) == (422, "idempotency_reused")


@pytest.mark.parametrize(
    ("outcome", "code", "is_made_again"),
    [
        ("refused", "deadline_exceeded", True),
        ("failed", "unavailable", True),
        ("uncertain", "unavailable", False),
        ("refused", "approval_denied", False),
    ],
)
async def test_the_same_request_again_is_made_where_it_was_not_for_a_reason_that_passes(outcome, code, is_made_again):
    async with world() as here:
        first = look(here, 1)
        [stored] = await sent(here, 1)
        await answered(here, stored, outcome, code)
        assert (await first).outcome == outcome
        again = look(here, 1)
        if is_made_again:
            _, resent = await sent(here, 2)
            ids = {ToolCallRequested.model_validate_json(message.body).call_id for message in (stored, resent)}
            assert len(ids) == 1, "it is one call to whoever keeps records"
            await answered(here, resent)
        assert (await again).outcome == ("succeeded" if is_made_again else outcome)
        assert len(await sent(here, 1)) == 1 + is_made_again


async def test_a_call_that_waits_for_a_person_until_its_time_is_over_says_so(monkeypatch):
    monkeypatch.setattr(tool_calls, "MARGIN_S", 0.5)
    async with world(call_timeout_s=0.2, hold_s=60.0) as here:
        waiting = look(here, 1, timeout_ms=200)
        [stored] = await sent(here, 1)
        request = ToolCallRequested.model_validate_json(stored.body)
        put_off = {"after_ms": 60_000, "paused": True, "code": "approval_wanted", "reason": "a person is asked"}
        await tell(here, stored, CallDeferred(call_id=request.call_id, step_id=request.step_id, **put_off))
        with pytest.raises(DoorRefusal, match="a person is asked") as told:
            await waiting
        assert told.value.code == "approval_wanted", "and not that its outcome is unknown"


def pay_under_key(here: World, key: str) -> asyncio.Task[ToolCallAnswer]:
    request = ParsedToolCall(PAY, {"sum": 1}, f"key/{key}", unique=True, keyed=True)
    return asyncio.create_task(here.doors().call_tool(caller(), request))


@pytest.mark.parametrize("run_ended", [False, True], ids=["in its run", "in the next run"])
@pytest.mark.parametrize("restarted", [False, True], ids=["same replica", "after a restart"])
async def test_a_write_that_may_have_been_made_is_the_answer_of_each_call_alike(run_ended, restarted):
    async with world() as here:
        first = pay(here, 1)
        [stored] = await sent(here, 1)
        await answered(here, stored, "uncertain", "uncertain")
        assert (await first).outcome == "uncertain"
        if run_ended:
            await here.planner.end(stored.task, "succeeded")
        instance = "0"
        if restarted:
            await here.mesh.start("doors", "1")
            instance = "1"
        for request in (2, 3):
            answer = await pay(here, request, instance)
            assert answer.outcome == "uncertain" and answer.failure is not None
            assert "idempotency-key" in answer.failure.hint
        assert len(await sent(here, 1)) == 1, "it is not made again"
        keyed = pay_under_key(here, "I have looked")
        [_, other] = await sent(here, 2)
        await answered(here, other)
        assert (await keyed).outcome == "succeeded", "a key of its own says that it is another act"
        assert (await pay(here, 4, instance)).outcome == "uncertain" and len(await sent(here, 2)) == 2


async def test_a_write_under_way_when_its_run_ended_is_not_made_again_in_the_next(monkeypatch):
    monkeypatch.setattr(tool_calls, "MARGIN_S", 0.5)
    async with world() as here:
        first = pay(here, 1)
        [stored] = await sent(here, 1)
        await here.planner.end(stored.task, "succeeded")
        with pytest.raises(DoorRefusal, match="its run has ended") as refused:
            await first
        assert "idempotency-key" in refused.value.hint
        again = pay(here, 2)
        await answered(here, stored, "uncertain", "uncertain")
        assert (await again).outcome == "uncertain"
        calls = {ToolCallRequested.model_validate_json(message.body).call_id for message in await sent(here, 1)}
        assert len(calls) == 1


ANYWHERE = [
    {"run": "nightly"},
    {"run": "another"},
    {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"},
    {"traceparent": f"00-{'3' * 32}-{'4' * 16}-01"},
    {},
]


def pay_in(here: World, request: int, instance: str = "0", **of_caller: object) -> asyncio.Task[ToolCallAnswer]:
    asked = ParsedToolCall(PAY, {"sum": 1}, f"request-{request}", unique=True)
    return asyncio.create_task(here.doors(instance).call_tool(caller(**of_caller), asked))


@pytest.mark.parametrize("restarted", [False, True], ids=["same replica", "after a restart"])
async def test_a_write_that_may_have_been_made_is_known_in_every_run_of_its_person(restarted):
    async with world() as here:
        first = pay_in(here, 1, **ANYWHERE[0])
        [stored] = await sent(here, 1)
        await answered(here, stored, "uncertain", "uncertain")
        assert (await first).outcome == "uncertain"
        if restarted:
            await here.mesh.start("doors", "1")
        for number, place in enumerate(ANYWHERE):
            assert (await pay_in(here, 2 + number, "1" if restarted else "0", **place)).outcome == "uncertain"
        assert len(await sent(here, 1)) == 1, "it is not made again"
        others = pay_in(here, 20, claim=CLAIM.model_copy(update={"person": "bob"}))
        [_, newest] = await sent(here, 2)
        await answered(here, newest)
        assert (await others).outcome == "succeeded", "another person's write is another act"


async def test_a_write_whose_result_nobody_heard_is_told_once_in_another_run():
    async with world() as here:
        first = pay_in(here, 1, **ANYWHERE[0])
        [stored] = await sent(here, 1)
        beside = pay_in(here, 2, **ANYWHERE[1])
        [_, other] = await sent(here, 2)  # Somebody waits for the first: this is another act.
        await answered(here, other)
        await beside
        first.cancel()
        await answered(here, stored)
        for _ in range(2):
            assert (await pay_in(here, 3, **ANYWHERE[2])).task == stored.task, "the same request is the same call"
        assert len(await sent(here, 2)) == 2
        last = pay_in(here, 4, **ANYWHERE[3])
        [*_, newest] = await sent(here, 3)
        await answered(here, newest)
        assert (await last).outcome == "succeeded", "once it was heard, a call alike is another act"
