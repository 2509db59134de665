"""Vendors' SDKs of today: what they send reaches providers of their own API and of others, and what does not is told.

Each feature is one call. It works where the provider saw it; else the answer names what was left out, or an error does.
"""

import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import anthropic
import openai
import pytest

from tests.answer_set.documents import pdf
from tests.e2e.clients import mesh as names
from tests.e2e.clients.answers import Call, Turn
from tests.e2e.clients.clients_table import ClientRow, check_row
from tests.e2e.clients.conversation import SeenRequest
from tests.e2e.clients.mesh import ClientMesh
from tests.e2e.clients.test_pictures import png

pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="session")]

MODELS = {"chat completions": names.CHAT, "Anthropic": names.ANTHROPIC, "responses": names.RESPONSES}
"""A model by the API of its provider."""
PICTURE = base64.b64encode(png(64, 48)).decode()
PAPER = base64.b64encode(pdf(["Kilns fire clay."])).decode()
DATA_URL = f"data:image/png;base64,{PICTURE}"
WEB_URL = "https://pictures.example/kiln.png"
SCHEMA = {"type": "object", "properties": {"degrees": {"type": "integer"}}, "required": ["degrees"]}
PARAMETERS = {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}
LOOKUP = Turn(calls=(Call("lookup", {"what": "kiln"}),))
FOUND = "1210 degrees"
Send = Callable[[Any, str, str], Awaitable[Mapping[str, str]]]
"""Sends one request: a client, a model, the words of the person. Returns the answer's headers."""


@dataclass(frozen=True)
class Feature:
    """Something that an SDK can send. reaches: whether the provider saw it."""

    sdk: str
    name: str
    send: Send
    reaches: Callable[[SeenRequest], bool]
    turns: tuple[Turn, ...] = (Turn(FOUND),)
    hint: str = ""
    """Why nobody misses it where it is not passed on: it changes no answer."""


async def _chat(client: Any, model: str, content: Any, **more: Any) -> Mapping[str, str]:
    raw = await client.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": content}], **more
    )
    assert raw.parse().choices[0].message.content == FOUND
    return dict(raw.headers)


async def _respond(client: Any, model: str, content: Any, **more: Any) -> Mapping[str, str]:
    raw = await client.responses.with_raw_response.create(
        model=model, input=[{"role": "user", "content": content}], **more
    )
    assert raw.parse().output_text == FOUND
    return dict(raw.headers)


async def _message(client: Any, model: str, content: Any, **more: Any) -> Mapping[str, str]:
    raw = await client.messages.with_raw_response.create(
        model=model, max_tokens=500, messages=[{"role": "user", "content": content}], **more
    )
    assert (await raw.parse()).content[-1].text == FOUND
    return dict(raw.headers)


async def _chat_session(client: Any, model: str, asked: str) -> Mapping[str, str]:
    messages: list[Any] = [{"role": "user", "content": asked}]
    tools = [{"type": "function", "function": {"name": "lookup", "parameters": PARAMETERS}}]
    for _ in range(2):
        async with client.chat.completions.stream(model=model, messages=messages, tools=tools) as stream:
            answer = (await stream.get_final_completion()).choices[0].message
        if not answer.tool_calls:
            assert answer.content == FOUND
            return {}
        result = {"role": "tool", "tool_call_id": answer.tool_calls[0].id, "content": "1210"}
        messages += [
            {
                "role": "assistant",
                "tool_calls": [answer.tool_calls[0].model_dump(exclude={"function": {"parsed_arguments"}})],
            },
            result,
        ]
    raise AssertionError("no last words")


async def _response_session(client: Any, model: str, asked: str) -> Mapping[str, str]:
    items: list[Any] = [{"role": "user", "content": asked}]
    tools = [{"type": "function", "name": "lookup", "parameters": PARAMETERS, "strict": False}]
    for _ in range(2):
        async with client.responses.stream(model=model, input=items, tools=tools) as stream:
            answer = await stream.get_final_response()
        calls = [item for item in answer.output if item.type == "function_call"]
        if not calls:
            assert answer.output_text == FOUND
            return {}
        items += [
            {"type": "function_call", "call_id": calls[0].call_id, "name": "lookup", "arguments": calls[0].arguments}
        ]
        items.append({"type": "function_call_output", "call_id": calls[0].call_id, "output": "1210"})
    raise AssertionError("no last words")


async def _message_session(client: Any, model: str, asked: str, result: Any = "1210") -> Mapping[str, str]:
    messages: list[Any] = [{"role": "user", "content": asked}]
    tools = [{"name": "lookup", "input_schema": PARAMETERS}]
    for _ in range(2):
        async with client.messages.stream(model=model, max_tokens=500, messages=messages, tools=tools) as stream:
            answer = await stream.get_final_message()
            headers = dict(stream.response.headers)
        calls = [block for block in answer.content if block.type == "tool_use"]
        if not calls:
            assert answer.content[-1].text == FOUND
            return headers
        results = [{"type": "tool_result", "tool_use_id": calls[0].id, "content": result}]
        messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    raise AssertionError("no last words")


def _holds(text: str) -> Callable[[SeenRequest], bool]:
    """Check whether a text stands anywhere in the request."""
    return lambda seen: text in repr(seen.body)


def _answers_a_tool(seen: SeenRequest) -> bool:
    return any("1210" in result for result in seen.results)


def _shows_picture(seen: SeenRequest) -> bool:
    return any(PICTURE in image for image in seen.images)


def _text(kind: str, text: str) -> dict[str, str]:
    return {"type": kind, "text": text}


CHAT, RESPONSES, MESSAGES = "openai, chat completions", "openai, responses", "anthropic"
_BASE64 = {"type": "base64", "media_type": "image/png", "data": PICTURE}
_FILE = {"filename": "paper.pdf", "file_data": f"data:application/pdf;base64,{PAPER}"}
_DOCUMENT = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PAPER}}
FEATURES = [
    Feature(CHAT, "a streamed session with a tool", _chat_session, _answers_a_tool, (LOOKUP, Turn(FOUND))),
    Feature(
        *(CHAT, "an image"),
        lambda c, m, t: _chat(c, m, [_text("text", t), {"type": "image_url", "image_url": {"url": DATA_URL}}]),
        _shows_picture,
    ),
    Feature(
        *(CHAT, "an image by URL"),
        lambda c, m, t: _chat(c, m, [_text("text", t), {"type": "image_url", "image_url": {"url": WEB_URL}}]),
        _holds(WEB_URL),
    ),
    Feature(
        *(CHAT, "a PDF"),
        lambda c, m, t: _chat(c, m, [_text("text", t), {"type": "file", "file": _FILE}]),
        _holds(PAPER),
    ),
    Feature(
        *(CHAT, "structured output"),
        lambda c, m, t: _chat(
            c, m, t, response_format={"type": "json_schema", "json_schema": {"name": "kiln", "schema": SCHEMA}}
        ),
        _holds("degrees"),
    ),
    Feature(CHAT, "two answers (n=2)", lambda c, m, t: _chat(c, m, t, n=2), _holds("'n': 2")),
    Feature(CHAT, "log probabilities", lambda c, m, t: _chat(c, m, t, logprobs=True), _holds("logprobs")),
    Feature(
        CHAT, "the provider's web search", lambda c, m, t: _chat(c, m, t, web_search_options={}), _holds("web_search")
    ),
    Feature(RESPONSES, "a streamed session with a tool", _response_session, _answers_a_tool, (LOOKUP, Turn(FOUND))),
    Feature(
        *(RESPONSES, "an image"),
        lambda c, m, t: _respond(c, m, [_text("input_text", t), {"type": "input_image", "image_url": DATA_URL}]),
        _shows_picture,
    ),
    Feature(
        *(RESPONSES, "a PDF"),
        lambda c, m, t: _respond(c, m, [_text("input_text", t), {"type": "input_file", **_FILE}]),
        _holds(PAPER),
    ),
    Feature(
        *(RESPONSES, "structured output"),
        lambda c, m, t: _respond(c, m, t, text={"format": {"type": "json_schema", "name": "kiln", "schema": SCHEMA}}),
        _holds("degrees"),
    ),
    Feature(
        *(RESPONSES, "the provider's web search"),
        lambda c, m, t: _respond(c, m, t, tools=[{"type": "web_search"}]),
        _holds("web_search"),
    ),
    Feature(
        RESPONSES,
        "an answer in the background",
        lambda c, m, t: _respond(c, m, t, background=True),
        _holds("background"),
    ),
    Feature(MESSAGES, "a streamed session with a tool", _message_session, _answers_a_tool, (LOOKUP, Turn(FOUND))),
    Feature(
        *(MESSAGES, "an image"),
        lambda c, m, t: _message(c, m, [_text("text", t), {"type": "image", "source": _BASE64}]),
        _shows_picture,
    ),
    Feature(
        *(MESSAGES, "an image in a tool's result"),
        lambda c, m, t: _message_session(c, m, t, [{"type": "image", "source": _BASE64}]),
        _shows_picture,
        (LOOKUP, Turn(FOUND)),
    ),
    Feature(MESSAGES, "a PDF", lambda c, m, t: _message(c, m, [_text("text", t), _DOCUMENT]), _holds(PAPER)),
    Feature(
        *(MESSAGES, "a mark for the cache"),
        lambda c, m, t: _message(c, m, [{**_text("text", t), "cache_control": {"type": "ephemeral"}}]),
        _holds("ephemeral"),
        hint="other APIs cache by themselves",
    ),
    Feature(MESSAGES, "`top_k`", lambda c, m, t: _message(c, m, t, extra_body={"top_k": 5}), _holds("top_k")),
    Feature(
        *(MESSAGES, "the provider's web search"),
        lambda c, m, t: _message(c, m, t, tools=[{"type": "web_search_20250305", "name": "web_search"}]),
        _holds("web_search"),
    ),
]


def _client(mesh: ClientMesh, sdk: str) -> Any:
    key = mesh.make_key("sdks")
    if sdk == MESSAGES:
        return anthropic.AsyncAnthropic(base_url=mesh.anthropic_url, api_key=key, max_retries=0)
    return openai.AsyncOpenAI(base_url=mesh.openai_url, api_key=key, max_retries=0)


async def _outcome(mesh: ClientMesh, feature: Feature, model: str) -> tuple[str, str]:
    """Outcome of one call, and the reason that the client was told."""
    marker = f"{feature.sdk}/{feature.name}/{model}"
    mesh.provider.play(marker, *feature.turns)
    async with _client(mesh, feature.sdk) as client:
        client = client.with_options(default_headers={"X-Bulkhead-Run": str(FEATURES.index(feature)) + model})
        try:
            headers = await feature.send(client, model, marker)
        except (openai.BadRequestError, anthropic.BadRequestError) as error:
            body: Any = error.body
            return "refused", (body.get("error") or body)["message"]
    if feature.reaches(mesh.provider.requests_of(marker)[-1]):
        return "yes", ""
    if feature.hint:
        return "no use", feature.hint
    reason = headers.get("x-bulkhead-left-out", "")
    assert reason, f"{marker} was dropped without a word"
    return "left out", reason


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: f"{feature.sdk}: {feature.name}".replace(" ", "-"))
async def test_what_an_sdk_sends_reaches_the_provider_or_is_told(mesh: ClientMesh, feature: Feature) -> None:
    outcomes = {api: await _outcome(mesh, feature, model) for api, model in MODELS.items()}
    reasons = dict.fromkeys(reason.replace("|", "/") for _, reason in outcomes.values() if reason)
    package = feature.sdk.partition(",")[0]
    name = feature.sdk.replace(package, f"`{package}` {version(package)}", 1)
    check_row(
        ClientRow(
            "SDKs", (name, feature.name), (*(outcome for outcome, _ in outcomes.values()), "; ".join(reasons) or "-")
        )
    )
    assert not mesh.provider.faults
