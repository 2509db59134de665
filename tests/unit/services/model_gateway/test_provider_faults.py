"""Every way in which a provider fails, one by one, over a real socket: the name, the money, the next attempt."""

import time

import pytest

from bulkhead.health.sources.journal import JournalReader
from bulkhead.health.thresholds import DEFAULT
from bulkhead.health.watch import Watch
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.result import Usage
from tests.unit.services.model_gateway.gateway_desk import KEY, deltas, desk
from tests.unit.services.model_gateway.scripted_provider import Exchange, ScriptedProvider, chunk, fails, says, usage

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


async def test_spent_credit_is_not_retried(provider):
    provider.will(fails(429, "quota", "insufficient_quota"))
    async with desk(provider) as d:
        reply = await d.ask()
        assert reply.failure.code == "rate_limited" and "credit" in reply.failure.hint and len(provider.asked) == 1


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


async def test_an_error_behind_a_200_is_charged_its_input_as_an_estimate(provider):
    async def errs(x: Exchange) -> None:
        await x.json(200, {"error": {"message": "the engine is gone"}})

    provider.will(errs)
    async with desk(provider, provider_attempts=1) as d:
        reply = await d.ask()
        (settled,) = await d.settled(1)
        used = settled.usage
        assert reply.failure.code == "error_body" == settled.failed and not settled.estimated
        assert used == used.as_estimate() == reply.usage and used.output_tokens == 0
        assert used.input_tokens + 2_000 == d.purse.asked[0].worst_case.tokens


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


async def test_silence_until_the_deadline_is_a_timeout(provider):
    async def silent(x: Exchange) -> None:
        assert await x.hung_up()

    provider.will(silent)
    async with desk(provider) as d:
        reply = await d.ask(d.request(stream=False, deadline_unix_ms=d.now_ms() + 300))
        assert reply.outcome == "failed" and reply.failure.code == "timeout"
        (settled,) = await d.settled(1)
        assert settled.failed == "timeout" and settled.usage == settled.usage.as_estimate()
        assert 10 <= settled.usage.output_tokens < 200, "a silent model may have reasoned"


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
    assert not watch.circuits.found


@pytest.mark.parametrize("abrupt", [False, True])
async def test_a_stream_without_a_finish_reason_is_no_answer(provider, abrupt):
    async def cut(x: Exchange) -> None:
        await x.begin()
        await x.event(chunk({"content": "half an"}))
        if abrupt:
            x.drop()
        else:
            await x.end()

    provider.will(cut, cut, says("whole"))
    async with desk(provider) as d:
        reply = await d.answered()
        assert await d.text(reply.content) == "whole" and reply.provider_attempts == 3
        used = [one.usage for one in await d.settled(3)]
        assert [one.estimated_usd_micros == one.cost_usd_micros for one in used] == [True, True, False]
        assert all(3 <= one.output_tokens < 100 for one in used[:2])
        provider.will(cut)
        reply = await d.ask(d.request(call_id="c2"))
        assert reply.outcome == "failed" and reply.failure.code == "truncated_stream" and reply.content is None


@pytest.mark.parametrize("stream", [True, False])
async def test_a_200_with_an_error_body_is_an_error(provider, stream):
    provider.will(fails(200, f"internal; your key was {KEY}"))
    async with desk(provider, provider_attempts=2) as d:
        reply = await d.ask(d.request(stream=stream))
        assert reply.outcome == "failed" and reply.failure.code == "error_body" and reply.provider_attempts == 2
        assert KEY not in reply.model_dump_json() and "[redacted]" in reply.failure.message


async def test_an_error_inside_a_stream_is_an_error(provider):
    async def script(x: Exchange) -> None:
        await x.begin()
        await x.event(chunk({"content": "half"}))
        await x.event({"error": {"message": "server exploded", "code": "server_error"}})
        await x.end()

    provider.will(script, says("whole"))
    async with desk(provider) as d:
        assert await d.text((await d.answered()).content) == "whole"


@pytest.mark.parametrize("stream", [True, False])
async def test_malformed_json_is_named(provider, stream):
    async def script(x: Exchange) -> None:
        if not stream:
            await x.whole(200, b'{"id": "x", "choices": [{"ind')
            return
        await x.begin()
        await x.event('{"choices": [{"del')
        await x.end()

    provider.will(script)
    async with desk(provider, provider_attempts=2) as d:
        reply = await d.ask(d.request(stream=stream))
        assert reply.outcome == "failed" and reply.failure.code == "malformed_json" and reply.provider_attempts == 2


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


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_without_usage_is_charged_its_size_as_an_estimate(provider, stream):
    provider.will(says("word " * 60, silent_usage=True))
    async with desk(provider) as d:
        reply = await d.answered(d.request(stream=stream))
        (settled,) = await d.settled(1)
        used, worst = settled.usage, d.purse.asked[0].worst_case
        assert settled.failed == "" and used == used.as_estimate() == reply.usage
        assert 80 <= used.output_tokens < 250 and 0 < used.cost_usd_micros < worst.cost_usd_micros


@pytest.mark.parametrize(
    "told",
    [
        {"prompt_tokens": "many"},
        {"prompt_tokens": -1, "completion_tokens": 1},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": 10**12, "completion_tokens": 1},
    ],
)
async def test_usage_that_makes_no_sense_is_missing(provider, told):
    provider.will(says("x", told=told))
    async with desk(provider) as d:
        await d.answered()
        assert (await d.settled(1))[0].usage.estimated_tokens


async def test_cached_tokens_are_counted(provider):
    provider.will(says("x", told=usage(1000, 10, cached=900)))
    async with desk(provider) as d:
        assert (await d.answered()).usage.cached_input_tokens == 900


async def test_nobody_there_is_unreachable_and_costs_nothing(provider):
    async with desk(provider, openai_base_url="http://127.0.0.1:1/v1", provider_attempts=2) as d:
        reply = await d.ask()
        assert reply.failure.code == "unreachable" and reply.failure.hint and reply.provider_attempts == 2
        assert all(one.usage == Usage() for one in await d.settled(2))


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "provider_error"), (404, "unknown_model"), (422, "provider_error"), (302, "provider_error")],
)
async def test_what_will_not_change_is_not_retried(provider, status, code):
    provider.will(fails(status, f"wrong key {KEY[:10]}***, Bearer abcdef"))
    async with desk(provider) as d:
        reply = await d.ask()
        assert reply.failure.code == code and len(provider.asked) == 1 and reply.failure.hint
        assert "sk-test" not in reply.model_dump_json() and "abcdef" not in reply.failure.message


async def test_every_retry_is_a_new_reservation_also_after_a_redelivery(provider):
    provider.will(fails(500), says("x"))
    async with desk(provider) as d:
        await d.answered()
        await d.answered(d.request())  # the same call again: answered from the record
        assert len(provider.asked) == 2 and len(d.purse.asked) == 2
        provider.will(fails(500), says("x"))
        await d.answered(d.request(call_id="c2"))
        assert len({one.reservation_id for one in d.purse.asked}) == 4
