"""OpenAI's service tiers: reserved by the dearest in which the account may answer, settled by the one that it names."""

import json

import pytest

from bulkhead_services.model_gateway.effects import HttpProvider, Network
from bulkhead_services.model_gateway.prices import PriceTable, PriceTableError
from bulkhead_services.model_gateway.providers.openai_responses import ResponsesAssembly
from bulkhead_services.model_gateway.providers.port import Chat, ModelAnswer
from bulkhead_services.model_gateway.routing.options import ProviderSettings
from tests.unit.services.model_gateway.gateway_desk import KEY, PRICED, desk
from tests.unit.services.model_gateway.scripted_provider import Exchange, ScriptedProvider, chunk, usage

STANDARD_MICROS = 27
"""100 tokens at 0.15 and 20 at 0.60 dollars per million."""


@pytest.fixture
async def provider():
    async with ScriptedProvider() as scripted:
        yield scripted


def says_in(tier: str | None):
    async def script(exchange: Exchange) -> None:
        told = {"service_tier": tier} if tier else {}
        await exchange.begin()
        await exchange.event(chunk({"content": "x"}) | {"service_tier": "auto"})
        await exchange.event(chunk(finish="stop"))
        await exchange.event({"choices": [], "usage": usage(), **told})
        await exchange.event("[DONE]")
        await exchange.end()

    return script


@pytest.mark.parametrize(
    ("tier", "charged"), [("priority", 68), ("fast", 68), ("default", 27), ("flex", 14), ("auto", 68), (None, 68)]
)
async def test_a_call_is_reserved_at_the_dearest_tier_and_charged_by_the_one_that_answered(provider, tier, charged):
    provider.will(says_in(tier))
    account = {"base_url": provider.url, "api_key": KEY, "dearest_tier": "priority"}
    async with desk(provider) as standard:
        await standard.answered()
        (plain,) = await standard.settled(1)
    async with desk(provider, providers={"acct": account}, model=f"acct:{PRICED}") as d:
        reply = await d.answered()
        (settled,) = await d.settled(1)
        reserved, standard_reserved = (one.purse.asked[0].worst_case.cost_usd_micros for one in (d, standard))
    assert plain.usage.cost_usd_micros == STANDARD_MICROS, "elsewhere the word has no price"
    assert settled.usage.cost_usd_micros == charged == reply.usage.cost_usd_micros
    assert reserved == pytest.approx(standard_reserved * 2.5, abs=3)


@pytest.mark.parametrize("streamed", [True, False])
def test_a_response_names_its_tier_at_its_end(streamed):
    response = {"status": "completed", "output": [], "service_tier": "priority", "usage": {"output_tokens": 1}}
    response["output"] = [{"type": "message", "content": [{"type": "output_text", "text": "x"}]}]
    assembly = ResponsesAssembly()
    if streamed:
        created = {"type": "response.created", "response": {"service_tier": "auto"}}
        delta = {"type": "response.output_text.delta", "delta": "x", "output_index": 0}
        for event in (created, delta, {"type": "response.completed", "response": response}):
            assembly.feed_event(json.dumps(event))
    else:
        assembly.feed_body(json.dumps(response).encode())
    answer = assembly.result()
    assert isinstance(answer, ModelAnswer) and (answer.text, answer.service_tier) == ("x", "priority")


def tier_sent(api: str, base_url: str, payload: dict[str, object], **settings: object) -> object:
    provider = HttpProvider("p", ProviderSettings(api=api, base_url=base_url, **settings), Network(1.0, 1.0, "", None))
    chat = Chat("m", {"messages": [{"role": "user", "content": "hi"}], **payload}, 10, adopted=bool(payload))
    return json.loads(provider.build_request(chat).body).get("service_tier")


@pytest.mark.parametrize("api", ["openai-chat", "openai-responses"])
def test_openai_is_asked_for_the_standard_tier_by_name(api):
    own = "https://eu.api.openai.com/v1"
    assert [tier_sent(api, own, payload) for payload in ({}, {"service_tier": "auto"})] == ["default", "default"]
    assert tier_sent(api, own, {"service_tier": "flex"}) == "flex"
    assert tier_sent(api, own, {}, dearest_tier="priority") is None
    assert tier_sent(api, "http://127.0.0.1:1/v1", {}) is None
    assert tier_sent(api, "http://openai.com.example/v1", {}) is None


def test_a_row_may_name_its_price_in_priority(tmp_path):
    rows = tmp_path / "prices.toml"
    rows.write_text('[models.a]\ninput = "1"\noutput = "2"\npriority = "1.75"\n')
    price = PriceTable(extra=rows).find_price("a", "", "http://x")
    assert price is not None and price.in_tier("priority").factor * 4 == 7
    rows.write_text('[models.a]\ninput = "1"\noutput = "2"\npriority = "0.2"\n')
    with pytest.raises(PriceTableError, match="priority is how many times"):
        PriceTable(extra=rows)
