"""Any body at all gives a request or a refusal of the 400s that names a field, and never another exception."""

import json
import time
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bulkhead_contracts import bounds
from bulkhead_contracts.model import ToolCall
from bulkhead_contracts.result import Usage
from bulkhead_services.doors.forms import errors
from bulkhead_services.doors.forms.anthropic_messages import AnthropicMessageForm
from bulkhead_services.doors.forms.chat_options import check_sizes
from bulkhead_services.doors.forms.openai_chat import ChatCompletion
from bulkhead_services.doors.forms.openai_embeddings import Embeddings
from bulkhead_services.doors.forms.openai_responses import OpenAIResponseForm
from bulkhead_services.doors.forms.strict_json import read_object
from bulkhead_services.doors.port import DoorRefusal, ModelCallAnswer

FORMS = (ChatCompletion, OpenAIResponseForm, AnthropicMessageForm, Embeddings)
NAMES = (
    *(
        "model",
        "messages",
        "input",
        "instructions",
        "system",
        "stream",
        "stream_options",
        "include_usage",
        "max_tokens",
    ),
    *(
        "max_output_tokens",
        "tools",
        "tool_choice",
        "type",
        "function",
        "name",
        "parameters",
        "input_schema",
        "properties",
    ),
    *(
        "role",
        "content",
        "text",
        "format",
        "image_url",
        "url",
        "source",
        "data",
        "media_type",
        "tool_calls",
        "arguments",
    ),
    *("id", "call_id", "output", "tool_call_id", "tool_use_id", "metadata", "session", "user_id", "user", "reasoning"),
    *(
        "effort",
        "thinking",
        "response_format",
        "json_schema",
        "schema",
        "temperature",
        "stop",
        "stop_sequences",
        "include",
    ),
    *("output_config", "is_error", "n", "store", "seed", "required", "strict", "detail", "truncation", "verbosity"),
)
WORDS = (
    *("user", "assistant", "system", "tool", "developer", "text", "function", "message", "function_call", "tool_use"),
    *("tool_result", "image", "image_url", "input_text", "output_text", "base64", "url", "json_schema", "auto", "any"),
    *("function_call_output", "object", "disabled", "low", "none", "custom", "refusal", "input_image", "input_file"),
)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
) | st.sampled_from(WORDS)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner),
    max_leaves=25,
)
"""JSON of any shape, made of the names that the forms look for."""
blocks = st.fixed_dictionaries(
    {"type": st.sampled_from(WORDS)}, optional={name: values for name in NAMES if name != "type"}
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(WORDS[:5]), "content": st.text(max_size=4) | st.lists(blocks, max_size=3) | values}
)
tools = st.fixed_dictionaries(
    {"type": st.just("function"), "name": st.just("a"), "function": values, "input_schema": values}
)
bodies = st.fixed_dictionaries(
    {"model": st.just("m") | values, "max_tokens": st.integers(0, 9)},
    optional={
        **{name: values for name in NAMES[2:] if name != "max_tokens"},
        "messages": st.lists(messages, max_size=4) | values,
        "input": st.lists(blocks | messages, max_size=4) | st.text(max_size=4) | values,
        "tools": st.lists(tools | blocks, max_size=3) | values,
        "tool_choice": blocks | values,
    },
)
ANSWER = ModelCallAnswer(
    "c1", "m", "hello", (ToolCall(id="t", name="f", arguments_json='{"a": 1}'),), "tool_calls", Usage(), 1_000
)


def written(form, raw):
    """All that a form may write after it has read a body."""
    check_sizes(form.parsed_call)
    json.dumps([form.parsed_call.messages, form.parsed_call.options], allow_nan=False).encode()
    answer = replace(ANSWER, text="[[0.5]]") if form.parsed_call.embeds else ANSWER
    assert json.dumps(form.render_answer(answer), allow_nan=False).encode()
    events = (
        form.render_start("c1", 1_000),
        *map(form.render_piece, ANSWER.parts),
        form.render_end(ANSWER),
        form.render_failure(DoorRefusal(500, "x", "y")),
    )
    for line in b"".join(events).splitlines():
        if line.startswith(b"data: ") and line != b"data: [DONE]":
            json.loads(line[6:])
    assert raw


@settings(max_examples=150)
@given(bodies | values)
@example(
    {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "image", "source": None}]}]}
)
@example({"model": "m", "input": [{"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}]})
@pytest.mark.slow
def test_any_body(body):
    raw = json.dumps(body).encode()
    for read in FORMS:
        try:
            form = read(read_object(raw))
        except DoorRefusal as refusal:
            assert 400 <= refusal.status < 500 and not refusal.retry and refusal.message
            for said in (errors.openai_body(refusal, "r"), errors.anthropic_body(refusal, "r")):
                assert json.dumps(said, allow_nan=False).encode()
        else:
            written(form, raw)


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b'{"a": "\\uD83D\\uDE00"}')
@example(b'{"\\ud800": {"\\ud800": NaN}}')
def test_any_bytes(raw):
    try:
        found = read_object(raw)
    except DoorRefusal as refusal:
        assert refusal.status == 400
        (refusal.message + refusal.field).encode()
    else:
        assert json.loads(raw) == found and json.dumps(found, ensure_ascii=False).encode()


def refusal_of(raw: bytes) -> DoorRefusal:
    with pytest.raises(DoorRefusal) as refused:
        read_object(raw)
    return refused.value


def test_a_key_that_is_there_twice_is_found_in_one_pass():
    many = b",".join(b'"k%d":1' % number for number in range(70_000))
    began = time.process_time()
    assert "the key 'z' twice" in refusal_of(b"{" + many + b',"z":1,"z":2}').message
    assert time.process_time() - began < 30, "it took 1,000 s when each key was looked for among all"


def test_many_values_under_a_long_key_have_no_long_paths():
    raw = b'{"' + b"k" * 100_000 + b'":[' + b"1," * 2_000 + b"NaN]}"
    tracemalloc.start()
    try:
        refusal = refusal_of(raw)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 5_000_000 and "NaN" in refusal.message and len(refusal.field) == bounds.MAX_SUMMARY_CHARS


def test_a_refusal_repeats_no_long_name():
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}], "n" * 100_000: 1}
    with pytest.raises(DoorRefusal) as refused:
        AnthropicMessageForm(body)
    assert len(json.dumps(errors.openai_body(refused.value, ""))) < 2_000


@pytest.mark.parametrize("unit", [b"{},", b"[[]],", b'"",', b"1,", b'",",'])
@pytest.mark.slow
def test_a_body_of_very_many_values_is_not_parsed(unit):
    raw = b'{"a":[' + unit * (bounds.MAX_ASKED_BYTES // len(unit) - 8) + unit[:-1] + b"]}"
    tracemalloc.start()
    try:
        refusal = refusal_of(raw)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (refusal.status, refusal.code) == (413, "too_large")
    assert most < 3 * bounds.MAX_ASKED_BYTES, "the parsed one took 500 MB, and a container of doors has 512"


@pytest.mark.parametrize("text", ["{[,", '\\"', "\\n,", "a" * 100 + '",{'])
@pytest.mark.slow
def test_marks_within_a_text_are_no_values(text):
    raw = json.dumps({"a": text * 600_000}).encode()
    assert read_object(raw) == {"a": text * 600_000}


def test_a_string_without_an_end_is_looked_through_once():
    began = time.process_time()
    assert refusal_of(b'{"a":' + b"[," * 300_000 + b'"' + b'\\"' * 500_000).status in (400, 413)
    assert time.process_time() - began < 30, "it took hours when it was looked through from each quote"
