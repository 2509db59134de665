"""Values that sentences give. Enters: sentences and a topic. Leaves: claims, the conflicts settled by date.

A claim is a share (percentage), a fee (amount or percentage taken off), a cap or a floor, with the range of days
for which it holds. Of two that differ on one subject, the one with the later effective date holds.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

from bulkhead_infra.offline_model.language.pool import Sentence
from bulkhead_infra.offline_model.language.quantities import DayRange, find_day_range, find_money, find_percents
from bulkhead_infra.offline_model.language.text import overlap, proper_words, stem, stems, words

FEE_WORD = re.compile(
    r"\b(fees?|charges?|deduct\w*|penalt\w+|withh[eo]ld\w*|withholds?|retain\w*|subtract\w*|less|"
    r"minus|surcharges?|excess|taken off|costs?)\b",
    re.I,
)
PERCENT_FEE = re.compile(r"\b(fee|charge|penalty|deduction|surcharge)s? (?:of|is|amounts to|at) (?:\w+ ){0,2}$", re.I)
CAP_WORD = re.compile(
    r"\b(exceeds?|exceeding|capped|cap|at most|maximum|no more than|not more than|up to|upper limit|"
    r"ceiling|limited to)\b",
    re.I,
)
FLOOR_WORD = re.compile(
    r"\b(never (?:lower|less) than|not? (?:lower|less) than|at least|minimum|falls? below|floor|"
    r"lower limit|never (?:falls?|drops?) below)\b",
    re.I,
)
EFFECT_WORD = re.compile(
    r"\b(waiv\w+|halv\w+|half|exempt\w*|exceptions?|reduc\w+|lower(?:s|ed)? (?:the|by|to)|cut|drops?|falls? to|no "
    r"(?:\w+ ){0,3}(?:fee|charge)s?|free of|only)\b",
    re.I,
)
ASIDE = re.compile(r",?\s*\b(?:besides|apart from|in addition to|as well as|on top of)\b(?:[^.;,]|\.(?=\d))*", re.I)
NUMBERS = re.compile(r"\d[\d.,]*\d|\d")
KNOWN_WEIGHT = 0.5
NEAR_BEST = 0.5
SAME_MATTER = (0.75, 0.65, 0.5)


@dataclass(frozen=True)
class Topic:
    """What is asked (`task`) and what is known of the case (`facts`)."""

    task: str
    facts: str

    @property
    def names(self) -> set[str]:
        return proper_words(self.facts) | proper_words(self.task)

    @property
    def stems(self) -> set[str]:
        return stems(self.task)

    @property
    def known(self) -> set[str]:
        """Stems of the facts, without what they mention by the way."""
        return stems(ASIDE.sub("", self.facts))


@dataclass(frozen=True)
class Claim:
    """One value; `role` is share, fee, fee_share, cap or floor."""

    role: str
    value: Decimal
    raw: str
    currency: str
    days: DayRange | None
    sentence: Sentence


@dataclass(frozen=True)
class Choice:
    """The claim that holds and those that differ from it and do not."""

    claim: Claim
    rivals: tuple[Claim, ...] = ()


def claims_of(sentence: Sentence) -> list[Claim]:
    """The values that one sentence gives."""
    text = sentence.text
    amounts, shares = find_money(text), find_percents(text)
    if not amounts and not shares:
        return []
    found: list[Claim] = []
    softened = EFFECT_WORD.search(text) and re.search(r"\b(fee|charge|penalty|deduction)s?\b", text, re.I)
    starts = [amount.start for amount in amounts] + [share.start for share in shares]
    for segment, start in _segments(text, starts):
        days = find_day_range(segment) or find_day_range(text)
        for share in shares:
            if start <= share.start < start + len(segment) and not softened:
                role = "fee_share" if PERCENT_FEE.search(text[: share.start]) else "share"
                found.append(Claim(role, share.value, share.raw, "", days, sentence))
        for amount in amounts:
            if start <= amount.start < start + len(segment):
                role = amount_role(segment, bool(softened), sentence.context)
                if role:
                    found.append(Claim(role, amount.amount, amount.raw, amount.currency, days, sentence))
    return found


def amount_role(segment: str, softened: bool, context: str) -> str:
    """What an amount is in its segment; empty for none that counts."""
    floor, cap = FLOOR_WORD.search(segment), CAP_WORD.search(segment)
    fee = FEE_WORD.search(segment)
    if floor and not (fee and fee.group().lower() in ("fee", "charge")):
        return "floor"
    if cap and not (fee and fee.group().lower() in ("fee", "charge")):
        return "cap"
    if softened:
        return ""
    return "fee" if fee or FEE_WORD.search(context) else ""


def _segments(text: str, value_starts: Sequence[int]) -> list[tuple[str, int]]:
    """A sentence with several values cut where each gets its own words; else whole."""
    if len(value_starts) < 2:
        return [(text, 0)]
    cuts = [0, *(match.end() for match in re.finditer(r";|, (?:and |but )?|: | and | but ", text)), len(text)]
    pieces: list[tuple[str, int]] = []
    begin = 0
    for left, right in pairwise(cuts):
        if any(left <= start < right for start in value_starts):
            if pieces and pieces[-1][1] == begin:
                begin = left
            pieces.append((text[begin:right], begin))
            begin = right
    if pieces and begin < len(text):
        last, start = pieces[-1]
        pieces[-1] = (last + text[begin:], start)
    return pieces or [(text, 0)]


def relevant(claims: Sequence[Claim], topic: Topic) -> list[Claim]:
    """Claims of one role that are about the topic: those which name what it names, and score near the best."""
    if not claims:
        return []
    # Names are weighed apart: sharing a name must not make up for speaking of another matter.
    names = {stem(name) for name in topic.names}
    asked, known = topic.stems - names, topic.known - names - topic.stems
    bags = [claim.sentence.stems | (stems(claim.sentence.context) & topic.stems) for claim in claims]
    scores = [len(bag & asked) + KNOWN_WEIGHT * len(bag & known) for bag in bags]
    best = max(scores)
    if best <= 0:
        return []
    kept = [(claim, score) for claim, score in zip(claims, scores, strict=True) if score >= NEAR_BEST * best]
    named = _naming(list(claims), topic.names)
    chosen = [claim for claim, _ in kept if not named or claim in named]
    return chosen or [claim for claim, _ in kept if not named] or named


def _naming(claims: list[Claim], names: set[str]) -> list[Claim]:
    """Claims that name a thing which the topic names and other claims do not; none when no name tells apart."""
    bags = [set(words(claim.sentence.text)) | proper_words(f"x {claim.sentence.context}") for claim in claims]
    telling = {name for name in names if 0 < sum(name in bag for bag in bags) < len(bags)}
    hits = [len(telling & bag) for bag in bags]
    most = max(hits, default=0)
    if not most:
        return []
    foreign = [len(proper_words(claim.sentence.text) - names) for claim in claims]
    return [
        claim for claim, hit, other in zip(claims, hits, foreign, strict=True) if hit and (not other or hit == most)
    ]


def settle(claims: Sequence[Claim]) -> Choice | None:
    """Of claims on one subject the one with the latest effective date; the others that differ are rivals."""
    if not claims:
        return None
    ordered = sorted(
        claims, key=lambda claim: claim.sentence.since.day.toordinal() if claim.sentence.since else 0, reverse=True
    )
    first = ordered[0]
    rivals = tuple(
        claim
        for claim in ordered[1:]
        if claim.value != first.value and claim.sentence.source != first.sentence.source and _same_matter(claim, first)
    )
    return Choice(first, rivals)


def _same_matter(one: Claim, other: Claim) -> bool:
    """Whether two sentences speak of one thing; the fewer dates tell which holds, the more alike they have to be."""
    dated = bool(one.sentence.since) + bool(other.sentence.since)
    left, right = one.sentence.stems, other.sentence.stems
    if not (one.days or other.days) and not one_number_differs(one.sentence.text, other.sentence.text):
        return False
    return max(overlap(left, right), overlap(right, left)) >= SAME_MATTER[dated]


def one_number_differs(left: str, right: str) -> bool:
    """Whether two texts give another value for one thing, and not for things that their numbers tell apart."""
    one, two = (set(NUMBERS.findall(text)) for text in (left, right))
    return one != two and len(one - two) <= 1 and len(two - one) <= 1


def collect(sentences: Iterable[Sentence]) -> dict[str, list[Claim]]:
    """Every claim by role; what is repeated word for word counts once."""
    found: dict[str, list[Claim]] = {"share": [], "fee": [], "fee_share": [], "cap": [], "floor": []}
    seen: set[tuple[str, str, tuple[str, ...]]] = set()
    for sentence in sentences:
        if sentence.own:
            continue
        for claim in claims_of(sentence):
            key = (claim.role + claim.raw, sentence.text, sentence.markers)
            if key not in seen:
                seen.add(key)
                found[claim.role].append(claim)
    return found


def limits_on_topic(claims: Sequence[Claim], topic: Topic, topical: set[str]) -> list[Claim]:
    """Caps and floors that speak of what the chosen values speak of, the closest first."""
    bounds = stems("cap maximum minimum limit floor most least exceed")
    wanted = (topical & topic.stems) - bounds
    ranked = sorted(claims, key=lambda c: -len(wanted & c.sentence.stems))
    if not ranked:
        return []
    most = len(wanted & ranked[0].sentence.stems)
    about = [
        claim
        for claim in ranked
        if wanted & claim.sentence.stems
        and len(wanted & claim.sentence.stems) >= 0.5 * most
        and overlap(claim.sentence.stems - bounds, topic.stems | topical) >= 0.3
    ]
    return about
