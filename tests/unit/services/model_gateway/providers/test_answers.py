"""What an answer is made of, where vendors and servers differ: ids of calls, counts, keys, long events."""

import json
import time

import pytest
from pydantic import SecretStr

from bulkhead_contracts import bounds
from bulkhead_services.model_gateway.effects import HttpProvider, Network
from bulkhead_services.model_gateway.providers import errors
from bulkhead_services.model_gateway.providers.forms import FORMS, key_setting_name, missing_key_message
from bulkhead_services.model_gateway.providers.port import Chat, ModelAnswer, ProviderFault
from bulkhead_services.model_gateway.providers.sse import ProviderEventTooLarge, SseDecoder
from bulkhead_services.model_gateway.routing.options import ProviderSettings
from tests.unit.services.model_gateway.providers.calling import CHAT
from tests.unit.services.model_gateway.providers.dialects import DIALECTS, Said

# Ids of calls


def answered(api, chat, *calls):
    """The ids of these calls in the answer to this chat."""
    provider = HttpProvider(
        "p", ProviderSettings(api=api, base_url="http://x/openai/v1", api_key=SecretStr("k")), Network()
    )
    assembly = FORMS[api].assembly_type(provider.build_request(chat))
    for event in DIALECTS[api].stream(Said(calls=calls, end="tool_calls")):
        assembly.feed_event(json.dumps(event))
    said = assembly.result()
    assert isinstance(said, ModelAnswer)
    return [call.id for call in said.calls]


def after(chat, *ids):
    """The chat a turn later."""
    calls = [{"id": one, "type": "function", "function": {"name": "add", "arguments": "{}"}} for one in ids]
    said = [{"role": "assistant", "content": None, "tool_calls": calls}]
    said += [{"role": "tool", "tool_call_id": one, "content": "4"} for one in ids]
    return Chat(chat.model, {"messages": [*chat.payload["messages"], *said]}, chat.output_tokens)


@pytest.mark.parametrize("api", FORMS)
def test_no_two_calls_of_a_conversation_have_one_id(api):
    """Vendors that give no ids (Gemini), none that can stand, or the same ones in every turn."""
    for given in ("", "call:0", "c_1"):
        chat, seen = CHAT, []
        for _ in range(3):
            ids = answered(api, chat, (given, "add", "{}"), (given, "add", "{}"))
            seen += ids
            chat = after(chat, *ids)
        assert len({*seen}) == 6, seen


def test_two_tasks_that_are_given_no_ids_have_none_in_common():
    other = Chat("scripted-1", {"messages": [{"role": "user", "content": "Another."}]}, 100)
    assert answered("gemini", CHAT, ("", "add", "{}")) != answered("gemini", other, ("", "add", "{}"))


def test_an_id_that_can_stand_is_kept():
    assert answered("anthropic", CHAT, ("toolu_01A09q90qw", "add", "{}")) == ["toolu_01A09q90qw"]


# Counts


def of_usage(usage):
    assembly = FORMS["openai-chat"].assembly_type()
    body = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
    assembly.feed_body(json.dumps(body).encode())
    return assembly.result()


def test_thoughts_that_are_counted_beside_the_completion_are_paid():
    """xAI's way; OpenAI counts them within."""
    counts = {"prompt_tokens": 100, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 300}}
    assert of_usage({**counts, "total_tokens": 409}).usage.output_tokens == 309
    assert of_usage({**counts, "completion_tokens": 309, "total_tokens": 409}).usage.output_tokens == 309
    assert of_usage(counts).usage.output_tokens == 309, "more than the completion, so beside it"
    assert of_usage({**counts, "total_tokens": 409}).usage.reasoning_tokens == 300


@pytest.mark.parametrize("absurd", [-1, True, 1.5, "-9", float("inf")])
def test_what_is_no_number_of_tokens_is_missing_usage(absurd):
    assert of_usage({"prompt_tokens": absurd, "completion_tokens": 9}).usage is None
    assert of_usage({"prompt_tokens": 9, "completion_tokens": absurd}).usage is None


def test_parts_of_a_prompt_that_are_too_much_together_are_the_most_that_is_booked():
    body = DIALECTS["anthropic"].whole(Said("x"))
    body["usage"] |= {"input_tokens": bounds.MAX_TOKENS, "cache_read_input_tokens": bounds.MAX_TOKENS}
    assembly = FORMS["anthropic"].assembly_type()
    assembly.feed_body(json.dumps(body).encode())
    assert assembly.result().usage.input_tokens == bounds.MAX_TOKENS


# Words


@pytest.mark.parametrize(
    ("api", "name", "base_url", "setting"),
    [
        ("openai-chat", "openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
        ("openai-chat", "groq", "https://api.groq.com/openai/v1", "the api_key of groq in BULKHEAD_PROVIDERS"),
        ("openai-responses", "oai", "https://api.openai.com/v1", "the api_key of oai in BULKHEAD_PROVIDERS"),
        ("azure-openai", "az", "https://x.openai.azure.com/openai/v1", "the api_key of az in BULKHEAD_PROVIDERS"),
        ("anthropic", "anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
        ("anthropic", "proxy", "https://proxy.example/v1", "the api_key of proxy in BULKHEAD_PROVIDERS"),
        ("gemini", "mine", "https://generativelanguage.googleapis.com/v1beta", "GEMINI_API_KEY"),
        ("ollama", "far", "http://127.0.0.1:11434/v1", "the api_key of far in BULKHEAD_PROVIDERS"),
    ],
)
def test_a_missing_key_is_asked_for_by_the_setting_that_counts(api, name, base_url, setting):
    said = missing_key_message(api, name, base_url)
    assert key_setting_name(api, name, base_url) == setting
    assert said.startswith(f"provider {name} ({base_url}) has no key: set {setting}, or name another")
    assert ("OPENAI_BASE_URL" in said) == (name == "openai")
    assert setting in errors.fault_of_status(401, {}, b"", setting).hint


def test_an_endpoint_that_has_moved_is_named():
    fault = errors.fault_of_status(308, {"location": "https://elsewhere.example/v1/chat"}, b"")
    assert "https://elsewhere.example/v1/chat" in fault.message and "base URL" in fault.hint and fault.outage
    assert isinstance(fault, ProviderFault) and not fault.retryable


# Events


def test_an_event_without_an_end_costs_no_more_than_its_bytes():
    decoder, began = SseDecoder(), time.process_time()
    with pytest.raises(ProviderEventTooLarge):
        for _ in range(bounds.MAX_PROVIDER_EVENT_BYTES):
            decoder.feed(b"x" * 100)
    assert time.process_time() - began < 1.0
