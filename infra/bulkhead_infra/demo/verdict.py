"""Whether an answer is right. Enters: a demo, an answer and the cited sources. Leaves: `Comparison`."""

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
class Comparison:
    ok: bool
    differences: tuple[str, ...]


def compare(demo: Demo, answer_text: str, cited_sources: Iterable[str]) -> Comparison:
    """Right when the amount that the answer gives is the expected one and every source to be cited is.

    Quoted passages are left out: the answer's own first or last amount, or one that it calls refunded, counts.
    """
    differences = []
    expected = demo.expected
    bare = QUOTED.sub(" ", answer_text)
    found = [
        (m.start(), m[1] or SIGNS.get(m[3] or "") or m[6], Decimal((m[2] or m[4] or m[5]).replace(",", "")))
        for m in AMOUNT.finditer(bare)
    ]
    claimed = [(currency, amount) for start, currency, amount in found if CLAIM.search(bare[:start])]
    right = (expected.currency, expected.amount)
    given = claimed or [(currency, amount) for _, currency, amount in (found[:1] + found[-1:])]
    if right not in given or (claimed and claimed[0] != right and claimed[-1] != right):
        seen = ", ".join(f"{currency} {amount}" for currency, amount in given) or "no amount"
        differences.append(f"amount: expected {right[0]} {right[1]}, the answer gives {seen}")
    cited = set(cited_sources)
    for source in expected.must_cite:
        if source not in cited:
            differences.append(f"sources: {source} should be cited and is not")
    return Comparison(not differences, tuple(differences))
