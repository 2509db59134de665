"""Prices by hour and by date: reserved and charged by the dearest that holds while a call runs."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage as PricedUsage
from genai_prices import calc_price
from genai_prices.types import ModelPrice

from bulkhead_contracts.result import Usage
from bulkhead_services.model_gateway.prices import PriceTable
from tests.unit.services.model_gateway.gateway_desk import PRICED, desk
from tests.unit.services.model_gateway.scripted_provider import Exchange, ScriptedProvider, says

TOKENS = {"input_tokens": 1_000_000, "output_tokens": 100_000}


def unix_ms(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("model", "vendor", "cheap", "dear"),
    [
        ("deepseek-v4-pro", "deepseek", (2026, 11, 26, 12), (2026, 11, 26, 2, 15)),
        ("gemini-4-argon", "google", (2026, 11, 30), (2026, 12, 1)),
        ("deepseek-v4-pro", "deepseek", (2026, 11, 26, 10), (2026, 11, 26, 9, 59)),
    ],
)
def test_each_hour_and_day_has_its_own_price(model, vendor, cheap, dear) -> None:
    price = PriceTable().find_price(model, vendor, "")
    then = {}
    for date in (cheap, dear):
        then[date] = price.dearest_at(unix_ms(*date))
        listed = calc_price(
            PricedUsage(**TOKENS), model, provider_id=vendor, genai_request_timestamp=datetime(*date, tzinfo=UTC)
        )
        assert then[date].cost_usd_micros(Usage(**TOKENS)) == listed.total_price * 1_000_000
    assert then[dear].digest != then[cheap].digest, "a bill names the row by which it was made"
    assert price.dearest_at(unix_ms(*cheap), unix_ms(*dear)) == then[dear]
    assert then[cheap].dearest_at(unix_ms(*dear)) == then[dear], "whatever was looked up before"


async def test_a_call_is_reserved_by_the_price_of_its_deadline_and_charged_by_that_of_its_end(monkeypatch) -> None:
    price = PriceTable().find_price(PRICED, "openai", "")
    dear, changes_at = ModelPrice(input_mtok=Decimal(2), output_mtok=Decimal(8)), [unix_ms(2100, 1, 1)]

    def rates_at(time: datetime):
        return dear if time.timestamp() * 1000 >= changes_at[0] else price.rates

    async def changes_meanwhile(x: Exchange) -> None:
        changes_at[0] = int(datetime.now(UTC).timestamp() * 1000)
        await says("x")(x)

    monkeypatch.setattr(PriceTable, "find_price", lambda *_: replace(price, rates_at=rates_at))
    async with ScriptedProvider() as provider, desk(provider) as d:
        provider.will(says("x"), changes_meanwhile, says("x"))
        cheap, crossing = await d.answered(), await d.answered(d.request(call_id="c2"))
        assert crossing.usage.cost_usd_micros > cheap.usage.cost_usd_micros * 5
        changes_at[0] = d.now_ms() + 5_000
        await d.answered(d.request(call_id="c3"))
        first, _, third = (asked.worst_case.cost_usd_micros for asked in d.purse.asked)
        assert third > first
        assert d.purse.asked[0].price_digest != d.purse.asked[2].price_digest
