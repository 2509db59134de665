"""Knobs of the model gateway. Enters: the environment. Leaves: checked providers and routes.

OPENAI_API_KEY and OPENAI_BASE_URL have no prefix, as every OpenAI client reads them; all others are BULKHEAD_*.
"""

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from bulkhead.runtime.settings import ServiceSettings
from bulkhead_services.model_gateway.providers.forms import FORMS, Api

DEFAULT_TIER = "default"
OPENAI = "openai"
OPENAI_MODEL = "gpt-4.1-mini-2025-04-14"
DEFAULT_MODELS: dict[Api, str] = {"anthropic": "claude-haiku-4-5-20251001", "gemini": "gemini-2.5-flash"}
"""Models where none is named, of the providers that a key alone names."""
_MOVING = re.compile(r"(?:^|[-_:./@])(?:latest|auto|default|newest|stable|current)(?:$|[-_:./@])", re.I)


class ProviderSettings(BaseModel):
    """One endpoint. api: the wire form that it speaks. base_url: "" takes the vendor's own.

    price_provider: its id in genai-prices, when neither api nor base_url tells.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    api: Api = "openai-chat"
    base_url: str = ""
    api_key: SecretStr = SecretStr("")
    price_provider: str = ""
    limit_field: Literal["", "max_completion_tokens", "max_tokens"] = ""
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 64

    @model_validator(mode="after")
    def _endpoint(self) -> Self:
        form = FORMS[self.api]
        base_url = self.base_url or form.base_url
        if not base_url:
            raise ValueError(f"a provider with api {self.api!r} needs its base_url")
        if self.api == "azure-openai" and not base_url.rstrip("/").endswith("/openai/v1"):
            raise ValueError(
                "an Azure OpenAI base_url ends with /openai/v1, e.g. https://NAME.openai.azure.com/openai/v1; models "
                "are the names of your deployments"
            )
        known = {"base_url": base_url, "price_provider": self.price_provider or form.price_provider}
        for name, value in known.items():
            object.__setattr__(self, name, value)
        return self


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
            most = FORMS[known[model.provider].api].max_temperature
            if model.temperature is not None and model.temperature > most:
                what = f"tier {tier!r} wants temperature {model.temperature}"
                raise ValueError(f"{what}; provider {model.provider!r} takes {most} at most")
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
        """Providers by name; those with a variable of their own are made of it unless `providers` names them."""
        known: dict[str, ProviderSettings] = {
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
                known[api] = ProviderSettings(api=api, api_key=key, concurrency=self.provider_concurrency)
        # A provider that `providers` names without a key takes the variable of its API, at the vendor's own address:
        # nobody else is sent a vendor's key.
        named = {
            name: provider.model_copy(update={"api_key": keys[provider.api]})
            if provider.api in keys
            and provider.base_url == FORMS[provider.api].base_url
            and not provider.api_key.get_secret_value()
            else provider
            for name, provider in self.providers.items()
        }
        return {**known, **named}

    def all_routes(self) -> dict[str, RouteSettings]:
        """Routes by tier; `default` always stands."""
        chosen = self.model or self._usual_model()
        fallback = ModelSettings(**self._named(self.fallback_model)) if self.fallback_model else None
        usual = {
            tier: RouteSettings(**self._named(name), fallback=fallback)
            for tier, name in ((DEFAULT_TIER, chosen), ("judge", self.judge_model or chosen))
        }
        return {**usual, **self.routes}

    def _usual_model(self) -> str:
        """The model where none is named: of the provider whose key is set, of OpenAI before others."""
        if not self.openai_api_key.get_secret_value() and "openai_base_url" not in self.model_fields_set:
            for provider, model in DEFAULT_MODELS.items():
                if provider in self.all_providers():
                    return f"{provider}:{model}"
        return OPENAI_MODEL

    def _named(self, name: str) -> dict[str, Any]:
        """`provider:model`, or a model of the provider `openai`; models of some servers have a colon themselves."""
        provider, _, model = name.partition(":")
        if provider in DEFAULT_MODELS and provider not in self.all_providers():
            variable = FORMS[provider].key_variable
            raise ValueError(f"model {name!r} is one of provider {provider!r}, which has no key: set {variable}")
        where = {"provider": provider, "model": model} if provider in self.all_providers() else {"model": name}
        return {**where, "context_tokens": self.context_tokens}


def keyless(provider: ProviderSettings) -> bool:
    """Whether a provider lacks the key that it needs: Ollama has none, nor needs one a server on this loopback."""
    if provider.api_key.get_secret_value() or provider.api == "ollama":
        return False
    host = urlsplit(provider.base_url).hostname or ""
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"
