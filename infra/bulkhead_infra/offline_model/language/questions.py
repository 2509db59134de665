"""The subject of a question. Enters: a topic. Leaves: the words that an answer must hold, and the kind of value.

Everyday English only: words that name no subject of their own, and the form of answers to `when` or `how much`.
"""

import re
from dataclasses import dataclass

from bulkhead_infra.offline_model.language.claims import Topic
from bulkhead_infra.offline_model.language.quantities import ANY_MONTH, find_dates, find_money, find_percents
from bulkhead_infra.offline_model.language.text import proper_words, stems, words

CHORE = stems(
    "documents passages sources citation citing rules policy page manual guide according info information "
    "details everything relevant answer final amount sum summarise summarize summary overview outline write list "
    "calculate compute text total altogether together short brief sentence earlier previous explain describe"
)
LIGHT = stems(
    "get take need happen go goes last long many much number time times kind sort type thing want mean come put keep "
    "possible date day week month year hour minute call name cost costs price pay pays paid expensive person people "
    "someone anyone new first receive have like is there person item euro dollar pound money working know "
    "eur usd gbp chf once twice often back bring left extra additional"
)
"""Words that name a sort of value, or little: an answer may well lack them."""
CODE = re.compile(r"(?<![\w.-])(?:[A-Z]{1,6}-?\d{1,6}|[vV]?\d+(?:\.\d+){2,3})(?![\w-])")
SUMMARY = re.compile(
    r"\b(?:summari[sz]e|summary|overview|outline)\b|\bwhat (?:is|does) .{1,60}\b(?:say|about)\s*\?", re.I
)
CLOCK = re.compile(r"\b\d{1,2}(?::\d{2}|\s?[ap]\.?m\b)|\bnoon\b|\bmidnight\b", re.I)
SPAN = re.compile(r"\b[\w-]+[ -](?:second|minute|hour|day|night|week|month|year)s?\b", re.I)
WHEN = re.compile(rf"\b(?:\w+day|weekends?|before|after|until|by|once|{ANY_MONTH})\b", re.I)
DENIES = re.compile(r"\b(?:not|never|without|forbidden|prohibited)\b", re.I)
PLAIN_NUMBER = re.compile(  # `rule 7`, `room 12 of`; not one that counts: `3 nights`
    r"(?<![\d.,-])\d+(?:[.,]\d+)*(?![\w-]| (?!(?:costs?|means?|about|of|in|is|for|on|at|to|and|or|say)\b)[a-z])"
)
UNIT_ASKED = re.compile(r"\bhow (?:many|much) (\w+) of\b", re.I)
CATEGORY = re.compile(r"\bwhich (\w+)|\bhow (tall|heavy|old|far|big|large|wide|deep|fast|high|hot|loud)\b", re.I)
"""The sort of thing that is asked for: an answer names the thing itself, or gives its measure."""
LENGTH = re.compile(
    r"\b(?:in|with|using) (?:at most |about |under |up to )?\d+ ?(?:%|percent|per cent)?(?: of (?:its|the|their))? ?"
    r"(?:words|sentences|lines|characters)\b",
    re.I,
)
"""The wanted length of an answer, which is nothing to look for."""
ASKING = re.compile(r"\b(?:how|when|what|who|where|which|why|whether)\b", re.I)
LISTING = re.compile(r"\bwhat (?:are|were)\b|\b(?:list|name|explain|describe|which)\b", re.I)
KINDS = (
    ("when", re.compile(r"\bwhen\b|\b(?:what|which) (?:date|day|time|hours)\b|\bhow (?:early|late|soon)\b", re.I)),
    ("span", re.compile(r"\bhow (?:long|often|many (?:days|weeks|months|years|hours|minutes|times))\b", re.I)),
    ("money", re.compile(r"\bhow (?:much|expensive)\b|\b(?:price|costs?|fee|pay)\b", re.I)),
    ("number", re.compile(r"\bhow many\b|\bnumber of\b|\bhow (?:far|big|large|heavy|hot|loud|tall)\b", re.I)),
    ("percent", re.compile(r"\bpercent\w*\b", re.I)),
    ("who", re.compile(r"\bwho(?:m|se)?\b", re.I)),
    ("denial", DENIES),
)


@dataclass(frozen=True)
class Question:
    """`wanted` stems of which `light` tell little; `codes` such as E4 must stand in an answer."""

    wanted: frozenset[str]
    light: frozenset[str]
    codes: frozenset[str]
    kinds: tuple[str, ...]
    compound: bool
    summary: bool
    listing: bool
    near: frozenset[str]
    sort: frozenset[str]
    """The light stems that only name the sort of thing (`which plant`, `how tall`)."""

    @property
    def telling(self) -> frozenset[str]:
        return self.wanted - self.light


def read_question(topic: Topic) -> Question:
    """The question of a task; one without a telling word (`when do I get it back?`) borrows the words of the facts."""
    wanted = stems(LENGTH.sub(" ", topic.task)) - CHORE
    numbers = set(PLAIN_NUMBER.findall(topic.task))
    unit = UNIT_ASKED.search(topic.task)
    little = LIGHT | stems(unit.group(1)) if unit else LIGHT
    sort = {word for match in CATEGORY.finditer(topic.task) for word in stems(match.group(1) or match.group(2))}
    sort = sort - little if wanted - little - sort else set()
    little = little | sort
    if not (wanted - little or numbers):
        wanted |= stems(topic.facts) - CHORE
    light = wanted & little if wanted - little or numbers else set()
    return Question(
        frozenset(wanted | numbers),
        frozenset(light | numbers if wanted - light else light),
        frozenset(codes_of(topic.task)),
        tuple(kind for kind, pattern in KINDS if pattern.search(topic.task)),
        len(ASKING.findall(topic.task)) > 1,
        bool(SUMMARY.search(topic.task)),
        bool(LISTING.search(topic.task)),
        frozenset(stems(topic.facts) - wanted),
        frozenset(sort),
    )


def bag_of(text: str) -> frozenset[str]:
    """Stems, numbers and codes of a text, to compare with a question's words."""
    numbers = {word.rstrip(".,") for word in words(text) if word[0].isdigit()}
    return frozenset(stems(text) | numbers)


def codes_of(text: str) -> set[str]:
    return {match.group().lower() for match in CODE.finditer(text)}


def gives(kind: str, text: str) -> bool:
    """Whether a sentence holds the kind of value that is asked for."""
    match kind:
        case "when":
            return bool(find_dates(text) or CLOCK.search(text) or SPAN.search(text) or WHEN.search(text))
        case "span":
            return bool(SPAN.search(text))
        case "money":
            return bool(find_money(text) or find_percents(text))
        case "number":
            return bool(re.search(r"\d", text))
        case "percent":
            return bool(find_percents(text))
        case "denial":
            return bool(DENIES.search(text))
        case "who":
            return bool(proper_words(f"x {text}"))
    return False
