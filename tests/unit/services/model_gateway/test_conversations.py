"""Calls of outside agents: sent as they came, answered as the model spoke, refused by name."""

import base64
import json
import random
import zlib
from collections.abc import Sequence
from typing import Any

import pytest

from bulkhead.flow.content import list_of
from bulkhead.quotas.token_estimates import IMAGE_TOKENS, TokenCounter
from bulkhead_contracts import bounds
from bulkhead_contracts.model import AdoptedToolCalls, Conversation, ModelCallReplied, ModelCallRequested
from bulkhead_contracts.result import REFERENCES, ContentRef
from bulkhead_services.model_gateway.context.conversation import payload_of, render_conversation
from bulkhead_services.model_gateway.context.render import RenderedRequest, RenderSource
from bulkhead_services.model_gateway.providers.forms import FORMS
from bulkhead_services.model_gateway.providers.narrowing import UnsupportedInput, narrow_chat
from bulkhead_services.model_gateway.providers.port import Chat, ProviderFault
from tests.unit.services.model_gateway.gateway_desk import PRICED, TENANT, Desk, deltas, desk
from tests.unit.services.model_gateway.scripted_provider import Exchange, ScriptedProvider, calls, says

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
MESSAGES: tuple[dict[str, Any], ...] = (
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "name": "ada", "content": [{"type": "text", "text": "Grüße <think>?"}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "found"},
)


@pytest.fixture
async def provider():
    async with ScriptedProvider() as found:
        yield found


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


async def call(
    d: Desk, *messages: dict[str, Any], options: dict[str, Any] | None = None, **more: Any
) -> ModelCallRequested:
    refs = [await d.store(canonical(one), "doors") for one in messages or MESSAGES]
    said = await d.store(canonical(options), "doors") if options is not None else None
    given = {"prompt_id": "adopted@1", "parts": (), "tier": PRICED, "max_output_tokens": 50, **more}
    return d.request(conversation=Conversation(messages=tuple(refs), options=said), **given)


async def asked(d: Desk, request: ModelCallRequested, **more: Any) -> ModelCallReplied:
    reply = await d.ask(request, "doors", **more)
    assert isinstance(reply, ModelCallReplied)
    return reply


# As it came


async def test_a_conversation_is_sent_byte_by_byte_with_its_options(provider):
    provider.will(says("hi"))
    options = {"tools": [TOOL], "temperature": 0.3, "min_p": 0.1, "logit_bias": {"5": -1}}
    async with desk(provider) as d:
        reply = await asked(d, await call(d, options=options))
        (x,) = provider.asked
    assert reply.outcome == "answered" and reply.pinned == PRICED and reply.prompt_id == "adopted@1"
    assert f'"messages":[{",".join(map(canonical, MESSAGES))}]'.encode() in x.sent
    added = {"model", "stream", "stream_options", "max_completion_tokens", "messages"}
    assert {name: value for name, value in x.body.items() if name not in added} == options
    assert (x.body["model"], x.body["max_completion_tokens"]) == (PRICED, 50)


async def test_the_answer_is_what_the_model_said_also_live(provider):
    text = "<think>so</think> ```json {}``` [#abc] "
    provider.will(says(text))
    async with desk(provider) as d:
        live = await d.live()
        reply = await asked(d, await call(d))
        assert await d.text(reply.content) == text and reply.raw is None and reply.changes == ()
        assert "".join(one.text for one in await deltas(live, text)) == text


async def test_the_second_time_it_is_answered_from_the_record(provider):
    provider.will(says("once"))
    async with desk(provider) as d:
        request = await call(d)
        first, second = await asked(d, request), await asked(d, request)
        assert first == second and len(provider.asked) == 1 and len(await d.settled(1)) == 1


async def test_what_an_agent_says_stands_over_what_the_route_says(provider):
    provider.will(says("x"))
    route = {"model": PRICED, "temperature": 0.9, "top_p": 0.5, "cache_ttl_s": 60}
    async with desk(provider, routes={"default": route}) as d:
        await asked(d, await call(d, options={"temperature": 0.1}))
        reply = await asked(d, await call(d, options={"temperature": 0.1}, call_id="c2"))
    assert (provider.asked[0].body["temperature"], provider.asked[0].body["top_p"]) == (0.1, 0.5)
    assert not reply.cached and len(provider.asked) == 2, "answers of agents are not given to others"


# Which model


async def test_a_model_is_found_by_its_route_or_by_its_own_name(provider):
    provider.will(says("x"))
    routes = {"default": {"model": PRICED}, "small": {"model": "m1"}}
    async with desk(provider, routes=routes, free_models=("m1",)) as d:
        for place, (name, model) in enumerate({"small": "m1", "m1": "m1", PRICED: PRICED}.items()):
            reply = await asked(d, await call(d, tier=name, call_id=f"c{place}"))
            assert reply.pinned == model
        unknown = await asked(d, await call(d, tier="gpt-9", call_id="c9"))
        step = await d.ask(d.request(tier="m1", call_id="c10"))
    assert unknown.failure.code == step.failure.code == "unknown_route"
    assert "routes: default, judge, small; models: " in unknown.failure.hint and "m1" in unknown.failure.hint
    assert f'BULKHEAD_ROUTES=\'{{"gpt-9": {{"provider": "openai", "model": "{PRICED}"}}}}\'' in unknown.failure.hint


async def test_unknown_models_are_answered_by_a_route_where_a_setting_says_so(provider):
    provider.will(says("x"))
    async with desk(provider, routes={"default": {"model": PRICED}}, unknown_models="default") as d:
        assert (await asked(d, await call(d, tier="gpt-4o-mini"))).pinned == PRICED
        assert (await d.ask(d.request(tier="m1", call_id="c10"))).failure.code == "unknown_route", (
            "a step's is a mistake"
        )
    with pytest.raises(ValueError, match="BULKHEAD_UNKNOWN_MODELS names the route 'small'"):
        async with desk(provider, unknown_models="small"):
            pass


# What is refused, by name


def anthropic(provider: ScriptedProvider) -> dict[str, Any]:
    return {
        "providers": {"a": {"api": "anthropic", "base_url": provider.url, "api_key": "k"}},
        "routes": {"default": {"model": "m0", "provider": "a"}},
        "free_models": ("m0",),
    }


async def claude(x: Exchange) -> None:
    told = {"input_tokens": 10, "output_tokens": 2}
    text = [{"type": "text", "text": "hi"}]
    await x.json(200, {"model": "m0", "content": text, "stop_reason": "end_turn", "usage": told})


async def test_another_form_translates_what_it_has_words_for_and_names_what_it_has_not(provider):
    provider.will(claude)
    options = {"tools": [TOOL], "tool_choice": "required", "stop": "END"}
    async with desk(provider, **anthropic(provider)) as d:
        reply = await asked(d, await call(d, options=options, tier="m0"))
        refused = await asked(d, await call(d, options={"logit_bias": {"5": -1}}, tier="m0", call_id="c2"))
    assert reply.outcome == "answered", reply
    (x,) = provider.asked
    assert x.body["system"][0]["text"] == "Be brief." and x.body["tool_choice"] == {"type": "any"}
    assert [one["role"] for one in x.body["messages"]] == ["user", "assistant", "user"]
    assert x.body["stop_sequences"] == ["END"]
    assert (refused.outcome, refused.failure.code) == ("refused", "unsupported_parameter")
    assert "logit_bias" in refused.failure.message and refused.usage.model_calls == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": 2}, "the parameter n is not passed on: it is not among the options whose cost is bounded"),
        ({"x_vendor": {"deep": [1]}}, "the parameter x_vendor is not passed on"),
        ({"model": "dear"}, "the parameter model is not passed on"),
        ({"max_tokens": 9}, "the parameter max_tokens is not passed on"),
        ({"service_tier": "priority"}, "the parameter service_tier is not passed on: dearer tiers"),
        ({"store": True}, "the parameter store is not passed on"),
        ({"models": ["dear"]}, "the parameter models is not passed on"),
        ({"prediction": {"type": "content", "content": "x"}}, "the parameter prediction is not passed on"),
    ],
)
async def test_what_would_change_the_model_or_its_price_is_sent_to_nobody(provider, options, said):
    async with desk(provider) as d:
        reply = await asked(d, await call(d, options=options))
    assert (reply.outcome, reply.failure.code) == ("refused", "unsupported_parameter")
    assert reply.failure.message.startswith(said) and not provider.asked


async def test_a_conversation_that_is_too_long_is_not_cut(provider):
    async with desk(provider, context_tokens=6_000) as d:
        for place, text in enumerate(("word " * 20_000, "x" * (bounds.MAX_BLOB_BYTES // 2))):
            request = await call(d, {"role": "user", "content": text}, call_id=f"c{place}")
            if place:
                many = request.conversation.messages * 9
                request = request.model_copy(update={"conversation": Conversation(messages=many)})
            reply = await asked(d, request)
            assert reply.failure.code == "context_overflow" and "conversation" in reply.failure.message
            assert "shorter messages" in reply.failure.hint
    assert not provider.asked


async def test_a_call_needs_the_grant_of_its_step_and_comes_from_doors_alone(provider):
    async with desk(provider) as d:
        for place, more in enumerate(
            ({"grant": d.grant("other")}, {"grant": d.grant(attempt=2)}, {"grant": d.grant(None)})
        ):
            reply = await asked(d, await call(d, call_id=f"c{place}"), **more)
            assert (reply.outcome, reply.failure.code) == ("refused", "bad_grant")
        worker = await d.ask(await call(d, call_id="w"), "worker")
        plain = await asked(d, d.request(call_id="p"))
    assert worker.failure.code == plain.failure.code == "forbidden" and not provider.asked


@pytest.mark.parametrize(
    "text",
    ["[]", '{"content":"x"}', '{"role":"user","tool_calls":[1]}', '{"role":"u","a":' + "[" * 70 + "]" * 70 + "}"],
)
async def test_what_is_no_message_is_refused(provider, text):
    async with desk(provider) as d:
        ref = await d.store(text, "doors")
        request = (await call(d)).model_copy(update={"conversation": Conversation(messages=(ref,))})
        reply = await asked(d, request)
        gone = ContentRef(author="doors", sha256="0" * 64, size_bytes=1)
        lost = request.model_copy(update={"call_id": "c2", "conversation": Conversation(messages=(gone,))})
        missing = await asked(d, lost)
    assert reply.failure.code == "malformed_conversation" and "message 1" in reply.failure.message
    assert missing.failure.code == "content_missing" and not provider.asked


async def listed(d: Desk, refs: Sequence[ContentRef]) -> ContentRef:
    return await d.mesh.context("doors").blobs.put(TENANT, list_of(refs), REFERENCES, summary="")


async def test_messages_that_stand_in_lists_are_sent_like_all_others(provider):
    provider.will(says("hi"))
    rows = [{"role": "user", "content": f"m{number}"} for number in range(40)]
    async with desk(provider) as d:
        blobs = d.mesh.context("doors").blobs
        refs = [await blobs.put(TENANT, canonical(row), "application/json", summary="") for row in rows]
        messages = (await listed(d, refs[:32]), *refs[32:])
        request = (await call(d)).model_copy(update={"conversation": Conversation(messages=messages)})
        reply = await asked(d, request)
    assert reply.outcome == "answered" and provider.asked[0].body["messages"] == rows


async def test_lists_that_are_gone_or_name_too_much_are_told(provider):
    async with desk(provider) as d:
        ref = (await d.store(canonical(MESSAGES[0]), "doors")).model_copy(update={"media_type": "application/json"})
        many = await listed(d, [ref] * 32)
        large = await listed(d, [ref.model_copy(update={"size_bytes": bounds.MAX_CONVERSATION_BYTES + 1})])
        gone = many.model_copy(update={"sha256": "0" * 64})
        none = many.model_copy(update={"sha256": ref.sha256})
        codes = []
        for number, refs in enumerate(((many,) * 126, (large,), (gone,), (none,))):
            given = {"call_id": f"c{number}", "conversation": Conversation(messages=refs)}
            codes.append((await asked(d, (await call(d)).model_copy(update=given))).failure.code)
    assert codes == ["context_overflow"] * 2 + ["content_missing"] * 2 and not provider.asked


async def test_many_and_long_calls_are_told_as_a_content(provider):
    args = [json.dumps({"path": f"f{number}", "text": "é" * 500 * number}) for number in range(20)]
    provider.will(calls(*({"name": "write", "arguments": row, "id": f"id{at}"} for at, row in enumerate(args))))
    async with desk(provider) as d:
        request = await call(d)
        conversation = request.conversation.model_copy(update={"reads_calls": True})
        reply = await asked(d, request.model_copy(update={"conversation": conversation}))
        made = AdoptedToolCalls.model_validate_json(await d.text(reply.calls)).calls
    assert (reply.outcome, reply.finish, reply.tool_calls) == ("answered", "tool_calls", ())
    assert [(one.id, one.arguments_json) for one in made] == [(f"id{at}", row) for at, row in enumerate(args)]


@pytest.mark.parametrize("made", [bounds.MAX_ADOPTED_CALLS + 1, 1, 64])
async def test_calls_beyond_every_bound_are_a_failure(provider, made):
    size = {1: bounds.MAX_ADOPTED_ARGUMENTS_BYTES, 64: 80_000}.get(made, 2)
    one = {"name": "look", "arguments": json.dumps({"a": "x" * size})}
    provider.will(calls(*({**one, "id": f"id{number}"} for number in range(made))))
    async with desk(provider) as d:
        request = await call(d)
        conversation = request.conversation.model_copy(update={"reads_calls": True})
        reply = await asked(d, request.model_copy(update={"conversation": conversation}))
    assert (reply.outcome, reply.failure.code) == ("failed", "tool_calls_too_large")


@pytest.mark.parametrize("made", [9, 1])
async def test_an_asker_that_reads_no_content_of_calls_is_told_of_a_failure(provider, made):
    size = bounds.MAX_ARGUMENTS_BYTES if made == 1 else 2
    one = {"name": "look", "arguments": json.dumps({"a": "x" * size})}
    provider.will(calls(*({**one, "id": f"id{number}"} for number in range(made))))
    async with desk(provider) as d:
        reply = await asked(d, await call(d))
    assert (reply.outcome, reply.failure.code) == ("failed", "tool_calls_too_large")
    assert reply.usage.model_calls == 1 and reply.tool_calls == ()


# Forms and money


def chat(*messages: dict[str, Any], **options: Any) -> Chat:
    return Chat("m0", {"messages": list(messages or MESSAGES), **options}, 50, adopted=True)


def translated(api: str, *messages: dict[str, Any], **options: Any) -> dict[str, Any]:
    form = FORMS[api]
    words = form.parameter_names, form.option_names, form.max_temperature
    return json.loads(form.build_request(narrow_chat(chat(*messages, **options), *words, [])).body)


@pytest.mark.parametrize(
    ("choice", "anthropic", "responses", "gemini"),
    [
        ("required", {"type": "any"}, "required", {"mode": "ANY"}),
        ("none", {"type": "none"}, "none", {"mode": "NONE"}),
        (
            {"type": "function", "function": {"name": "look"}},
            {"type": "tool", "name": "look"},
            {"type": "function", "name": "look"},
            {"mode": "ANY", "allowedFunctionNames": ["look"]},
        ),
    ],
)
def test_a_choice_of_tools_is_said_in_each_form(choice, anthropic, responses, gemini) -> None:
    assert translated("anthropic", tools=[TOOL], tool_choice=choice)["tool_choice"] == anthropic
    assert translated("openai-responses", tools=[TOOL], tool_choice=choice)["tool_choice"] == responses
    assert translated("gemini", tools=[TOOL], tool_choice=choice)["toolConfig"]["functionCallingConfig"] == gemini


def test_thinking_is_said_where_there_is_a_word_for_it() -> None:
    thinking = {"type": "enabled", "budget_tokens": 2_000}
    sent = translated("anthropic", thinking=thinking, reasoning_effort="low")
    assert sent["thinking"] == thinking and sent["output_config"] == {"effort": "low"}
    assert translated("anthropic", thinking=thinking, tools=[TOOL])["thinking"] == thinking
    for api in ("gemini", "openai-responses"):
        with pytest.raises(UnsupportedInput, match="the parameter thinking"):
            translated(api, thinking=thinking)
    assert translated("openai-responses", reasoning_effort="low")["reasoning"] == {"effort": "low"}
    with pytest.raises(UnsupportedInput, match="reasoning_effort"):
        translated("gemini", reasoning_effort="low")


def test_calls_one_at_a_time_are_said_where_there_is_a_word_for_it() -> None:
    given = {"tools": [TOOL], "parallel_tool_calls": False}
    assert translated("anthropic", **given)["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert translated("openai-responses", **given)["parallel_tool_calls"] is False
    with pytest.raises(UnsupportedInput, match="parallel_tool_calls"):
        translated("gemini", **given)


@pytest.mark.parametrize("api", ["anthropic", "gemini", "openai-responses"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"messages": [{"role": "function", "content": "x"}]}, "the role function"),
        ({"tools": [{"type": "web_search"}]}, "a tool of the type web_search"),
        ({"response_format": {"type": "json_object"}}, "json_object"),
        ({"temperature": 3}, "a temperature of 3"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)
def test_a_form_without_the_word_names_it(api, options, said) -> None:
    options = {"messages": MESSAGES, **options}
    with pytest.raises(UnsupportedInput, match=said):
        translated(api, *options.pop("messages"), **options)


def png(width: int, height: int) -> bytes:
    """As much of a PNG as tells its size."""
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")


def image_part(data: bytes) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(data).decode()}"}}


def test_a_conversation_without_a_system_message_has_no_empty_one() -> None:
    user = {"role": "user", "content": "hi"}
    assert "system" not in translated("anthropic", user)
    assert "systemInstruction" not in translated("gemini", user)
    assert translated("openai-responses", user)["input"] == [user]


def rendered(payload: dict[str, Any]) -> RenderedRequest:
    conversation = Conversation(messages=(ContentRef(author="doors", sha256="0" * 64, size_bytes=1),))
    request = ModelCallRequested(
        call_id="c", prompt_id="adopted@1", max_output_tokens=5, deadline_unix_ms=1, conversation=conversation
    )
    return render_conversation(RenderSource("", request, {}, payload=payload), TokenCounter())


def test_images_count_as_images_and_not_by_their_bytes() -> None:
    image = {"role": "user", "content": [image_part(png(64, 64) + b"A" * 300_000)]}
    found = rendered({"messages": [image, image]})
    assert 2 * IMAGE_TOKENS < found.input_tokens_estimate < 2 * IMAGE_TOKENS + 200


@pytest.mark.parametrize("place", ["content", "schema"])
def test_an_image_in_a_text_is_text(place) -> None:
    url = "data:image/png;base64," + "A" * 40_000
    part = {"type": "image_url", "image_url": {"url": url}}
    schema = {"type": "function", "function": {"name": "look", "parameters": {"examples": [{"content": [part]}]}}}
    said = {"messages": [{"role": "user", "content": url}]} if place == "content" else {"tools": [schema]}
    assert rendered({"messages": [], **said}).input_tokens_estimate > 10_000


def file_part(content: bytes, prefix: str = "data:application/pdf;base64,") -> dict[str, object]:
    return {"type": "file", "file": {"file_data": prefix + base64.b64encode(content).decode(), "filename": "f"}}


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"type": "video_url", "video_url": {"url": "u"}}, "a part of the type video_url left out: its kind"),
        ({"type": "file", "file": {"file_id": "f"}}, "document left out: it lies elsewhere"),
        (file_part(b"%PDF-1.7 " + zlib.compress(b"word " * 500_000)), "document left out: the PDF is damaged"),
        (file_part(b"%PDF-1.7 all of it text", "data:text/plain;base64,"), "document left out: the PDF is damaged"),
        (file_part(b"PK\x03\x04\x00\x00", ""), "document left out: it is neither text nor a PDF"),
        ({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, "image left out: it is not the"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, "image left out: it is not the"),
        ({"type": "image_url", "image_url": {"url": "data:image/svg+xml;base64,PHN2Zy8+"}}, "image left out: it is"),
        ({"type": "image_url", "image_url": "https://example.com/a.png"}, "image left out: it is not the"),
    ],
)
async def test_a_part_whose_tokens_cannot_be_counted_is_named_in_its_place_and_to_the_asker(provider, part, said):
    provider.will(says("x"))
    async with desk(provider) as d:
        question = {"type": "text", "text": "What is it?"}
        reply = await asked(d, await call(d, {"role": "user", "content": [part, question]}))
    sent = provider.asked[0].body["messages"][0]["content"]
    assert sent[0]["text"].startswith(f"[{said}") and sent[1] == question
    [omission] = reply.completeness.omissions
    assert omission.reason == "pruned" and f"{omission.what} left out: {omission.detail}" in sent[0]["text"]


async def test_a_tool_that_the_provider_runs_is_left_out_and_named(provider):
    provider.will(says("x"))
    async with desk(provider) as d:
        options = {"tools": [TOOL, {"type": "web_search"}], "tool_choice": {"type": "web_search"}}
        reply = await asked(d, await call(d, options=options))
    assert provider.asked[0].body["tools"] == [TOOL] and "tool_choice" not in provider.asked[0].body
    assert [omission.what for omission in reply.completeness.omissions] == ["the tool web_search"]


async def test_an_image_reserves_what_it_may_cost_by_its_size(provider):
    """The scripted model is of no known vendor: the dearest rule."""
    provider.will(says("x"))
    async with desk(provider) as d:
        parts = (image_part(png(64, 64)), image_part(png(4_096, 4_096)), file_part(b"some words", ""))
        for number, part in enumerate(parts):
            await asked(d, await call(d, {"role": "user", "content": [part]}, call_id=f"c{number}"))
        small, large, text = (one.worst_case.tokens for one in d.purse.asked)
    assert small - text > 8_000 and large - small > 11_000


async def test_letters_that_no_language_has_are_reserved_for_by_their_bytes(provider):
    """The scripted model is of no known vocabulary; the text is so long that it is counted beside the event loop."""
    provider.will(says("x"))
    text = "".join(random.Random(29).choices([chr(code) for code in range(0x7C0, 0x7EB)], k=20_000))
    async with desk(provider) as d:
        await asked(d, await call(d, {"role": "user", "content": text}))
        [reserved] = d.purse.asked
    assert 40_000 <= reserved.worst_case.tokens < 41_000


def test_an_empty_set_of_options_is_none() -> None:
    ref = ContentRef(author="doors", sha256="0" * 64, size_bytes=1)
    texts = {ref.sha256: '{"role":"user","content":"x"}'}
    found = payload_of(Conversation(messages=(ref,)), texts)
    assert not isinstance(found, ProviderFault) and found == {"messages": [{"role": "user", "content": "x"}]}


async def test_a_provider_without_embeddings_refuses_them_by_name(provider):
    given = {"providers": {"a": {"api": "anthropic", "base_url": provider.url, "api_key": "k"}}}
    async with desk(provider, routes={"default": {"model": PRICED, "provider": "a"}}, **given) as d:
        request = await call(d, {"input": ["x"]})
        talk = request.conversation.model_copy(update={"embeds": True})
        reply = await asked(d, request.model_copy(update={"conversation": talk}))
    assert (reply.outcome, reply.failure.code) == ("refused", "unsupported_parameter")
    assert "provider a (anthropic) does not take embeddings" in reply.failure.message and not provider.asked


THOUGHTS = [
    {"type": "thinking", "thinking": "It wants a look.", "signature": "c2lnbmVk"},
    {"type": "redacted_thinking", "data": "aGlkZGVu"},
]


async def thinks(x: Exchange) -> None:
    """Two blocks of thoughts, then a call."""
    call = {"type": "tool_use", "id": "call_1", "name": "look"}
    said = {"type": "thinking_delta", "thinking": "It wants a look."}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 5, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": said},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2lnbmVk"}},
        {"type": "content_block_start", "index": 1, "content_block": THOUGHTS[1]},
        {"type": "content_block_start", "index": 2, "content_block": call},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 20}},
        {"type": "message_stop"},
    ]
    await x.begin()
    for event in events:
        await x.event(event)
    await x.end()


async def test_signed_thoughts_beside_a_call_are_kept_and_go_back_with_its_result(provider):
    provider.will(thinks)
    given = {"providers": {"a": {"api": "anthropic", "base_url": provider.url, "api_key": "k"}}}
    options = {"thinking": {"type": "enabled", "budget_tokens": 2_000}, "tools": [TOOL]}
    async with desk(provider, routes={"default": {"model": PRICED, "provider": "a"}}, **given) as d:
        reply = await asked(d, await call(d, {"role": "user", "content": "hi"}, options=options))
        assert reply.outcome == "answered" and json.loads(await d.text(reply.thoughts)) == THOUGHTS
        again = (MESSAGES[1], {**MESSAGES[2], "thinking_blocks": THOUGHTS}, MESSAGES[3])
        await asked(d, await call(d, *again, options=options, call_id="c2"))
    _, assistant, _ = provider.asked[1].body["messages"]
    assert [block["type"] for block in assistant["content"]] == ["thinking", "redacted_thinking", "tool_use"]
    assert assistant["content"][:2] == THOUGHTS


async def test_another_vendors_thoughts_are_not_sent_to_openai(provider):
    provider.will(says("found"))
    async with desk(provider) as d:
        await asked(d, await call(d, MESSAGES[1], {**MESSAGES[2], "thinking_blocks": THOUGHTS}, MESSAGES[3]))
    assert "thinking_blocks" not in provider.asked[0].body["messages"][1]
