"""Sentences to answer from. Enters: passages and earlier results. Leaves: sentences with source and date.

A line of an earlier result looks like `“sentence” (in force from DATE) [#id] [#id].`. It is parsed here, so that a
later step sees the document's own words, the date since which they hold, and the ids that support them.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from bulkhead_infra.offline_model.language.quantities import Day, find_dates, find_money, find_percents
from bulkhead_infra.offline_model.language.text import MARKER, split_sentences, stems, strip_list_sign
from bulkhead_infra.offline_model.parts import Part

SENTENCES_MAX = 4_000
IN_FORCE = re.compile(
    r"(?i)\b(effective|in force|into force|into effect|takes? effect|valid|appl(?:y|ies|icable)|binding|as of|holds?|"
    r"starting|beginning) *"
)
WEAKER = re.compile(r"\b(version|edition|dated|issued|published|revised|updated|amended)\b", re.I)
ENDS = re.compile(r"\b(until|till|to|through|expires?|before|replac\w+|supersed\w+|edition of|dated)\s+(the )?$", re.I)
OWN_LINE = re.compile(r"^“([^”]*)”(?: \(in force from ([^)]*)\))?((?:\s*\[#[0-9a-f]{12}\])+)\.?$")


@dataclass(frozen=True)
class Sentence:
    """One sentence; `markers` are the ids that support it, `own` marks a conclusion of an earlier step.

    `follows`: the sentence comes right after the one before it in the list, in one paragraph.
    """

    text: str
    markers: tuple[str, ...]
    source: str
    context: str = ""
    since: Day | None = None
    since_marker: str = ""
    own: bool = False
    follows: bool = False

    @property
    def stems(self) -> set[str]:
        return stems(self.text)

    @property
    def cited(self) -> tuple[str, ...]:
        """Ids to cite when the sentence is used with its date."""
        extra = (self.since_marker,) if self.since_marker and self.since_marker not in self.markers else ()
        return (*self.markers, *extra)


def sentences_of_passages(passages: Iterable[Part]) -> list[Sentence]:
    """Sentences of document passages, each with the date since which its document holds."""
    by_id: dict[str, Part] = {}
    for part in passages:
        by_id.setdefault(part.id, part)
    dates = _effective_dates(by_id.values())
    sentences: list[Sentence] = []
    for part in by_id.values():
        context = above = part.attributes.get("title", "")
        since, marker = dates.get(part.source, (None, ""))
        for block in re.split(r"\n\s*\n", part.text):
            follows = False
            for piece in rows_of(block) or split_sentences(block):
                text = strip_list_sign(re.sub(r"[*_`|]+", " ", piece)).strip()
                text = " ".join(re.sub(r"#{2,6} ", "", text).split())
                if not text:
                    continue
                if is_heading(piece, text):
                    context, follows = f"{above} {text}".strip(), False
                    above = context if piece.startswith("# ") else above
                    continue
                sentences.append(Sentence(text, (part.id,), part.source, context, since, marker, follows=follows))
                follows = True
    return sentences[:SENTENCES_MAX]


def rows_of(block: str) -> list[str]:
    """Rows of a Markdown table, each as `Heading cell; Heading cell.`; empty when the block is no table."""
    lines = [line.strip() for line in block.splitlines() if line.strip()]
    if len(lines) < 3 or not all(line.startswith("|") for line in lines) or not re.fullmatch(r"[|:\s-]+", lines[1]):
        return []
    head, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]
    return ["; ".join(" ".join(pair) for pair in zip(head, row, strict=False) if pair[1]) + "." for row in rows]


def is_heading(line: str, text: str) -> bool:
    """Whether a line is short, does not end like a sentence and gives no value."""
    if line.lstrip().startswith("#") and len(text.split()) <= 10:
        return True
    if text[-1] in ".!?;:" or line.lstrip()[:1] in "-*•" or len(text.split()) > 8:
        return False
    return not (find_dates(text) or find_money(text) or find_percents(text))


def _effective_dates(passages: Collection[Part]) -> dict[str, tuple[Day, str]]:
    dates: dict[str, tuple[Day, str]] = {}
    for strong in (True, False):
        for part in passages:
            stated = find_dates(part.attributes.get("effective", "")) if strong else []
            if stated:
                dates[part.source] = (stated[0], part.id)
            for piece in split_sentences(part.text):
                when = effective_day(piece, strong)
                if when and part.source not in dates:
                    dates[part.source] = (when, part.id)
    return dates


def effective_day(sentence: str, strong: bool = True) -> Day | None:
    """The date since which a rule holds by a sentence; `strong=False` accepts a version's date too."""
    sign = (IN_FORCE if strong else WEAKER).search(sentence)
    after = [when for when in find_dates(sentence) if sign and when.start > sign.start()]
    return next((when for when in after if not ENDS.search(sentence[: when.start])), None)


def sentences_of_results(inputs: Iterable[Part]) -> list[Sentence]:
    """Sentences of earlier results: quoted lines as documents' words, the others as own conclusions."""
    sentences: list[Sentence] = []
    for part in inputs:
        for line in map(str.strip, part.text.splitlines()):
            if quoted := OWN_LINE.match(line):
                markers = tuple(MARKER.findall(quoted.group(3)))
                since = next(iter(find_dates(quoted.group(2) or "")), None)
                dated_by = markers[1] if since and len(markers) > 1 else ""
                sentences.append(Sentence(quoted.group(1), markers[:1], f"#{markers[0]}", "", since, dated_by))
                continue
            for piece in split_sentences(line):
                markers = tuple(dict.fromkeys(MARKER.findall(piece)))
                if text := MARKER.sub("", piece).strip(" ."):
                    sentences.append(Sentence(text, markers, part.attributes.get("step", "input"), own=True))
    return [replace(sentence, text=" ".join(sentence.text.split())) for sentence in sentences[:SENTENCES_MAX]]


def marks(ids: Iterable[str]) -> str:
    """Citation markers of ids, each once."""
    return " ".join(f"[#{part_id}]" for part_id in dict.fromkeys(ids))


def quote(sentence: Sentence) -> str:
    """A document's sentence as an answer gives it, without its markers."""
    inner = sentence.text.rstrip(" .").replace("“", "'").replace("”", "'")
    since = f" (in force from {sentence.since.raw})" if sentence.since else ""
    return f"“{inner}”{since}"


def quoted_line(sentence: Sentence) -> str:
    """One line of an answer: the sentence, the date since which it holds, the ids that support it."""
    return f"{quote(sentence)} {marks(sentence.cited)}."
