"""The unmodified `openai` SDK at the model door: chat completions and responses, sync and async."""

import asyncio
import json

import openai
import pytest
from pydantic import BaseModel

from bulkhead.model_apis.chat_view import ChatView
from bulkhead.model_apis.responses_view import view_responses
from bulkhead_services.doors.port import DoorRefusal
from tests.integration.doors.desk import KEY, READER, TASK, Reply, calls, served, text

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASK = [{"role": "user", "content": "hi"}]
BUDGET = DoorRefusal(403, "refused_by_budget", "the run has spent its ceiling of $2.00", "name another run")


class City(BaseModel):
    """A structured answer."""

    name: str
    people: int


def client(door, **more):
    """The SDK with its own defaults: two retries."""
    return openai.AsyncOpenAI(base_url=door.openai, api_key=KEY, **more)


async def test_chat():
    async with served(text("hel", "lo")) as door, client(door) as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(
            model="large", messages=ASK, temperature=0.5, max_tokens=50, user="u-1", extra_body={"top_k": 4}
        )
        found = raw.parse()
        assert found.choices[0].message.content == "hello" and found.choices[0].finish_reason == "stop"
        assert found.id == "chatcmpl-c1" and found.model == "large-2026" and found.created == 1_790_000_000
        assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (120, 30, 150)
        assert found.usage.prompt_tokens_details.cached_tokens == 20
        assert found.usage.completion_tokens_details.reasoning_tokens == 7
        asked = door.desk.asked[0]
        assert asked.messages == ({"role": "user", "content": "hi"},) and asked.max_output_tokens == 50
        assert asked.options == {"temperature": 0.5, "top_k": 4} and asked.session == "u-1" and not asked.stream
        assert raw.headers["x-bulkhead-task"] == TASK and raw.headers["x-bulkhead-spent-usd"] == "0.250000"
        assert raw.headers["x-bulkhead-left-usd"] == "1.750000" and raw.headers["x-bulkhead-left-tokens"] == "9100"
        assert raw.headers["x-request-id"].startswith("req_") and found._request_id == raw.headers["x-request-id"]


async def test_chat_streamed():
    async with served(text("hel", "lo")) as door, client(door) as sdk:
        stream = await sdk.chat.completions.create(
            model="large", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(row.choices[0].delta.content or "" for row in chunks if row.choices) == "hello"
        assert chunks[-1].usage.total_tokens == 150 and not chunks[-1].choices
        assert chunks[-2].choices[0].finish_reason == "stop" and {row.id for row in chunks} == {"chatcmpl-c1"}


async def test_chat_streamed_without_usage():
    async with served(text("hi")) as door, client(door) as sdk:
        chunks = [chunk async for chunk in await sdk.chat.completions.create(model="m", messages=ASK, stream=True)]
        assert all(chunk.usage is None and chunk.choices for chunk in chunks)


async def test_the_stream_helper_puts_tool_calls_together():
    async with served(calls("weather", city="Rome")) as door, client(door) as sdk:
        async with sdk.chat.completions.stream(model="large", messages=ASK, tools=[TOOL]) as stream:
            final = await stream.get_final_completion()
        call = final.choices[0].message.tool_calls[0]
        assert (call.id, call.function.name, json.loads(call.function.arguments)) == (
            "call_1",
            "weather",
            {"city": "Rome"},
        )
        assert final.choices[0].finish_reason == "tool_calls"


async def test_a_conversation_with_a_tool():
    async with served(calls("weather", city="Rome"), text("sunny")) as door, client(door) as sdk:
        first = await sdk.chat.completions.create(model="large", messages=ASK, tools=[TOOL], tool_choice="required")
        message = first.choices[0].message
        assert message.content is None and first.choices[0].finish_reason == "tool_calls"
        result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "22 C"}
        await sdk.chat.completions.create(
            model="large", messages=[*ASK, message, result], tools=[TOOL], parallel_tool_calls=False
        )
        _, assistant, tool = door.desk.asked[1].messages
        assert assistant["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Rome"}'}
        assert tool == result and door.desk.asked[1].options["tools"] == [TOOL]
        assert door.desk.asked[0].options["tool_choice"] == "required"


async def test_structured_output_is_parsed():
    async with served(text('{"name": "Rome", "people": 3}')) as door, client(door) as sdk:
        found = await sdk.chat.completions.parse(model="large", messages=ASK, response_format=City)
        assert found.choices[0].message.parsed == City(name="Rome", people=3)
        form = door.desk.asked[0].options["response_format"]
        assert form["type"] == "json_schema" and form["json_schema"]["name"] == "City"
        again = await sdk.responses.parse(model="large", input="hi", text_format=City)
        assert again.output_parsed == City(name="Rome", people=3)
        assert chat_of(door.desk.asked[1]).options["response_format"] == form


async def test_the_synchronous_client():
    async with served(text("hel", "lo")) as door:

        def ask():
            with openai.OpenAI(base_url=door.openai, api_key=KEY) as sdk:
                whole = sdk.chat.completions.create(model="large", messages=ASK).choices[0].message.content
                chunks = sdk.chat.completions.create(model="large", messages=ASK, stream=True)
                streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
                names = [row.id for row in sdk.models.list()]
                return (
                    whole,
                    streamed,
                    names,
                    sdk.models.retrieve("small").id,
                    sdk.responses.create(input="x", model="m"),
                )

        whole, streamed, names, one, response = await asyncio.to_thread(ask)
        assert (whole, streamed, names, one) == ("hello", "hello", ["small", "large"], "small")
        assert response.output_text == "hello"


def chat_of(asked) -> ChatView:
    """The request as a provider of another API is sent it."""
    return view_responses(asked.messages, asked.options)


async def test_a_response():
    async with served(text("hel", "lo")) as door, client(door) as sdk:
        found = await sdk.responses.create(
            model="large", instructions="Be brief.", input="hi", max_output_tokens=40, metadata={"session": "s-9"}
        )
        assert found.output_text == "hello" and found.status == "completed" and found.id == "resp_kept_c1"
        assert found.usage.total_tokens == 150 and found.usage.input_tokens_details.cached_tokens == 20
        assert found.usage.output_tokens_details.reasoning_tokens == 7
        assert found.metadata == {"session": "s-9"} and found.instructions == "Be brief."
        asked = door.desk.asked[0]
        chat = chat_of(asked)
        assert chat.messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
        assert asked.max_output_tokens == 40 and asked.session == "s-9" and chat.options == {}


async def test_a_response_goes_on_from_another_unless_it_is_not_stored():
    async with served(text("hello")) as door, client(door) as sdk:
        first = await sdk.responses.create(model="large", instructions="Be brief.", input="hi")
        second = await sdk.responses.create(model="large", input="go on", previous_response_id=first.id, store=False)
        assert (first.store, second.store) == (True, False) and second.previous_response_id == first.id
        assert (first.id, second.id) == ("resp_kept_c1", "resp_c2")
        one, two = door.desk.asked
        assert (one.keep, one.previous, one.options) == (True, "", {"instructions": "Be brief."})
        assert (two.keep, two.previous) == (False, first.id)
        assert two.messages == ({"type": "message", "role": "user", "content": "go on"},) and not two.options


async def test_a_response_streamed():
    async with served(text("hel", "lo")) as door, client(door) as sdk:
        stream = await sdk.responses.create(model="large", input="hi", stream=True)
        events = [event async for event in stream]
        assert [event.type for event in events] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
        assert [event.sequence_number for event in events] == list(range(10))
        assert events[-1].response.output_text == "hello" and events[-1].response.usage.output_tokens == 30


async def test_tools_in_a_response():
    flat = {"type": "function", **TOOL["function"], "strict": True}
    async with served(calls("weather", city="Rome"), text("sunny")) as door, client(door) as sdk:
        async with sdk.responses.stream(model="large", input="hi", tools=[flat], tool_choice="auto") as stream:
            final = await stream.get_final_response()
        call = final.output[0]
        assert (call.type, call.name, call.call_id, call.arguments) == (
            "function_call",
            "weather",
            "call_1",
            '{"city": "Rome"}',
        )
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "22 C"}
        history = [{"role": "user", "content": "hi"}, *(row.to_dict() for row in final.output), result]
        again = await sdk.responses.create(model="large", input=history, tools=[flat])
        assert again.output_text == "sunny"
        function = TOOL["function"] | {"strict": True}
        assert chat_of(door.desk.asked[0]).options["tools"] == [{"type": "function", "function": function}]
        assert chat_of(door.desk.asked[1]).messages[1:] == [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "22 C"},
        ]


THOUGHT = Reply(("42",), finish="stop", thoughts=({"type": "reasoning", "text": "Six times seven."},))


async def test_reasoning_that_a_provider_shows_comes_beside_a_chats_answer():
    async with served(THOUGHT) as door, client(door) as sdk:
        ask = {"model": "large", "messages": [{"role": "user", "content": "6 * 7?"}]}
        whole = await sdk.chat.completions.create(**ask)
        said = [piece.choices[0].delta async for piece in await sdk.chat.completions.create(**ask, stream=True)]
    message = whole.choices[0].message
    assert message.content == "42" and message.model_extra["reasoning_content"] == "Six times seven."
    assert "".join((one.model_extra or {}).get("reasoning_content", "") for one in said) == "Six times seven."


async def test_a_response_holds_a_summary_of_reasoning_where_one_is_asked_for():
    async with served(THOUGHT) as door, client(door) as sdk:
        plain = await sdk.responses.create(model="large", input="6 * 7?")
        asked = {"model": "large", "input": "6 * 7?", "reasoning": {"summary": "auto"}}
        whole = await sdk.responses.create(**asked)
        async with sdk.responses.stream(**asked) as stream:
            kinds = [event.type async for event in stream]
            streamed = await stream.get_final_response()
        echo = [item.model_dump(exclude_none=True) for item in streamed.output]
        await sdk.responses.create(model="large", input=[*echo, {"role": "user", "content": "And 7 * 7?"}])
        assert [one["role"] for one in chat_of(door.desk.asked[-1]).messages] == ["assistant", "user"]
        assert chat_of(door.desk.asked[1]).options["reasoning_summary"] == "auto"
    assert [item.type for item in plain.output] == ["message"]
    for response in (whole, streamed):
        assert [item.type for item in response.output] == ["reasoning", "message"]
        assert response.output[0].summary[0].text == "Six times seven." and response.output_text == "42"
    assert "response.reasoning_summary_text.delta" in kinds


async def test_an_answer_that_was_cut_is_incomplete():
    async with served(Reply(("half",), finish="length")) as door, client(door) as sdk:
        chat = await sdk.chat.completions.create(model="m", messages=ASK)
        response = await sdk.responses.create(model="m", input="hi")
        assert chat.choices[0].finish_reason == "length"
        assert response.status == "incomplete" and response.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize(
    "refusal, kind",
    [
        (BUDGET, openai.PermissionDeniedError),
        (DoorRefusal(403, "halted", "the task is halted"), openai.PermissionDeniedError),
        (DoorRefusal(404, "unknown_route", "there is no model x", "the models are small"), openai.NotFoundError),
        (DoorRefusal(400, "unsupported_parameter", "seed is not taken", field="seed"), openai.BadRequestError),
        (DoorRefusal(502, "provider_error", "the provider failed"), openai.InternalServerError),
        (DoorRefusal(429, "rate_limited", "the provider is busy"), openai.RateLimitError),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_is_raised_once_and_not_repeated(refusal, kind, at_once, stream):
    async with served(Reply(refused=refusal, at_once=at_once)) as door, client(door) as sdk:
        with pytest.raises(kind) as raised:
            await sdk.chat.completions.create(model="large", messages=ASK, stream=stream)
        assert raised.value.code == refusal.code and refusal.message in str(raised.value)
        assert raised.value.status_code == refusal.status and refusal.hint in raised.value.message
        assert raised.value.param == (refusal.field or None)
        assert len(door.desk.asked) == 1
        with pytest.raises(kind):
            await sdk.responses.create(model="large", input="hi", stream=stream)
        assert len(door.desk.asked) == 2


async def test_a_refusal_that_may_pass_is_repeated_as_a_repeat():
    busy = DoorRefusal(503, "busy", "no place is free", retry=True, retry_after_s=0.1)
    async with served(Reply(refused=busy, at_once=True), text("hello")) as door, client(door) as sdk:
        found = await sdk.chat.completions.create(model="large", messages=ASK)
        assert found.choices[0].message.content == "hello"
        assert [caller.retry for caller in door.desk.callers] == [False, True]
        assert door.desk.asked[0] == door.desk.asked[1]


async def test_a_stream_that_breaks_raises_after_its_text():
    async with served(Reply(("hal",), refused=BUDGET)) as door, client(door) as sdk:
        for stream in (
            await sdk.chat.completions.create(model="large", messages=ASK, stream=True),
            await sdk.responses.create(model="large", input="hi", stream=True),
        ):
            events = []
            with pytest.raises(openai.APIError) as raised:
                async for event in stream:
                    events.append(event)
            assert raised.value.code == "refused_by_budget" and "ceiling" in raised.value.message and events
        assert len(door.desk.asked) == 2


async def test_keys_and_roles():
    async with served() as door:
        async with openai.AsyncOpenAI(base_url=door.openai, api_key="bk_wrong") as sdk:
            with pytest.raises(openai.AuthenticationError, match="not known"):
                await sdk.chat.completions.create(model="large", messages=ASK)
        async with openai.AsyncOpenAI(base_url=door.openai, api_key=READER) as sdk:
            with pytest.raises(openai.PermissionDeniedError, match="auditor may not ask models"):
                await sdk.chat.completions.create(model="large", messages=ASK)
        assert not door.desk.asked


async def test_headers_name_the_run():
    headers = {
        "X-Bulkhead-Run": "nightly report",
        "X-Bulkhead-Agent": "reporter",
        "X-Bulkhead-Feature": "reports",
        "X-Bulkhead-Workflow": "nightly",
        "X-Bulkhead-Limit-Usd": "0.25",
        "X-Bulkhead-Limit-Tokens": "5000",
        "X-Bulkhead-Deadline-S": "90",
        "Idempotency-Key": "k-1",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    async with served() as door, client(door, default_headers=headers) as sdk:
        await sdk.chat.completions.create(model="large", messages=ASK)
        caller = door.desk.callers[0]
        assert (caller.run, caller.agent, caller.feature) == ("nightly report", "reporter", "reports")
        assert (caller.limit_usd_micros, caller.limit_tokens, caller.deadline_ms) == (250_000, 5_000, 90_000)
        assert (caller.idempotency_key, caller.workflow) == ("k-1", "nightly")
        assert caller.traceparent == headers["traceparent"] and not caller.retry
        await sdk.chat.completions.create(model="large", messages=ASK, extra_headers={"X-Bulkhead-Task": TASK})
        assert door.desk.callers[1].task == TASK
