"""Composition root of the model gateway: ModelCallRequested comes in, `core.ModelGateway` answers, `effects` calls."""

import random
from collections.abc import Callable, Mapping, Set
from dataclasses import replace

import httpx

from bulkhead.runtime.context import Context
from bulkhead.token_estimates import TokenCounter
from bulkhead_services.model_gateway.abandoned import Abandoned
from bulkhead_services.model_gateway.attempts import Model, Policy
from bulkhead_services.model_gateway.attribution_process import Attributor
from bulkhead_services.model_gateway.core import SERVICE, ModelGateway
from bulkhead_services.model_gateway.effects import HttpProvider, Network, read_contents, whole_conversation
from bulkhead_services.model_gateway.prices import Prices
from bulkhead_services.model_gateway.prompts import Prompts
from bulkhead_services.model_gateway.response_cache import ResponseCache
from bulkhead_services.model_gateway.routing.chain import Route
from bulkhead_services.model_gateway.routing.options import ModelSettings, ProviderSettings, RouteSettings
from bulkhead_services.model_gateway.routing.policies import Policies
from bulkhead_services.model_gateway.settings import Settings, on_this_machine
from bulkhead_services.model_gateway.verified_text import live_text

__all__ = ["SERVICE", "build"]

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
    known = settings.all_providers()
    routes = settings.all_routes()
    used = {one.provider for route in routes.values() for one in route.models()}
    if problems := settings.start_problems():
        raise ValueError("; ".join(problems))
    timeouts = settings.connect_timeout_s, settings.stall_timeout_s
    network = Network(*timeouts, settings.provider_proxy, settings.provider_ca_file, transport)
    providers = {name: HttpProvider(name, known[name], network) for name in used}
    prices = Prices(settings.free_models, settings.prices_file)
    abandoned = Abandoned(context.bus)

    async def start() -> None:
        for one in providers.values():
            one.open()
        await abandoned.start()

    async def stop() -> None:
        await abandoned.stop()
        for one in providers.values():
            await one.stop()

    def drain() -> None:
        for one in providers.values():
            one.close()

    def model(wanted: ModelSettings) -> Model:
        return _model(wanted, providers, known, prices)

    def chain(route: RouteSettings) -> Route:
        others = tuple(model(one) for one in route.fallback), tuple(model(one) for one in route.escalation)
        # Answers of a fallback are degraded, and never given again.
        first = replace(model(route), cache_ttl_s=route.cache_ttl_s)
        return Route(first, others[0], route.hedge_after_ms, others[1], route.prompts)

    return ModelGateway(
        {tier: chain(route) for tier, route in routes.items()},
        Prompts(packs=settings.packs),
        policy(settings, jitter),
        Policies(settings.tenant_policies),
        whole_conversation=whole_conversation,
        read_contents=read_contents,
        verifier=context.verifier,
        attributor=Attributor(apart=transport is None),
        live_text=live_text,
        cache=_cache(context, routes, used, known),
        abandoned=abandoned.event,
        start=start,
        stop=stop,
        drain=drain,
        pools=lambda: {name: one.pool() for name, one in providers.items()},
    )


def _cache(
    context: Context, routes: Mapping[str, RouteSettings], used: Set[str], known: Mapping[str, ProviderSettings]
) -> ResponseCache | None:
    if not any(route.cache_ttl_s for route in routes.values()):
        return None
    # A server on this machine may have another port at each start.
    addresses = {name: "" if on_this_machine(url := known[name].base_url) else url for name in used}
    return ResponseCache(SERVICE, context.bus, context.blobs, context.message_key, context.clock, addresses)


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
    limits = context_tokens, wanted.max_output_tokens
    told = wanted.parameters(), wanted.terms_at(provider)
    return Model(wanted.model, held, price, *limits, *told, TokenCounter(wanted.model))
