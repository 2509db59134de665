"""Options of providers, models, routes and tenants' policies, as people write them in JSON. Leaves: checked values."""

import re
from dataclasses import dataclass
from itertools import zip_longest
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from bulkhead.prompts.files import Style
from bulkhead_contracts import bounds
from bulkhead_services.model_gateway.providers.forms import FORMS, Api

OPENAI = "openai"
OPENAI_APIS: tuple[Api, ...] = ("openai-chat", "openai-responses")
ServiceTier = Literal["default", "priority"]
MAX_DEPLOYMENTS = 16
MAX_CHAIN = 10
"""Models of one route, fallbacks and escalation together."""
PARAMETERS = ("temperature", "top_p", "seed", "stop", "reasoning_effort")
_MOVING = re.compile(r"(?:^|[-_:./@])(?:latest|auto|default|newest|stable|current)(?:$|[-_:./@])", re.I)


def url_problem(url: str, label: str = "base URL") -> str:
    """Problem with an address over HTTP; "" when there is none."""
    try:
        parts = urlsplit(url)
        readable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError as error:
        return f"{label} {_without_password(url)!r} cannot be read: {error}"
    return "" if readable else f"{label} {_without_password(url)!r} must begin with http:// or https:// and name a host"


def _without_password(url: str) -> str:
    """An address without the password that may stand in it."""
    return re.sub(r"//[^/@]*@", "//***@", url)[:200]


@dataclass(frozen=True, slots=True)
class EndpointTarget:
    """One key at one address."""

    base_url: str
    api_key: SecretStr


class DataTerms(BaseModel):
    """Terms on which data lies there. region: as policies name it; retention: "none", or for how long prompts are
    kept. What is not said is not known, and no policy allows it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    region: Annotated[str, Field(max_length=64)] = ""
    retention: Annotated[str, Field(max_length=64)] = ""
    trains_on_data: bool | None = None


class ProviderSettings(DataTerms):
    """A provider. api: the wire form that it speaks. base_url: "" takes the vendor's own. api_keys, base_urls: several,
    over which calls are spread; where both are lists they are pairs. All addresses of a provider lie in its region.

    price_provider: its id in genai-prices, when neither api nor base_url tells. concurrency: of each key and address.
    dearest_tier: of OpenAI's service tiers, the dearest in which the account may answer.
    """

    api: Api = "openai-chat"
    base_url: str = ""
    base_urls: Annotated[tuple[str, ...], Field(max_length=MAX_DEPLOYMENTS)] = ()
    api_key: SecretStr = SecretStr("")
    api_keys: Annotated[tuple[SecretStr, ...], Field(max_length=MAX_DEPLOYMENTS)] = ()
    price_provider: str = ""
    limit_field: Literal["", "max_completion_tokens", "max_tokens"] = ""
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 64
    dearest_tier: ServiceTier = "default"

    @model_validator(mode="after")
    def _check_endpoint(self) -> Self:
        form = FORMS[self.api]
        if self.base_url and self.base_urls:
            raise ValueError("name base_url or base_urls, and not both")
        if self.api_key.get_secret_value() and self.api_keys:
            raise ValueError("name api_key or api_keys, and not both")
        base_url = next(iter(self.base_urls), "") or self.base_url or form.base_url
        if not base_url:
            raise ValueError(f"a provider with api {self.api!r} needs its base_url")
        defaults = {"base_url": base_url, "price_provider": self.price_provider or form.price_provider}
        for name, value in defaults.items():
            object.__setattr__(self, name, value)
        if len(self.base_urls) > 1 and len(self.api_keys) > 1 and len(self.base_urls) != len(self.api_keys):
            raise ValueError(
                f"{len(self.api_keys)} api_keys and {len(self.base_urls)} base_urls are no pairs: name one key or one "
                "address, or as many keys as addresses, in the same order"
            )
        targets = self.targets()
        if len({(target.base_url.rstrip("/"), target.api_key.get_secret_value()) for target in targets}) < len(targets):
            raise ValueError("api_keys or base_urls name the same key at the same address twice: name each once")
        for target in targets:
            self._check_base_url(target.base_url)
        return self

    def _check_base_url(self, base_url: str) -> None:
        if problem := url_problem(base_url):
            raise ValueError(problem)
        if self.api == "azure-openai" and not base_url.rstrip("/").endswith("/openai/v1"):
            raise ValueError(
                "an Azure OpenAI base_url ends with /openai/v1, e.g. https://NAME.openai.azure.com/openai/v1; models "
                "are the names of your deployments"
            )

    @property
    def is_openai(self) -> bool:
        """True at OpenAI's own address."""
        return f".{urlsplit(self.base_url).hostname}".endswith(".openai.com")

    @property
    def has_tiers(self) -> bool:
        """True when an answer may name a service tier that has another price."""
        return self.is_openai or self.api == "azure-openai" or self.dearest_tier != "default"

    def tier_of(self, requested_tier: object) -> str:
        """The service tier that is asked for; "" leaves it to the account. A project's own setting makes nothing dearer
        unless `dearest_tier` says so."""
        if requested_tier in (None, "auto"):
            return "default" if self.is_openai and self.dearest_tier == "default" else ""
        return str(requested_tier)

    def targets(self) -> tuple[EndpointTarget, ...]:
        """Its deployments: each key at each address."""
        urls, keys = self.base_urls or (self.base_url,), self.api_keys or (self.api_key,)
        pairs = zip_longest(urls, keys)
        return tuple(EndpointTarget(url or urls[0], keys[0] if key is None else key) for url, key in pairs)


class ModelSettings(DataTerms):
    """A pinned model of a provider. context_tokens: None takes the price table's figure. DataTerms: where they
    differ from the provider's. Parameters that the provider's API does not have are refused.
    """

    provider: str = OPENAI
    model: Annotated[str, Field(min_length=1, max_length=64)]
    context_tokens: Annotated[int, Field(ge=256)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] = 32_000
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    stop: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(max_length=4)] = ()
    reasoning_effort: Literal["", "minimal", "low", "medium", "high"] = ""

    @model_validator(mode="after")
    def _check_pinned(self) -> Self:
        if _MOVING.search(self.model):
            raise ValueError(
                f"model {self.model!r} names whatever is newest: its behaviour and its price move under the "
                "mesh; name a dated version, e.g. gpt-4.1-mini-2025-04-14"
            )
        return self

    def terms_at(self, provider: ProviderSettings) -> DataTerms:
        """Its terms: its own, else those of its provider."""
        own_terms = {name: getattr(self, name) for name in DataTerms.model_fields}
        theirs = {name: getattr(provider, name) for name in DataTerms.model_fields}
        return DataTerms(
            **{name: theirs[name] if own_terms[name] in ("", None) else own_terms[name] for name in own_terms}
        )

    def parameters(self) -> dict[str, Any]:
        """Parameters of a call besides its prompt, by the mesh's names."""
        values = {name: getattr(self, name) for name in PARAMETERS}
        return {name: value for name, value in values.items() if value is not None and value not in ((), "")}


class RouteSettings(ModelSettings):
    """Models of a tier. fallback: one model or several, asked in order, degraded, when those before are out.
    hedge_after_ms: a second model (the first fallback, or else this one at another key or address) is asked too when
    the first has said nothing by then. escalation: asked first from a step's second attempt on. cache_ttl_s: for so
    long an answer is given again, for nothing, to the very same request of the same tenant; 0: never. prompts: `short`
    takes the short variants of the prompts, for small models."""

    fallback: tuple[ModelSettings, ...] = ()
    hedge_after_ms: Annotated[int, Field(ge=1, le=600_000)] | None = None
    escalation: tuple[ModelSettings, ...] = ()
    cache_ttl_s: Annotated[int, Field(ge=0, le=bounds.MAX_CACHE_TTL_S)] = 0
    prompts: Style = "full"

    @field_validator("fallback", "escalation", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        if value is None:
            return ()
        return value if isinstance(value, list | tuple) else (value,)

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if len(self.models()) > MAX_CHAIN:
            raise ValueError(f"a route names {MAX_CHAIN} models at most, this one {len(self.models())}")
        return self

    def models(self) -> tuple[ModelSettings, ...]:
        """Every model of the route."""
        return (self, *self.fallback, *self.escalation)


class TenantDataPolicy(BaseModel):
    """Data policy of a tenant. regions, providers: empty allows any. retention "none": nothing is kept there.
    training False: nothing is trained on the tenant's data.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    regions: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    providers: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    retention: Literal["none"] | None = None
    training: Literal[False] | None = None

    @model_validator(mode="after")
    def _check_not_empty(self) -> Self:
        if self == TenantDataPolicy.model_construct():
            raise ValueError(
                'it allows everything: name regions, providers, "retention": "none" or "training": false, or leave '
                "the tenant out"
            )
        return self
