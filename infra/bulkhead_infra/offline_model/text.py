"""Words, sentences and dates of plain English. Enters: text. Leaves: stems, sentences, dates."""

import re
from collections.abc import Iterable
from datetime import date
from functools import lru_cache

WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*\d*|\d[\d.,]*[A-Za-z]*")
MARKER = re.compile(r"\[#([0-9a-f]{12})\]")
SENTENCE_CHARS_MAX = 1_500  # a longer one is no sentence, and patterns are matched over each
SENTENCE_END = re.compile(r"(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\b[MD]r\.)(?<!\bNo\.)(?<=[.!?])\s+(?=[\"“'(\[A-Z0-9`])")
LINE_END = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*•#|]|\d{1,2}[.)]\s))")
LIST_SIGN = re.compile(r"^\s*(?:[-*•]\s+|\d{1,2}[.)]\s+|#{1,6}\s+)")
ENDING = re.compile(r"(?<=...)(?:(?:ation|ment|ing|ion|ure)s?|ie[sd]|e[dsr]|ly|al|s|e)$")
STOP = frozenset(
    """a an the and or but nor so yet of in on at to for from by with without into onto over under about as if
    then than that this these those it its is are was were be been being am do does did done has have had having
    will would shall should can could may might must not no any all each every some such which who whom whose
    what when where why how there here he she they them his her their you your we us our i me my one also only
    very more most other another out up down off per via within between during before after again further both
    same own just because while until against through above below too find check determine tell give please using
    use used answer question document documents result results step steps given say says said look whether let
    many much long often get take need new like want""".split()  # noqa: SIM905
)
MONTHS = "january february march april may june july august september october november december".split()  # noqa: SIM905
_MONTH = "|".join(MONTHS)
DATE = re.compile(
    rf"(?i)\b(\d{{4}})-(\d{{2}})-(\d{{2}})\b|\b(\d{{1,2}}) ({_MONTH}) (\d{{4}})\b|\b({_MONTH}) (\d{{1,2}}), (\d{{4}})\b"
)


@lru_cache(maxsize=65_536)
def stem_of(word: str) -> str:
    """A word without its commonest endings, so that cancelled, cancels and cancellation are the same."""
    stem = word.lower().replace("’", "'").removesuffix("'s").strip("'-.,")
    for _ in range(2):
        stem = ENDING.sub("", stem)
    if len(stem) > 3 and stem[-1] == stem[-2]:
        stem = stem[:-1]
    return stem[:-1] if len(stem) > 3 and stem[-1] in "yi" else stem


def content_words(text: str) -> list[str]:
    """Words and numbers of a text in order, without stop words, single letters and citation markers."""
    words = WORD.findall(MARKER.sub(" ", text).replace("%", " percent "))
    return [word for word in words if word.lower() not in STOP and (len(word) > 1 or word.isdigit())]


def stems(text: str) -> set[str]:
    return {stem_of(word) for word in content_words(text)}


def overlap(left: Iterable[str], right: Iterable[str]) -> float:
    """Share of `left` that is in `right`, 0..1."""
    whole = set(left)
    return len(whole & set(right)) / len(whole) if whole else 0.0


def split_sentences(text: str) -> list[str]:
    """Sentences, headings and list items of a text, white space folded and list signs left out."""
    text = re.sub(r"(?m)^(#{1,6} .*)$", r"\n\n\1\n\n", text)
    lines = (" ".join(LIST_SIGN.sub("", line).split()) for line in LINE_END.split(text))
    pieces = (piece for line in lines for piece in SENTENCE_END.split(line) if piece)
    return [piece[at : at + SENTENCE_CHARS_MAX] for piece in pieces for at in range(0, len(piece), SENTENCE_CHARS_MAX)]


def find_dates(text: str) -> list[date]:
    """Calendar dates in order: 2025-05-03, 3 May 2025, May 3, 2025."""
    days = []
    for match in DATE.finditer(text):
        g = match.groups()
        year, month, day = next(row for row in (g[:3], (g[5], g[4], g[3]), (g[8], g[6], g[7])) if row[0])
        try:
            days.append(date(int(year), int(month) if month.isdigit() else MONTHS.index(month.lower()) + 1, int(day)))
        except ValueError:
            continue
    return days
