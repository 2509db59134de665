"""Money of one call: the most that it may cost, and an estimate where its provider told no use. Pure."""

import math
from collections import Counter
from dataclasses import dataclass, field

from bulkhead_contracts import bounds
from bulkhead_contracts.budget import Amount
from bulkhead_contracts.result import Usage
from bulkhead_services.model_gateway.prices import Price
from bulkhead_services.model_gateway.providers.fields import join_usage, larger_usage
from bulkhead_services.model_gateway.providers.port import GenerationProgress

BYTES_PER_TOKEN = 3
PLACEHOLDER_TIMES = 10
"""An input of less than its reservation by that is a placeholder: some servers begin a stream with one."""
HIDDEN_TOKENS_PER_S = 100
"""Speed at which a silent provider is taken to reason: faster than most."""


@dataclass(slots=True)
class JobSpending:
    """Usage of all attempts of one job, as settled."""

    usage: Usage = Usage()
    attempts: int = 0
    """Calls that went out to a provider."""
    waited_ms: int = 0
    """For providers: pauses after failures, limits of rates, places."""
    wait_counts: Counter[str] = field(default_factory=Counter)
    """What was waited for, and how often."""

    def describe_waits(self) -> str:
        """In words; "" where nothing was waited for."""
        rows = (
            reason if times == 1 else f"{reason} ({times} times)" for reason, times in self.wait_counts.most_common()
        )
        return "; ".join(rows)[: bounds.MAX_SUMMARY_CHARS]


def estimate_usage(
    worst_usage: Usage, progress: GenerationProgress, now_s: float, *, count_hidden: bool = True
) -> Usage:
    """The use of a call whose provider did not tell it, or not all of it. The estimate is never more than was reserved.
    Where the provider told figures and the answer went on or was cut, the larger output counts, and the input that it
    told unless that is a mere placeholder; at the answer's end, each figure that it told.

    It errs on the dear side: an input that nobody told counts as reserved, none of it as cached; the output that came
    counts at 3 bytes a token, where text has four and more; and, unless the provider said that it failed (not
    `count_hidden`), the time in which nothing came counts as reasoning that nobody sees, at HIDDEN_TOKENS_PER_S. A call
    of which nothing comes until its timeout is therefore charged as reserved.
    """
    hidden_tokens = math.ceil(progress.silence_s(now_s) * HIDDEN_TOKENS_PER_S) if count_hidden else 0
    output = min(worst_usage.output_tokens, -(-progress.generated_bytes // BYTES_PER_TOKEN) + hidden_tokens)
    classes = {"reasoning_tokens": min(worst_usage.reasoning_tokens, output)}
    estimate = worst_usage.model_copy(update={"output_tokens": output, **classes})
    told_usage = progress.told_usage
    if told_usage is None:
        return estimate
    if not progress.is_told_at_end:
        larger = larger_usage(estimate, told_usage)
        is_whole = told_usage.input_tokens * PLACEHOLDER_TIMES >= worst_usage.input_tokens
        return join_usage(told_usage, larger) if is_whole else larger
    of_input, of_output = told_usage.input_tokens, told_usage.output_tokens
    return join_usage(told_usage if of_input else estimate, told_usage if of_output else estimate)


def replace_cost(usage: Usage, price: Price) -> Usage:
    """The same usage with its cost, rounded up; no more than a sum of money that can be booked."""
    cost = min(price.cost_usd_micros(usage), bounds.MAX_COST_USD_MICROS)
    return usage.model_copy(update={"cost_usd_micros": cost})


def worst_case(
    price: Price,
    input_tokens: int,
    output_tokens: int,
    writes_cache: bool,
    image_tokens: int = 0,
    caches_1h: bool = False,
) -> Usage:
    """The dearest use that a call may have: what is reserved. image_tokens: of the input, those of images. caches_1h:
    what is written to a cache may stay there for an hour."""
    usage = Usage(model_calls=1, input_tokens=input_tokens, output_tokens=output_tokens)
    written = {"cache_write_tokens": input_tokens, "cache_write_1h_tokens": input_tokens if caches_1h else 0}
    inputs = [written if writes_cache else {}]
    if image_tokens:
        inputs.append({"input_image_tokens": image_tokens})
    outputs: tuple[dict[str, int], ...] = ({}, {"reasoning_tokens": output_tokens})
    usages = [
        replace_cost(usage.model_copy(update=of_input | of_output), price)
        for of_input in inputs
        for of_output in outputs
    ]
    return max(usages, key=lambda worst: worst.cost_usd_micros)


def amount_of(worst_usage: Usage) -> Amount:
    """A use as it is reserved."""
    return Amount(
        tokens=worst_usage.input_tokens + worst_usage.output_tokens,
        cost_usd_micros=worst_usage.cost_usd_micros,
        model_calls=1,
    )
