"""The offline price table: nothing is fetched at run time. Enters: a model and usage. Leaves: integer micro dollars.

Own rows (`prices.toml`) win; the rest comes from the snapshot inside the installed genai-prices. A model that neither
knows has no price, and a call without a price is refused.
"""

import hashlib
import json
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from importlib.metadata import version
from pathlib import Path
from typing import Any

from genai_prices import Usage as PricedUsage
from genai_prices import calc_price

from bulkhead_contracts.result import Usage

OWN_PRICES = Path(__file__).parent / "prices.toml"
_MICROS = Decimal(1_000_000)
_PROBE = PricedUsage(input_tokens=1, output_tokens=1)


class PriceTableError(ValueError):
    """A price file that cannot be used: says which row and what to mend."""


@dataclass(frozen=True, slots=True)
class Price:
    """Price of a model. `digest` names the row, so that a bill can be checked against it later."""

    model: str
    digest: str
    context_tokens: int | None
    input_usd_per_mtok: Decimal = Decimal(0)
    cached_usd_per_mtok: Decimal = Decimal(0)
    output_usd_per_mtok: Decimal = Decimal(0)
    cache_write_usd_per_mtok: Decimal = Decimal(0)
    public: Any = None
    """genai-prices' own price, which also knows tiers by length."""

    def cost_usd_micros(self, usage: Usage, cache_write_tokens: int = 0) -> int:
        """Cost of these tokens, rounded up: money is never rounded away."""
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        if self.public is not None:
            counted = PricedUsage(
                input_tokens=usage.input_tokens,
                cache_read_tokens=cached,
                cache_write_tokens=min(cache_write_tokens, usage.input_tokens - cached),
                output_tokens=usage.output_tokens,
            )
            usd = Decimal(self.public.calc_price(counted)["total_price"])
            return _up(usd * _MICROS)
        # Dollars per million tokens are micro dollars per token.
        fresh = (usage.input_tokens - cached) * self.input_usd_per_mtok
        more = self.cache_write_usd_per_mtok - self.input_usd_per_mtok
        written = min(cache_write_tokens, usage.input_tokens - cached) * more
        read = cached * self.cached_usd_per_mtok
        return _up(fresh + written + read + usage.output_tokens * self.output_usd_per_mtok)


class Prices:
    """Looks prices up; `free` names models that cost nothing because the operator said so."""

    def __init__(self, free: Collection[str] = (), extra: Path | None = None) -> None:
        self._own = _load(OWN_PRICES) | (_load(extra) if extra else {})
        self._free = frozenset(free)
        self._source = f"genai-prices {version('genai-prices')}"

    def find(self, model: str, provider_id: str, base_url: str) -> Price | None:
        """The price of a model at a provider; None when it is unknown."""
        if model in self._own:
            return self._own[model]
        public = self._public(model, provider_id, base_url)
        if model in self._free:
            return Price(model, "free", public.context_tokens if public else None)
        return public

    def _public(self, model: str, provider_id: str, base_url: str) -> Price | None:
        try:
            # Without a provider id the URL must tell it: a gateway of unknown price must not pass as OpenAI.
            if provider_id:
                found = calc_price(_PROBE, model, provider_id=provider_id)
            else:
                found = calc_price(_PROBE, model, provider_api_url=base_url)
        except LookupError:
            return None
        digest = hashlib.sha256(f"{found.provider.id}/{model}/{found.model_price!r}".encode()).hexdigest()
        return Price(model, f"{self._source}:{digest[:32]}", found.model.context_window, public=found.model_price)


def _load(path: Path) -> dict[str, Price]:
    try:
        rows = tomllib.loads(path.read_text())["models"]
        return {name: _row(name, row) for name, row in rows.items()}
    except OSError as error:
        raise PriceTableError(
            f"price file {path} cannot be read ({error.strerror}); mend BULKHEAD_PRICES_FILE"
        ) from error
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError, InvalidOperation) as error:
        raise PriceTableError(
            f"price file {path} is malformed ({type(error).__name__}: {error}); each model needs input and output "
            "in US dollars per million tokens, as text, like the rows of prices.toml"
        ) from error


def _row(name: str, row: dict[str, Any]) -> Price:
    digest = hashlib.sha256(json.dumps({name: row}, sort_keys=True, default=str).encode()).hexdigest()
    amounts = [Decimal(str(row[key])) for key in ("input", "output")]
    amounts += [Decimal(str(row.get(key, row["input"]))) for key in ("cached_input", "cache_write")]
    if min(amounts) < 0 or not all(one.is_finite() for one in amounts):
        raise PriceTableError(f"the price of {name} is not a sum of money")
    return Price(name, f"own:{digest[:32]}", row.get("context_tokens"), amounts[0], amounts[2], amounts[1], amounts[3])


def _up(micros: Decimal) -> int:
    return int(micros.to_integral_value(rounding=ROUND_CEILING))
