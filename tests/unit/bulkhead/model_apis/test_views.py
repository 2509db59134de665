"""Messages and items of other APIs in OpenAI's chat form: what each part becomes, and what is named as left out."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.model_apis.anthropic_view import view_anthropic
from bulkhead.model_apis.bounding import bound_payload
from bulkhead.model_apis.responses_view import view_responses
from bulkhead_contracts.model import ModelApi

PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}


def test_parts_of_anthropics_messages() -> None:
    definition = {"name": "late", "input_schema": {"type": "object"}}
    rows: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "document", "source": PDF, "title": "a.pdf"}]},
        {"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": "words"}}]},
        {"role": "system", "content": [{"type": "tool_addition", "tool": {"definition": definition}}]},
        {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s", "name": "x", "input": {}}]},
        {"role": "system", "content": [{"type": "tool_removal", "tool": {"name": "old"}}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Go on."},
                {
                    "type": "tool_result",
                    "tool_use_id": "t",
                    "is_error": True,
                    "content": [{"type": "text", "text": "No"}],
                },
                {
                    "type": "tool_result",
                    "tool_use_id": "u",
                    "content": [{"type": "tool_reference", "tool_name": "late"}],
                },
            ],
        },
    ]
    old = {"name": "old", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}
    view = view_anthropic(rows, {"tools": [old], "cache_control": {"type": "ephemeral"}})
    file = {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}
    gap = "[server_tool_use left out: the API of the provider that answers has no word for it]"
    assert view.messages == [
        {"role": "user", "content": [{"type": "file", "file": file}]},
        {"role": "user", "content": "words"},
        {"role": "assistant", "content": gap},
        {"role": "tool", "tool_call_id": "t", "content": "Error: No"},
        {"role": "tool", "tool_call_id": "u", "content": "[tool late]"},
        {"role": "user", "content": "Go on."},
    ]
    assert [tool["function"]["name"] for tool in view.options["tools"]] == ["late"]
    assert [row.what for row in view.gaps] == ["server_tool_use"]


def test_items_of_a_response() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "high"}
    rows: list[dict[str, Any]] = [
        {"type": "additional_tools", "tools": [{"type": "custom", "name": "exec"}]},
        {"type": "custom_tool_call", "call_id": "a", "name": "exec", "input": "1 + 1"},
        {"type": "function_call", "call_id": "b", "name": "wait", "namespace": "clock", "arguments": "{}"},
        {"type": "custom_tool_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "2"}, image]},
        {"type": "function_call_output", "call_id": "b", "output": "done"},
        {"role": "user", "content": "And?"},
    ]
    view = view_responses(rows, {"tool_choice": {"type": "custom", "name": "exec"}})
    assert [row["role"] for row in view.messages] == ["assistant", "tool", "tool", "user", "user"]
    calls = [call["function"] for call in view.messages[0]["tool_calls"]]
    assert calls == [{"name": "exec", "arguments": '{"input": "1 + 1"}'}, {"name": "clock__wait", "arguments": "{}"}]
    shown = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "high"}}
    assert view.messages[3]["content"] == [shown] and view.messages[1]["content"].startswith("2\n[its images")
    schema = view.options["tools"][0]["function"]["parameters"]
    assert schema["required"] == ["input"] and view.options["tool_choice"]["function"]["name"] == "exec"


_NAMES = (
    *("role", "type", "content", "text", "source", "data", "media_type", "tool", "definition", "name", "input"),
    *("output", "image_url", "file_data", "tools", "tool_choice", "arguments", "summary", "title", "tool_use_id"),
    *(
        "system",
        "thinking",
        "output_config",
        "context_management",
        "edits",
        "betas",
        "text",
        "reasoning",
        "file",
        "url",
    ),
)
_WORDS = (
    *("user", "assistant", "system", "developer", "text", "image", "document", "tool_result", "tool_use", "base64"),
    *("tool_addition", "tool_removal", "message", "custom_tool_call", "function_call_output", "namespace", "custom"),
    *("input_image", "input_file", "additional_tools", "function", "content", "file", "image_url", "shell", "tool"),
)
_scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3) | st.sampled_from(_WORDS)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=4)
)
_rows = st.lists(
    st.dictionaries(st.sampled_from(_NAMES), _values, max_size=4).map(lambda row: {"role": "user", **row}), max_size=3
)


@given(st.sampled_from(["", "anthropic", "openai-responses"]), _rows, st.dictionaries(st.sampled_from(_NAMES), _values))
def test_nothing_that_an_agent_sends_ends_a_session(api: ModelApi, rows: list[Any], options: dict[str, Any]) -> None:
    payload = {"messages": rows, **options}
    bound_payload(api, payload, {})
    options = {name: value for name, value in payload.items() if name != "messages"}
    for view in (view_anthropic, view_responses):
        seen = view(payload["messages"], options)
        assert all(isinstance(row.get("role"), str) for row in seen.messages)


@pytest.mark.parametrize(
    ("api", "tool", "passed"),
    [
        ("anthropic", {"name": "f", "input_schema": {}}, True),
        ("anthropic", {"type": "bash_20250124", "name": "bash"}, True),
        ("anthropic", {"type": "tool_search_tool_bm25_20251119", "name": "s"}, True),
        ("anthropic", {"type": "bash_code_execution_20250825", "name": "bash"}, False),
        ("anthropic", {"type": "web_fetch_20250910", "name": "web_fetch"}, False),
        ("anthropic", {"type": ["custom"], "name": "f"}, False),
        ("openai-responses", {"type": "shell", "environment": {"type": "local"}}, True),
        ("openai-responses", {"type": "shell", "environment": {"type": "container_auto"}}, False),
        ("openai-responses", {"type": "shell"}, False),
        ("openai-responses", {"type": "namespace", "name": "n", "tools": [{"type": "code_interpreter"}]}, False),
        ("openai-responses", {"type": "mcp", "server_url": "u"}, False),
        ("", {"type": "function", "function": {"name": "f"}}, True),
        ("", {"type": "custom", "custom": {"name": "f"}}, False),
    ],
)
def test_tools_of_the_agent_pass_and_those_of_a_provider_do_not(api: ModelApi, tool: dict[str, Any], passed: bool):
    payload = {"messages": [{"role": "user", "content": "x"}], "tools": [tool]}
    gaps = bound_payload(api, payload, {})
    assert payload.get("tools") == ([tool] if passed else None) and len(gaps) == int(not passed)
    if api == "openai-responses":
        for name in ("additional_tools", "tool_search_output"):
            rows: dict[str, Any] = {"messages": [{"type": name, "tools": [tool]}]}
            assert len(bound_payload(api, rows, {})) == int(not passed)
            assert rows["messages"][0]["tools"] == ([tool] if passed else [])


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_image", "file_id": "f", "image_url": "data:image/png;base64,iVBORw0KGgo="},
        {"type": "input_file", "file_url": "https://example.com/a.pdf", "file_data": "JVBERi0="},
        {"type": "input_audio", "input_audio": {}},
    ],
)
def test_what_lies_elsewhere_is_left_out_though_something_stands_beside_it(part: dict[str, Any]) -> None:
    payload: dict[str, Any] = {"messages": [{"type": "function_call_output", "call_id": "c", "output": [part]}]}
    [gap] = bound_payload("openai-responses", payload, {})
    assert payload["messages"][0]["output"] == [{"type": "input_text", "text": gap.text}]


def test_words_of_the_system_are_text() -> None:
    url = {"type": "document", "text": "", "source": {"type": "url", "url": "https://example.com/a.pdf"}}
    for api, name in (("anthropic", "system"), ("openai-responses", "instructions")):
        payload: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], name: [url]}
        [gap] = bound_payload(api, payload, {})  # type: ignore[arg-type]
        assert name not in payload and gap.what == f"the option {name}"
