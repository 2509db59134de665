"""Calls to a provider over a real socket: answers, money, streams, faults one by one, fallback, halts."""

import asyncio
import json
import time

import pytest

from bulkhead_contracts import limits
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.result import Usage
from services.model_gateway.prompts import Prompts
from tests.unit.model_gateway.gateway_desk import KEY, PRICED, Desk, deltas, desk, until
from tests.unit.model_gateway.scripted_provider import (
    Exchange,
    ScriptedProvider,
    calls,
    chunk,
    fails,
    says,
    usage,
)

REAL = Usage(model_calls=1, input_tokens=100, output_tokens=20, cost_usd_micros=27)
"""100 tokens at 0.15 and 20 at 0.60 dollars per million."""


@pytest.fixture
async def provider():
    async with ScriptedProvider() as found:
        yield found


# Answers


async def test_an_answer_comes_with_content_label_usage_money_and_prompt(provider):
    provider.will(says("hello world"))
    async with desk(provider) as d:
        reply = await d.answered()
        assert await d.text(reply.content) == "hello world" and reply.finish == "stop"
        assert (reply.model, reply.provider, reply.fingerprint) == ("scripted-1", "openai", "fp_1")
        prompt = Prompts().find("worker.step")
        assert (reply.prompt_id, reply.prompt_digest) == (prompt.name, prompt.digest)
        assert reply.usage == REAL and reply.provider_attempts == 1 and reply.standing == "ok"
        assert reply.price_digest.startswith("own:") and reply.completeness.complete
        (label,) = reply.provenance
        assert label.sha256 == reply.content.sha256 and label.kind == "model_reply"
        assert label.trust == "untrusted" and d.mesh.context("worker").verifier.label(label)
        (settled,) = await d.settled(1)
        assert settled.usage == REAL and not settled.estimated
        worst = d.purse.asked[0].worst_case
        assert worst.model_calls == 1 and worst.tokens > 2_000 and worst.cost_usd_micros >= 1_200
        assert d.purse.asked[0].price_digest == reply.price_digest


async def test_what_is_sent(provider):
    provider.will(says("x"))
    async with desk(provider) as d:
        await d.answered(d.request(max_output_tokens=77))
        (x,) = provider.asked
        assert x.path == "/v1/chat/completions" and x.headers["authorization"] == f"Bearer {KEY}"
        assert x.headers["accept-encoding"] == "identity"
        assert x.body["model"] == PRICED and x.body["max_completion_tokens"] == 77
        assert x.body["stream"] is True and x.body["stream_options"] == {"include_usage": True}
        assert "tools" not in x.body and "response_format" not in x.body
        assert [one["role"] for one in x.body["messages"]] == ["system", "user"]


@pytest.mark.parametrize(("form", "text"), [("plan", '{"steps": []}'), ("verdict", '{"verdict": "accept"}')])
async def test_a_structured_answer_is_asked_for_by_its_schema_and_not_streamed(provider, form, text):
    provider.will(says(text))
    async with desk(provider) as d:
        reply = await d.ask(
            d.request(response=form, stream=False, prompt_id="planner.draft"), "planner", grant=d.grant(None)
        )
        assert await d.text(reply.content) == text and reply.content.media_type == "application/json"
        sent = provider.asked[0].body
        assert "stream" not in sent and "stream_options" not in sent
        wanted = sent["response_format"]["json_schema"]
        assert wanted["strict"] is True and wanted["name"] == form
        assert wanted["schema"] == Prompts().schemas[form]


async def test_text_is_live_piece_by_piece_and_at_once(provider):
    gates = [asyncio.Event() for _ in range(3)]

    async def script(x: Exchange) -> None:
        await x.begin()
        for gate, word in zip(gates, ("one ", "two ", "three"), strict=True):
            await x.event(chunk({"content": word}))
            # The next word is not sent before the last was heard: nothing may be kept back.
            async with asyncio.timeout(5):
                await gate.wait()
        await x.event(chunk(finish="stop", usage=usage()))
        await x.event("[DONE]")
        await x.end()

    provider.will(script)
    async with desk(provider) as d:
        live = await d.live()
        await d.send(d.request(attempt=2))
        heard = []
        async with asyncio.timeout(10):
            async for one in live:
                heard.append(json.loads(one.body))
                gates[len(heard) - 1].set()
                if len(heard) == 3:
                    break
        assert [(one["offset"], one["text"]) for one in heard] == [(0, "one "), (4, "two "), (8, "three")]
        assert {(one["call_id"], one["step_id"], one["attempt"]) for one in heard} == {("c1", "s", 2)}
        assert await d.text((await d.replies(1))[0].content) == "one two three"


async def test_the_way_from_provider_to_live_is_short(provider):
    sent: list[float] = []

    async def script(x: Exchange) -> None:
        await x.begin()
        for number in range(100):
            sent.append(time.perf_counter())
            await x.event(chunk({"content": f"{number:03d}"}))
            await asyncio.sleep(0.002)
        await x.event(chunk(finish="stop", usage=usage()))
        await x.end()

    provider.will(script)
    async with desk(provider) as d:
        live = await d.live()
        await d.send(d.request())
        late = []
        async with asyncio.timeout(10):
            async for one in live:
                now = time.perf_counter()
                text = json.loads(one.body)["text"]
                late += [now - sent[int(text[i : i + 3])] for i in range(0, len(text), 3)]
                if len(late) == 100:
                    break
        assert sorted(late)[50] < 0.010, f"p50 {sorted(late)[50] * 1000:.2f} ms"


async def test_bytes_may_be_cut_anywhere(provider):
    text = "Grüße, 世界 🙂"

    async def script(x: Exchange) -> None:
        await x.begin()
        whole = b": hello\n\nevent: x\nid: 1\n"
        pair = json.dumps("\U0001f680")[1:-1]
        for piece in (text[:4], text[4:]):
            whole += f"data: {json.dumps(chunk({'content': piece}), ensure_ascii=False)}\r\n\r\n".encode()
        # One emoji as two escaped halves, in two events, as some servers send it.
        for half in (pair[:6], pair[6:]):
            whole += ('data: {"choices":[{"delta":{"content":"' + half + '"}}]}\r\r').encode()
        whole += f"data: {json.dumps(chunk(finish='stop', usage=usage()))}\n\ndata: [DONE]\n\n".encode()
        for start in range(len(whole)):
            await x.piece(whole[start : start + 1])
        await x.end()

    provider.will(script)
    async with desk(provider) as d:
        live = await d.live()
        reply = await d.answered()
        assert await d.text(reply.content) == text + "🚀"
        await deltas(live, text + "🚀")


async def test_tool_calls_are_put_together(provider):
    made = [
        {"id": "call_a", "name": "calculate", "arguments": '{"expression": "1+1"}'},
        {"id": "", "name": "search", "arguments": "{}"},
        {"id": "call_a", "name": "broken", "arguments": '{"oops": '},
        {"id": "bad id!", "name": "x" * 100, "arguments": ""},
    ]
    provider.will(calls(*made))
    async with desk(provider) as d:
        reply = await d.answered()
        assert reply.finish == "tool_calls" and reply.content is None and reply.provenance == ()
        assert reply.completeness.complete
        found = reply.tool_calls
        assert [one.arguments_json for one in found] == ['{"expression": "1+1"}', "{}", '{"oops": ', ""]
        assert [one.name for one in found] == ["calculate", "search", "broken", "x" * 64]
        assert found[0].id == "call_a" and len({one.id for one in found}) == 4


async def test_too_many_calls_and_too_long_arguments_are_cut_and_said(provider):
    long = '{"a": "' + "x" * limits.MAX_ARGUMENTS_BYTES + '"}'
    made = [{"id": f"c{n}", "name": "calculate", "arguments": long if n == 0 else "{}"} for n in range(12)]
    provider.will(calls(*made))
    async with desk(provider) as d:
        reply = await d.answered()
        assert len(reply.tool_calls) == limits.MAX_CALLS_PER_TURN
        assert len(reply.tool_calls[0].arguments_json) == limits.MAX_ARGUMENTS_BYTES
        assert [one.reason for one in reply.completeness.omissions] == ["truncated", "truncated"]
        assert any("4 tool calls" in one.what for one in reply.completeness.omissions)


async def test_finish_reason_length_is_an_incomplete_answer(provider):
    provider.will(says("only the beg", finish="length"))
    async with desk(provider) as d:
        reply = await d.answered()
        assert reply.finish == "length" and reply.standing == "ok"
        assert reply.completeness.omissions[0].reason == "truncated" and not reply.completeness.complete


async def test_a_filtered_answer_says_so(provider):
    provider.will(says("some", finish="content_filter"))
    async with desk(provider) as d:
        reply = await d.answered()
        assert "content_filter" in reply.completeness.omissions[0].detail and reply.finish == ""


async def test_an_empty_answer_has_no_content(provider):
    provider.will(says(""))
    async with desk(provider) as d:
        assert (await d.answered()).content is None


async def test_an_endless_answer_is_cut_at_the_bound(provider):
    hung_up = asyncio.Event()

    async def script(x: Exchange) -> None:
        await x.begin()
        try:
            while True:
                await x.event(chunk({"content": "x" * 50_000}))
        finally:
            hung_up.set()

    provider.will(script)
    async with desk(provider) as d:
        reply = await d.answered()
        assert reply.finish == "length" and reply.content.size_bytes == limits.MAX_MODEL_ANSWER_BYTES
        assert not reply.completeness.complete
        (settled,) = await d.settled(1)
        assert settled.estimated and settled.usage.cost_usd_micros == d.purse.asked[0].worst_case.cost_usd_micros
        await asyncio.wait_for(hung_up.wait(), 5)


async def test_connections_are_kept(provider):
    provider.will(says("x"))
    async with desk(provider) as d:
        for number in range(4):
            await d.answered(d.request(call_id=f"c{number}"))
        assert len(provider.asked) == 4 and provider.connections == 1


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


async def test_a_stall_is_cut_charged_and_retried(provider):
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
        worst = d.purse.asked[0].worst_case
        assert first.estimated and first.usage.cost_usd_micros == worst.cost_usd_micros
        assert reply.usage == first.usage + second.usage, "what was wasted is shown"


async def test_silence_until_the_deadline_is_a_timeout(provider):
    async def silent(x: Exchange) -> None:
        assert await x.hung_up()

    provider.will(silent)
    async with desk(provider) as d:
        reply = await d.ask(d.request(stream=False, deadline_unix_ms=d.now_ms() + 300))
        assert reply.outcome == "failed" and reply.failure.code == "timeout"
        (settled,) = await d.settled(1)
        assert settled.estimated and settled.usage.output_tokens == 2_000


async def test_a_passed_deadline_makes_no_call(provider):
    provider.will(says("x"))
    async with desk(provider) as d:
        reply = await d.ask(d.request(deadline_unix_ms=d.now_ms() - 1))
        assert reply.failure.code == "timeout" and not provider.asked and not d.purse.asked


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
        assert [one.estimated for one in await d.settled(3)] == [True, True, False]
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
    monkeypatch.setattr(limits, "MAX_PROVIDER_RESPONSE_BYTES", 100_000)

    async def script(x: Exchange) -> None:
        await x.begin("application/json")
        while True:
            await x.piece(b" " * 10_000)

    provider.will(script)
    async with desk(provider) as d:
        reply = await d.ask()
        assert reply.failure.code == "provider_error" and "100000 bytes" in reply.failure.message


async def test_missing_usage_charges_the_reservation(provider):
    provider.will(says("free?", silent_usage=True))
    async with desk(provider) as d:
        reply = await d.answered()
        (settled,) = await d.settled(1)
        worst = d.purse.asked[0].worst_case
        assert settled.estimated and settled.usage.cost_usd_micros == worst.cost_usd_micros > 0
        assert settled.usage.input_tokens + settled.usage.output_tokens == worst.tokens
        assert reply.usage == settled.usage


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
        assert (await d.settled(1))[0].estimated


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


# Fallback


def routes(second: str) -> dict:
    return {
        "providers": {"second": {"base_url": second, "api_key": "k2"}},
        "routes": {"default": {"model": PRICED, "fallback": {"model": PRICED, "provider": "second"}}},
    }


async def test_an_outage_falls_back_and_says_so(provider):
    provider.will(fails(503))
    async with ScriptedProvider() as other, desk(provider, provider_attempts=2, **routes(other.url)) as d:
        other.will(says("from the second"))
        reply = await d.answered()
        assert reply.standing == "degraded" and "provider_error" in reply.standing_reason
        assert reply.provider == "second" and reply.provider_attempts == 3
        assert other.asked[0].headers["authorization"] == "Bearer k2"


async def test_a_slow_first_leaves_time_for_the_fallback(provider):
    async def silent(x: Exchange) -> None:
        await x.hung_up()

    provider.will(silent)
    async with ScriptedProvider() as other, desk(provider, **routes(other.url)) as d:
        other.will(says("in time"))
        reply = await d.answered(d.request(deadline_unix_ms=d.now_ms() + 1_000))
        assert reply.standing == "degraded" and "timeout" in reply.standing_reason


async def test_what_is_no_outage_does_not_fall_back(provider):
    provider.will(fails(400, "your tool schema is wrong"))
    async with ScriptedProvider() as other, desk(provider, **routes(other.url)) as d:
        reply = await d.ask()
        assert reply.outcome == "failed" and not other.asked


async def test_when_both_are_out_both_are_named(provider):
    provider.will(fails(503, "first down"))
    async with ScriptedProvider() as other, desk(provider, provider_attempts=1, **routes(other.url)) as d:
        other.will(fails(500, "second down"))
        reply = await d.ask()
        assert "first down" in reply.failure.message and "second down" in reply.failure.message


# Refusals


async def test_no_price_no_call(provider):
    provider.will(says("x"))
    async with desk(provider, model="nobody-knows-1") as d:
        reply = await d.ask()
        assert reply.outcome == "refused" and reply.failure.code == "unknown_price" and not provider.asked


async def test_a_free_model_is_called_and_still_reserved(provider):
    provider.will(says("x"))
    async with desk(provider, model="my-own-1", free_models=("my-own-1",)) as d:
        reply = await d.answered()
        assert reply.usage.cost_usd_micros == 0 and reply.usage.input_tokens == 100 and reply.price_digest == "free"
        assert len(d.purse.asked) == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"tier": "genius"}, "unknown_model"),
        ({"prompt_id": "no.such"}, "unknown_prompt"),
        ({"prompt_id": "worker.step@99"}, "unknown_prompt"),
        ({"step_id": "other"}, "bad_grant"),
    ],
)
async def test_requests_that_cannot_be_served_are_refused(provider, change, code):
    provider.will(says("x"))
    async with desk(provider) as d:
        reply = await d.ask(d.request(**change))
        assert reply.outcome == "refused" and reply.failure.code == code and reply.failure.hint
        assert not provider.asked and not d.purse.asked


async def test_a_worker_needs_its_step_grant_and_a_planner_does_not(provider):
    provider.will(says("x"))
    async with desk(provider) as d:
        assert (await d.ask(d.request(), grant=d.grant(None))).failure.code == "bad_grant"
        assert (await d.ask(d.request(call_id="c2"), "planner", grant=d.grant(None))).outcome == "answered"


async def test_a_refused_reservation_after_a_failed_attempt_keeps_what_was_spent(provider):
    async def cut(x: Exchange) -> None:
        await x.begin()
        await x.event(chunk({"content": "half"}))
        await x.end()

    provider.will(cut)
    async with desk(provider) as d:
        d.purse.decisions = ["reserved", "refused"]
        reply = await d.ask()
        assert reply.outcome == "refused" and reply.failure.code == "refused_by_budget"
        assert reply.usage.cost_usd_micros > 0 and reply.provider_attempts == 1


async def test_without_a_free_place_the_call_is_deferred(provider):
    held = asyncio.Event()

    async def holds(x: Exchange) -> None:
        await held.wait()
        await says("late")(x)

    provider.will(holds)
    async with desk(provider, provider_concurrency=1, slot_wait_s=0.1) as d:
        await d.send(d.request())
        await until(lambda: asyncio.sleep(0, provider.asked), bool)
        second = await d.ask(d.request(call_id="c2"))
        assert isinstance(second, CallDeferred) and second.call_id == "c2" and second.after_ms > 0
        assert len(d.purse.asked) == 1, "no money is held while waiting for a place"
        held.set()
        assert (await d.replies(2))[1].outcome == "answered"


# Halts


async def test_a_halt_cuts_the_stream_and_charges_what_was_streamed(provider):
    cut = asyncio.Event()

    async def script(x: Exchange) -> None:
        await x.begin()
        await x.event(chunk({"content": "word " * 30}))
        assert await x.hung_up()
        cut.set()

    provider.will(script)
    async with desk(provider) as d:
        live = await d.live()
        await d.send(d.request())
        await deltas(live, "word " * 30)
        await d.halt()
        reply = (await d.replies(1))[0]
        assert reply.outcome == "refused" and reply.failure.code == "halted"
        await asyncio.wait_for(cut.wait(), 5)
        (settled,) = await d.settled(1)
        assert settled.estimated and settled.usage.output_tokens == 50
        assert 0 < settled.usage.cost_usd_micros < d.purse.asked[0].worst_case.cost_usd_micros
        assert (await d.ask(d.request(call_id="c2"))).failure.code == "halted" and len(provider.asked) == 1


async def test_a_halt_ends_the_pause_between_attempts(provider):
    provider.will(fails(429, retry_after="8"))
    async with desk(provider) as d:
        await d.send(d.request())
        await until(lambda: asyncio.sleep(0, provider.asked), bool)
        began = time.monotonic()
        await d.halt()
        assert (await d.replies(1))[0].failure.code == "halted" and time.monotonic() - began < 4


async def test_a_halted_model_is_not_called(provider):
    provider.will(says("x"))
    async with desk(provider, model="my.own-1", free_models=("my.own-1",)) as d:
        await d.halt("model", "my-own-1")
        await until(lambda: asyncio.sleep(0, _halted(d, "my-own-1")), bool)
        assert (await d.ask()).failure.code == "halted" and not provider.asked


def _halted(d: Desk, model: str) -> object:
    service = d.mesh.running[("model_gateway", "0")].service
    return service.handler._halts.find("demo", "t1", model)


# Crashes and waiting


async def test_a_gateway_that_dies_in_a_call_is_succeeded_under_a_new_reservation(provider):
    async def hangs(x: Exchange) -> None:
        await x.hung_up()

    provider.will(hangs, says("by the second"))
    async with desk(provider, ack_wait_ms=300) as d:
        await d.send(d.request())
        await until(lambda: asyncio.sleep(0, provider.asked), bool)
        d.mesh.kill("model_gateway")
        await d.mesh.start("model_gateway")
        assert await d.text((await d.replies(1))[0].content) == "by the second"
        assert len({one.reservation_id for one in d.purse.asked}) == 2


async def test_a_call_that_waits_for_money_in_the_middle_is_asked_again_with_new_reservations(provider, monkeypatch):
    monkeypatch.setattr("bulkhead.runtime.doing.BUDGET_PATIENCE_S", 0.05)
    provider.will(fails(500), says("x"))
    async with desk(provider) as d:
        d.purse.decisions = ["reserved", *["wait"] * 20]
        assert isinstance(await d.ask(), CallDeferred)
        used = {one.reservation_id for one in d.purse.asked}
        d.purse.decisions = []
        await d.answered()
        assert d.purse.asked[-1].reservation_id not in used, "an id that was settled cannot pay again"
