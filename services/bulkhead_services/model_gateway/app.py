"""Composition root of the model gateway: ModelCallRequested comes in, `core.ModelGateway` answers, `effects` calls."""

import random
from collections.abc import Callable, Mapping, Set

import httpx

from bulkhead.prompts.files import Prompts
from bulkhead.prompts.released import ReleasedPrompts
from bulkhead.quotas.token_bounds import load_vocabulary
from bulkhead.quotas.token_estimates import TokenCounters
from bulkhead.runtime.context import Context
from bulkhead.runtime.doer.attribution_process import Attributor
from bulkhead.runtime.process.main import main
from bulkhead_services.model_gateway.abandoned import AbandonedCalls
from bulkhead_services.model_gateway.attempts import Model, RetryPolicy
from bulkhead_services.model_gateway.core import SERVICE, ModelGateway
from bulkhead_services.model_gateway.effects import HttpProvider, Network
from bulkhead_services.model_gateway.prices import PriceTable
from bulkhead_services.model_gateway.response_cache import ResponseCache
from bulkhead_services.model_gateway.routing.chain import Route
from bulkhead_services.model_gateway.routing.options import ModelSettings, ProviderSettings, RouteSettings
from bulkhead_services.model_gateway.routing.policies import TenantDataPolicies
from bulkhead_services.model_gateway.settings import Settings, on_this_machine

UNKNOWN_CONTEXT_TOKENS = 32_000
"""Taken for a model of whose context no table knows the size; BULKHEAD_CONTEXT_TOKENS says better."""


def build(
    context: Context,
    settings: Settings,
    transport: httpx.AsyncBaseTransport | None = None,
    jitter: Callable[[], float] = random.random,
) -> ModelGateway:
    """The doer. `transport` and `jitter` stand in for the network (no process is started beside, then) and for chance.
    Raises ValueError when a provider that is used has no key."""
    provider_settings = settings.all_providers()
    routes = settings.all_routes()
    provider_names = {model_settings.provider for route in routes.values() for model_settings in route.models()}
    if problems := settings.start_problems():
        raise ValueError("; ".join(problems))
    timeouts = settings.connect_timeout_s, settings.stall_timeout_s
    network = Network(*timeouts, settings.provider_proxy, settings.provider_ca_file, transport)
    providers = {name: HttpProvider(name, provider_settings[name], network) for name in provider_names}
    prices = PriceTable(settings.free_models, settings.prices_file)

    backoff = settings.backoff_first_ms, settings.backoff_cap_ms

    def model_of(model_settings: ModelSettings, cache_ttl_s: int = 0) -> Model:
        load_vocabulary(model_settings.model)
        provider = provider_settings[model_settings.provider]
        price = prices.find_price(model_settings.model, provider.price_provider, provider.base_url)
        known_tokens = model_settings.context_tokens or (price.context_tokens if price else None)
        return Model(
            model_settings.model,
            providers[model_settings.provider],
            price,
            known_tokens or UNKNOWN_CONTEXT_TOKENS,
            model_settings.max_output_tokens,
            model_settings.parameters(),
            model_settings.terms_at(provider),
            TokenCounters(model_settings.model),
            cache_ttl_s,
            provider.dearest_tier,
            provider.has_tiers,
        )

    def route_of(route: RouteSettings) -> Route:
        fallbacks, escalation = (tuple(map(model_of, models)) for models in (route.fallback, route.escalation))
        # Answers of a fallback are degraded, and never given again.
        return Route(model_of(route, route.cache_ttl_s), fallbacks, route.hedge_after_ms, escalation, route.prompts)

    return ModelGateway(
        {tier: route_of(route) for tier, route in routes.items()},
        Prompts(packs=settings.packs),
        RetryPolicy(settings.provider_attempts, *backoff, settings.slot_wait_s, jitter),
        TenantDataPolicies(settings.tenant_policies),
        providers,
        AbandonedCalls(context.bus),
        context.verifier,
        Attributor(own_process=transport is None),
        _response_cache(context, routes, provider_names, provider_settings),
        settings.unknown_models,
        released=ReleasedPrompts(context.bus),
    )


def _response_cache(
    context: Context,
    routes: Mapping[str, RouteSettings],
    provider_names: Set[str],
    provider_settings: Mapping[str, ProviderSettings],
) -> ResponseCache | None:
    if not any(route.cache_ttl_s for route in routes.values()):
        return None
    # A server on this machine may have another port at each start.
    addresses = {
        name: "" if on_this_machine(url := provider_settings[name].base_url) else url for name in provider_names
    }
    return ResponseCache(SERVICE, context.bus, context.blobs, context.message_key, context.clock, addresses)


if __name__ == "__main__":
    main(SERVICE, build, Settings)
