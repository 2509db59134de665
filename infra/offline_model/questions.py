"""What a question is after. Enters: its words. Leaves: the stems, codes and kind of value that an answer must have.

Everyday English only: which words carry no subject of their own, which go together, what a date looks like.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from infra.offline_model.claims import Topic
from infra.offline_model.quantities import ANY_MONTH, MONTH_NUMBER, find_dates, find_money, find_percents
from infra.offline_model.text import STOP, proper_words, raw_stem, stem, stems, words

CHORE = stems(
    "documents passages sources citation citing rules policy page manual guide according info information "
    "details everything relevant answer amount sum summarise summarize summary overview write list short brief "
    "calculate compute total sentence agreement"
)
LIGHT = stems(
    "get take need needed happen happened go goes last long many much number amount time times kind sort type thing "
    "want mean come comes put keep possible date day week month year hour minute day working name called call long "
    "cost costs paid pay person people new old first receive expect involve entitle owe due concern concerning "
    "change changes item items things euro euros dollars pounds like want wants year money price"
)
"""Words that say what sort of value is wanted, or nothing: their absence from a document tells little."""
ALIKE_WORDS = (
    "temperature degree degrees hot",
    "price cost costs",
    "fine penalty fee charge",
    "salary wage wages earns",
    "phone telephone",
    "allow allowed permit permitted",
    "annual annually yearly year",
    "monthly month",
    "weekly week",
    "daily day",
    "end terminate finish expire",
    "late overdue",
    "need require required necessary must",
    "open opening",
    "contact email mail",
    "remove removed delete deleted",
    "cover covers covered include",
    "child children kids",
    "vacation holiday leave",
    "drop remove",
    "introduce introduced new added",
    "fix fixed solved",
    "borrow loan lend",
    "bring take",
)
FRAME = stems("decide rules percentages fees limits question exception waiver")
"""Words of a planner's own: `the rules and limits that decide this question: ...`."""
CODE = re.compile(
    r"(?<![\w.#-])(?:#\d{1,9}|[vV]?\d{1,4}(?:\.\d{1,6}){2,3}|(?:version|release) [vV]?\d{1,4}\.\d{1,4}|"
    r"[A-Z]{2,6}-?\d{1,6}|\d{4}-\d{2})(?!\w|-\d|\.\d)"
)
MONTH_OF_YEAR = re.compile(rf"(?<!\d )\b({ANY_MONTH}),? (\d{{4}})\b", re.I)
COUNT_WORDS = {"once": 1, "one": 1, "twice": 2, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
               "eight": 8, "nine": 9, "ten": 10, "twelve": 12}  # fmt: skip
COUNTED = rf"(?:\d[\d.,]*|{'|'.join(COUNT_WORDS)})"
SPAN = re.compile(rf"\b{COUNTED}(?:[- ](?:full|calendar|working|business))?[- ](?:second|minute|hour|day|week|month|"
                  r"year|night)s?\b", re.I)  # fmt: skip
CLOCK = re.compile(r"\b\d{1,2}(?::\d{2}|\s?[ap]\.?m\b)|\bnoon\b|\bmidnight\b", re.I)
WEEKDAY = re.compile(r"\b(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b|\bweekdays?\b|\bweekends?\b", re.I)
OFTEN = re.compile(r"\b(?:once|twice|times|every|each|per|daily|weekly|monthly|yearly|annually)\b", re.I)
NUMBER = re.compile(rf"\b{COUNTED}\b", re.I)
LISTS = re.compile(
    r"^\W*(?:please )?(?:list|name all|give all|enumerate)\b|\bwhat (?:are|were|happened|changed|is new|has changed)\b|"
    r"\bwhich (?:\w+ ){0,3}?\w+s\b",
    re.I,
)
DENIES = re.compile(r"\b(?:not|never|no|without|exclud\w+|forbidden|prohibited)\b|n't\b", re.I)
SUMMARY = re.compile(r"\b(?:summari[sz]e|summary|overview|outline)\b|\bwhat is\b.{0,40}\babout\b", re.I)
FOCUS = re.compile(
    r"\b(?:what|which|who)(?:'s| is| are| was| were) (?:the |a |an |its |their )?((?:[\w'-]+ ){0,3}?[\w'-]+)"
    r"(?: (?:of|for|in|at|on|from|to|with|by|when|if|that|per)\b|\s*[?.]|$)",
    re.I,
)
KINDS = (
    ("often", re.compile(r"\bhow (?:often|many times|frequently)\b", re.I)),
    ("count", re.compile(r"\bhow many\b|\bnumber of\b", re.I)),
    ("span", re.compile(r"\bhow long\b|\bhow soon\b|\bperiod\b|\bduration\b", re.I)),
    ("when", re.compile(r"\bwhen\b|\b(?:what|which) (?:date|day|time|hours)\b|\b(?:until|from|since) what\b", re.I)),
    ("degrees", re.compile(r"\btemperature\b|\bhow (?:hot|cold|warm)\b", re.I)),
    ("money", re.compile(r"\bhow much\b|\b(?:price|costs?|fee|fine|rent|deposit|salary|revenue)\b|\bhow expensive\b", re.I)),
    ("percent", re.compile(r"\bpercent\w*\b", re.I)),
    ("who", re.compile(r"\bwho\b|\bwhom\b", re.I)),
)


def _alike() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for group in ALIKE_WORDS:
        bag = {stem(word) for word in group.split()}
        for one in bag:
            found.setdefault(one, set()).update(bag)
    return {one: frozenset(bag) for one, bag in found.items()}


ALIKE = _alike()
LIGHT_ALL = LIGHT | {raw_stem(word) for word in ("days", "weeks", "months", "years")}


@lru_cache(maxsize=65_536)
def codes(text: str) -> frozenset[str]:
    """Versions, issue numbers, years with a month: what names one thing exactly, in one spelling."""
    found = {re.sub(r"^(?:version |release )?v?", "", match.group().lower()) for match in CODE.finditer(text)}
    for match in MONTH_OF_YEAR.finditer(text):
        short = match.group(1).lower().rstrip(".")[:3]
        month = next(number for full, number in MONTH_NUMBER.items() if full.startswith(short))
        found.add(f"{match.group(2)}-{month:02d}")
    return frozenset(found)


@dataclass(frozen=True)
class Question:
    """One question. `focus`: what is asked of the subject; one of its stems must stand in an answer."""

    wanted: frozenset[str]
    light: frozenset[str]
    codes: frozenset[str]
    focus: frozenset[str]
    names: frozenset[str]
    kind: str
    unit: str
    lists: bool
    summary: bool
    denies: bool

    @property
    def telling(self) -> frozenset[str]:
        return self.wanted - self.light


def read_question(topic: Topic) -> Question:
    """What a task is after; where it has no word of its own, what its facts speak of."""
    task = topic.task
    wanted = (stems(task) - CHORE) or (stems(topic.facts) - CHORE)
    light = wanted & (LIGHT_ALL | (FRAME if re.search(r"\b(?:this question|that decide)\b", task) else set()))
    if light == wanted:
        light = set()
    found = FOCUS.search(task)
    focus = (stems(found.group(1)) - CHORE - LIGHT_ALL) if found else set()
    facts = {stem(name) for name in words(topic.facts)}
    names = {stem(name) for name in proper_words(task)} - facts
    kind = next((name for name, pattern in KINDS if pattern.search(task)), "")
    unit = re.search(r"\bhow many (?:\w+ )?(seconds|minutes|hours|days|weeks|months|years|nights)\b", task, re.I)
    return Question(
        frozenset(wanted), frozenset(light), codes(task), frozenset(focus), frozenset(names & wanted), kind,
        unit.group(1).lower()[:-1] if unit else "", bool(LISTS.search(task)), bool(SUMMARY.search(task)),
        bool(DENIES.search(task)),
    )  # fmt: skip


def meets(word: str, bag: frozenset[str] | set[str]) -> bool:
    """Whether a bag of stems holds a stem or one that everyday English uses for it."""
    return word in bag or bool(ALIKE.get(word, frozenset()) & bag)


def gives(question: Question, text: str) -> bool:
    """Whether a sentence holds the kind of value that is asked for."""
    match question.kind:
        case "often":
            return bool(OFTEN.search(text))
        case "count":
            if question.unit:
                return any(question.unit in match.group().lower() for match in SPAN.finditer(text))
            return bool(NUMBER.search(text))
        case "span":
            return bool(SPAN.search(text))
        case "when":
            return bool(find_dates(text) or CLOCK.search(text) or WEEKDAY.search(text) or SPAN.search(text)
                        or re.search(rf"\b\d{{1,2}} (?:{ANY_MONTH})\b", text))  # fmt: skip
        case "degrees":
            return bool(re.search(r"\d\s?(?:°|degrees?\b)", text, re.I))
        case "money":
            return bool(find_money(text))
        case "percent":
            return bool(find_percents(text))
        case "who":
            return bool(proper_words(text)) or " by " in text
    return False


def other_words(task: str) -> list[str]:
    """Words that documents may use in place of a task's, for a second search."""
    found: dict[str, None] = {}
    for word in words(task):
        if word.lower() not in STOP:
            for group in ALIKE_WORDS:
                if stem(word) in {stem(one) for one in group.split()}:
                    found.update(dict.fromkeys(group.split()))
    return list(found)


def count_of(text: str) -> int | None:
    """A counting word or figure as a number."""
    text = text.lower()
    return COUNT_WORDS.get(text) or (int(text) if text.isdigit() else None)


def pieces_of(task: str, tasks: Sequence[str]) -> list[str]:
    """The questions of a task, each to be answered by itself."""
    return list(dict.fromkeys(tasks)) if len(tasks) > 1 else [task]
