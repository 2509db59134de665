"""A text's sentences with their places. Markdown's bullets, headings and table rows are sentences of their own."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bulkhead.grounding.language import MONTHS, fold_text

MARKER = re.compile(r"\[#([0-9a-f]{12})\]")
_LOOSE_MARKER = re.compile(r"[\[(【]\s*+(?:#\s*+)?([0-9a-f]{12})\s*+[\])】]|(?<!\w)#([0-9a-f]{12})(?!\w)")
MARK = re.compile(r" ?\[unverified: [^\]\n]{0,200}\]")
"""As a sentence that nothing supports is marked."""
_END = re.compile(r"(?<![.!?])[.!?]++[\"')\]*_”]*+(?=\s)|[。！？]+")
_LINE_START = re.compile(r"\s*(?:[-*+•#|>]|\d{1,3}[.)]\s|```|~~~)")
_CLOSES = (".", "!", "?", ":", ";", "。", "！", "？", "|", ">")
_NUMBERED = frozenset({"no", "nr", "art", "sec", "para", "abs", "fig", "p", "pp"})
_ABBREVIATED = "e.g i.e etc bzw ca ggf inkl zzgl dr mr mrs ms st vs cf al z.b d.h approx"
_ABBREVIATIONS = frozenset(_ABBREVIATED.split())
_WORD_BEFORE = re.compile(r"([^\s(\[]{1,12})\Z")


@dataclass(frozen=True, slots=True)
class TextSentence:
    """One sentence. start, end: characters of the text, without blanks around it. markers: those it carries."""

    text: str
    start: int
    end: int
    markers: tuple[str, ...] = ()

    @property
    def bare_text(self) -> str:
        """Its words, without markers, marks and Markdown's emphasis."""
        return MARK.sub("", MARKER.sub("", self.text)).replace("**", "").replace("`", "").strip(" \t#>*_-•|")


def with_plain_markers(text: str, known: frozenset[str]) -> str:
    """The text with each form of a known marker that models write, (#id), [id] or #id, as [#id]."""

    def rewrite_marker(match: re.Match[str]) -> str:
        marker = match[1] or match[2]
        return f"[#{marker}]" if marker in known else match[0]

    return _LOOSE_MARKER.sub(rewrite_marker, text)


def split_sentences(text: str) -> tuple[TextSentence, ...]:
    """The sentences in order, each with the markers that follow it."""
    found_sentences: list[TextSentence] = []
    for start, end in _sentence_spans(text):
        piece = text[start:end]
        if found_sentences and not MARK.sub("", MARKER.sub("", piece)).strip(" .;,*_|\n"):
            before = found_sentences.pop()
            start, piece = before.start, text[before.start : end]
        found_sentences.append(TextSentence(piece, start, end, tuple(dict.fromkeys(MARKER.findall(piece)))))
    return tuple(found_sentences)


def _sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Places of the sentences, stripped of blanks; empty ones are left out."""
    for start, end in _line_blocks(text):
        position = start
        for stop in _END.finditer(text, start, end):
            if stop.end() < end and _ends_sentence(text, stop):
                yield from _strip_span(text, position, stop.end())
                position = stop.end()
        yield from _strip_span(text, position, end)


def _strip_span(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    if piece.strip():
        yield start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())


def _ends_sentence(text: str, stop: re.Match[str]) -> bool:
    """True when a full stop ends a sentence: not after an abbreviation, nor in a date such as `1. April`."""
    if stop[0][0] != ".":
        return True
    following = text[stop.end() : stop.end() + 24].lstrip()
    before = _WORD_BEFORE.search(text, max(0, stop.start() - 13), stop.start())
    last_word = fold_text(before[1]) if before else ""
    if last_word in _ABBREVIATIONS or following[:1].islower() or (last_word in _NUMBERED and following[:1].isdigit()):
        return False
    if len(last_word) == 1 and last_word.isalpha() and following[:1].isupper():
        return False  # An initial.
    name = re.match(r"[^\W\d_]+", following)
    if last_word.isdigit() and len(last_word) <= 2 and name is not None and len(name[0]) <= 3 and name[0].isupper():
        return False  # `2. OG` is a floor.
    return not (last_word.isdigit() and len(last_word) <= 2 and name is not None and fold_text(name[0]) in MONTHS)


def _line_blocks(text: str) -> Iterator[tuple[int, int]]:
    """Runs of lines that read on: a line that ends in the middle of a sentence goes on in the next."""
    start = position = 0
    lines = text.splitlines(keepends=True)
    for index, line in enumerate(lines):
        position += len(line)
        following = lines[index + 1] if index + 1 < len(lines) else ""
        stripped = line.strip()
        if (
            not stripped
            or not following.strip()
            or stripped.endswith(_CLOSES)
            or is_row(line)
            or is_row(following)
            or _LINE_START.match(following)
            or stripped.startswith(("#", "```"))
        ):
            yield start, position
            start = position
    if start < position:
        yield start, position


def is_row(line: str) -> bool:
    """True for a row of a table: cells apart by bars, tabs, or commas without blanks."""
    return (
        line.count("|") >= 2 or line.count("\t") >= 1 or (line.count(",") - line.count(", ") >= 2 and len(line) < 2_000)
    )


def split_cells(row: str) -> list[str]:
    """The cells of a row."""
    for apart in ("|", "\t", ";"):
        if row.count(apart) >= (2 if apart == "|" else 1):
            return [cell.strip() for cell in row.strip().strip("|").split(apart)]
    return [cell.strip() for cell in row.split(",")]
