"""Composition root of the model gateway: ModelCallRequested comes in, `core.ModelGateway` answers, `effects` calls."""

import random
from collections.abc import Callable, Mapping

import httpx

from bulkhead.runtime.context import Context
from bulkhead_services.model_gateway.attempts import Model, Policy
from bulkhead_services.model_gateway.core import SERVICE, ModelGateway, Route
from bulkhead_services.model_gateway.effects import HttpProvider, LiveText, Network, read_contents
from bulkhead_services.model_gateway.prices import Prices
from bulkhead_services.model_gateway.prompts import Prompts
from bulkhead_services.model_gateway.providers.forms import FORMS
from bulkhead_services.model_gateway.settings import ModelSettings, ProviderSettings, Settings, keyless

__all__ = ["SERVICE", "build"]

UNKNOWN_CONTEXT_TOKENS = 32_000
"""Taken for a model of whose context no table knows the size; BULKHEAD_CONTEXT_TOKENS says better."""


def build(
    context: Context,
    settings: Settings,
    transport: httpx.AsyncBaseTransport | None = None,
    jitter: Callable[[], float] = random.random,
) -> ModelGateway:
    """The doer. `transport` and `jitter` stand in for the network and for chance. Raises ValueError when a provider
    that is used has no key."""
    known = settings.all_providers()
    routes = settings.all_routes()
    used = {one.provider for route in routes.values() for one in (route, route.fallback) if one is not None}
    for name in sorted(used):
        if keyless(known[name]):
            variable = FORMS[known[name].api].key_variable
            key = f"{variable} or its api_key" if variable else "its api_key"
            raise ValueError(
                f"provider {name} ({known[name].base_url}) has no key: set {key} in BULKHEAD_PROVIDERS, name another "
                "provider's model (BULKHEAD_MODEL=PROVIDER:MODEL), or point OPENAI_BASE_URL at the offline model"
            )
    timeouts = settings.connect_timeout_s, settings.stall_timeout_s
    network = Network(*timeouts, settings.provider_proxy, settings.provider_ca_file, transport)
    providers = {name: HttpProvider(name, known[name], network) for name in used}
    prices = Prices(settings.free_models, settings.prices_file)

    async def start() -> None:
        for one in providers.values():
            one.open()

    async def stop() -> None:
        for one in providers.values():
            await one.close()

    def drain() -> None:
        for one in providers.values():
            one.places.close()

    def model(wanted: ModelSettings) -> Model:
        return _model(wanted, providers, known, prices)

    return ModelGateway(
        {
            tier: Route(model(route), model(route.fallback) if route.fallback else None)
            for tier, route in routes.items()
        },
        Prompts(packs=settings.packs),
        policy(settings, jitter),
        read_contents=read_contents,
        live_text=LiveText,
        start=start,
        stop=stop,
        drain=drain,
    )


def policy(settings: Settings, jitter: Callable[[], float] = random.random) -> Policy:
    """The retry policy that the settings tell."""
    backoff = settings.backoff_first_ms, settings.backoff_cap_ms
    return Policy(settings.provider_attempts, *backoff, settings.slot_wait_s, jitter)


def _model(
    wanted: ModelSettings, providers: Mapping[str, HttpProvider], known: Mapping[str, ProviderSettings], prices: Prices
) -> Model:
    provider = known[wanted.provider]
    price = prices.find(wanted.model, provider.price_provider, provider.base_url)
    context_tokens = wanted.context_tokens or (price.context_tokens if price else None) or UNKNOWN_CONTEXT_TOKENS
    held = providers[wanted.provider]
    return Model(wanted.model, held, price, context_tokens, wanted.max_output_tokens, wanted.temperature)
