"""Verdict on an answer. Enters: a demo, an answer and the cited sources. Leaves: `AnswerComparison`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from bulkhead_infra.demo.corpus import Demo

SIGNS = {"€": "EUR", "$": "USD", "£": "GBP"}
NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
AMOUNT = re.compile(rf"\b(EUR|USD|GBP|CHF)\s?({NUMBER})|([€$£])\s?({NUMBER})|({NUMBER})\s?(EUR|USD|GBP|CHF)\b")
CLAIM = re.compile(r"(?:refund\w*|amount\w*|total|gets? back|receives?|paid back)[^.;:\d]{0,60}$", re.I)
QUOTED = re.compile(r"[\"“][^\"”]*[\"”]")


@dataclass(frozen=True)
class AnswerComparison:
    ok: bool
    differences: tuple[str, ...]


def compare_answer(demo: Demo, answer_text: str, cited_sources: Iterable[str]) -> AnswerComparison:
    """Right when the amount that the answer gives is the expected one and every source to be cited is.

    Quoted passages are left out: the answer's own first or last amount, or one that it calls refunded, counts.
    """
    differences = []
    expected = demo.expected
    bare = QUOTED.sub(" ", answer_text)
    amounts = [
        (
            match.start(),
            match[1] or SIGNS.get(match[3] or "") or match[6],
            Decimal((match[2] or match[4] or match[5]).replace(",", "")),
        )
        for match in AMOUNT.finditer(bare)
    ]
    claimed = [(currency, amount) for start, currency, amount in amounts if CLAIM.search(bare[:start])]
    right = (expected.currency, expected.amount)
    candidates = claimed or [(currency, amount) for _, currency, amount in (amounts[:1] + amounts[-1:])]
    if right not in candidates or (claimed and claimed[0] != right and claimed[-1] != right):
        listed = ", ".join(f"{currency} {amount}" for currency, amount in candidates) or "no amount"
        differences.append(f"amount: expected {right[0]} {right[1]}, the answer gives {listed}")
    cited = set(cited_sources)
    for source in expected.must_cite:
        if source not in cited:
            differences.append(f"sources: {source} should be cited and is not")
    return AnswerComparison(not differences, tuple(differences))
