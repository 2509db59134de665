"""Findings from sentences for a question. Enters: sentences, topic. Leaves: `Findings` and a formula.

The one formula known here is everyday: a percentage of a price, less a fee (or what an exception leaves of it),
within a cap and a floor. Each of its parts may be missing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from bulkhead_infra.offline_model.language.claims import (
    Choice,
    Claim,
    Topic,
    collect,
    limits_on_topic,
    relevant,
    settle,
)
from bulkhead_infra.offline_model.language.pool import Sentence
from bulkhead_infra.offline_model.language.quantities import Day, Money, find_dates, find_money, plain
from bulkhead_infra.offline_model.language.rulings import Ruling, effect_of, refuses, rule_on
from bulkhead_infra.offline_model.language.text import PAID_BACK, proper_words, split_sentences, stem, stems

DAYS_RESULT = re.compile(r"\b(\d{4}-\d{2}-\d{2}) to (\d{4}-\d{2}-\d{2}) (?:=|is) (-?\d+) days?")
NEAR_WORDS = 5
PRICE_WORD = re.compile(r"\b(price|paid|pays?|costs?|bought|worth|value|invoice|bill|total|amount)\b", re.I)
REMAINS = re.compile(r"\b(refund\w*|reimburs\w*|repa(?:y|id)\w*|remain\w*|left|less|minus|deduct\w*|net)\b", re.I)
ASIDE = re.compile(r"\b(besides|plus|as well as|in addition|apart from|additional|extra|on top)\b", re.I)


@dataclass(frozen=True)
class Findings:
    """The values that hold for a case, each with the sentence that gives it; None where nothing was found."""

    share: Choice | None
    fee: Choice | None
    fee_share: Choice | None
    cap: Choice | None
    floor: Choice | None
    ruling: Ruling | None
    base: Money | None
    days: int | None
    shares: tuple[Claim, ...] = ()
    remains: bool = False

    @property
    def choices(self) -> list[Choice]:
        return [c for c in (self.share, self.fee_share, self.fee, self.cap, self.floor) if c]


def days_between(sentences: Sequence[Sentence], results: Sequence[str]) -> int | None:
    """A number of days that a date tool gave, here or in an earlier step."""
    matches = (DAYS_RESULT.search(text) for text in (*results, *(s.text for s in sentences if s.own)))
    return next((abs(int(match.group(3))) for match in matches if match), None)


def base_amount(facts: str) -> Money | None:
    """The price of the case: the amount in its facts that is called paid or a price."""
    scored: list[tuple[int, Money]] = []
    for sentence in split_sentences(facts):
        for amount in find_money(sentence):
            before = sentence[max(0, amount.start - 60) : amount.start].rsplit(",", 1)[-1]
            near = before + " " + re.split(r"[,;.] ", sentence[amount.end : amount.end + 30])[0]
            scored.append((2 * bool(PRICE_WORD.search(near)) - 3 * bool(ASIDE.search(near)), amount))
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def find(sentences: Sequence[Sentence], topic: Topic, days: int | None) -> Findings:
    """All values that the sentences give on the topic's amounts, with conflicts and exceptions settled."""
    by_role = collect(s for s in sentences if not refuses(s.text))
    shares, fees, fee_shares = (relevant(by_role[role], topic) for role in ("share", "fee", "fee_share"))
    topical = set().union(*(claim.sentence.stems for claim in (*shares, *fees)))
    caps = limits_on_topic(by_role["cap"], topic, topical)
    floors = limits_on_topic(by_role["floor"], topic, topical)
    return Findings(
        _choose(shares, days),
        _choose(fees, days),
        _choose(fee_shares, days),
        _choose(caps[:2], days),
        _choose(floors[:2], days),
        rule_on(sentences, topic),
        base_amount(topic.facts),
        days,
        tuple(shares),
        bool(REMAINS.search(PAID_BACK.sub("refund", f"{topic.task} {topic.facts}"))),
    )


def _choose(claims: Sequence[Claim], days: int | None) -> Choice | None:
    if days is not None:
        claims = [claim for claim in claims if claim.days is None or claim.days.holds(days)]
    elif len({claim.days for claim in claims if claim.days}) > 1:
        return None
    return settle(claims)


def disputes(findings: Findings, claims: Sequence[Claim]) -> list[Choice]:
    """Claims of one role that differ over one range of days, each as a choice with its rivals."""
    choices: list[Choice] = []
    left = list(claims)
    while left:
        first, *rest = left
        left = [claim for claim in rest if not _same_range(first, claim)]
        choice = settle([first, *(claim for claim in rest if _same_range(first, claim))])
        if choice and choice.rivals:
            choices.append(choice)
    return choices


def _same_range(claim: Claim, other: Claim) -> bool:
    if claim.days is None or other.days is None:
        return claim.days is other.days
    return claim.days.meets(other.days)


def formula(findings: Findings) -> str:
    """The calculation for a calculator tool; empty when too many of its parts are missing."""
    if not findings.base:
        return ""
    price = plain(findings.base.amount)
    # A fee alone is taken off a price only where a rest of the price is refunded or left.
    if not (findings.share or ((findings.fee or findings.fee_share) and findings.remains)):
        return ""
    main = f"{plain(findings.share.claim.value)} / 100 * {price}" if findings.share else price
    fee = ""
    if findings.fee:
        fee = plain(findings.fee.claim.value)
    elif findings.fee_share:
        fee = f"{plain(findings.fee_share.claim.value)} / 100 * {price}"
    if fee and findings.ruling and findings.ruling.applies:
        fee = findings.ruling.on_fee(fee)
    if fee:
        main = f"max(0, {main} - {fee})"
    if findings.cap:
        main = f"min({plain(findings.cap.claim.value)}, {main})"
    if findings.floor:
        main = f"max({plain(findings.floor.claim.value)}, {main})"
    return f"round({main}, 2)"


def dates_for(texts: Sequence[str], facts: str) -> tuple[date, date] | None:
    """The two dates of a question on a span of days (or of rules with such spans), the earlier first.

    The words around a date of the facts give its score: each counts with the share of `texts` that hold it.
    """
    in_task = find_dates(texts[0])
    days = list(dict.fromkeys(when.day for when in in_task))
    if len(days) >= 2:
        return _ordered(days[0], days[1])
    names = {stem(name) for name in proper_words(facts)}
    bags = [stems(text) - names for text in texts]
    scored: list[tuple[float, date]] = []
    for sentence in split_sentences(facts):
        for when, near in _dates_with_words(sentence):
            share = sum(sum(word in bag for bag in bags) / len(bags) for word in sorted(stems(near)))
            scored.append((share, when.day))
    best = [day for _, day in sorted(scored, key=lambda pair: -pair[0])]
    ends = [*days, *(day for day in best if day not in days)][:2] if days else best[:2]
    return _ordered(ends[0], ends[1]) if len(set(ends)) == 2 else None


def _dates_with_words(sentence: str) -> list[tuple[Day, str]]:
    """Dates of a sentence, each with the clause around it."""
    pairs = []
    days = find_dates(sentence)
    masked = sentence
    for when in days:
        masked = masked[: when.start] + "\0" * (when.end - when.start) + masked[when.end :]
    cuts = [0, *(m.end() for m in re.finditer(r"[;,] |\band\b|\bbut\b", masked)), len(masked)]
    for when in days:
        left = max(cut for cut in cuts if cut <= when.start)
        right = min(cut for cut in cuts if cut >= when.end)
        before = masked[left : when.start].split()[-NEAR_WORDS:]
        after = masked[when.end : right].split()[:NEAR_WORDS]
        pairs.append((when, " ".join([*before, *after]).replace("\0", "")))
    return pairs


def _ordered(left: date, right: date) -> tuple[date, date]:
    return (left, right) if left <= right else (right, left)


def exceptions_in(sentences: Sequence[Sentence]) -> list[Sentence]:
    """Sentences that grant or refuse an exception."""
    return [s for s in sentences if not s.own and (effect_of(s.text)[0] or refuses(s.text))]
