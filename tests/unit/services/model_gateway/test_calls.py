"""Calls to a provider over a real socket: answers, money, streams, tool calls."""

import asyncio
import json
import time

import pytest

from bulkhead.prompts.files import Prompts
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.result import Usage
from tests.unit.services.model_gateway.gateway_desk import KEY, PRICED, TASK, TENANT, deltas, desk
from tests.unit.services.model_gateway.scripted_provider import Exchange, ScriptedProvider, chunk, says, usage

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
        assert reply.pinned == PRICED, "what was asked for, beside what the provider says answered"
        prompt = Prompts().find_prompt("worker.step")
        assert (reply.prompt_id, reply.prompt_digest) == (prompt.name, prompt.digest)
        assert reply.usage == REAL and reply.provider_attempts == 1 and reply.standing == "ok"
        assert reply.price_digest.startswith("own:") and reply.completeness.complete
        (label,) = reply.provenance
        assert label.sha256 == reply.content.sha256 and label.kind == "model_reply"
        assert label.trust == "untrusted" and d.mesh.context("worker").verifier.verify_label(label, TENANT, TASK)
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
async def test_a_structured_answer_is_asked_for_by_its_schema_and_is_not_live(provider, form, text):
    provider.will(says(text))
    async with desk(provider) as d:
        live = await d.live()
        reply = await d.ask(
            d.request(response=form, stream=False, prompt_id="planner.draft"), "planner", grant=d.grant(None)
        )
        assert await d.text(reply.content) == text and reply.content.media_type == "application/json"
        sent = provider.asked[0].body
        # Streamed all the same, so that a provider that falls silent is noticed; but nobody is shown it.
        assert sent["stream"] is True and sent["stream_options"] == {"include_usage": True}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await anext(aiter(live))
        wanted = sent["response_format"]["json_schema"]
        assert wanted["strict"] is True and wanted["name"] == form
        assert wanted["schema"] == Prompts().schemas[form]


@pytest.mark.parametrize(("form", "blobs"), [("verdict", 0), ("text", 1)])
async def test_a_judges_answer_travels_in_its_reply(provider, form, blobs):
    """What it holds stands in the verdict, too; other answers are for those alone who may read blobs."""
    text = json.dumps({"verdict": "accept", "reasons": ["It names the fee. " * 20]}, indent=1)
    provider.will(says(text))
    async with desk(provider) as d:
        asked = d.request(response=form, stream=False, prompt_id="planner.draft")
        reply = await d.ask(asked, "planner", grant=d.grant(None))
        assert await d.text(reply.content) == text and (reply.content.carried_text is None) == bool(blobs)
        assert len(await d.mesh.messages(subjects.BLOBS_STREAM, "blob.>")) == blobs


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
        assert reply.finish == "length" and reply.content.size_bytes == bounds.MAX_MODEL_ANSWER_BYTES
        assert not reply.completeness.complete
        (settled,) = await d.settled(1)
        assert settled.usage.estimated_usd_micros == d.purse.asked[0].worst_case.cost_usd_micros
        await asyncio.wait_for(hung_up.wait(), 5)


@pytest.mark.parametrize(
    ("prompt", "completion"), [(121_057, 20), (100, 900_000), (bounds.MAX_TOKENS, bounds.MAX_TOKENS)]
)
async def test_the_providers_figure_is_charged_whatever_it_is(provider, prompt, completion):
    """Above what was reserved, too: the bill will say it as well."""
    provider.will(says("x", told=usage(prompt, completion)))
    async with desk(provider) as d:
        reply = await d.answered()
        (settled,) = await d.settled(1)
        assert settled.usage == reply.usage and not settled.estimated
        assert (settled.usage.input_tokens, settled.usage.output_tokens) == (prompt, completion)
        assert settled.usage.cost_usd_micros == -(-(prompt * 15 + completion * 60) // 100)
        assert settled.usage.estimated_usd_micros == settled.usage.estimated_tokens == 0
        assert settled.usage.cost_usd_micros > d.purse.asked[0].worst_case.cost_usd_micros


async def test_connections_are_kept(provider):
    provider.will(says("x"))
    async with desk(provider) as d:
        for number in range(4):
            await d.answered(d.request(call_id=f"c{number}"))
        assert len(provider.asked) == 4 and provider.connections == 1
