"""Every vendor's wire form over a real socket: what is sent, what comes back, what it costs, and what is refused."""

import json
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from bulkhead_contracts.model import Part, ToolAnswer, ToolCall, Turn
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.model_gateway.attempts import Model
from bulkhead_services.model_gateway.charges import worst_case
from bulkhead_services.model_gateway.effects import HttpProvider, Network
from bulkhead_services.model_gateway.prices import PriceTable
from bulkhead_services.model_gateway.providers import anthropic
from bulkhead_services.model_gateway.providers.errors import fault_of_status
from bulkhead_services.model_gateway.providers.forms import FORMS
from bulkhead_services.model_gateway.providers.port import Chat, ModelAnswer
from bulkhead_services.model_gateway.settings import ProviderSettings, Settings, lacks_key
from tests.unit.services.model_gateway.gateway_desk import KEY, desk
from tests.unit.services.model_gateway.providers import misbehaviours
from tests.unit.services.model_gateway.providers.dialects import DIALECTS, Said
from tests.unit.services.model_gateway.scripted_provider import ScriptedProvider

WHERE = {
    "openai-chat": ("/v1/chat/completions", "authorization"),
    "azure-openai": ("/openai/v1/chat/completions", "api-key"),
    "ollama": ("/v1/chat/completions", "authorization"),
    "openai-responses": ("/v1/responses", "authorization"),
    "anthropic": ("/v1/messages", "x-api-key"),
    "gemini": ("/v1/models/offline-rules-1:streamGenerateContent?alt=sse", "x-goog-api-key"),
}
"""Path and header of the key, by wire form."""
CALL = ToolCall(id="c_0", name="add", arguments_json='{"a": 2}')
ASKED = {
    "parts": (Part(kind="step", text="Add."),),
    "tools": (ToolSpec(name="add", description="Adds.", parameters_json='{"type": "object"}'),),
    "turns": (
        Turn(
            tool_calls=(CALL,), answers=(ToolAnswer(tool_call_id="c_0", parts=(Part(kind="tool_result", text="4"),)),)
        ),
    ),
}


def provider_at(url: str, api: str) -> dict[str, Any]:
    base_url = url.removesuffix("/v1") + "/openai/v1" if api == "azure-openai" else url
    return {"providers": {"other": ProviderSettings(api=api, base_url=base_url, api_key=SecretStr(KEY))}}


@pytest.mark.parametrize("api", FORMS)
async def test_a_call_in_every_wire_form(api: str) -> None:
    path, header = WHERE[api]
    spoken = Said("Let me see.", "Hm.", (("c_1", "add", '{"a":1}'),), "tool_calls")
    async with ScriptedProvider() as provider:
        provider.will(misbehaviours.says(spoken)(DIALECTS[api]))
        async with desk(provider, model="other:offline-rules-1", **provider_at(provider.url, api)) as d:
            reply = await d.answered(d.request(**ASKED))
            said, settled = await d.text(reply.content), await d.settled(1)
        sent = provider.asked[0]
    assert said == "Let me see." and reply.finish == "tool_calls"
    assert [(call.name, json.loads(call.arguments_json)) for call in reply.tool_calls] == [("add", {"a": 1})]
    counts = reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.cached_input_tokens
    assert counts == (100, 20, 0 if api == "ollama" else 15) and not settled[0].estimated
    assert sent.path == path and KEY in sent.headers[header]
    words = json.dumps(sent.body)
    assert "Add." in words and "Adds." in words and "c_0" in words
    assert sent.body.get("stream", True) is True


@pytest.mark.parametrize(
    ("status", "body", "code", "hint"),
    [
        (400, {"error": {"message": "Your credit balance is too low to access the API."}}, "rate_limited", "credit"),
        (400, {"error": {"message": "API key not valid. Please pass a valid API key."}}, "provider_error", "ANY_KEY"),
        (401, {"error": {"message": "invalid x-api-key"}}, "provider_error", "ANY_KEY"),
        (400, {"error": {"message": "prompt is too long: 250000 tokens > 200000"}}, "context_overflow", "longer"),
        (400, {"error": {"message": "The input token count (9) exceeds the maximum"}}, "context_overflow", "longer"),
        (404, {"error": {"message": "model: claude-x"}}, "unknown_model", "name"),
        (529, {"error": {"type": "overloaded_error", "message": "Overloaded"}}, "provider_error", ""),
    ],
)
def test_a_refusal_says_what_to_mend(status: int, body: object, code: str, hint: str) -> None:
    fault = fault_of_status(status, {}, json.dumps(body).encode(), "ANY_KEY")
    assert fault.code == code and hint in fault.hint and fault.retryable is (status == 529)


def test_providers_that_settings_name_by_their_key_alone() -> None:
    settings = Settings(
        openai_api_key=SecretStr(KEY), anthropic_api_key=SecretStr("a"), model="anthropic:claude-sonnet-4-5-20250929"
    )
    known, route = settings.all_providers(), settings.all_routes()["default"]
    assert known["anthropic"].base_url == "https://api.anthropic.com/v1" and "gemini" not in known
    assert (route.provider, route.model) == ("anthropic", "claude-sonnet-4-5-20250929")
    assert not lacks_key(ProviderSettings(api="ollama", base_url="http://models:11434/v1"))
    gemini = ProviderSettings(api="gemini").price_provider
    assert PriceTable().find_price("gemini-2.5-flash", gemini, "") is not None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"providers": {"z": {"api": "azure-openai", "base_url": "https://x.openai.azure.com"}}}, "/openai/v1"),
        ({"providers": {"z": {"api": "azure-openai"}}}, "needs its base_url"),
        ({"providers": {"z": {"api": "bedrock", "base_url": "https://x"}}}, "openai-chat"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Settings(openai_api_key=SecretStr(KEY), **given)


def test_a_schema_keeps_only_what_anthropic_takes() -> None:
    schema = {
        "type": "object",
        "properties": {"minimum": {"type": "number", "minimum": 0, "maximum": 1}, "rows": {"$ref": "#/$defs/rows"}},
        "$defs": {"rows": {"type": "array", "items": {"type": "string", "maxLength": 9}, "minItems": 2, "maxItems": 9}},
        "required": ["minimum"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    sent = json.loads(anthropic.build_request(Chat("m", {"messages": [], "response_format": form}, 9)).body)
    assert sent["output_config"]["format"]["schema"] == {
        "type": "object",
        "properties": {"minimum": {"type": "number"}, "rows": {"$ref": "#/$defs/rows"}},
        "$defs": {"rows": {"type": "array", "items": {"type": "string"}}},
        "required": ["minimum"],
    }


def test_a_hostile_place_of_a_call_makes_no_name_too_long() -> None:
    assembly = FORMS["openai-chat"].assembly_type()
    call = {"index": 10**60, "id": "", "function": {"name": "add", "arguments": "{}"}}
    assembly.feed_event(json.dumps({"choices": [{"delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}))
    said = assembly.result()
    assert isinstance(said, ModelAnswer) and len(said.calls[0].id) < 64


def test_the_worst_case_of_a_call_that_is_cached_holds_what_writing_costs() -> None:
    price = PriceTable().find_price("claude-haiku-4-5-20251001", "anthropic", "")
    assert price is not None
    provider = HttpProvider("a", ProviderSettings(api="anthropic", api_key=SecretStr("k")), Network())
    outgoing = provider.build_request(Chat("m", {"messages": []}, 9))
    model = Model("m", provider, price, 1_000)
    assert outgoing.writes_cache
    assert (
        worst_case(model.price, 10**6, 0, True).cost_usd_micros
        > worst_case(model.price, 10**6, 0, False).cost_usd_micros
    )


def test_the_key_alone_chooses_the_model_and_a_missing_key_is_named() -> None:
    chosen = Settings(openai_api_key=SecretStr(""), gemini_api_key=SecretStr("g")).all_routes()["default"]
    assert chosen.provider == "gemini"
    with pytest.raises(ValidationError, match="ANTHROPIC_API_KEY"):
        Settings(openai_api_key=SecretStr(KEY), model="anthropic:claude-haiku-4-5-20251001")


GIVEN = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ("END",), "reasoning_effort": "low"}
SENT: dict[str, dict[str, Any]] = {
    "openai-chat": {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["END"], "reasoning_effort": "low"},
    "azure-openai": {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["END"], "reasoning_effort": "low"},
    "openai-responses": {"temperature": 0.5, "top_p": 0.9, "reasoning": {"effort": "low"}},
    "anthropic": {"temperature": 0.5, "top_p": 0.9, "stop_sequences": ["END"]},
    "gemini": {"generationConfig": {"temperature": 0.5, "topP": 0.9, "seed": 7, "stopSequences": ["END"]}},
    "ollama": {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["END"]},
}


@pytest.mark.parametrize("api", SENT)
def test_parameters_are_sent_under_the_names_of_the_api_or_refused_by_name(api: Any) -> None:
    form = FORMS[api]
    taken = {name: value for name, value in GIVEN.items() if name in form.parameter_names}
    with_, without = (
        json.loads(form.build_request(Chat("m", {"messages": []}, 9, given)).body) for given in (taken, {})
    )
    if api == "gemini":
        del with_["generationConfig"]["maxOutputTokens"], without["generationConfig"]
    assert {name: value for name, value in with_.items() if name not in without} == SENT[api]
    base_url = {"azure-openai": "http://127.0.0.1:1/openai/v1"}.get(api, "http://127.0.0.1:1/v1")
    for name, value in GIVEN.items():
        route = {"model": "offline-rules-1", "provider": "p", name: value}
        given = {"providers": {"p": {"api": api, "base_url": base_url}}, "routes": {"x": route}}
        if name in form.parameter_names:
            assert Settings(**given)
        else:
            with pytest.raises(ValidationError, match=f"wants {name} of"):
                Settings(**given)
