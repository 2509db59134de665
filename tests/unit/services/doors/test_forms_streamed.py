"""Pieces of an answer in any order, put together by each official SDK: what the whole answer says, or an error."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from bulkhead_contracts.model import REASONING, TEXT, AnswerPart, ToolCall
from bulkhead_contracts.result import Usage
from bulkhead_services.doors.forms.anthropic_messages import AnthropicMessageForm
from bulkhead_services.doors.forms.openai_chat import ChatCompletion
from bulkhead_services.doors.forms.openai_responses import OpenAIResponseForm
from bulkhead_services.doors.port import AnswerPiece, DoorRefusal, ModelCallAnswer

ASKED = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
FORMS = {
    "chat": lambda: ChatCompletion(ASKED),
    "responses": lambda: OpenAIResponseForm(
        {"model": "m", "input": "Hi", "stream": True, "reasoning": {"summary": "auto"}}
    ),
    "anthropic": lambda: AnthropicMessageForm(ASKED | {"max_tokens": 9}),
}
RESPONSE_EVENT = TypeAdapter(ResponseStreamEvent)
Told = tuple[str, dict[str, tuple[str, str]], Any]
"""Text, calls by their ids, thoughts."""


def events(raw: bytes) -> Iterator[dict[str, Any]]:
    for block in raw.decode().split("\n\n"):
        data = block.partition("data: ")[2]
        if data and data != "[DONE]":
            yield json.loads(data)


def of_chat(raw: bytes) -> Told:
    state, done = ChatCompletionStreamState(), dict[str, str]()
    for event in events(raw):
        for row in state.handle_chunk(ChatCompletionChunk.model_validate(event)):
            if row.type == "tool_calls.function.arguments.done":
                done[str(row.index)] = row.arguments
    message = state.current_completion_snapshot.choices[0].message
    calls = {call.id: (call.function.name, call.function.arguments) for call in message.tool_calls or ()}
    assert list(done.values()) == [arguments for _, arguments in calls.values()]
    return message.content or "", calls, (message.model_extra or {}).get("reasoning_content", "")


def of_responses(raw: bytes) -> Told:
    state = ResponseStreamState(input_tools=(), text_format=omit)
    snapshot: Any = None
    done = list[dict[str, Any]]()
    for event in events(raw):
        read = RESPONSE_EVENT.validate_python(event)
        state.handle_event(read)
        if event["type"].endswith(".delta"):
            assert event["output_index"] == len(done), "an item goes on after its end"
        if event["type"] == "response.output_item.done":
            done.append(event["item"])
        snapshot = event
    assert snapshot["type"] == "response.completed" and snapshot["response"]["output"] == done
    assert len({item["id"] for item in done}) == len(done)
    return from_items(done)


def from_items(items: list[dict[str, Any]]) -> Told:
    text = "".join(part["text"] for item in items if item["type"] == "message" for part in item["content"])
    calls = {item["call_id"]: (item["name"], item["arguments"]) for item in items if item["type"] == "function_call"}
    thoughts = [part["text"] for item in items if item["type"] == "reasoning" for part in item["summary"]]
    return text, calls, "".join(thoughts).replace("\n\n", "")


def of_anthropic(raw: bytes) -> Told:
    snapshot: Any = None
    arguments, ended = dict[int, bytes](), set[int]()
    for event in events(raw):
        assert event.get("index") not in ended, "a block goes on after its end"
        snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=arguments)
        if event["type"] == "content_block_stop":
            ended.add(event["index"])
    assert len(ended) == len(snapshot.content)
    text = "".join(block.text for block in snapshot.content if block.type == "text")
    calls = {
        block.id: (block.name, arguments[place].decode())
        for place, block in enumerate(snapshot.content)
        if block.type == "tool_use"
    }
    thoughts = [block.to_dict() for block in snapshot.content if block.type in ("thinking", "redacted_thinking")]
    return text, calls, thoughts_in(thoughts)


def whole(name: str, answer: ModelCallAnswer) -> Told:
    calls = {call.id: (call.name, call.arguments_json) for call in answer.tool_calls}
    body = FORMS[name]().render_answer(answer)
    match name:
        case "chat":
            return answer.text, calls, body["choices"][0]["message"].get("reasoning_content", "")
        case "responses":
            return from_items(body["output"])
        case _:
            return answer.text, calls, thoughts_in([block for block in body["content"] if "thinking" in block["type"]])


def thoughts_in(blocks: list[dict[str, Any]]) -> list[str]:
    return [json.dumps(block, sort_keys=True) for block in blocks]


def streamed(name: str, pieces: list[AnswerPiece], answer: ModelCallAnswer) -> Told:
    form = FORMS[name]()
    raw = b"".join([form.render_start("c", 1), *map(form.render_piece, pieces), form.render_end(answer)])
    return {"chat": of_chat, "responses": of_responses, "anthropic": of_anthropic}[name](raw)


words = st.text('ab\\"{}é\U0001f600 ', min_size=1, max_size=8)
objects = st.dictionaries(words, words | st.integers(0, 9), max_size=2).map(json.dumps)
signed = st.fixed_dictionaries({"type": st.just("thinking"), "thinking": words, "signature": words})
redacted = st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": words})
unsigned = st.fixed_dictionaries({"type": st.just("reasoning"), "text": words})


@st.composite
def answers(draw: st.DrawFn) -> ModelCallAnswer:
    cut = draw(st.booleans())
    arguments = draw(st.lists(objects, max_size=3))
    if cut and arguments:
        arguments[-1] = arguments[-1][:-1]
    calls = tuple(ToolCall(id=f"t{place}", name="f", arguments_json=one) for place, one in enumerate(arguments))
    thoughts = draw(st.lists(signed | redacted, max_size=2) | st.lists(unsigned, max_size=1))
    finish = "tool_calls" if calls else "stop"
    return ModelCallAnswer("c", "m", draw(st.just("") | words), calls, finish, Usage(), 1, thoughts=tuple(thoughts))


@st.composite
def told(draw: st.DrawFn) -> tuple[ModelCallAnswer, list[AnswerPiece]]:
    answer, left = draw(answers()), list[list[AnswerPiece]]()
    for part, text in answer.parts:
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
        left.append(
            [AnswerPiece(part, text[a:b]) for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True) if b > a]
        )
    pieces = list[AnswerPiece]()
    while left := [one for one in left if one]:
        pieces.append(draw(st.sampled_from(left)).pop(0))
    pieces += [AnswerPiece(part, "") for part, text in answer.parts if not text]
    return answer, pieces


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=80)
@given(told())
def test_pieces_in_any_order_say_what_the_answer_says_or_end_in_an_error(name, given_):
    answer, pieces = given_
    try:
        said = streamed(name, pieces, answer)
    except DoorRefusal as refusal:
        assert refusal.code == "stream_cut"
        # Text and calls in any order can be said, and thoughts wherever they are not taken up again.
        assert any(part.kind in ("thinking", "signature", "redacted") for part, _ in pieces)
        return
    assert said == whole(name, answer)


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=25)
@given(answers())
def test_parts_one_after_another_can_be_said_in_every_form(name, answer):
    assert streamed(
        name, [AnswerPiece(part, piece) for part, text in answer.parts for piece in text or [""]], answer
    ) == whole(name, answer)


def call(name: str) -> AnswerPart:
    return AnswerPart(kind="call", id=name, name="f")


@pytest.mark.parametrize("name", FORMS)
def test_a_call_that_is_whole_gives_way_to_the_next_one_at_once(name):
    form = FORMS[name]()
    form.render_start("c", 1)
    pieces = ((REASONING, "Hm."), (TEXT, "I add."), (call("a"), "{}"), (call("b"), '{"x"'), (call("b"), ": 1}"))
    assert all(form.render_piece(AnswerPiece(*piece)) for piece in pieces[name == "anthropic" :])


NATIVE: dict[str, dict[str, Any]] = {
    "anthropic": {
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
            {"type": "server_tool_use", "id": "s1", "name": "tool_search_tool_regex", "input": {"query": "a"}},
            {"type": "tool_search_tool_result", "tool_use_id": "s1", "content": {"tool_references": []}},
            {"type": "text", "text": "I add."},
            {"type": "tool_use", "id": "t0", "name": "f", "input": {"a": 1}},
        ],
        "stop_reason": "tool_use",
        "context_management": {"applied_edits": []},
    },
    "responses": {
        "output": [
            {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
            {"id": "ctc_1", "type": "custom_tool_call", "call_id": "t1", "name": "p", "input": "x", "namespace": "n"},
            {"id": "fc_1", "type": "function_call", "call_id": "t0", "name": "f", "arguments": '{"a": 1}'},
        ]
    },
}


def native_answer(name: str) -> ModelCallAnswer:
    call = ToolCall(id="t0", name="f", arguments_json='{"a": 1}')
    thoughts = ({"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},) if name == "anthropic" else ()
    text = "I add." if name == "anthropic" else ""
    given = {"thoughts": thoughts, "native": NATIVE[name], "left_out": ("image: because",)}
    return ModelCallAnswer("c", "m", text, (call,), "tool_calls", Usage(), 1, **given)


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_an_answer_in_its_providers_own_form_is_told_as_it_is(name: str, size: int) -> None:
    answer, form = native_answer(name), FORMS[name]()
    pieces = [
        AnswerPiece(part, text[start : start + size])
        for part, text in answer.parts
        for start in range(0, len(text), size)
    ]
    raw = b"".join([form.render_start("c", 1), *map(form.render_piece, pieces), form.render_end(answer)])
    body, told = FORMS[name]().render_answer(answer), list(events(raw))
    if name == "anthropic":
        of_anthropic(raw)
        begun = [event["content_block"]["type"] for event in told if event["type"] == "content_block_start"]
        assert begun == [block["type"] for block in body["content"]] and body["content"] == NATIVE[name]["content"]
        assert told[-2]["context_management"] == body["context_management"] == {"applied_edits": []}
        assert told[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
        assert told[-2]["bulkhead"] == body["bulkhead"] == {"left_out": ["image: because"]}
        return
    of_responses(raw)
    done = [event["item"] for event in told if event["type"] == "response.output_item.done"]
    expected = NATIVE[name]["output"]
    assert done[:2] == expected[:2] and body["output"] == expected
    assert (done[2]["call_id"], done[2]["arguments"]) == ("t0", '{"a": 1}')
    kinds = [event["type"] for event in told]
    assert "response.custom_tool_call_input.delta" in kinds and "response.reasoning_summary_text.delta" in kinds


def test_calls_of_free_text_and_of_namespaces_are_told_as_such_whoever_answers() -> None:
    """A provider of another API knows functions alone."""
    tools = [
        {"type": "custom", "name": "apply_patch"},
        {
            "type": "namespace",
            "name": "agents",
            "description": "Agents.",
            "tools": [{"type": "function", "name": "spawn", "parameters": {}, "strict": False}],
        },
    ]
    form = OpenAIResponseForm({"model": "m", "input": "Hi", "stream": True, "tools": tools})
    calls = (
        ToolCall(id="a", name="apply_patch", arguments_json='{"input": "*** Begin"}'),
        ToolCall(id="b", name="agents__spawn", arguments_json='{"x": 1}'),
        ToolCall(id="c", name="apply_patch", arguments_json='{"inp'),
    )
    answer = ModelCallAnswer("c", "m", "", calls, "tool_calls", Usage(), 1)
    pieces = [AnswerPiece(part, text[a : a + 4]) for part, text in answer.parts for a in range(0, len(text), 4)]
    raw = b"".join([form.render_start("c", 1), *map(form.render_piece, pieces), form.render_end(answer)])
    of_responses(raw)
    done = [event["item"] for event in events(raw) if event["type"] == "response.output_item.done"]
    assert done == form.render_answer(answer)["output"]
    assert [(item["type"], item["name"], item.get("namespace"), item.get("input")) for item in done] == [
        ("custom_tool_call", "apply_patch", None, "*** Begin"),
        ("function_call", "spawn", "agents", None),
        ("custom_tool_call", "apply_patch", None, '{"inp'),
    ]
