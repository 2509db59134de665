"""The routes as people and programs see them: which model answers where, at which price, and what stands in for it.

In: settings. Out: rows of plain values, without keys.
"""

from typing import Any
from urllib.parse import urlsplit, urlunsplit

from bulkhead_contracts.result import Usage
from bulkhead_services.model_gateway.prices import Price, PriceTable
from bulkhead_services.model_gateway.settings import ModelSettings, ProviderSettings, Settings

SAMPLE_TOKENS = 10_000
"""Prices are told per token of a call of this size: public tables have dearer tiers for long prompts."""


def list_routes(settings: Settings) -> list[dict[str, Any]]:
    """One row per route, in order; `fallback` and `escalation` are rows of the same kind."""
    prices, providers = PriceTable(settings.free_models, settings.prices_file), settings.all_providers()

    def row_of(model_settings: ModelSettings) -> dict[str, Any]:
        provider = providers[model_settings.provider]
        return _route_row(
            model_settings,
            provider,
            prices.find_price(model_settings.model, provider.price_provider, provider.base_url),
        )

    return [
        {
            "route": name,
            **row_of(route),
            "fallback": [row_of(model) for model in route.fallback],
            "hedge_after_ms": route.hedge_after_ms,
            "escalation": [row_of(model) for model in route.escalation],
            # As BULKHEAD_ROUTES has it: keys and addresses stand with providers.
            "settings": {"provider": route.provider, **route.model_dump(mode="json", exclude_defaults=True)},
        }
        for name, route in settings.all_routes().items()
    ]


def _route_row(model_settings: ModelSettings, provider: ProviderSettings, price: Price | None) -> dict[str, Any]:
    return {
        "provider": model_settings.provider,
        "model": model_settings.model,
        "api": provider.api,
        "base_url": _without_login(provider.base_url),
        "region": model_settings.terms_at(provider).region,
        "temperature": model_settings.temperature,
        "context_tokens": model_settings.context_tokens or (price.context_tokens if price else None),
        "max_output_tokens": model_settings.max_output_tokens,
        "price": _price_fields(price) if price is not None else None,
    }


def _price_fields(price: Price) -> dict[str, Any]:
    usages = {
        "input_usd_per_mtok": Usage(input_tokens=SAMPLE_TOKENS),
        "cached_input_usd_per_mtok": Usage(input_tokens=SAMPLE_TOKENS, cached_input_tokens=SAMPLE_TOKENS),
        "output_usd_per_mtok": Usage(output_tokens=SAMPLE_TOKENS),
    }
    # Micro dollars per token are dollars per million tokens.
    usd_per_mtok = {name: price.cost_usd_micros(usage) / SAMPLE_TOKENS for name, usage in usages.items()}
    return {**usd_per_mtok, "source": price.source, "as_of": price.as_of, "digest": price.digest}


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
