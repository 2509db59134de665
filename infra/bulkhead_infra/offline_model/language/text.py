"""Words and sentences of plain English. Enters: text. Leaves: stems, sentences, proper words.

Nothing here knows a subject: stop words, suffixes and a few groups of everyday synonyms only.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*\d*|\d[\d.,]*[A-Za-z]*")
MARKER = re.compile(r"\[#([0-9a-f]{12})\]")
ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|approx|incl|excl|no|nr|vs|mr|mrs|ms|dr|st|art|sec|para)\.$", re.I)

STOP = frozenset(
    """a an the and or but nor so yet of in on at to for from by with without into onto over under about as if
    then than that this these those it its is are was were be been being am do does did done has have had having
    will would shall should can could may might must not no any all each every some such which who whom whose
    what when where why how there here he she they them his her their you your we us our i me my one also only
    very more most other another out up down off per via within between during before after again further both
    same own just because while until against through above below too find out check determine identify state
    tell give work please using use used answer question document documents result results step steps case
    given say says said look read whether case apply applies applied let make made""".split()  # noqa: SIM905
)

SENTENCE_CHARS_MAX = 1_500  # a longer one is no sentence, and patterns are matched over each
LINE_WRAPPED_FROM = 60  # characters; prose is seldom wrapped before
PAID_BACK = re.compile(r"\b(?:paid|pay|pays|gets?|got|given?|gives|comes?) back\b|\breturned\b", re.I)

# Groups of everyday synonyms; the first word of a group stands for all of it.
SYNONYMS = (
    "refund reimburse reimbursement repay repaid repayment payback",
    "fee charge deduction penalty surcharge",
    "cancel cancellation annul",
    "waive waiver exempt exemption exception except",
    "begin start commence",
    "buy bought purchase",
    "maximum cap ceiling",
    "minimum floor",
    "repair fix mend",
    "vehicle car",
    "guarantee warranty",
    "percent percentage",
    "illness ill sick sickness",
    "die death dead died deceased",
    "water watering irrigate",
    "often frequently frequency",
    "allow permit",
    "holiday vacation",
    "phone telephone",
    "freeze frozen",
    "child children kid",
    "person people",
    "late overdue",
    "ask request",
)

ENDING = re.compile(r"(?<=...)(?:(?:ation|ment|ing|ion|ure)s?|ie[sd]|e[dsr]|ly|al|s|e)$")
"""The longest ending of a word that leaves at least three characters."""


@lru_cache(maxsize=65_536)
def raw_stem(word: str) -> str:
    """A word without its commonest endings, so that cancelled, cancels and cancellation are the same."""
    stem = word.lower().replace("’", "'").removesuffix("'s").strip("'-")
    if stem[:1].isdigit():
        return stem.rstrip(".,").replace(",", "")
    for _ in range(2):
        stem = ENDING.sub("", stem)
    if len(stem) > 3 and stem[-1] == stem[-2]:
        stem = stem[:-1]
    return stem[:-1] if len(stem) > 3 and stem[-1] in "yi" else stem


CANONICAL = {raw_stem(word): raw_stem(group.split()[0]) for group in SYNONYMS for word in group.split()}


def stem(word: str) -> str:
    """The canonical stem of a word: its ending cut, its synonym group's first word taken."""
    cut = raw_stem(word)
    return CANONICAL.get(cut, cut)


def words(text: str) -> list[str]:
    """Words and numbers of a text in order, citation markers left out."""
    return WORD.findall(MARKER.sub(" ", text).replace("%", " percent "))


def stems(text: str) -> set[str]:
    """Content stems of a text: stop words, single letters and bare numbers left out."""
    content = (word for word in words(PAID_BACK.sub("refund", text)) if word.lower() not in STOP and len(word) > 1)
    return {stem(word) for word in content if not word[0].isdigit()}


MONTH_WORDS = frozenset(
    "january february march april may june july august september october november december monday tuesday "  # noqa: SIM905
    "wednesday thursday friday saturday sunday".split()
)
NO_NAMES = STOP | MONTH_WORDS


def other_words(text: str) -> str:
    """Words that documents may use in place of a text's own: bare stems and everyday synonyms."""
    others = dict.fromkeys(sorted(stems(text)))
    for group in SYNONYMS:
        if set(others) & {stem(word) for word in group.split()}:
            others.update(dict.fromkeys(group.split()))
    return " ".join(others)


def proper_words(text: str) -> set[str]:
    """Words that a text treats as names: capitalised inside a sentence, or in quotation marks."""
    names: set[str] = set()
    for sentence in split_sentences(text):
        for match in list(re.finditer(r"[A-Za-z][\w'’-]*", sentence))[1:]:
            word = match.group().removesuffix("'s").removesuffix("’s")
            before = sentence[: match.start()].rstrip()
            is_code = word.isupper() and len(word) == 3
            if word[0].isupper() and not is_code and word.lower() not in NO_NAMES and before[-1:] not in ":.•":
                names.add(word)
    return names


def split_sentences(text: str) -> list[str]:
    """Sentences and list items of a text, white space folded; a decimal point does not end a sentence."""
    sentences: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        lines: list[str] = []
        for line in block.splitlines():
            item = re.match(r"\s*(?:[-*•]\s+|\d{1,2}[.)]\s+|#{1,6}\s+|\|)", line)
            if item or not lines or lines[-1].lstrip().startswith("#") or _stands_alone(lines[-1], line):
                lines.append(line)
            else:
                lines[-1] += " " + line.strip()
        for line in lines:
            sentences.extend(_sentences_of_line(" ".join(line.split())))
    return sentences


def _stands_alone(line: str, following: str) -> bool:
    """Whether a short line is no wrapped prose: the following line begins a new sentence."""
    return len(line) < LINE_WRAPPED_FROM and line.rstrip()[-1:] not in ",;(" and following.lstrip()[:1].isupper()


def _sentences_of_line(line: str) -> list[str]:
    pieces: list[str] = []
    start = 0
    for match in re.finditer(r"[.!?](?:[\"”')\]]*)(?:\s*\[#[0-9a-f]{12}\])*[.]?\s+(?=[\"“'(\[A-Z0-9`])", line):
        bare = line[start : match.start() + 1]
        if ABBREVIATION.search(bare) or re.fullmatch(r"\d{1,2}\.", bare):
            continue
        pieces.append(line[start : match.end()].strip())
        start = match.end()
    if rest := line[start:].strip():
        pieces.append(rest)
    return [piece[at : at + SENTENCE_CHARS_MAX] for piece in pieces for at in range(0, len(piece), SENTENCE_CHARS_MAX)]


def strip_list_sign(text: str) -> str:
    """A line without its bullet, number or heading sign."""
    return re.sub(r"^\s*(?:[-*•]\s+|\d{1,2}[.)]\s+|#{1,6}\s+|[a-z][)]\s+)", "", text).strip()


def overlap(left: Iterable[str], right: Iterable[str]) -> float:
    """Share of `left` that is in `right`, 0..1."""
    wanted = set(left)
    return len(wanted & set(right)) / len(wanted) if wanted else 0.0
