"""The unmodified `anthropic` SDK at the model door."""

import asyncio
import base64

import anthropic
import pytest

from bulkhead.model_apis.anthropic_view import view_anthropic
from bulkhead.model_apis.chat_view import ChatView
from bulkhead_services.doors.port import DoorRefusal
from tests.integration.doors.desk import KEY, TASK, Reply, calls, served, text

TOOL = {
    "name": "weather",
    "description": "The weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
ASK = {"model": "large", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}


def client(door, **more):
    """The SDK with its own defaults: two retries."""
    return anthropic.AsyncAnthropic(base_url=door.anthropic, api_key=KEY, **more)


def chat_of(asked) -> ChatView:
    """The request as a provider of another API is sent it."""
    return view_anthropic(asked.messages, asked.options)


async def test_a_message():
    system = [
        {"type": "text", "text": "Be brief."},
        {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}},
    ]
    async with served(text("hel", "lo")) as door, client(door) as sdk:
        raw = await sdk.messages.with_raw_response.create(
            **ASK, system=system, stop_sequences=["END"], extra_body={"temperature": 0.5}, metadata={"user_id": "u-7"}
        )
        found = await raw.parse()
        assert [block.text for block in found.content] == ["hello"] and found.stop_reason == "end_turn"
        assert (found.id, found.model, found.role) == ("msg_c1", "large-2026", "assistant")
        usage = found.usage
        assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (100, 20, 30)
        asked = door.desk.asked[0]
        assert asked.options == {"temperature": 0.5, "stop_sequences": ["END"], "system": system}
        chat = chat_of(asked)
        assert chat.messages[0] == {"role": "system", "content": "Be brief.\n\nBe kind."} and not chat.gaps
        assert chat.options == {"temperature": 0.5, "stop": ["END"]} and asked.max_output_tokens == 50
        assert asked.session == "u-7" and raw.headers["x-bulkhead-task"] == TASK
        assert raw.headers["request-id"].startswith("req_")


async def test_a_message_streamed():
    async with served(text("hel", "lo")) as door, client(door) as sdk:
        async with sdk.messages.stream(**ASK) as stream:
            pieces = [piece async for piece in stream.text_stream]
            final = await stream.get_final_message()
        assert pieces == ["hel", "lo"] and final.content[0].text == "hello" and final.stop_reason == "end_turn"
        assert (final.usage.input_tokens, final.usage.output_tokens) == (100, 30)


async def test_a_conversation_with_tools():
    async with served(calls("weather", city="Rome"), text("sunny")) as door, client(door) as sdk:
        async with sdk.messages.stream(**ASK, tools=[TOOL], tool_choice={"type": "any"}) as stream:
            first = await stream.get_final_message()
        assert first.stop_reason == "tool_use" and first.content[0].input == {"city": "Rome"}
        results = [
            {"type": "text", "text": "Go on."},
            {"type": "tool_result", "tool_use_id": first.content[0].id, "content": "22 C", "is_error": False},
        ]
        history = [
            *ASK["messages"],
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": results},
        ]
        choice = {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
        second = await sdk.messages.create(**ASK | {"messages": history}, tools=[TOOL], tool_choice=choice)
        assert second.content[0].text == "sunny"
        assert chat_of(door.desk.asked[0]).options["tool_choice"] == "required"
        assert door.desk.asked[1].messages[2]["content"] == results, "as it came"
        asked = chat_of(door.desk.asked[1])
        assert asked.options["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
        assert asked.options["parallel_tool_calls"] is False
        function = asked.options["tools"][0]["function"]
        assert function == {"name": "weather", "description": "The weather.", "parameters": TOOL["input_schema"]}
        _, assistant, result, user = asked.messages
        assert assistant["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city":"Rome"}'}
        assert result == {"role": "tool", "tool_call_id": "call_1", "content": "22 C"}
        assert user == {"role": "user", "content": "Go on."}


async def test_thinking_is_asked_for_and_an_effort_too():
    thinking = {"type": "enabled", "budget_tokens": 2000}
    async with served() as door, client(door) as sdk:
        await sdk.messages.create(**ASK | {"max_tokens": 4_000}, thinking=thinking, output_config={"effort": "low"})
        await sdk.messages.create(**ASK, thinking={"type": "disabled"})
        one, two = door.desk.asked
        assert one.options == {"thinking": thinking, "output_config": {"effort": "low"}}
        assert chat_of(one).options == {"reasoning_effort": "low"} and not chat_of(two).options
        assert [gap.what for gap in chat_of(one).gaps] == ["the option thinking"] and not chat_of(two).gaps


@pytest.mark.parametrize("streamed", [True, False])
async def test_thoughts_beside_a_call_stand_first_and_come_back_as_they_were(streamed):
    thinking = {"type": "enabled", "budget_tokens": 2000}
    thoughts = (
        {"type": "thinking", "thinking": "Rome, then.", "signature": "c2lnbmVk"},
        {"type": "redacted_thinking", "data": "aGlkZGVu"},
    )
    asks = Reply(("Let me look.",), calls("weather", city="Rome").tool_calls, "tool_calls", thoughts=thoughts)
    given = {**ASK, "max_tokens": 4_000, "tools": [TOOL], "thinking": thinking}
    async with served(asks, text("sunny")) as door, client(door) as sdk:
        if streamed:
            async with sdk.messages.stream(**given) as stream:
                first = await stream.get_final_message()
        else:
            first = await sdk.messages.create(**given)
        assert [block.type for block in first.content] == ["thinking", "redacted_thinking", "text", "tool_use"]
        assert first.content[2].text == "Let me look." and first.content[3].input == {"city": "Rome"}
        result = {"type": "tool_result", "tool_use_id": first.content[3].id, "content": "22 C"}
        history = [*ASK["messages"], {"role": "assistant", "content": first.content}]
        await sdk.messages.create(**given | {"messages": [*history, {"role": "user", "content": [result]}]})
        assert door.desk.asked[1].messages[1]["content"][:2] == list(thoughts)


async def test_text_and_a_tool_in_one_message():
    call = calls("weather", city="Rome").tool_calls
    async with served(Reply(("Let me look.",), call, "tool_calls")) as door, client(door) as sdk:
        whole = await sdk.messages.create(**ASK, tools=[TOOL])
        async with sdk.messages.stream(**ASK, tools=[TOOL]) as stream:
            streamed = await stream.get_final_message()
        for message in (whole, streamed):
            assert [block.type for block in message.content] == ["text", "tool_use"]
            assert message.content[1].input == {"city": "Rome"} and message.stop_reason == "tool_use"


async def test_images_become_data_urls():
    source = {"type": "base64", "media_type": "image/png", "data": "aGk="}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
    async with served() as door, client(door) as sdk:
        await sdk.messages.create(**ASK | {"messages": [{"role": "user", "content": content}]})
        image, said = chat_of(door.desk.asked[0]).messages[0]["content"]
        assert image == {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
        assert said == {"type": "text", "text": "What is it?"}


async def test_the_synchronous_client_lists_models():
    async with served() as door:

        def ask():
            with anthropic.Anthropic(base_url=door.anthropic, api_key=KEY) as sdk:
                names = [row.id for row in sdk.models.list()]
                return names, sdk.models.retrieve("small").id, sdk.messages.create(**ASK).content[0].text

        assert await asyncio.to_thread(ask) == (["small", "large"], "small", "hello")


@pytest.mark.parametrize(
    "refusal, kind, name",
    [
        (
            DoorRefusal(403, "refused_by_budget", "the run has spent its ceiling"),
            anthropic.PermissionDeniedError,
            "permission_error",
        ),
        (DoorRefusal(404, "unknown_route", "there is no model x"), anthropic.NotFoundError, "not_found_error"),
        (DoorRefusal(400, "context_overflow", "too long"), anthropic.BadRequestError, "invalid_request_error"),
        (DoorRefusal(502, "provider_error", "the provider failed"), anthropic.InternalServerError, "api_error"),
        (DoorRefusal(429, "rate_limited", "the provider is busy"), anthropic.RateLimitError, "rate_limit_error"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_is_raised_once_and_not_repeated(refusal, kind, name, stream):
    async with served(Reply(refused=refusal)) as door, client(door) as sdk:
        with pytest.raises(kind) as raised:
            await sdk.messages.create(**ASK, stream=stream)
        error = raised.value.body["error"]
        assert (error["type"], error["code"]) == (name, refusal.code) and refusal.message in error["message"]
        assert raised.value.request_id.startswith("req_") and len(door.desk.asked) == 1


async def test_a_stream_that_breaks_raises_after_its_text():
    refusal = DoorRefusal(403, "halted", "the task was halted by ada")
    async with served(Reply(("hal",), refused=refusal)) as door, client(door) as sdk:
        pieces = []
        with pytest.raises(anthropic.APIStatusError, match="halted by ada"):
            async with sdk.messages.stream(**ASK) as stream:
                async for piece in stream.text_stream:
                    pieces.append(piece)
        assert pieces == ["hal"] and len(door.desk.asked) == 1


@pytest.mark.parametrize(
    "more, field",
    [
        ({"thinking": {"type": "enabled", "budget_tokens": -1}}, "thinking.budget_tokens"),
        ({"extra_body": {"top_k": -5}}, "top_k"),
        ({"extra_body": {"inference_geo": "us"}}, "inference_geo"),
        ({"extra_body": {"mcp_servers": [{"type": "url", "url": "http://x", "name": "x"}]}}, "mcp_servers"),
        ({"tools": [TOOL, TOOL]}, "tools[1].name"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "rain"}}, "tool_choice.name"),
    ],
)
async def test_what_has_no_counterpart_is_refused_by_name(more, field):
    async with served() as door, client(door) as sdk:
        with pytest.raises(anthropic.BadRequestError) as raised:
            await sdk.messages.create(**ASK, **more)
        assert field in raised.value.body["error"]["message"] and not door.desk.asked


async def test_tokens_are_estimated_without_a_call():
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (1_000).to_bytes(4, "big") * 2 + bytes(15_000)
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(png).decode()}
    image = {"type": "image", "source": source}
    said = [image, {"type": "text", "text": "What is it?"}]
    async with served() as door, client(door) as sdk:
        ask = {"model": "claude-sonnet-4-5", "messages": ASK["messages"]}
        short = await sdk.messages.count_tokens(**ask)
        more = await sdk.messages.count_tokens(**ask, system="Be brief. " * 100, tools=[TOOL])
        seen = await sdk.messages.count_tokens(**ask | {"messages": [{"role": "user", "content": said}]})
        assert 5 < short.input_tokens < 40 and 200 < more.input_tokens < 800
        assert 2_000 < seen.input_tokens < 2_100, "an image does not count by its bytes"
        with pytest.raises(anthropic.BadRequestError, match="speed"):
            await sdk.messages.count_tokens(**ask, extra_body={"speed": "fast"})
        async with anthropic.AsyncAnthropic(base_url=door.anthropic, api_key="bk_wrong") as other:
            with pytest.raises(anthropic.AuthenticationError):
                await other.messages.count_tokens(**ask)
        assert not door.desk.asked
