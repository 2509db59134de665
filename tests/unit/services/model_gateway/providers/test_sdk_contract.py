"""Our wire forms beside the vendors' own SDKs.

Their types take what we send and what the scripted provider answers; their clients send the same bodies and read the
same answers, refusals, counts and errors.
"""

import functools
import json
from dataclasses import replace

import anthropic
import openai
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from google import genai
from google.genai import types as google
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from pydantic import TypeAdapter

from bulkhead_services.model_gateway.providers.forms import FORMS
from bulkhead_services.model_gateway.providers.port import Chat, ModelAnswer, ProviderFault
from tests.unit.services.model_gateway.providers import misbehaviours
from tests.unit.services.model_gateway.providers.calling import KEY, calling
from tests.unit.services.model_gateway.providers.dialects import DIALECTS, Said
from tests.unit.services.model_gateway.scripted_provider import ScriptedProvider

CHAT_APIS = ("openai-chat", "azure-openai", "ollama")
REQUESTS = {
    "openai-responses": ResponseCreateParamsStreaming,
    "anthropic": MessageCreateParamsStreaming,
    **dict.fromkeys(CHAT_APIS, CompletionCreateParamsStreaming),
}
EVENTS = {
    "openai-responses": ResponseStreamEvent,
    "anthropic": RawMessageStreamEvent,
    "gemini": google.GenerateContentResponse,
    **dict.fromkeys(CHAT_APIS, ChatCompletionChunk),
}
BODIES = {
    "openai-responses": Response,
    "anthropic": Message,
    "gemini": google.GenerateContentResponse,
    **dict.fromkeys(CHAT_APIS, ChatCompletion),
}
SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "number", "minimum": 0}, "rows": {"type": "array", "items": {"type": "string"}}},
    "required": ["sum", "rows"],
    "additionalProperties": False,
}
FUNCTION = {
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
}
FORM = {"type": "json_schema", "json_schema": {"name": "plan", "strict": True, "schema": SCHEMA}}
ASKED = [{"role": "system", "content": "You add."}, {"role": "user", "content": "What is 40 + 2?"}]
CALLED = [{"id": f"t_{n}", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}} for n in range(2)]
TURN = [
    {"role": "assistant", "content": "Let me see.", "tool_calls": CALLED},
    *({"role": "tool", "tool_call_id": call["id"], "content": '{"sum": 42}'} for call in CALLED),
    {"role": "user", "content": "Cite it."},
]
PARAMETERS = {"temperature": 0.7, "top_p": 0.9, "seed": 7, "stop": ["END"], "reasoning_effort": "low"}
CHATS = {
    "plain": Chat("scripted-1", {"messages": ASKED}, 100),
    "parameters": Chat("scripted-1", {"messages": ASKED}, 100, PARAMETERS),
    "schema": Chat("scripted-1", {"messages": ASKED, "response_format": FORM}, 100),
    "tools": Chat("scripted-1", {"messages": ASKED, "tools": [{"type": "function", "function": FUNCTION}]}, 100),
    "turns": Chat(
        "scripted-1", {"messages": [*ASKED, *TURN], "tools": [{"type": "function", "function": FUNCTION}]}, 100
    ),
}
TWO = (("c_1", "add", '{"a": 1}'), ("c_2", "add", '{"a": 2}'))
ANSWERS = {
    "text": Said("The answer is 42."),
    "thoughts": Said("The answer is 42.", thoughts="Let me think."),
    "calls": Said("Let me see.", calls=TWO, end="tool_calls"),
    "cut": Said("The answer", end="length"),
    "filtered": Said("The", end="filter"),
    "nothing": Said(""),
    "uncounted": Said("The answer is 42.", counts=None),
}


def plainly(value):
    """What pydantic made of a body, as JSON has it; types that are iterables are checked while they are read."""
    if isinstance(value, dict):
        return {key: plainly(row) for key, row in value.items()}
    if isinstance(value, str | int | float | bool | None):
        return value
    return [plainly(row) for row in value]


adapter = functools.cache(TypeAdapter)


def sent(api, chat):
    """The body of a call; its parameters are those that the API takes."""
    chat = replace(
        chat, parameters={name: chat.parameters[name] for name in FORMS[api].parameter_names & {*chat.parameters}}
    )
    return json.loads(FORMS[api].build_request(chat).body)


# Types


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("api", REQUESTS)
def test_a_request_is_of_the_type_of_the_sdk(api, chat):
    """Nothing of it is unknown there: what a type does not know is left out of what it makes.

    Anthropic's are of API version 2026-10-21, without temperature and top_p; 2023-06-01, which we ask for, has them.
    """
    body = sent(api, CHATS[chat])
    gone = ("temperature", "top_p") if api == "anthropic" else ()
    known = {name: value for name, value in body.items() if name not in gone}
    assert plainly(adapter(REQUESTS[api]).validate_python(body)) == known


@pytest.mark.parametrize("chat", CHATS)
def test_a_request_of_gemini_is_of_the_types_of_the_sdk(chat):
    """These types refuse what they do not know."""
    body = sent("gemini", CHATS[chat])
    assert {*body} <= {"systemInstruction", "contents", "generationConfig", "tools"}
    for content in (body["systemInstruction"], *body["contents"]):
        google.Content.model_validate_json(json.dumps(content))
    google.GenerationConfig.model_validate(body["generationConfig"])
    for tool in body.get("tools", ()):
        google.Tool.model_validate(tool)


@pytest.mark.parametrize("name", [name for name in ANSWERS if name != "uncounted"])
@pytest.mark.parametrize("api", FORMS)
def test_a_scripted_answer_is_of_the_type_of_the_sdk(api, name):
    dialect = DIALECTS[api]
    adapter(BODIES[api]).validate_python(dialect.whole(ANSWERS[name]))
    for event in dialect.stream(ANSWERS[name]):
        if event.get("type") != "ping":  # Anthropic's SDK skips it before its types see it.
            adapter(EVENTS[api]).validate_python(event)


@pytest.mark.parametrize("reason", anthropic.types.StopReason.__args__)
def test_every_stop_reason_of_anthropic_is_known(reason):
    body = DIALECTS["anthropic"].whole(Said("Half.")) | {"stop_reason": reason}
    assert_known(of_body("anthropic", body), reason, ("pause_turn",))


@pytest.mark.parametrize("reason", [one.value for one in google.FinishReason if "UNSPECIFIED" not in one.value])
def test_every_finish_reason_of_gemini_is_known(reason):
    body = DIALECTS["gemini"].whole(Said())
    body["candidates"][0]["finishReason"] = reason
    nothing = ("OTHER", "IMAGE_OTHER", "NO_IMAGE", "MISSING_THOUGHT_SIGNATURE")
    assert_known(of_body("gemini", body), reason, nothing)


def of_body(api, body):
    assembly = FORMS[api].assembly_type()
    assembly.feed_body(json.dumps(body).encode())
    return assembly.result()


def assert_known(said, reason, unknown):
    """A reason that we know nothing of is told by its own name, and only those of this list are."""
    if isinstance(said, ProviderFault):
        assert (said.code == "error_body") == (reason in unknown), said
    else:
        assert any(reason in row.detail for row in said.omissions) == (reason in unknown), said


# Clients


# A filter's end is a refusal there, and the SDK itself breaks at an answer without counts.
NOT_ANTHROPIC = ("filtered", "uncounted")


@pytest.mark.parametrize(
    ("api", "name"),
    [(api, name) for api in FORMS for name in ANSWERS if api != "anthropic" or name not in NOT_ANTHROPIC],
)
async def test_the_client_of_the_sdk_reads_what_we_read(api, name):
    play = misbehaviours.says(ANSWERS[name])
    async with ScriptedProvider() as server:
        server.will(play(DIALECTS[api]))
        theirs = await READERS[api](server.url.removesuffix("/v1"), sent(api, CHATS["turns"]))
        async with calling(api, server.url.removesuffix("/v1")) as call:
            ours, _ = await call(CHATS["turns"])
        first, second = server.asked
    assert isinstance(ours, ModelAnswer), ours
    counts = ours.usage and (ours.usage.input_tokens, ours.usage.output_tokens, ours.usage.cached_input_tokens)
    calls = [(row.id, row.name, json.loads(row.arguments_json)) for row in ours.calls]
    assert (ours.text, calls, counts) == theirs
    # Google's SDK sends one name in the other of the two spellings that the API takes.
    same = json.loads(json.dumps(first.body).replace("parameters_json_schema", "parametersJsonSchema"))
    assert same == second.body and first.path == second.path, "the SDK sends another request"


@pytest.mark.parametrize("api", ["openai-chat", "openai-responses", "azure-openai", "anthropic", "gemini"])
async def test_the_client_of_the_sdk_sees_the_same_refusal(api):
    play = misbehaviours.says(Said("I cannot help.", end="refusal"))
    async with ScriptedProvider() as server:
        server.will(play(DIALECTS[api]))
        with pytest.raises(SdkRefusal) as theirs:
            await READERS[api](server.url.removesuffix("/v1"), sent(api, CHATS["plain"]))
        async with calling(api, server.url.removesuffix("/v1")) as call:
            ours, _ = await call(CHATS["plain"])
    assert isinstance(ours, ProviderFault) and str(theirs.value) in ours.message


ERRORS = {
    "rate_limit": (openai.RateLimitError, anthropic.RateLimitError, genai.errors.ClientError),
    "overloaded": (openai.InternalServerError, anthropic.InternalServerError, genai.errors.ServerError),
    "key": (openai.AuthenticationError, anthropic.AuthenticationError, genai.errors.ClientError),
    "overflow": (openai.BadRequestError, anthropic.BadRequestError, genai.errors.ClientError),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("api", FORMS)
async def test_the_client_of_the_sdk_knows_the_error(api, name):
    async with ScriptedProvider() as server:
        server.will(misbehaviours.fails(name)(DIALECTS[api]))
        with pytest.raises(ERRORS[name]) as theirs:
            await READERS[api](server.url.removesuffix("/v1"), sent(api, CHATS["plain"]))
    message = DIALECTS[api].error(name)["error"]["message"]
    assert message in str(theirs.value)


class SdkRefusal(Exception):
    """A refusal, as an SDK tells it."""


async def read_chat(root, body, base="/v1"):
    async with openai.AsyncOpenAI(api_key=KEY, base_url=root + base, max_retries=0) as client:
        state = ChatCompletionStreamState()
        async for chunk in await client.chat.completions.create(**body):
            state.handle_chunk(chunk)
    found = state.current_completion_snapshot
    message, usage = found.choices[0].message, found.usage
    if message.refusal:
        raise SdkRefusal(message.refusal)
    calls = [(row.id, row.function.name, json.loads(row.function.arguments)) for row in message.tool_calls or ()]
    cached = usage.prompt_tokens_details.cached_tokens if usage and usage.prompt_tokens_details else 0
    return message.content or "", calls, usage and (usage.prompt_tokens, usage.completion_tokens, cached)


async def read_azure(root, body):
    return await read_chat(root, body, "/openai/v1")


async def read_response(root, body):
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{root}/v1", max_retries=0) as client:
        async for event in await client.responses.create(**body):
            last = event
    output, usage = last.response.output, last.response.usage
    for part in (part for item in output if item.type == "message" for part in item.content):
        if part.type == "refusal":
            raise SdkRefusal(part.refusal)
    calls = [(row.call_id, row.name, json.loads(row.arguments)) for row in output if row.type == "function_call"]
    counts = usage and (usage.input_tokens, usage.output_tokens, usage.input_tokens_details.cached_tokens)
    return last.response.output_text, calls, counts


async def read_message(root, body):
    asked = {name: value for name, value in body.items() if name != "stream"}
    async with (
        anthropic.AsyncAnthropic(api_key=KEY, base_url=root, max_retries=0) as client,
        client.messages.stream(**asked) as stream,
    ):
        message = await stream.get_final_message()
    if message.stop_reason == "refusal":
        raise SdkRefusal(message.stop_details.explanation)
    usage = message.usage
    counts = usage and (
        usage.input_tokens + usage.cache_read_input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens,
    )
    calls = [(block.id, block.name, block.input) for block in message.content if block.type == "tool_use"]
    return "".join(block.text for block in message.content if block.type == "text"), calls, counts


async def read_generation(root, body):
    config = google.GenerateContentConfig(
        system_instruction=google.Content.model_validate(body["systemInstruction"]),
        tools=[google.Tool.model_validate(tool) for tool in body.get("tools", ())] or None,
        automatic_function_calling=google.AutomaticFunctionCallingConfig(disable=True),
        **google.GenerationConfig.model_validate(body["generationConfig"]).model_dump(exclude_none=True),
    )
    contents = [google.Content.model_validate_json(json.dumps(row)) for row in body["contents"]]
    client = genai.Client(
        api_key=KEY, vertexai=False, http_options=google.HttpOptions(base_url=root, api_version="v1beta")
    )
    chunks = [
        chunk
        async for chunk in await client.aio.models.generate_content_stream(
            model="scripted-1", contents=contents, config=config
        )
    ]
    await client.aio.aclose()
    if chunks[-1].prompt_feedback:
        raise SdkRefusal(chunks[-1].prompt_feedback.block_reason.value)
    usage = chunks[-1].usage_metadata
    made = usage and usage.candidates_token_count + (usage.thoughts_token_count or 0)
    calls = [(row.id, row.name, row.args) for chunk in chunks for row in chunk.function_calls or ()]
    counts = usage and (usage.prompt_token_count, made, usage.cached_content_token_count)
    return "".join(chunk.text or "" for chunk in chunks), calls, counts


READERS = {
    "openai-chat": read_chat,
    "openai-responses": read_response,
    "azure-openai": read_azure,
    "anthropic": read_message,
    "gemini": read_generation,
    "ollama": read_chat,
}
