"""Calls that nobody follows any more: their providers are told, once nobody follows them at any replica."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bulkhead_contracts.model import CallAbandoned, CallFollowers, ModelCallRequested
from bulkhead_services.doors import model_call
from bulkhead_services.doors.port import DoorRefusal
from tests.eventually import until
from tests.unit.services.doors.doors_world import TENANT, Models, caller, world

pytestmark = pytest.mark.virtual_time


@asynccontextmanager
async def abandoned(here) -> AsyncIterator[list[str]]:
    """Calls that a model gateway hears to be abandoned."""
    calls = list[str]()
    subscription = await here.mesh.context("model_gateway").bus.subscribe_live("live.doors.>", 1_000)

    async def hear() -> None:
        async for live in subscription:
            if b"call_id" in live.body:
                calls.append(CallAbandoned.model_validate_json(live.body).call_id)

    hearing = asyncio.create_task(hear())
    yield calls
    hearing.cancel()
    await subscription.close()


def held(text: str):
    """A script that answers when it may go."""
    go = asyncio.Event()

    async def script(models: Models, message, request: ModelCallRequested):
        await models.say(message, request, text)
        await go.wait()
        return await models.answer(message, request, text)

    return script, go


async def test_a_call_that_another_replicas_client_follows_is_not_abandoned(monkeypatch):
    monkeypatch.setattr(model_call, "AGAIN_S", 0.1)
    async with world(abandon_s=0.1) as here, abandoned(here) as notices:
        await here.mesh.start("doors", "1")
        here.models.script, go = held("Once")
        call = await here.call()
        first = call.follow_pieces()
        assert (await anext(first)).text == "Once"
        again = await here.call(by=caller(retry=True), instance="1")
        assert again.call_id == call.call_id
        second = asyncio.create_task(again.follow_pieces().__anext__())
        await asyncio.sleep(0)
        await first.aclose()
        await asyncio.sleep(0.6)  # Several times as long as a call goes on that nobody follows.
        assert notices == []
        second.cancel()
        await until(lambda: notices)
        assert set(notices) == {call.call_id}
        go.set()


async def test_a_call_whose_asker_left_before_it_followed_is_abandoned():
    async with world(abandon_s=0.1) as here, abandoned(here) as notices:
        here.models.script, go = held("Once")
        call = await here.call()
        await until(lambda: notices == [call.call_id])
        go.set()


async def test_a_call_whose_whole_answer_is_waited_for_goes_on_until_nobody_waits():
    async with world(abandon_s=0.1) as here, abandoned(here) as notices:
        here.models.script, go = held("Once")
        call = await here.call()
        waiting = asyncio.create_task(call.wait_for_answer())
        await asyncio.sleep(0.5)
        assert notices == []
        waiting.cancel()
        await until(lambda: notices == [call.call_id])
        go.set()


async def test_a_call_that_waits_for_its_turn_and_is_abandoned_is_not_sent_again(monkeypatch):
    monkeypatch.setattr(model_call, "AGAIN_S", 0.05)
    async with world(abandon_s=0.05, hold_s=5) as here:

        async def put_off(models: Models, message, request):
            return models.put_off(request, after_ms=500)

        here.models.script = put_off
        call = await here.call()
        await until(lambda: not here.doors().calls.in_flight.count)
        with pytest.raises(DoorRefusal) as told:
            await call.wait_for_answer()
        assert (told.value.status, told.value.code, told.value.retry) == (503, "abandoned", True)
        assert len(here.models.asked) == 1


async def test_a_client_that_comes_after_the_answer_has_all_of_it_and_follows_nothing():
    async with world() as here:
        call = await here.call()
        await until(lambda: not here.doors().calls.in_flight.count)
        assert "".join([piece.text async for piece in call.follow_pieces()]) == "answer 1"
        bus, notices = here.mesh.context("doors").bus, list[CallFollowers]()
        subscription = await bus.subscribe_live("live.doors.>", 1_000)

        async def hear() -> None:
            async for live in subscription:
                notices.append(CallFollowers.model_validate_json(live.body))

        hearing = asyncio.create_task(hear())
        subject = f"live.doors.{TENANT}.{call.run_spending.task}"
        await bus.publish_live(subject, CallFollowers(about=call.call_id).model_dump_json().encode())
        await until(lambda: notices)
        await asyncio.sleep(0.1)
        assert [notice.followed for notice in notices] == [False], "the question alone"
        hearing.cancel()
        await subscription.close()
