"""Knobs of the model gateway. Enters: the environment. Leaves: checked providers and routes.

OPENAI_API_KEY and OPENAI_BASE_URL have no prefix, as every OpenAI client reads them; all others are BULKHEAD_*.
"""

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from bulkhead.runtime.settings import ServiceSettings

DEFAULT_TIER = "default"
OPENAI = "openai"
_MOVING = re.compile(r"(?:^|[-_:./@])(?:latest|auto|default|newest|stable|current)(?:$|[-_:./@])", re.I)


class ProviderSettings(BaseModel):
    """One OpenAI-compatible endpoint. price_provider: its id in genai-prices, when base_url does not tell."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str
    api_key: SecretStr = SecretStr("")
    price_provider: str = ""
    limit_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 64


class ModelSettings(BaseModel):
    """A pinned model of a provider. context_tokens: None takes the price table's figure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str = OPENAI
    model: Annotated[str, Field(min_length=1, max_length=64)]
    context_tokens: Annotated[int, Field(ge=256)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] = 32_000
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if _MOVING.search(self.model):
            raise ValueError(
                f"model {self.model!r} names whatever is newest: its behaviour and its price move under the "
                "mesh; name a dated version, e.g. gpt-4.1-mini-2025-04-14"
            )
        return self


class RouteSettings(ModelSettings):
    """Models of a tier; `fallback` answers, degraded, when the first one is out."""

    fallback: ModelSettings | None = None


class Settings(ServiceSettings):
    """`model` serves the tier `default`, `judge_model` the tier `judge`; `routes` (JSON) says more, per tier.

    free_models: names that cost nothing, e.g. models of your own; any other model without a price is refused.
    prices_file: rows of your own, in the form of `prices.toml`, which they override. packs: packages whose `prompts/`
    are read beside ours (bulkhead.tools.packs); none of ours is replaced. slots: calls that are taken up at once,
    including those that wait for a provider; far more than may run, since one tenant has three quarters at most.
    """

    model_config = SettingsConfigDict(env_prefix="BULKHEAD_", extra="ignore", populate_by_name=True)

    openai_api_key: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("OPENAI_API_KEY", "openai_api_key")
    )
    openai_base_url: str = Field(
        default="https://api.openai.com/v1", validation_alias=AliasChoices("OPENAI_BASE_URL", "openai_base_url")
    )
    slots: int = 256
    model: str = "gpt-4.1-mini-2025-04-14"
    judge_model: str = ""
    fallback_model: str = ""
    context_tokens: int | None = Field(default=None, ge=256)
    providers: dict[str, ProviderSettings] = {}
    routes: dict[str, RouteSettings] = {}
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
    def _known_providers(self) -> Self:
        known = self.all_providers()
        for tier, model in self._models():
            if model.provider not in known:
                what = f"tier {tier!r} wants provider {model.provider!r}, which is not configured"
                raise ValueError(f"{what}; known: {', '.join(known)}; add it to BULKHEAD_PROVIDERS")
        for name, provider in known.items():
            if urlsplit(provider.base_url).scheme not in ("http", "https"):
                raise ValueError(f"provider {name!r}: base URL must begin with http:// or https://")
        return self

    @model_validator(mode="after")
    def _known_prices(self) -> Self:
        # Here and not in `build`: what only other settings mend must not be started over and over.
        from bulkhead_services.model_gateway.prices import Prices

        prices, known = Prices(self.free_models, self.prices_file), self.all_providers()
        for tier, model in self._models():
            provider = known[model.provider]
            if prices.find(model.model, provider.price_provider, provider.base_url) is None:
                raise ValueError(
                    f"no price is known for model {model.model!r} of tier {tier!r} at provider {model.provider!r} "
                    f"({provider.base_url}), and a call without a price is refused; add its row to "
                    "BULKHEAD_PRICES_FILE, name the provider's price list in BULKHEAD_PRICE_PROVIDER, or put the "
                    "model into BULKHEAD_FREE_MODELS when it costs nothing"
                )
        return self

    def _models(self) -> list[tuple[str, ModelSettings]]:
        """Every model that is called, with its tier."""
        routes = self.all_routes().items()
        return [(tier, model) for tier, route in routes for model in (route, route.fallback) if model is not None]

    def all_providers(self) -> dict[str, ProviderSettings]:
        """Providers by name; `openai` is made of the unprefixed variables unless `providers` names it."""
        openai = ProviderSettings(
            base_url=self.openai_base_url,
            api_key=self.openai_api_key,
            price_provider=self.price_provider,
            concurrency=self.provider_concurrency,
        )
        return {OPENAI: openai, **self.providers}

    def all_routes(self) -> dict[str, RouteSettings]:
        """Routes by tier; `default` always stands."""
        fallback = None
        if self.fallback_model:
            fallback = ModelSettings(model=self.fallback_model, context_tokens=self.context_tokens)
        found = {
            tier: RouteSettings(model=name, context_tokens=self.context_tokens, fallback=fallback)
            for tier, name in ((DEFAULT_TIER, self.model), ("judge", self.judge_model or self.model))
        }
        return {**found, **self.routes}


def keyless(provider: ProviderSettings) -> bool:
    """Whether a provider lacks the key that it needs: only one on this machine's loopback needs none."""
    if provider.api_key.get_secret_value():
        return False
    host = urlsplit(provider.base_url).hostname or ""
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"
