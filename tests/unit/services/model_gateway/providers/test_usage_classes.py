"""Classes of usage: read from each provider, at prices of their own, and shown apart to the client."""

import json
import random
from decimal import ROUND_CEILING, Decimal
from itertools import chain, combinations

import pytest
from genai_prices import Usage as PricedUsage
from genai_prices.data_snapshot import get_snapshot

from bulkhead_contracts.result import Usage
from bulkhead_services.doors.forms import anthropic_messages, openai_chat, openai_responses
from bulkhead_services.model_gateway.prices import AMOUNTS, Price, PriceTable, _priced_counts, _with_hour_price
from bulkhead_services.model_gateway.providers.fields import usage_of
from bulkhead_services.model_gateway.providers.forms import FORMS
from tests.unit.services.model_gateway.providers.dialects import DIALECTS, Said

OPENAI = {
    "prompt_tokens": 1_000,
    "completion_tokens": 200,
    "prompt_tokens_details": {"cached_tokens": 300, "cache_write_tokens": 100, "audio_tokens": 50, "image_tokens": 70},
    "completion_tokens_details": {"reasoning_tokens": 60, "audio_tokens": 40},
}
RESPONSES = {
    "input_tokens": 1_000,
    "output_tokens": 200,
    "input_tokens_details": {"cached_tokens": 300, "cache_write_tokens": 100},
    "output_tokens_details": {"reasoning_tokens": 60},
}
ANTHROPIC = {
    "input_tokens": 200,
    "output_tokens": 200,
    "cache_read_input_tokens": 300,
    "cache_creation_input_tokens": 500,
    "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 200},
    "output_tokens_details": {"thinking_tokens": 60},
}
GEMINI = {
    "promptTokenCount": 1_000,
    "candidatesTokenCount": 140,
    "thoughtsTokenCount": 60,
    "cachedContentTokenCount": 300,
    "promptTokensDetails": [
        {"modality": "TEXT", "tokenCount": 500},
        {"modality": "AUDIO", "tokenCount": 400},
        {"modality": "IMAGE", "tokenCount": 100},
    ],
    "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 200}],
    "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 30}, {"modality": "TEXT", "tokenCount": 110}],
}
READ = {"input_tokens": 1_000, "output_tokens": 200, "cached_input_tokens": 300, "reasoning_tokens": 60}
CASES = {
    "openai-chat": (
        "usage",
        OPENAI,
        Usage(
            model_calls=1,
            **READ,
            cache_write_tokens=100,
            input_audio_tokens=50,
            input_image_tokens=70,
            output_audio_tokens=40,
        ),
    ),
    "openai-responses": ("usage", RESPONSES, Usage(model_calls=1, **READ, cache_write_tokens=100)),
    "anthropic": ("usage", ANTHROPIC, Usage(model_calls=1, **READ, cache_write_tokens=500, cache_write_1h_tokens=200)),
    "gemini": (
        "usageMetadata",
        GEMINI,
        Usage(
            model_calls=1,
            **READ,
            input_audio_tokens=400,
            cached_audio_tokens=200,
            input_image_tokens=100,
            output_image_tokens=30,
        ),
    ),
}


@pytest.mark.parametrize("api", CASES)
def test_each_provider_tells_its_classes(api: str) -> None:
    field, counts, expected = CASES[api]
    assembly = FORMS[api].assembly_type()
    assembly.feed_body(json.dumps({**DIALECTS[api].whole(Said("x")), field: counts}).encode())
    assert assembly.usage == expected


@pytest.mark.parametrize("end", ["completed", "incomplete", "failed", "cancelled"])
def test_usage_counts_however_a_response_ends(end: str) -> None:
    assembly = FORMS["openai-responses"].assembly_type()
    assembly.feed_event(json.dumps({"type": f"response.{end}", "response": {"status": end, "usage": RESPONSES}}))
    assert assembly.usage == CASES["openai-responses"][2]


def test_each_class_is_told_priced_and_shown_apart() -> None:
    table = PriceTable()
    claude = table.find_price("claude-sonnet-4-5", "anthropic", "")
    # 200 fresh at $3, 300 read at $0.3, 300 for minutes at $3.75, 200 for an hour at $6, 200 out at $15 a million.
    assert claude.cost_usd_micros(CASES["anthropic"][2]) == 600 + 90 + 1_125 + 1_200 + 3_000
    gemini = table.find_price("gemini-2.5-flash", "google", "")
    # 600 of no audio, 100 of them read; 400 of audio, 200 of them read.
    assert gemini.cost_usd_micros(CASES["gemini"][2]) == 150 + 3 + 200 + 20 + 500
    shown = anthropic_messages._render_usage(CASES["anthropic"][2])
    assert shown == {**ANTHROPIC, "input_tokens": 200}
    shown = openai_chat._render_usage(CASES["openai-chat"][2])
    assert shown == {**OPENAI, "total_tokens": 1_200}
    shown = openai_responses._render_usage(CASES["openai-responses"][2])
    assert shown == {**RESPONSES, "total_tokens": 1_200}


@pytest.mark.parametrize(
    ("vendor", "model"),
    [
        ("openrouter", "anthropic/claude-opus-4.5"),
        ("google", "claude-4-sonnet"),
        ("openrouter", "anthropic/claude-sonnet-4.5"),
    ],
)
def test_what_is_kept_for_an_hour_costs_twice_the_input_where_a_list_has_no_price_of_it(vendor, model) -> None:
    price = PriceTable().find_price(model, vendor, "")
    for count in (1_000, 1_000_000):
        fresh, written = Usage(input_tokens=count), {"cache_write_tokens": count, "cache_write_1h_tokens": count}
        assert price.cost_usd_micros(Usage(input_tokens=count, **written)) == 2 * price.cost_usd_micros(fresh) > 0


def test_usage_without_classes_is_written_as_before() -> None:
    written = Usage(model_calls=1, input_tokens=5, output_tokens=1).model_dump(exclude_none=True)
    assert not [name for name in written if "audio" in name or "write" in name or "image" in name]


def test_no_count_of_any_class_is_without_a_price() -> None:
    """A price that fails would leave a call unsettled."""
    chosen, rates = random.Random(29), {}
    for provider in get_snapshot().providers:
        for model in provider.models:
            for row in [one.prices for one in model.prices] if isinstance(model.prices, list) else [model.prices]:
                row = _with_hour_price(row)
                rates[tuple(name for name, value in row.__dict__.items() if value is not None)] = row
    classes = [
        name for name in Usage.model_fields if name.endswith("_tokens") and name not in {*READ, "estimated_tokens"}
    ]

    def count() -> int:
        return chosen.choice([0, 0, 1, chosen.randint(0, 1_000)])

    for row in rates.values():
        for _ in range(60):
            told = {name: count() for name in classes}
            usage = usage_of(chosen.randint(1, 1_000), count(), count(), count(), **told)
            assert usage is not None
            usd = Decimal(row.calc_price(PricedUsage(**_priced_counts(usage)))["total_price"])
            told_micros = Price("m", repr(row), None, row).cost_usd_micros(usage)
            assert told_micros == (usd * 1_000_000).to_integral_value(ROUND_CEILING), "as genai-prices sums it up"


def test_a_row_of_any_prices_prices_every_usage(tmp_path):
    classes = [name for name in AMOUNTS if name not in ("input", "output")]
    rows = list(chain.from_iterable(combinations(classes, count) for count in range(len(classes) + 1)))
    prices = ["".join(f'{name} = "{number + 2}"\n' for number, name in enumerate(row)) for row in rows]
    lines = (f'[models.m{number}]\ninput = "20"\noutput = "20"\n{text}' for number, text in enumerate(prices))
    (tmp_path / "prices.toml").write_text("".join(lines))
    table = PriceTable(extra=tmp_path / "prices.toml")
    usage = Usage(
        **READ,
        cache_write_tokens=300,
        cache_write_1h_tokens=100,
        input_audio_tokens=500,
        input_image_tokens=500,
        output_audio_tokens=100,
        output_image_tokens=100,
    )
    for number in range(len(rows)):
        price = table.find_price(f"m{number}", "", "")
        assert price is not None and 0 < price.cost_usd_micros(usage) <= 20 * 1_200


def test_what_is_in_two_classes_costs_as_much_as_the_dearer(tmp_path):
    (tmp_path / "prices.toml").write_text(
        '[models.m]\ninput = "10"\noutput = "20"\ncached_input = "1"\ninput_audio = "40"\n'
    )
    price = PriceTable(extra=tmp_path / "prices.toml").find_price("m", "", "")
    heard = Usage(input_tokens=100, cached_input_tokens=100, input_audio_tokens=100, cached_audio_tokens=100)
    assert price is not None and price.cost_usd_micros(heard) == 100 * 40
