"""The models of a route: chains, hedges, escalation, and what a reply tells of them. Providers are real sockets."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from bulkhead_contracts.result import Usage
from bulkhead_services.model_gateway.routing import deployments
from tests.unit.services.model_gateway.gateway_desk import PRICED, deltas, desk
from tests.unit.services.model_gateway.scripted_provider import (
    Exchange,
    ScriptedProvider,
    calls,
    chunk,
    fails,
    says,
    usage,
)

FREE = tuple(f"m{number}" for number in range(12))


@pytest.fixture
async def servers():
    """Makes as many providers as a test asks for."""
    async with AsyncExitStack() as stack:

        async def make(count: int) -> list[ScriptedProvider]:
            return [await stack.enter_async_context(ScriptedProvider()) for _ in range(count)]

        yield make


def chain(*servers: ScriptedProvider, **more: Any) -> dict[str, Any]:
    """Settings of a route over these: m0 at p0, and so on."""
    rows = [{"model": f"m{number}", "provider": f"p{number}"} for number in range(len(servers))]
    return {
        "providers": {f"p{number}": {"base_url": one.url, "api_key": "k"} for number, one in enumerate(servers)},
        "routes": {"default": {**rows[0], "fallback": rows[1:], **more}},
        "free_models": FREE,
    }


async def silent(x: Exchange) -> None:
    assert await x.hung_up()


def late(text: str, after_s: float):
    async def script(x: Exchange) -> None:
        await asyncio.sleep(after_s)
        await says(text)(x)

    return script


# Chains


async def test_a_chain_is_asked_in_order_and_the_reply_names_those_that_were_out(servers):
    first, second, third = await servers(3)
    first.will(fails(503))
    second.will(fails(429, "busy"))
    third.will(says("from the third"))
    async with desk(first, provider_attempts=1, **chain(first, second, third)) as d:
        reply = await d.answered()
        assert await d.text(reply.content) == "from the third" and reply.provider == "p2"
        assert reply.standing == "degraded" and reply.chosen_as == "fallback" and reply.provider_attempts == 3
        assert reply.standing_reason == "m2 answered in place of m0 (provider_error), m1 (rate_limited)"


async def test_each_model_of_a_chain_has_its_share_of_the_time(servers):
    first, second, third = await servers(3)
    first.will(silent)
    second.will(silent)
    third.will(says("in time"))
    async with desk(first, **chain(first, second, third)) as d:
        began = time.monotonic()
        reply = await d.answered(d.request(deadline_unix_ms=d.now_ms() + 1_500))
        assert time.monotonic() - began < 1.5
        assert reply.standing_reason == "m2 answered in place of m0 (deadline_too_short), m1 (deadline_too_short)"


@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.slow
async def test_ten_providers_that_are_down_are_each_named_once_within_the_deadline(servers, hangs):
    found = await servers(10)
    for one in found:
        one.will(silent if hangs else fails(503, "down"))
    async with desk(found[0], provider_attempts=2, **chain(*found)) as d:
        began = time.monotonic()
        reply = await d.ask(d.request(deadline_unix_ms=d.now_ms() + 8_000))
        assert time.monotonic() - began < 8.5 and reply.outcome == "failed"
        message = reply.failure.message
        assert [message.count(f"m{number} at p{number}:") for number in range(10)] == [1] * 10
        assert f"no answer from 10 models in {reply.provider_attempts} calls" in message
        assert reply.provider_attempts == (10 if hangs else 20) and len(await d.settled(reply.provider_attempts))


async def test_a_model_that_failed_alone_tells_how_many_calls_it_took(servers):
    (only,) = await servers(1)
    only.will(fails(503, "down"))
    async with desk(only, provider_attempts=3) as d:
        assert "(in 3 calls)" in (await d.ask()).failure.message


async def test_a_model_that_failed_again_and_again_waits_behind_its_fallback_until_a_trial(servers):
    first, second = await servers(2)
    first.will(fails(503))
    second.will(says("x"))
    async with desk(first, **chain(first, second)) as d:
        replies = [await d.answered(d.request(call_id=f"c{number}")) for number in range(4)]
        assert len(first.asked) == deployments.FAILURES_TO_EJECT and len(second.asked) == 4
        assert replies[0].standing_reason == "m1 answered in place of m0 (provider_error)"
        assert replies[3].standing_reason == "m1 answered in place of m0 (ejected after failures)"
        assert replies[3].provider_attempts == 1 and replies[3].standing == "degraded"
        first.will(says("back"))
        second.will(fails(503))
        out = await d.answered(d.request(call_id="c5"))
        assert await d.text(out.content) == "back" and out.standing == "ok", "and is asked when nobody else answers"
        assert await d.text((await d.answered(d.request(call_id="c6"))).content) == "back"


# Waits


async def test_waits_for_a_provider_are_told(servers):
    (only,) = await servers(1)
    only.will(fails(429, retry_after="0.3"), fails(429, retry_after="0.3"), says("x"))
    async with desk(only) as d:
        reply = await d.answered()
        assert 550 <= reply.waited_ms <= reply.duration_ms
        assert reply.waited_for == "openai after rate_limited (2 times)"


async def test_a_call_that_waited_for_nothing_tells_no_wait(servers):
    (only,) = await servers(1)
    only.will(says("x"))
    async with desk(only) as d:
        reply = await d.answered()
        assert (reply.waited_ms, reply.waited_for, reply.chosen_as) == (0, "", "first")


# Hedges


async def test_a_hedge_answers_for_a_silent_model_and_both_are_paid(servers):
    first, second = await servers(2)
    cut = asyncio.Event()

    async def hangs(x: Exchange) -> None:
        assert await x.hung_up()
        cut.set()

    first.will(hangs)
    second.will(says("hedged"))
    given = chain(first, second, hedge_after_ms=100)
    given["routes"]["default"]["model"] = PRICED
    async with desk(first, **given) as d:
        live = await d.live()
        began = time.monotonic()
        reply = await d.answered()
        assert time.monotonic() - began < 5 and await d.text(reply.content) == "hedged"
        await deltas(live, "hedged")
        await asyncio.wait_for(cut.wait(), 5)
        assert reply.chosen_as == "hedge" and reply.standing == "degraded" and "100 ms" in reply.standing_reason
        lost, won = await d.settled(2)
        worst = d.purse.asked[0].worst_case.cost_usd_micros
        assert 0 < lost.usage.estimated_usd_micros == lost.usage.cost_usd_micros <= worst and lost.failed == "hedged"
        assert not won.usage.estimated_usd_micros and won.usage.input_tokens == 100
        assert reply.usage == lost.usage + won.usage and reply.provider_attempts == 2


async def test_a_model_that_speaks_in_time_is_not_hedged(servers):
    first, second = await servers(2)

    async def speaks_and_thinks(x: Exchange) -> None:
        await x.begin()
        await x.event(chunk({"content": "one"}))
        await asyncio.sleep(0.4)
        await x.event(chunk(finish="stop", usage=usage()))
        await x.event("[DONE]")
        await x.end()

    first.will(speaks_and_thinks)
    second.will(says("x"))
    async with desk(first, **chain(first, second, hedge_after_ms=150)) as d:
        reply = await d.answered()
        assert await d.text(reply.content) == "one" and reply.chosen_as == "first" and not second.asked


async def test_a_tool_call_counts_as_the_first_word(servers):
    first, second = await servers(2)

    async def calls_slowly(x: Exchange) -> None:
        call = {"index": 0, "id": "c", "type": "function", "function": {"name": "calculate", "arguments": "{}"}}
        await x.begin()
        await x.event(chunk({"tool_calls": [call]}))
        await asyncio.sleep(0.4)
        await x.event(chunk(finish="tool_calls", usage=usage()))
        await x.event("[DONE]")
        await x.end()

    first.will(calls_slowly)
    second.will(calls({"id": "b", "name": "search", "arguments": "{}"}))
    async with desk(first, **chain(first, second, hedge_after_ms=150)) as d:
        reply = await d.answered()
        assert [one.name for one in reply.tool_calls] == ["calculate"] and not second.asked


async def test_the_first_may_still_win_against_its_hedge_and_its_words_alone_are_live(servers):
    first, second = await servers(2)
    first.will(late("the first", 0.3))
    second.will(silent)
    async with desk(first, **chain(first, second, hedge_after_ms=50)) as d:
        live = await d.live()
        reply = await d.answered()
        assert await d.text(reply.content) == "the first" and reply.standing == "ok" and reply.chosen_as == "first"
        await deltas(live, "the first")
        assert len(second.asked) == 1 and len(await d.settled(2)) == 2


async def test_a_hedge_that_fails_leaves_the_first_alone(servers):
    first, second = await servers(2)
    first.will(late("the first", 0.4))
    second.will(fails(400, "no"))
    async with desk(first, **chain(first, second, hedge_after_ms=50)) as d:
        assert await d.text((await d.answered()).content) == "the first"


async def test_a_hedge_without_money_is_left_out(servers):
    first, second = await servers(2)
    first.will(late("the first", 0.4))
    second.will(says("x"))
    async with desk(first, **chain(first, second, hedge_after_ms=50)) as d:
        d.purse.decisions = ["reserved", "refused"]
        assert await d.text((await d.answered()).content) == "the first" and not second.asked


async def test_one_model_is_hedged_at_its_other_address(servers):
    first, second = await servers(2)
    first.will(silent)
    second.will(says("from the other address"))
    provider = {"base_urls": [first.url, second.url], "api_key": "k"}
    routes = {"default": {"model": "m0", "provider": "p", "hedge_after_ms": 100}}
    async with desk(first, providers={"p": provider}, routes=routes, free_models=FREE) as d:
        reply = await d.answered()
        assert reply.chosen_as == "hedge" and reply.standing == "ok" and len(first.asked) == len(second.asked) == 1


async def test_a_hedge_that_spoke_and_broke_leaves_the_chain_to_go_on(servers):
    first, second, third = await servers(3)

    async def breaks(x: Exchange) -> None:
        await x.begin()
        await x.event(chunk({"content": "half"}))
        x.drop()

    first.will(silent)
    second.will(breaks)
    third.will(says("whole"))
    async with desk(first, provider_attempts=1, **chain(first, second, third, hedge_after_ms=50)) as d:
        reply = await d.answered(d.request(deadline_unix_ms=d.now_ms() + 4_000))
        assert await d.text(reply.content) == "whole" and reply.provider == "p2"
        assert all(one.usage != Usage() for one in await d.settled(3))


# Escalation


async def test_a_second_attempt_at_a_step_is_answered_by_the_escalation(servers):
    cheap, strong = await servers(2)
    cheap.will(says("cheap"))
    strong.will(says("strong"))
    given = chain(cheap, strong)
    given["routes"]["default"] = {"model": "m0", "provider": "p0", "escalation": {"model": "m1", "provider": "p1"}}
    async with desk(cheap, **given) as d:
        first = await d.answered()
        again = await d.answered(d.request(call_id="c2", attempt=2))
        assert [await d.text(one.content) for one in (first, again)] == ["cheap", "strong"]
        assert [one.chosen_as for one in (first, again)] == ["first", "escalation"] and again.standing == "ok"
        strong.will(fails(503))
        out = await d.answered(d.request(call_id="c3", attempt=3, deadline_unix_ms=d.now_ms() + 4_000))
        assert await d.text(out.content) == "cheap" and out.standing == "degraded"
