"""How long a summary of reasoning an outside agent wants: handed on where the provider's API takes it, else refused by
name."""

import json
from typing import Any

import pytest

from bulkhead_services.model_gateway.providers.narrowing import UnsupportedInput
from tests.unit.services.model_gateway.gateway_desk import PRICED, desk
from tests.unit.services.model_gateway.scripted_provider import Exchange, ScriptedProvider, says
from tests.unit.services.model_gateway.test_conversations import asked, call, translated


@pytest.fixture
async def provider():
    async with ScriptedProvider() as found:
        yield found


async def responds(x: Exchange) -> None:
    """As the responses API does."""
    ended = {"status": "completed", "model": "m1", "usage": {"input_tokens": 9, "output_tokens": 1}}
    await x.begin()
    await x.event({"type": "response.output_text.delta", "output_index": 0, "delta": "42"})
    await x.event({"type": "response.completed", "response": ended})
    await x.end()


def test_it_is_said_where_there_is_a_word_for_it() -> None:
    for wanted in ("auto", "detailed"):
        assert translated("openai-responses", reasoning_summary=wanted)["reasoning"] == {"summary": wanted}
    for api in ("anthropic", "gemini"):
        # Whatever reasoning comes is given back: nothing is lost.
        assert "reasoning" not in json.dumps(translated(api, reasoning_summary="auto"))
        with pytest.raises(UnsupportedInput, match=r"'detailed' as reasoning\.summary"):
            translated(api, reasoning_summary="detailed")


async def test_it_is_refused_by_name_where_the_provider_speaks_chat(provider):
    provider.will(says("42"))
    async with desk(provider) as d:
        refused = await asked(d, await call(d, options={"reasoning_summary": "concise"}))
        answered = await asked(d, await call(d, options={"reasoning_summary": "auto"}, call_id="c2"))
    assert (refused.outcome, refused.failure.code) == ("refused", "unsupported_parameter")
    assert "does not take 'concise' as reasoning.summary, only 'auto'" in refused.failure.message
    (x,) = provider.asked
    assert answered.outcome == "answered" and not any("reasoning" in name for name in x.body)


async def test_the_call_goes_to_the_model_of_its_route_that_takes_it(provider):
    def api(name: str) -> dict[str, Any]:
        return {"api": name, "base_url": provider.url, "api_key": "k"}

    provider.will(responds)
    given = {"providers": {"chat": api("openai-chat"), "responses": api("openai-responses")}, "free_models": ("m1",)}
    route = {"provider": "chat", "model": PRICED, "fallback": {"provider": "responses", "model": "m1"}}
    async with desk(provider, routes={"default": route}, **given) as d:
        reply = await asked(d, await call(d, options={"reasoning_summary": "detailed"}, tier="default"))
    (x,) = provider.asked
    assert (reply.outcome, x.body["model"], x.body["reasoning"]) == ("answered", "m1", {"summary": "detailed"})
    assert f"m1 answered in place of {PRICED} (unsupported_parameter)" in reply.standing_reason
