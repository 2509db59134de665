"""A tenant's rules for what comes in and what goes out, and how an answer is delivered."""

from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds

from .types import Contract

Delivery = Literal["draft", "verified", "held"]
STRICTER: tuple[Delivery, ...] = ("draft", "verified", "held")
Phrase = Annotated[str, Field(min_length=2, max_length=bounds.MAX_PHRASE_CHARS)]
Phrases = Annotated[tuple[Phrase, ...], Field(max_length=bounds.MAX_PHRASES)]


class InputPolicy(Contract, extra="forbid"):
    """Rules for objectives. forbidden: phrases, whatever their case; a task that holds one is refused."""

    forbidden: Phrases = ()
    personal_data: Literal["allow", "refuse"] = "allow"


class OutputPolicy(Contract, extra="forbid"):
    """Rules for answers.

    delivery: `draft` streams a model's words as they come; `verified` lets a sentence leave when its source is found;
    `held` lets nothing leave before the checker has accepted it. unverified: what becomes of a statement without a
    source: the attempt is made once more (`rewrite`) and it is marked then, marked at once, or left out (`drop`; under
    `verified` and `held` always). require_citation: sentences that claim nothing and cite nothing are left out as well.
    forbidden: phrases, whatever their case; a sentence that holds one is left out. topics: what an answer must not
    speak of; the judge is asked. personal_data: addresses, account, card and telephone numbers are shown as
    `[masked]`, or their sentences left out (`drop`).
    """

    delivery: Delivery = "draft"
    unverified: Literal["rewrite", "mark", "drop"] = "rewrite"
    require_citation: bool = False
    forbidden: Phrases = ()
    topics: Phrases = ()
    personal_data: Literal["allow", "mask", "drop"] = "allow"

    @property
    def drops_unverified(self) -> bool:
        """True if statements without a source are left out."""
        return self.unverified == "drop" or self.delivery != "draft"


DRAFT = OutputPolicy()
"""The policy of a tenant that has none."""


def with_stricter_delivery(policy: OutputPolicy, wanted: Delivery | None) -> OutputPolicy:
    """The policy with the stricter delivery of the tenant's and the one that a request asks for."""
    if wanted is None or STRICTER.index(wanted) <= STRICTER.index(policy.delivery):
        return policy
    return policy.model_copy(update={"delivery": wanted})
