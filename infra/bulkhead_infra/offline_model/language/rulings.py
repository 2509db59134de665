"""Exceptions: whether one applies to a case. Enters: sentences and facts. Leaves: a `Ruling`.

General English only: waived, halved, reduced to or by; except, unless, but not; provided that something is shown.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from bulkhead_infra.offline_model.language.claims import Topic
from bulkhead_infra.offline_model.language.pool import Sentence
from bulkhead_infra.offline_model.language.quantities import find_money, find_percents, plain
from bulkhead_infra.offline_model.language.text import overlap, proper_words, stems, words

FEE = r"(?:fee|charge|deduction|penalty|surcharge)s?"
WAIVED = re.compile(
    rf"(?i)\b(waiv(?:e|es|ed|ing)\b|no (?:\w+ ){{0,3}}{FEE}\b|free of charge|not charged|without (?:a |any )?"
    rf"(?:\w+ )?{FEE}\b|exempt(?:ed)? from|forgo)"
)
HALVED = re.compile(r"\b(halv(?:e|es|ed|ing)|half)\b", re.I)
LOWERED = re.compile(
    r"\b(reduc\w+|lower\w*|cut|drops?|falls?|comes? down|brought down|discount\w*|only|limited)\b", re.I
)
REFUSES = re.compile(
    r"\b(no|not|none|never|neither|cannot|can't|exclud\w+)\b.{0,60}\b(waiv\w+|exceptions?|exempt\w*|concessions?|relief|"
    r"lenien\w+)|\b(waiv\w+|exceptions?|exempt\w*|concessions?|relief)\b.{0,40}\b(not|never|cannot|exclud\w+)\b",
    re.I,
)
BUT = re.compile(
    r"(?i)[,;:]?\s*(?:\bbut\s+)?\b(except(?:ing)?(?: that)?|but not|not (?=for|on)|other than|excluding|unless|"
    r"with the exception of|(?:this|it|which) (?:does|do) not (?:extend|apply) to|(?:does|do) not "
    r"(?:extend|apply) to)\b(.*)$"
)
CONDITION = re.compile(
    r"(?i)\b(provided(?: that)?|on condition that|as long as|as soon as|once|when|if|on presentation of|upon|against|"
    r"subject to|on production of|on receipt of)\b(?P<what>[^,;]*)"
)
SHOWN = re.compile(
    r"(?i)\b(present\w*|submi\w+|provid\w+|show\w*|produc\w+|reach\w*|receiv\w+|receipt|hand\w*|enclos\w+|"
    r"sen[dt]\w*|furnish\w*|proof|evidence|certif\w+|attach\w*|document\w*)\b"
)
SHOWN_STEMS = stems(
    "presented submitted provided shown produced reached received handed enclosed sent furnished "
    "attached presentation production receipt soon us"
)
CAUSE = re.compile(
    r"(?i)\b(?:because of|because|due to|owing to|on account of|as a result of|by reason of|caused by|"
    r"following|reason:)\s+([^.;,]*)"
)
NEGATED = r"\b(?:no|not|without|never|lacks?|lacking|missing|cannot|unable|nor)\b(?:(?! and )[^.;]){0,40}"


@dataclass(frozen=True)
class Ruling:
    """The effect of the exceptions on a case. `kind`: waived, half, to, by, or empty when the fee stays whole."""

    applies: bool
    kind: str
    value: Decimal
    text: str
    sentences: tuple[Sentence, ...]

    def on_fee(self, fee: str) -> str:
        """The expression of the rest of a fee expression."""
        match self.kind:
            case "waived":
                return "0"
            case "half":
                return f"{fee} / 2"
            case "to":
                return plain(self.value)
            case "by":
                return f"{fee} * (100 - {plain(self.value)}) / 100"
            case _:
                return fee


def effect_of(text: str) -> tuple[str, Decimal]:
    """The effect of an exception on a fee: its kind and value; an empty kind for a sentence that is no exception."""
    if not (re.search(rf"\b{FEE}\b", text, re.I) or re.search(r"\bwaiv", text, re.I)):
        return "", Decimal(0)
    head = BUT.sub("", text)
    amounts, shares = find_money(head), find_percents(head)
    lowered = LOWERED.search(head)
    if HALVED.search(head):
        return "half", Decimal(0)
    if lowered and shares and not amounts:
        return "by", shares[0].value
    if lowered and amounts and not re.search(r"\b(at most|maximum|capped)\b", head, re.I):
        return "to", amounts[0].amount
    if WAIVED.search(head):
        return "waived", Decimal(0)
    return "", Decimal(0)


def refuses(text: str) -> bool:
    """Whether a sentence takes exceptions away rather than granting one."""
    without_fee = re.search(rf"\bno (?:\w+ ){{0,2}}{FEE}\b", text, re.I)
    return bool(REFUSES.search(text)) and not without_fee and not find_money(text)


def rule_on(sentences: Sequence[Sentence], topic: Topic) -> Ruling | None:
    """The ruling on the case, or None when the sentences hold no exception at all."""
    granting = [s for s in sentences if not s.own and effect_of(s.text)[0] and not refuses(s.text)]
    refusing = [s for s in sentences if not s.own and refuses(s.text)]
    if not granting:
        return None
    fitting = _fitting(granting, topic)
    reason = cause_of(topic.facts) or "its facts"
    if not fitting:
        return _refusal(f"none of those listed covers the case ({reason})", tuple(granting[:3]))
    sentence = fitting[0]
    barred = BUT.search(sentence.text)
    if barred and named_by(barred.group(2), topic):
        return _refusal("the case falls under what the exception leaves out", (sentence,))
    for other in refusing:
        if named_by(other.text, topic) and _same_source(other, sentence, refusing):
            return _refusal("the case is excluded from it", (sentence, other))
    missing = unmet_condition(sentence.text, topic.facts)
    if missing:
        return _refusal(f"its condition ({missing}) is not met", (sentence,))
    kind, value = effect_of(sentence.text)
    return Ruling(True, kind, value, "Exception applies: the case meets its terms", (sentence,))


def _refusal(why: str, sentences: tuple[Sentence, ...]) -> Ruling:
    return Ruling(False, "", Decimal(0), f"No exception applies: {why}", sentences)


def _same_source(other: Sentence, sentence: Sentence, refusing: Sequence[Sentence]) -> bool:
    if other.source == sentence.source:
        return True
    return not any(s.source == sentence.source for s in refusing)


def cause_of(facts: str) -> str:
    """The reason that the facts give, in their own words; empty when they give none."""
    stated = CAUSE.search(facts)
    return re.split(r"\s+(?:and|but|without)\b", stated.group(1))[0].strip() if stated else ""


def _fitting(granting: Sequence[Sentence], topic: Topic) -> list[Sentence]:
    """Exceptions whose circumstances are those of the case, the closest first."""
    cause, facts = stems(cause_of(topic.facts)), stems(topic.facts) - topic.stems
    bags = [stems(BUT.sub("", s.text)) for s in granting]
    shared = set.intersection(*bags) if len(bags) > 1 else set()
    scores = [overlap(cause, bag) if cause else len((bag & facts) - shared) for bag in bags]
    ranked = sorted(zip(scores, granting, strict=True), key=lambda pair: -pair[0])
    return [s for score, s in ranked if score >= (0.5 if cause else 1)]


def named_by(text: str, topic: Topic) -> bool:
    """Whether an exclusion names the case: one of its names, or else most of its words."""
    if set(words(text)) & topic.names:
        return True
    if proper_words(f"x {text}") - topic.names:
        return False
    content = stems(text) - stems("exclude waiver exception extend grant claim")
    return bool(content) and overlap(content, stems(topic.facts)) >= 0.6


def unmet_condition(text: str, facts: str) -> str:
    """The proof that an exception demands and the facts lack; empty when nothing is missing."""
    for condition in CONDITION.finditer(BUT.sub("", text)):
        if not SHOWN.search(condition.group()):
            continue
        asked = stems(condition.group("what")) - SHOWN_STEMS - stems(CONDITION.sub("", text))
        asked = asked or stems(condition.group("what")) - SHOWN_STEMS
        if not asked:
            continue
        what = " ".join(condition.group("what").split()).strip(" .")
        told = [word for word in words(facts) if stems(word) & asked]
        if not told or any(re.search(NEGATED + re.escape(word), facts, re.I) for word in told):
            return what
    return ""
