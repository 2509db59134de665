"""The offline price table: nothing is fetched at run time. Enters: a model and usage. Leaves: integer micro dollars.

Own rows (`prices.toml`) win; the rest comes from the snapshot inside the installed genai-prices. A model that neither
knows has no price, and a call without a price is refused.
"""

import hashlib
import json
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from genai_prices import Usage as PricedUsage
from genai_prices import (
    calc_price,
    decompose,  # noqa: F401 - it and the next one are imported by the first price that is computed otherwise
    validation,  # noqa: F401
)
from genai_prices.types import ModelPrice, TieredPrices

from bulkhead.bounded_dict import BoundedDict
from bulkhead_contracts.result import Usage

OWN_PRICES = Path(__file__).parent / "prices.toml"
AMOUNTS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "input_audio": "input_audio_mtok",
    "input_image": "input_image_mtok",
    "output_audio": "output_audio_mtok",
    "output_image": "output_image_mtok",
    "output_reasoning": "output_reasoning_mtok",
}
"""Prices of a row, and their names in genai-prices; a class that is not named costs what the whole costs."""
SHARED = {
    "cache_audio_read_mtok": ("cached_input", "input_audio"),
    "cache_image_read_mtok": ("cached_input", "input_image"),
    "cache_audio_write_mtok": ("cache_write", "input_audio"),
    "cache_image_write_mtok": ("cache_write", "input_image"),
    "cache_audio_write_1h_mtok": ("cache_write_1h", "input_audio"),
    "cache_image_write_1h_mtok": ("cache_write_1h", "input_image"),
    "output_audio_reasoning_mtok": ("output_audio", "output_reasoning"),
    "output_image_reasoning_mtok": ("output_image", "output_reasoning"),
}
"""Prices of what is in two classes at once, by genai-prices' names: that of the dearer one."""
PRIORITY, HALF = Decimal("2.5"), Decimal("0.5")
"""Prices of OpenAI's service tiers, as parts of the standard price; the dearest that any model has."""
LEAST_USD_PER_MTOK, MOST_USD_PER_MTOK = Decimal("0.001"), Decimal(10_000)
_MICROS = Decimal(1_000_000)
LAST_UNIX_MS = 253_402_300_799_000
"""The last that a date has."""
_PROBE, _SAMPLE = PricedUsage(input_tokens=1, output_tokens=1), Usage(input_tokens=1_000_000, output_tokens=1_000_000)


class PriceTableError(ValueError):
    """A price file that cannot be used: says which row and what to mend."""


@dataclass(frozen=True, slots=True)
class Price:
    """Price of a model. `digest` names the row, so that a bill can be checked against it later. source: of the row.
    as_of: its date, where the row tells one."""

    model: str
    digest: str
    context_tokens: int | None
    rates: ModelPrice | None = None
    """genai-prices' own price, which also knows tiers by length; None: it costs nothing."""
    source: str = ""
    as_of: str = ""
    priority: Decimal = PRIORITY
    """How many times the standard price the service tier `priority` costs."""
    factor: Decimal = Decimal(1)
    provider_id: str = ""
    rates_at: Callable[[datetime], ModelPrice] | None = None
    """Of a list that has prices by hour or by date; None where they hold always."""

    def dearest_at(self, *times_unix_ms: int) -> Self:
        """The dearest price that the list has at these times, with its digest."""
        if self.rates_at is None:
            return self
        times = (datetime.fromtimestamp(min(unix_ms, LAST_UNIX_MS) / 1000, UTC) for unix_ms in times_unix_ms)
        prices = [self._with_rates(self.rates_at(time)) for time in times]
        return max(prices, key=lambda price: price.cost_usd_micros(_SAMPLE))

    def _with_rates(self, rates: ModelPrice) -> Self:
        digest = hashlib.sha256(f"{self.provider_id}/{self.model}/{rates!r}".encode()).hexdigest()
        if digest not in _PUBLIC_RATES:
            _PUBLIC_RATES[digest] = _with_hour_price(rates)
        return replace(self, rates=_PUBLIC_RATES[digest], digest=f"{self.source}:{digest[:32]}")

    def in_tier(self, tier: str) -> Self:
        """The same price in a service tier of OpenAI."""
        factors = {"priority": self.priority, "fast": self.priority, "flex": HALF}
        return replace(self, factor=factors.get(tier, Decimal(1)))

    def cost_usd_micros(self, usage: Usage) -> int:
        """Cost of these tokens, each class at its own price, rounded up: money is never rounded away."""
        if self.rates is None:
            return 0
        counts = _priced_counts(usage)
        if (token_rates := self._token_rates()) is None:
            usd = _exact_usd(self.rates, counts)
        else:
            usd = sum((rate * counts[name] for name, rate in token_rates if counts[name]), Decimal(0))
        usd *= self.factor
        return int((usd * _MICROS).to_integral_value(rounding=ROUND_CEILING))

    def _token_rates(self) -> "_TokenRates":
        """The price of one more token of each class: the sum that genai-prices makes, which takes a hundred times as
        long. None for a price with tiers by length, which is no sum."""
        rates, token_rates = _TOKEN_RATES.get(self.digest, (None, None))
        if rates is not self.rates:
            assert self.rates is not None
            has_tiers = any(isinstance(rate, TieredPrices) for rate in vars(self.rates).values())
            token_rates = None if has_tiers else _measure_token_rates(self.rates)
            _TOKEN_RATES[self.digest] = self.rates, token_rates
        return token_rates


def _with_hour_price(rates: ModelPrice) -> ModelPrice:
    """Rates with a price of what is written to a cache for an hour, where a list leaves it out: twice the input's, as
    Anthropic has it."""
    listed = {name: rate for name, rate in vars(rates).items() if rate is not None}
    if "cache_write_mtok" not in listed or {"cache_write_1h_mtok", "input_audio_mtok", "input_image_mtok"} & set(
        listed
    ):
        return rates
    fresh = listed["input_mtok"]
    if not isinstance(fresh, TieredPrices):
        return ModelPrice(**listed, cache_write_1h_mtok=2 * fresh)
    tiers = [replace(tier, price=2 * tier.price) for tier in fresh.tiers]
    return ModelPrice(**listed, cache_write_1h_mtok=TieredPrices(2 * fresh.base, tiers))


_PUBLIC_RATES = BoundedDict[str, ModelPrice](1_024)
"""By the digest of their row."""
_TokenRates = tuple[tuple[str, Decimal], ...] | None
_TOKEN_RATES = BoundedDict[str, tuple[ModelPrice, _TokenRates]](1_024)
"""By the digest of a price, with that of which they are."""


def _exact_usd(rates: ModelPrice, counts: Mapping[str, int]) -> Decimal:
    return Decimal(rates.calc_price(PricedUsage(**counts))["total_price"])


def _measure_token_rates(rates: ModelPrice) -> _TokenRates:
    """Each class is one million larger than in counts that have room for that in every overlap of classes."""
    million = 1_000_000
    middle = {name: million * 10 ** (5 - name.count("_")) for name in _COUNTED}
    usd = _exact_usd(rates, middle)
    token_rates = tuple(
        (name, (_exact_usd(rates, middle | {name: count + million}) - usd) / million) for name, count in middle.items()
    )
    return token_rates if sum((rate * middle[name] for name, rate in token_rates), Decimal(0)) == usd else None


class PriceTable:
    """Looks prices up; `free` names models that cost nothing because the operator said so."""

    def __init__(self, free: Collection[str] = (), extra: Path | None = None) -> None:
        self._own = _load_prices(OWN_PRICES) | (_load_prices(extra) if extra else {})
        self._free = frozenset(free)
        self._source = f"genai-prices {version('genai-prices')}"

    def find_price(self, model: str, provider_id: str, base_url: str) -> Price | None:
        """The price of a model at a provider; None when it is unknown."""
        if model in self._own:
            return self._own[model]
        public = self._public_price(model, provider_id, base_url)
        if model in self._free:
            return Price(model, "free", public.context_tokens if public else None, source="BULKHEAD_FREE_MODELS")
        return public

    def _public_price(self, model: str, provider_id: str, base_url: str) -> Price | None:
        try:
            # Without a provider id the URL must tell it: a gateway of unknown price must not pass as OpenAI.
            if provider_id:
                calculation = calc_price(_PROBE, model, provider_id=provider_id)
            else:
                calculation = calc_price(_PROBE, model, provider_api_url=base_url)
        except LookupError:
            return None
        is_dated, row = isinstance(calculation.model.prices, list), calculation.model
        price = Price(
            model,
            "",
            row.context_window,
            source=self._source,
            provider_id=calculation.provider.id,
            rates_at=row.get_prices if is_dated else None,
        )
        return price._with_rates(calculation.model_price)


def _load_prices(path: Path) -> dict[str, Price]:
    try:
        rows = tomllib.loads(path.read_text())["models"]
        return {name: _price_of_row(name, row, path.name) for name, row in rows.items()}
    except OSError as error:
        raise PriceTableError(
            f"price file {path} cannot be read ({error.strerror}); mend BULKHEAD_PRICES_FILE"
        ) from error
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError, InvalidOperation) as error:
        raise PriceTableError(
            f"price file {path} is malformed ({type(error).__name__}: {error}); each model needs input and output "
            "in US dollars per million tokens, as text, like the rows of prices.toml"
        ) from error


def _absurdity_of(row: Mapping[str, Any], amounts: Mapping[str, Decimal]) -> str:
    """Reason why a row is a slip of the pen rather than a price; "" when none is."""
    if unknown := sorted(set(row) - {*AMOUNTS, "priority", "context_tokens", "as_of"}):
        return f"it has {unknown[0]!r}, and a row has {', '.join(AMOUNTS)}, priority, context_tokens and as_of"
    if not all(amount.is_finite() and amount >= 0 for amount in amounts.values()):
        return "it is not a sum of money"
    for key, amount in amounts.items():
        if 0 < amount < LEAST_USD_PER_MTOK:
            return f"{key} is {amount} US dollars per million tokens, which looks like a price per token: times 1000000"
        if amount > MOST_USD_PER_MTOK:
            return f"{key} is {amount} US dollars per million tokens, more than any model costs"
    if amounts["input"] and not amounts["output"]:
        return "output costs nothing and input does not; a model without any price stands in BULKHEAD_FREE_MODELS"
    if amounts.get("cached_input", 0) > amounts["input"]:
        return "input that is read from the cache costs more than fresh input"
    if not 1 <= Decimal(str(row.get("priority", 1))) <= 10:
        return "priority is how many times the standard price that service tier costs, from 1 to 10"
    context_tokens = row.get("context_tokens")
    if context_tokens is not None and (type(context_tokens) is not int or context_tokens < 1):
        return f"context_tokens is {context_tokens!r}, and no number of tokens"
    return ""


def _price_of_row(name: str, row: dict[str, Any], source: str) -> Price:
    digest = hashlib.sha256(json.dumps({name: row}, sort_keys=True, default=str).encode()).hexdigest()
    amounts = {key: Decimal(str(row[key])) for key in AMOUNTS if key in row or key in ("input", "output")}
    if problem := _absurdity_of(row, amounts):
        raise PriceTableError(f"the price of {name} cannot be right: {problem}; mend its row in BULKHEAD_PRICES_FILE")
    if "cache_write_1h" in amounts:
        amounts.setdefault("cache_write", amounts["input"])
    shared = {
        rate: max(amounts[first], amounts[second])
        for rate, (first, second) in SHARED.items()
        if first in amounts and second in amounts
    }
    rates = ModelPrice(**{AMOUNTS[key]: amount for key, amount in amounts.items()}, **shared)
    window, as_of = row.get("context_tokens"), str(row.get("as_of", ""))
    priority = Decimal(str(row.get("priority", PRIORITY)))
    return Price(name, f"own:{digest[:32]}", window, rates, source=source, as_of=as_of, priority=priority)


def _priced_counts(usage: Usage) -> dict[str, int]:
    """Counts by genai-prices' names. Where two classes overlap and nobody told by how much, it is as little as it can
    be: what is in both is cheaper."""
    cached, audio, image = usage.cached_input_tokens, usage.input_audio_tokens, usage.input_image_tokens
    cached_audio = max(usage.cached_audio_tokens, cached + audio - usage.input_tokens)
    cached_image = max(0, cached - cached_audio + audio + image - usage.input_tokens)
    fresh = max(0, usage.input_tokens - cached - usage.cache_write_tokens)
    written_audio = max(0, audio - cached_audio - fresh)
    written_image = max(0, image - cached_image - max(0, fresh - (audio - cached_audio)))
    written_briefly = usage.cache_write_tokens - usage.cache_write_1h_tokens
    reasoned_audio = max(0, usage.reasoning_tokens + usage.output_audio_tokens - usage.output_tokens)
    classified = usage.reasoning_tokens - reasoned_audio + usage.output_audio_tokens + usage.output_image_tokens
    return {
        "input_tokens": usage.input_tokens,
        "cache_read_tokens": cached,
        "cache_write_tokens": usage.cache_write_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "input_audio_tokens": audio,
        "input_image_tokens": image,
        "cache_audio_read_tokens": cached_audio,
        "cache_image_read_tokens": cached_image,
        "cache_audio_write_tokens": written_audio,
        "cache_image_write_tokens": written_image,
        "cache_audio_write_1h_tokens": max(0, written_audio - written_briefly),
        "cache_image_write_1h_tokens": max(0, written_image - max(0, written_briefly - written_audio)),
        "output_tokens": usage.output_tokens,
        "output_reasoning_tokens": usage.reasoning_tokens,
        "output_audio_tokens": usage.output_audio_tokens,
        "output_image_tokens": usage.output_image_tokens,
        "output_audio_reasoning_tokens": reasoned_audio,
        "output_image_reasoning_tokens": max(0, classified - usage.output_tokens),
    }


_COUNTED = tuple(_priced_counts(Usage()))
