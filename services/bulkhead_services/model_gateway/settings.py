"""Knobs of the model gateway. Enters: the environment. Leaves: checked providers and routes.

OPENAI_API_KEY and OPENAI_BASE_URL have no prefix, as every OpenAI client reads them; all others are BULKHEAD_*.
"""

import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from bulkhead.prompts.files import Style
from bulkhead.runtime.settings import ServiceSettings
from bulkhead_contracts import bounds
from bulkhead_contracts.model import DEFAULT_TIER
from bulkhead_services.model_gateway.context.render import CONTEXT_MARGIN_TOKENS
from bulkhead_services.model_gateway.providers.forms import FORMS, Api, missing_key_message
from bulkhead_services.model_gateway.routing.options import (
    OPENAI,
    OPENAI_APIS,
    ModelSettings,
    ProviderSettings,
    RouteSettings,
    TenantDataPolicy,
    url_problem,
)
from bulkhead_services.model_gateway.routing.policies import list_left_out, policy_objection

__all__ = ["ModelSettings", "ProviderSettings", "RouteSettings", "Settings", "lacks_key"]

JUDGE_TIER = "judge"
OPENAI_MODEL = "gpt-4.1-mini-2025-04-14"
DEFAULT_MODELS: dict[Api, str] = {"anthropic": "claude-haiku-4-5-20251001", "gemini": "gemini-2.5-flash"}
"""Models where none is named, of the providers that a key alone names."""
BYTES_PER_TOKEN = 3
"""Of English prose, which our prompts are; `tokens` counts what is sent."""
USUAL_OUTPUT_TOKENS, LEAST_OUTPUT_TOKENS = 2_000, 200


class Settings(ServiceSettings):
    """`model` serves the tier `default`, `judge_model` the tier `judge`, both with `context_tokens`, `cache_ttl_s` and
    `prompts` as a route has them; `routes` (JSON) says more, per tier. unknown_models: the route that answers an
    outside agent which names a model that nobody knows; "" refuses it.

    free_models: names that cost nothing, e.g. models of your own; any other model without a price is refused.
    prices_file: rows of your own, in the form of `prices.toml`, which they override. packs: packages whose `prompts/`
    are read beside ours (bulkhead.tools.packs); none of ours is replaced. slots: calls that are taken up at once,
    including those that wait for a provider; far more than may run, since one tenant has three quarters at most.
    tenant_policies: by tenant, where its data may go: regions, providers, retention, training; without a row, anywhere.
    """

    model_config = SettingsConfigDict(env_prefix="BULKHEAD_", extra="ignore", populate_by_name=True)

    openai_api_key: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("OPENAI_API_KEY", "openai_api_key")
    )
    openai_base_url: str = Field(
        default="https://api.openai.com/v1", validation_alias=AliasChoices("OPENAI_BASE_URL", "openai_base_url")
    )
    anthropic_api_key: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("ANTHROPIC_API_KEY", "anthropic_api_key")
    )
    gemini_api_key: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("GEMINI_API_KEY", "GOOGLE_API_KEY", "gemini_api_key")
    )
    slots: int = 256
    model: str = ""
    judge_model: str = ""
    fallback_model: str = ""
    context_tokens: int | None = Field(default=None, ge=256)
    cache_ttl_s: int = Field(default=0, ge=0, le=bounds.MAX_CACHE_TTL_S)
    prompts: Style = "full"
    providers: dict[str, ProviderSettings] = {}
    routes: dict[str, RouteSettings] = {}
    unknown_models: str = ""
    tenant_policies: dict[str, TenantDataPolicy] = {}
    price_provider: str = ""
    free_models: tuple[str, ...] = ()
    prices_file: Path | None = None
    packs: tuple[str, ...] = ()
    provider_concurrency: int = Field(default=64, ge=1, le=10_000)
    provider_attempts: int = Field(default=4, ge=1, le=10)
    backoff_first_ms: int = Field(default=250, ge=1)
    backoff_cap_ms: int = Field(default=8_000, ge=1)
    connect_timeout_s: float = Field(default=5.0, gt=0, le=60)
    stall_timeout_s: float = Field(default=30.0, gt=0, le=600)
    slot_wait_s: float = Field(default=5.0, gt=0, le=60)
    provider_proxy: str = ""
    provider_ca_file: Path | None = None

    @model_validator(mode="after")
    def _check_network(self) -> Self:
        """Addresses and files of the network, before anything is built on them."""
        if problem := url_problem(self.openai_base_url, "OPENAI_BASE_URL"):
            raise ValueError(problem)
        if self.provider_proxy and (problem := url_problem(self.provider_proxy, "BULKHEAD_PROVIDER_PROXY")):
            raise ValueError(problem)
        if self.provider_ca_file is not None:
            try:
                ssl.create_default_context(cafile=self.provider_ca_file)
            except OSError as error:
                reason = "it holds no certificate in PEM form" if isinstance(error, ssl.SSLError) else error.strerror
                raise ValueError(
                    f"BULKHEAD_PROVIDER_CA_FILE {self.provider_ca_file} cannot be used: {reason}; name a file with the "
                    "certificate of the CA that signed the providers' (-----BEGIN CERTIFICATE-----)"
                ) from None
        return self

    @model_validator(mode="after")
    def _check_providers(self) -> Self:
        providers = self.all_providers()
        for tier, model in self._all_models():
            if model.provider not in providers:
                problem = f"tier {tier!r} wants provider {model.provider!r}, which is not configured"
                raise ValueError(f"{problem}; known: {', '.join(providers)}; add it to BULKHEAD_PROVIDERS")
            _check_parameters(tier, model, providers[model.provider].api)
        if self.unknown_models and self.unknown_models not in (routes := self.all_routes()):
            problem = f"BULKHEAD_UNKNOWN_MODELS names the route {self.unknown_models!r}, which is not configured"
            raise ValueError(f"{problem}; routes: {', '.join(routes)}")
        for tier, route in self.all_routes().items():
            if route.hedge_after_ms and not route.fallback and len(providers[route.provider].targets()) < 2:
                raise ValueError(
                    f"tier {tier!r} has hedge_after_ms and nothing else to ask: name a fallback, or give provider "
                    f"{route.provider!r} several api_keys or base_urls"
                )
        return self

    @model_validator(mode="after")
    def _check_prices(self) -> Self:
        # Here and not in `build`: what only other settings mend must not be started over and over.
        from bulkhead.prompts.files import Prompts
        from bulkhead_services.model_gateway.prices import PriceTable

        prices, providers = PriceTable(self.free_models, self.prices_file), self.all_providers()
        prompt_tokens = Prompts(packs=self.packs).largest_bytes // BYTES_PER_TOKEN + CONTEXT_MARGIN_TOKENS
        for tier, model in self._all_models():
            provider = providers[model.provider]
            for target in provider.targets():
                price = prices.find_price(model.model, provider.price_provider, target.base_url)
                if price is None:
                    raise ValueError(
                        f"no price is known for model {model.model!r} of tier {tier!r} at provider {model.provider!r} "
                        f"({target.base_url}), and a call without a price is refused; add its row to "
                        "BULKHEAD_PRICES_FILE, name the provider's price list in BULKHEAD_PRICE_PROVIDER, or put the "
                        "model into BULKHEAD_FREE_MODELS when it costs nothing"
                    )
                _check_context(tier, model, model.context_tokens or price.context_tokens, prompt_tokens)
        return self

    @model_validator(mode="after")
    def _check_tenant_policies(self) -> Self:
        """A tenant whose policy allows no model of the usual tiers could not run a single task."""
        providers, routes = self.all_providers(), self.all_routes()
        for tenant, policy in self.tenant_policies.items():
            if unknown := [name for name in policy.providers if name not in providers]:
                raise ValueError(
                    f"the policy of tenant {tenant!r} names provider {unknown[0]!r}, which is not configured; known: "
                    f"{', '.join(providers)}"
                )
            for tier in (DEFAULT_TIER, JUDGE_TIER):
                rows = {
                    f"{model.model} at {model.provider}": policy_objection(
                        policy, model.provider, model.terms_at(providers[model.provider])
                    )
                    for model in routes[tier].models()
                }
                if all(rows.values()):
                    reasons = list_left_out(f"{name} ({reason})" for name, reason in rows.items())
                    raise ValueError(
                        f"the policy of tenant {tenant!r} allows no model of tier {tier!r}: {reasons}; say region, "
                        "retention and trains_on_data of the provider in BULKHEAD_PROVIDERS, add a model that the "
                        "policy allows to BULKHEAD_ROUTES, or change BULKHEAD_TENANT_POLICIES"
                    )
        return self

    def start_problems(self) -> list[str]:
        """Providers that are used and lack a key."""
        providers = self.all_providers()
        return [
            missing_key_message(providers[name].api, name, providers[name].base_url)
            for name in sorted({model.provider for _, model in self._all_models()})
            if lacks_key(providers[name])
        ]

    def _all_models(self) -> list[tuple[str, ModelSettings]]:
        """Every model that is called, with its tier."""
        return [(tier, model) for tier, route in self.all_routes().items() for model in route.models()]

    def all_providers(self) -> dict[str, ProviderSettings]:
        """Providers by name; those with a variable of their own are made of it unless `providers` names them."""
        by_name: dict[str, ProviderSettings] = {
            OPENAI: ProviderSettings(
                base_url=self.openai_base_url,
                api_key=self.openai_api_key,
                price_provider=self.price_provider,
                concurrency=self.provider_concurrency,
            )
        }
        keys: dict[Api, SecretStr] = {"anthropic": self.anthropic_api_key, "gemini": self.gemini_api_key}
        for api, key in keys.items():
            if key.get_secret_value():
                by_name[api] = ProviderSettings(api=api, api_key=key, concurrency=self.provider_concurrency)
        # A provider that `providers` names without a key takes the variable of its API, at the vendor's own address:
        # nobody else is sent a vendor's key.
        vendor_keys = {(api, FORMS[api].base_url): key for api, key in keys.items()}
        vendor_keys |= {(api, self.openai_base_url): self.openai_api_key for api in OPENAI_APIS}
        return {**by_name, **{name: _with_key(provider, vendor_keys) for name, provider in self.providers.items()}}

    def all_routes(self) -> dict[str, RouteSettings]:
        """Routes by tier; `default` always stands, and the judge has its models where it has none of its own."""
        default_model = self.model or self._usual_model()
        fallback = (ModelSettings(**self._fields_of_model_name(self.fallback_model)),) if self.fallback_model else ()
        default_routes = {
            tier: RouteSettings(
                **self._fields_of_model_name(name),
                fallback=fallback,
                cache_ttl_s=self.cache_ttl_s,
                prompts=self.prompts,
            )
            for tier, name in ((DEFAULT_TIER, default_model), (JUDGE_TIER, self.judge_model or default_model))
        }
        if not self.judge_model and DEFAULT_TIER in self.routes:
            default_routes[JUDGE_TIER] = self.routes[DEFAULT_TIER]
        return {**default_routes, **self.routes}

    def _usual_model(self) -> str:
        """The model where none is named: of the provider whose key is set, of OpenAI before others."""
        if not self.openai_api_key.get_secret_value() and "openai_base_url" not in self.model_fields_set:
            for provider, model in DEFAULT_MODELS.items():
                if provider in self.all_providers():
                    return f"{provider}:{model}"
        return OPENAI_MODEL

    def _fields_of_model_name(self, name: str) -> dict[str, Any]:
        """`provider:model`, or a model of the provider `openai`; models of some servers have a colon themselves."""
        provider, _, model = name.partition(":")
        if provider in DEFAULT_MODELS and provider not in self.all_providers():
            variable = FORMS[provider].key_variable
            raise ValueError(f"model {name!r} is one of provider {provider!r}, which has no key: set {variable}")
        name_fields = {"provider": provider, "model": model} if provider in self.all_providers() else {"model": name}
        return {**name_fields, "context_tokens": self.context_tokens}


def _with_key(provider: ProviderSettings, vendor_keys: Mapping[tuple[Api, str], SecretStr]) -> ProviderSettings:
    """A provider with the vendor's key, where it names none and all its addresses are the vendor's own."""
    addresses = {(provider.api, target.base_url) for target in provider.targets()}
    if provider.api_keys or provider.api_key.get_secret_value() or len(addresses) > 1:
        return provider
    key = vendor_keys.get(addresses.pop())
    return provider if key is None else provider.model_copy(update={"api_key": key})


def _check_context(tier: str, model: ModelSettings, context_tokens: int | None, prompt_tokens: int) -> None:
    """Refuse a context without room for the shortest call. prompt_tokens: of its prompt alone. Raises ValueError."""
    output = min(model.max_output_tokens, USUAL_OUTPUT_TOKENS)
    if context_tokens is None or context_tokens >= prompt_tokens + output:
        return
    lower_output_hint = f"set its max_output_tokens to {context_tokens - prompt_tokens} in BULKHEAD_ROUTES, or "
    raise ValueError(
        f"model {model.model!r} of tier {tier!r} has a context of {context_tokens} tokens; a prompt "
        f"takes {prompt_tokens} of "
        f"them and an answer {output}: "
        f"{lower_output_hint if context_tokens - prompt_tokens >= LEAST_OUTPUT_TOKENS else ''}use a model "
        "with a longer context (BULKHEAD_CONTEXT_TOKENS says it where the price table is wrong)"
    )


def _check_parameters(tier: str, model: ModelSettings, api: Api) -> None:
    """Refuse by name what the model's API would ignore or refuse. Raises ValueError."""
    parameters, form = model.parameters(), FORMS[api]
    for name in parameters:
        if name not in form.parameter_names:
            raise ValueError(
                f"tier {tier!r} wants {name} of {model.model!r}, which the API {api!r} of provider {model.provider!r} "
                f"does not take; it takes {', '.join(sorted(form.parameter_names))}: leave {name} out of the route"
            )
    if parameters.get("temperature", 0.0) > form.max_temperature:
        problem = f"tier {tier!r} wants temperature {model.temperature}"
        raise ValueError(f"{problem}; provider {model.provider!r} takes {form.max_temperature} at most")
    if api == "anthropic" and {"temperature", "top_p"} <= set(parameters):
        raise ValueError(
            f"tier {tier!r} wants temperature and top_p of {model.model!r}, and Anthropic takes one of them"
        )


def lacks_key(provider: ProviderSettings) -> bool:
    """True when a provider lacks a key that it needs: Ollama has none, nor needs one a server on this loopback."""
    return provider.api != "ollama" and any(
        not target.api_key.get_secret_value() and not on_this_machine(target.base_url) for target in provider.targets()
    )


def on_this_machine(base_url: str) -> bool:
    """True when an address is this machine's loopback."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
