"""Values that sentences give. Enters: sentences and a topic. Leaves: claims, with conflicts settled by date.

A claim is a share (percentage), a fee (amount or percentage taken off), a cap or a floor, with the range of days
for which it holds. Where two claims differ on one subject, the one with the later effective date holds.
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
    r"(?i)\b(fees?|charges?|deduct\w*|penalt\w+|withh[eo]ld\w*|withholds?|retain\w*|subtract\w*|less|"
    r"minus|surcharges?|excess|taken off|costs?)\b"
)
PERCENT_FEE = re.compile(r"\b(fee|charge|penalty|deduction|surcharge)s? (?:of|is|amounts to|at) (?:\w+ ){0,2}$", re.I)
CAP_WORD = re.compile(
    r"(?i)\b(exceeds?|exceeding|capped|cap|at most|maximum|no more than|not more than|up to|upper limit|"
    r"ceiling|limited to)\b"
)
FLOOR_WORD = re.compile(
    r"(?i)\b(never (?:lower|less) than|not? (?:lower|less) than|at least|minimum|falls? below|floor|"
    r"lower limit|never (?:falls?|drops?) below)\b"
)
EFFECT_WORD = re.compile(
    r"(?i)\b(waiv\w+|halv\w+|half|exempt\w*|exceptions?|reduc\w+|lower(?:s|ed)? (?:the|by|to)|cut|drops?|falls? to|no "
    r"(?:\w+ ){0,3}(?:fee|charge)s?|free of|only)\b"
)
ASIDE = re.compile(r",?\s*\b(?:besides|apart from|in addition to|as well as|on top of)\b(?:[^.;,]|\.(?=\d))*", re.I)
NUMBERS = re.compile(r"\d[\d.,]*\d|\d")
KNOWN_WEIGHT = 0.5
NEAR_BEST = 0.5
SAME_MATTER = (0.75, 0.65, 0.5)


@dataclass(frozen=True)
class Topic:
    """A question (`task`) and the known facts of its case (`facts`)."""

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
        """Stems of the facts, without asides (`besides ...`)."""
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
    """The claim that holds, and the differing claims that do not."""

    claim: Claim
    rivals: tuple[Claim, ...] = ()


def claims_of(sentence: Sentence) -> list[Claim]:
    """The values that one sentence gives."""
    text = sentence.text
    amounts, shares = find_money(text), find_percents(text)
    if not amounts and not shares:
        return []
    claims: list[Claim] = []
    softened = EFFECT_WORD.search(text) and re.search(r"\b(fee|charge|penalty|deduction)s?\b", text, re.I)
    starts = [amount.start for amount in amounts] + [share.start for share in shares]
    for segment, start in _segments(text, starts):
        days = find_day_range(segment) or find_day_range(text)
        for share in shares:
            if start <= share.start < start + len(segment) and not softened:
                role = "fee_share" if PERCENT_FEE.search(text[: share.start]) else "share"
                claims.append(Claim(role, share.value, share.raw, "", days, sentence))
        for amount in amounts:
            if start <= amount.start < start + len(segment):
                role = amount_role(segment, bool(softened), sentence.context)
                if role:
                    claims.append(Claim(role, amount.amount, amount.raw, amount.currency, days, sentence))
    return claims


def amount_role(segment: str, softened: bool, context: str) -> str:
    """The role of an amount in its segment; empty for an amount that does not count."""
    fee = FEE_WORD.search(segment)
    if not (fee and fee.group().lower() in ("fee", "charge")):
        if FLOOR_WORD.search(segment):
            return "floor"
        if CAP_WORD.search(segment):
            return "cap"
    if softened:
        return ""
    return "fee" if fee or FEE_WORD.search(context) else ""


def _segments(text: str, value_starts: Sequence[int]) -> list[tuple[str, int]]:
    """Segments of a sentence with their starts: one per value, with the words that belong to it."""
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
    """Claims of one role about the topic: those that share its names and score near the best."""
    if not claims:
        return []
    # Names are weighed apart: a shared name must not make up for another subject.
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
    """Claims that share a name with the topic which other claims lack; none when no name makes a difference."""
    bags = [set(words(claim.sentence.text)) | proper_words(f"x {claim.sentence.context}") for claim in claims]
    telling = {name for name in names if 0 < sum(name in bag for bag in bags) < len(bags)}
    hits = [len(telling & bag) for bag in bags]
    most = max(hits, default=0)
    if not most:
        return []
    foreign = [len(proper_words(claim.sentence.text) - names) for claim in claims]
    rows = zip(claims, hits, foreign, strict=True)
    return [claim for claim, hit, others in rows if hit and (not others or hit == most)]


def settle(claims: Sequence[Claim]) -> Choice | None:
    """The claim with the latest effective date; the others of the same subject that differ are its rivals."""
    if not claims:
        return None
    first, *rest = sorted(
        claims, key=lambda claim: -(claim.sentence.since.day.toordinal() if claim.sentence.since else 0)
    )
    return Choice(first, tuple(claim for claim in rest if claim.value != first.value and _same_matter(claim, first)))


def _same_matter(claim: Claim, other: Claim) -> bool:
    """Whether sentences of two sources have one subject; the fewer of them are dated, the more alike they must be."""
    left, right = claim.sentence, other.sentence
    if left.source == right.source:
        return False
    if not (claim.days or other.days) and not one_number_differs(left.text, right.text):
        return False
    dated = bool(left.since) + bool(right.since)
    return max(overlap(left.stems, right.stems), overlap(right.stems, left.stems)) >= SAME_MATTER[dated]


def one_number_differs(left: str, right: str) -> bool:
    """Whether the numbers of two texts differ in one place: another value for one thing."""
    before, after = (set(NUMBERS.findall(text)) for text in (left, right))
    return before != after and len(before - after) <= 1 and len(after - before) <= 1


def collect(sentences: Iterable[Sentence]) -> dict[str, list[Claim]]:
    """Every claim by role; a claim that is repeated word for word counts once."""
    by_role: dict[str, list[Claim]] = {"share": [], "fee": [], "fee_share": [], "cap": [], "floor": []}
    seen: set[tuple[str, str, tuple[str, ...]]] = set()
    for sentence in sentences:
        if sentence.own:
            continue
        for claim in claims_of(sentence):
            key = (claim.role + claim.raw, sentence.text, sentence.markers)
            if key not in seen:
                seen.add(key)
                by_role[claim.role].append(claim)
    return by_role


def limits_on_topic(claims: Sequence[Claim], topic: Topic, topical: set[str]) -> list[Claim]:
    """Caps and floors on the subject of the chosen values, the closest first."""
    bounds = stems("cap maximum minimum limit floor most least exceed")
    wanted = (topical & topic.stems) - bounds
    shared = [len(wanted & claim.sentence.stems) for claim in claims]
    ranked = sorted(zip(shared, claims, strict=True), key=lambda pair: -pair[0])
    near = [claim for count, claim in ranked if count and count >= 0.5 * max(shared)]
    return [c for c in near if overlap(c.sentence.stems - bounds, topic.stems | topical) >= 0.3]
