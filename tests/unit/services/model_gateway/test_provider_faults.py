"""Every way in which a provider fails, one by one, over a real socket: the name, the money, the next attempt."""

import asyncio
import time

import pytest

from bulkhead.health.sources.journal import JournalReader
from bulkhead.health.thresholds import DEFAULT
from bulkhead.health.watch import Watch
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.result import Usage
from tests.unit.services.model_gateway.gateway_desk import deltas, desk
from tests.unit.services.model_gateway.scripted_provider import Exchange, ScriptedProvider, chunk, fails, says

REAL = Usage(model_calls=1, input_tokens=100, output_tokens=20, cost_usd_micros=27)
"""100 tokens at 0.15 and 20 at 0.60 dollars per million."""


@pytest.fixture
async def provider():
    async with ScriptedProvider() as found:
        yield found


# Faults


async def test_429_is_retried_after_the_time_that_it_names_and_costs_nothing(provider):
    provider.will(fails(429, "slow down", retry_after="0.3"), says("ok"))
    async with desk(provider) as d:
        began = time.monotonic()
        reply = await d.answered()
        assert time.monotonic() - began >= 0.3
        assert reply.provider_attempts == 2 and reply.usage == REAL and reply.standing == "ok"
        first, second = await d.settled(2)
        assert first.usage == Usage() and not first.estimated and second.usage == REAL
        assert len({one.reservation_id for one in d.purse.asked}) == 2


async def test_429_beyond_the_deadline_is_told_at_once(provider):
    provider.will(fails(429, "slow down", retry_after="3600"))
    async with desk(provider) as d:
        began = time.monotonic()
        reply = await d.ask()
        assert time.monotonic() - began < 5
        assert reply.outcome == "failed" and reply.failure.code == "rate_limited" and reply.provider_attempts == 1
        assert reply.usage == Usage()
        assert "asks to wait 3600 s" in reply.failure.message and "longer deadline" in reply.failure.hint


@pytest.mark.parametrize("status", [500, 503])
async def test_5xx_is_retried_and_given_up(provider, status):
    provider.will(fails(status, "overloaded"))
    async with desk(provider, provider_attempts=3) as d:
        reply = await d.ask()
        assert (
            reply.outcome == "failed"
            and reply.failure.code == "provider_error"
            and str(status) in reply.failure.message
        )
        assert len(provider.asked) == 3 == reply.provider_attempts and reply.standing == "failed"
        assert all(one.usage == Usage() for one in await d.settled(3)) and reply.usage == Usage()


async def test_a_stall_is_cut_charged_by_what_came_and_retried(provider):
    async def stalls(x: Exchange) -> None:
        await x.begin()
        await x.event(chunk({"content": "half an"}))
        assert await x.hung_up()

    provider.will(stalls, says("a whole answer"))
    async with desk(provider, stall_timeout_s=0.2) as d:
        live = await d.live()
        reply = await d.answered()
        assert await d.text(reply.content) == "a whole answer"
        heard = await deltas(live, "a whole answer")
        assert heard[0].text == "half an" and heard[1].offset == 0
        first, second = await d.settled(2)
        worst, used = d.purse.asked[0].worst_case, first.usage
        assert 0 < used.output_tokens < 100 and used.input_tokens + 2_000 == worst.tokens
        assert used == used.as_estimate() and 0 < used.estimated_usd_micros < worst.cost_usd_micros
        assert (first.failed, second.failed, second.usage.estimated_usd_micros) == ("timeout", "", 0)
        assert reply.usage == used + second.usage, "what was wasted is shown"


async def test_arguments_that_came_before_a_cut_are_charged(provider):
    async def breaks_off(x: Exchange) -> None:
        await x.begin()
        call = {"index": 0, "id": "c1", "function": {"name": "search", "arguments": "x" * 300}}
        await x.event(chunk({"tool_calls": [call]}))
        await x.end()

    provider.will(breaks_off)
    async with desk(provider, provider_attempts=1) as d:
        reply = await d.ask()
        assert reply.failure.code == "truncated_stream" and 100 <= reply.usage.output_tokens < 150


@pytest.mark.parametrize(("may_be_silent_s", "code"), [(0.2, "timeout"), (30.0, "deadline_too_short")])
async def test_silence_until_the_deadline_is_the_providers_fault_where_it_had_its_time(provider, may_be_silent_s, code):
    async def silent(x: Exchange) -> None:
        assert await x.hung_up()

    provider.will(silent)
    async with desk(provider, provider_attempts=1, stall_timeout_s=may_be_silent_s) as d:
        reply = await d.ask(d.request(stream=False, deadline_unix_ms=d.now_ms() + 300))
        assert reply.outcome == "failed" and reply.failure.code == code
        (settled,) = await d.settled(1)
        assert settled.failed == code and settled.usage == settled.usage.as_estimate()
        assert 10 <= settled.usage.output_tokens < 200, "a silent model may have reasoned"


async def test_a_deadline_that_cuts_an_answer_which_comes_is_no_fault_of_its_provider(provider):
    async def streams(x: Exchange) -> None:
        await x.begin()
        while True:
            await x.event(chunk({"content": "word "}))
            await asyncio.sleep(0.05)

    provider.will(streams)
    async with desk(provider, provider_attempts=1, stall_timeout_s=0.3) as d:
        reply = await d.ask(d.request(stream=False, deadline_unix_ms=d.now_ms() + 800))
        assert reply.failure.code == "deadline_too_short"


async def test_a_call_ends_with_what_a_limit_of_wall_time_leaves(provider):
    async def silent(x: Exchange) -> None:
        assert await x.hung_up()

    provider.will(silent, says("x"))
    async with desk(provider) as d:
        d.purse.wall_ms = 300
        reply = await d.ask(d.request(stream=False, deadline_unix_ms=d.now_ms() + 8_000))
        assert reply.outcome == "failed" and reply.failure.code == "deadline_too_short"
        assert len(provider.asked) == 1, "what the first attempt took is not there for a second one"
        first, second = await d.settled(2)
        assert 300 <= first.wall_ms < 5_000 and second.usage == Usage()


async def test_a_passed_deadline_makes_no_call(provider):
    provider.will(says("x"))
    async with desk(provider) as d:
        reply = await d.ask(d.request(deadline_unix_ms=d.now_ms() - 1))
        assert (reply.outcome, reply.failure.code) == ("refused", "deadline_exceeded")
        assert not provider.asked and not d.purse.asked


async def test_a_deadline_that_passes_while_budget_is_asked_makes_no_call_and_costs_nothing(provider):
    provider.will(says("x"))
    async with desk(provider) as d:
        d.purse.delay_s = 0.3
        reply = await d.ask(d.request(deadline_unix_ms=d.now_ms() + 250))
        assert (reply.outcome, reply.failure.code) == ("refused", "deadline_exceeded")
        assert not provider.asked and reply.provider_attempts == 0
        (settled,) = await d.settled(1)
        assert settled.usage == Usage() and not settled.estimated


async def test_calls_that_waited_past_their_deadline_do_not_open_the_breaker_of_their_model(provider):
    journal, watch = JournalReader(), Watch(DEFAULT)
    async with desk(provider) as d:
        for number in range(DEFAULT.breakers.min_calls):
            await d.ask(d.request(call_id=f"c{number}", deadline_unix_ms=d.now_ms() - 1))
        stored = await d.mesh.messages(subjects.inbox_stream("worker"), "mesh.model_gateway.worker.>")
    events = [event for one in stored for event in journal.read(one.subject, one.headers, one.body, one.time_unix_ms)]
    assert len(stored) == DEFAULT.breakers.min_calls and not journal.unreadable
    assert [trip for event in events for trip in watch.fold_event(event) or ()] == []
    assert not watch.breakers.states


async def test_a_body_that_never_ends_is_bounded(provider, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_PROVIDER_RESPONSE_BYTES", 100_000)

    async def script(x: Exchange) -> None:
        await x.begin("application/json")
        while True:
            await x.piece(b" " * 10_000)

    provider.will(script)
    async with desk(provider) as d:
        reply = await d.ask()
        assert reply.failure.code == "provider_error" and "100000 bytes" in reply.failure.message
        assert reply.usage.output_tokens == 2_000 and reply.usage.estimated_tokens, "as much as was reserved"


async def test_an_answer_of_many_tokens_is_whole_whatever_their_framing_takes(provider, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_PROVIDER_RESPONSE_BYTES", 10_000)
    text = " ".join(map(str, range(300)))
    provider.will(says(text))
    async with desk(provider) as d:
        reply = await d.answered()
        assert await d.text(reply.content) == text


async def test_every_retry_is_a_new_reservation_also_after_a_redelivery(provider):
    provider.will(fails(500), says("x"))
    async with desk(provider) as d:
        await d.answered()
        await d.answered(d.request())  # the same call again: answered from the record
        assert len(provider.asked) == 2 and len(d.purse.asked) == 2
        provider.will(fails(500), says("x"))
        await d.answered(d.request(call_id="c2"))
        assert len({one.reservation_id for one in d.purse.asked}) == 4
