"""Options of a request: each form's list is passed on, and anything else is refused by its name with what to do."""

from typing import Any

import pytest

from bulkhead_contracts import bounds
from bulkhead_services.doors.forms import errors
from bulkhead_services.doors.forms.anthropic_messages import AnthropicMessageForm
from bulkhead_services.doors.forms.chat_options import check_sizes, fit_messages
from bulkhead_services.doors.forms.openai_chat import ChatCompletion
from bulkhead_services.doors.forms.openai_embeddings import Embeddings
from bulkhead_services.doors.forms.openai_responses import OpenAIResponseForm
from bulkhead_services.doors.port import DoorRefusal

MESSAGES = [{"role": "user", "content": "x"}]
FORMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "chat": (ChatCompletion, {"model": "m", "messages": MESSAGES, "max_tokens": 2_000}),
    "responses": (OpenAIResponseForm, {"model": "m", "input": "x", "max_output_tokens": 2_000}),
    "messages": (AnthropicMessageForm, {"model": "m", "messages": MESSAGES, "max_tokens": 2_000}),
    "embeddings": (Embeddings, {"model": "m", "input": "x"}),
}
UNKNOWN = (
    *("extra_body", "extra_headers", "extra_query", "api_base"),
    *("base_url", "api_key", "api_version", "organization"),
    *("project", "azure_endpoint", "deployment_id", "custom_llm_provider"),
    *("thinking_budget", "enable_thinking", "thinking_config", "thinkingConfig"),
    *("generationConfig", "max_new_tokens", "max_length", "max_tokens_to_sample"),
    *("num_predict", "max_thinking_tokens", "reasoning_tokens", "data_sources"),
    *("best_of", "prediction", "plugins", "models"),
    *("fallbacks", "route", "provider", "preset"),
    *("transforms", "search_parameters", "enable_search", "web_search_options"),
    *("tools_config", "mock_response", "num_retries", "timeout"),
    *("speculative_config", "ignore_eos", "min_tokens", "guided_json"),
    *("echo", "suffix", "cachedContent", "cache_control_ttl"),
    *("inference_geo", "speed", "container", "mcp_servers"),
)


def refusal_of(form: str, **options: Any) -> DoorRefusal:
    read, body = FORMS[form]
    with pytest.raises(DoorRefusal) as refused:
        read(body | options)
    return refused.value


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_on_no_list_is_refused_by_name_with_a_remedy(form: str, name: str) -> None:
    refusal = refusal_of(form, **{name: {"a": 1}})
    assert (refusal.status, refusal.field) == (400, name) and name in refusal.message and refusal.hint
    told = errors.anthropic_body(refusal, "r") if form == "messages" else errors.openai_body(refusal, "r")
    assert name in told["error"]["message"] and told["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("form", "name"),
    [
        *(("chat", name) for name in ("max_output_tokens", "background", "reasoning", "input", "instructions")),
        *(("responses", name) for name in ("max_tokens", "max_completion_tokens", "n", "seed", "stop", "messages")),
        *(("responses", name) for name in ("reasoning_effort", "response_format", "thinking", "logit_bias", "top_k")),
        *(("embeddings", name) for name in ("max_tokens", "messages", "temperature", "tools")),
        *(("messages", name) for name in ("max_output_tokens", "n", "seed", "background")),
    ],
)
def test_the_names_of_one_form_are_no_options_of_another(form: str, name: str) -> None:
    assert refusal_of(form, **{name: 1}).field == name


def test_an_empty_object_asks_for_the_defaults_and_is_refused_too() -> None:
    assert refusal_of("chat", web_search_options={}).field == "web_search_options"


def test_what_real_clients_send_is_passed_on_or_kept() -> None:
    sampling = {"temperature": 0.2, "top_p": 0.9, "top_k": 4, "seed": 7, "stop": ["END"], "logit_bias": {"50256": -100}}
    how = {"reasoning_effort": "low", "verbosity": "low", "service_tier": "flex", "parallel_tool_calls": False}
    kept = {
        "user": "u",
        "metadata": {"a": "b"},
        "store": True,
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "safety_identifier": "s",
        "logprobs": None,
        "api_key": None,
    }
    chat = FORMS["chat"][0](FORMS["chat"][1] | sampling | how | kept)
    assert chat.parsed_call.options == sampling | how
    body = {"temperature": 0.2, "service_tier": "auto", "client_metadata": {"v": "1"}, "background": False, **kept}
    del body["logprobs"], body["api_key"]
    answered = OpenAIResponseForm(FORMS["responses"][1] | body)
    passed = {"temperature": 0.2, "service_tier": "auto", "prompt_cache_key": "k"}
    assert answered.parsed_call.options == passed
    vectors = Embeddings(FORMS["embeddings"][1] | {"dimensions": 8, "user": "u", "input_type": "query"})
    assert vectors.parsed_call.options == {"dimensions": 8, "input_type": "query"}


@pytest.mark.parametrize("form", ["chat", "messages"])
def test_a_thinking_budget_is_part_of_what_is_reserved(form: str) -> None:
    assert refusal_of(form, thinking={"type": "enabled", "budget_tokens": 2_000}).field == "thinking.budget_tokens"
    assert refusal_of(form, thinking={"type": "enabled", "max_tokens": 9}).field == "thinking.max_tokens"
    read, body = FORMS[form]
    thinking = {"type": "enabled", "budget_tokens": 1_999}
    assert read(body | {"thinking": thinking}).parsed_call.options == {"thinking": thinking}


@pytest.mark.parametrize("form", ["chat", "responses", "messages"])
@pytest.mark.parametrize("tier", ["priority", "scale", "standard_only", "x"])
def test_a_tier_without_a_price_is_refused(form: str, tier: str) -> None:
    assert refusal_of(form, service_tier=tier).field == "service_tier"


def test_edits_of_a_context_are_few() -> None:
    edits = [{"type": "clear_thinking_20251015", "a": number} for number in range(bounds.MAX_PARTS + 1)]
    assert refusal_of("messages", context_management={"edits": edits}).field == "context_management.edits"
    read, body = FORMS["messages"]
    assert read(body | {"context_management": {"edits": edits[1:]}}).parsed_call.options["context_management"]["edits"]


def test_a_budget_of_interleaved_thoughts_spans_several_requests() -> None:
    thinking = {"type": "enabled", "budget_tokens": 2_000}
    betas = ["interleaved-thinking-2025-05-14"]
    read, body = FORMS["messages"]
    assert read(body | {"thinking": thinking, "betas": betas}).parsed_call.options["thinking"] == thinking


def test_what_coding_agents_send_is_passed_on_as_it_came() -> None:
    """Claude Code 2.1.332 and Codex 0.169.0, in the shapes that they were seen to send."""
    claude: dict[str, Any] = {
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "tools": [{"name": "Later", "input_schema": {"type": "object"}, "defer_loading": True}],
        "thinking": {"type": "adaptive", "display": "updates"},
        "output_config": {"effort": "high"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "top_k": 4,
    }
    rows = [*MESSAGES, {"role": "system", "content": "Go on.", "output_config": {"effort": "low"}}]
    asked = AnthropicMessageForm(FORMS["messages"][1] | claude | {"messages": rows}).parsed_call
    assert (asked.api, asked.options, list(asked.messages)) == ("anthropic", claude, rows)
    codex: dict[str, Any] = {
        "tools": [
            {"type": "custom", "name": "apply_patch", "format": {"type": "grammar"}},
            {"type": "namespace", "name": "agents", "tools": [{"type": "function", "name": "spawn"}]},
            *({"type": "tool_search", "execution": "client"}, {"type": "local_shell"}, {"type": "web_search"}),
        ],
        "reasoning": {"effort": "medium", "summary": "auto", "context": "all_turns"},
        "include": ["reasoning.encrypted_content"],
        "text": {"verbosity": "low"},
        "prompt_cache_key": "k",
    }
    items = [
        {"type": "additional_tools", "role": "developer", "tools": codex["tools"][:2]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": "e"},
        {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "x"},
    ]
    left = {"store": False, "client_metadata": {"a": "b"}}
    response = OpenAIResponseForm(FORMS["responses"][1] | codex | left | {"input": items}).parsed_call
    assert (response.api, response.options, list(response.messages)) == ("openai-responses", codex, items)
    [left_out] = response.left_out
    assert left_out.startswith("the tool web_search: its provider runs it") and not asked.left_out


@pytest.mark.parametrize("form", ["chat", "responses", "messages"])
def test_a_picture_too_large_for_its_message_leaves_its_name_there(form: str) -> None:
    data = "A" * (bounds.MAX_BLOB_BYTES - 100)
    small, large = (
        {
            "chat": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text}"}},
            "responses": {"type": "input_image", "image_url": f"data:image/png;base64,{text}"},
            "messages": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": text}},
        }[form]
        for text in ("A" * 400, data)
    )
    read, body = FORMS[form]
    rows = [{"role": "user", "content": [small, large]}, {"role": "user", "content": "x"}]
    call = fit_messages(read(body | {"input" if form == "responses" else "messages": rows}).parsed_call)
    check_sizes(call)
    kept, gap = call.messages[0]["content"]
    assert kept == small and gap["text"].startswith("[image left out: its message is larger than 4194304 bytes")
    assert call.left_out == ("image: its message is larger than 4194304 bytes",) and call.messages[1] == rows[1]
