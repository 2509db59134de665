"""A text to chunks that can be cited. Enters: text with structure. Leaves: chunks with ids, offsets.

Pure. Every block lies in exactly one chunk or, when it is too long, is divided between sentences; a heading
stays with what it heads. A chunk's text is `text[start:end]`, nothing added.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from bulkhead_contracts import bounds
from bulkhead_services.rag.structure import ExtractedText, heading_text

MIN_CHARS = 400
MAX_CHARS = 900
HARD_MAX_CHARS = 1_400
"""A single sentence may be this long before it is cut; also the most that a heading adds to."""

# Bounded repeats: a megabyte of dots must not take quadratic time.
_END = re.compile(r"[.!?…]{1,8}[\"'”’)\]]{0,4}\s+(?=[\"'“‘(\[]*[A-Z0-9À-ÞА-Я])|[。！？]{1,8}")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|cf|vs|approx|resp|incl|excl|no|nr|fig|art|sec|ch|vol|pp?|mr|mrs|ms|dr|prof|st|jr|sr|inc|ltd|"
    r"co|corp|dept|est|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|[a-z]))\.\s*$",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Characters [start, end) of the extracted text; title is the path of headings above it."""

    id: str
    start: int
    end: int
    title: str


@dataclass(frozen=True, slots=True)
class _TextUnit:
    start: int
    end: int
    path: tuple[str, ...]
    heading: bool = False


def chunks_of(name: str, sha256: str, extracted: ExtractedText) -> tuple[Chunk, ...]:
    """Chunks in order of the text. Ids depend on name, content digest and place alone."""
    chunks: list[Chunk] = []
    for group in _pack_units(list(_text_units(extracted))):
        start, end = group[0].start, group[-1].end
        title = " > ".join(_shared_path(group))[: bounds.MAX_TITLE_CHARS]
        chunks.append(Chunk(chunk_id(name, sha256, start), start, end, title))
    return tuple(chunks)


def chunk_id(name: str, sha256: str, start: int) -> str:
    """24 hex digits."""
    return hashlib.blake2b(f"{name}\0{sha256}\0{start}".encode(), digest_size=12).hexdigest()


def _text_units(extracted: ExtractedText) -> Iterator[_TextUnit]:
    path: list[tuple[int, str]] = []
    for block in extracted.blocks:
        if block.kind == "heading":
            path = [(level, title) for level, title in path if level < block.level]
            path.append((block.level, heading_text(extracted.text, block)))
        titles = tuple(title for _, title in path)
        if block.end - block.start <= MAX_CHARS:
            yield _TextUnit(block.start, block.end, titles, block.kind == "heading")
            continue
        for start, end in sentence_spans(extracted.text, block.start, block.end):
            yield from (_TextUnit(a, b, titles) for a, b in _cut_sentence(extracted.text, start, end))


def sentence_spans(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Spans of the sentences in text[start:end], without the white space between them."""
    position = start
    for match in _END.finditer(text, start, end):
        if _ABBREVIATION.search(text, max(position, match.start() - 12), match.end()):
            continue
        stop = match.start() + len(match.group().rstrip())
        if stop < end:
            yield position, stop
            position = match.end()
    if position < end:
        yield position, end


def _cut_sentence(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A sentence as it is, or, over the hard limit, in pieces that end at a clause, a word or anywhere."""
    while end - start > HARD_MAX_CHARS:
        stop = max(text.rfind(mark, start + MIN_CHARS, start + MAX_CHARS) + 1 for mark in (";", ",", "\n"))
        if stop <= start + MIN_CHARS:
            stop = max(text.rfind(blank, start + MIN_CHARS, start + MAX_CHARS) for blank in (" ", "\t", "\n"))
        if stop <= start + MIN_CHARS:
            stop = start + MAX_CHARS
        yield start, stop
        start = stop
        while start < end and text[start].isspace():
            start += 1
    if start < end:
        yield start, end


def _pack_units(units: list[_TextUnit]) -> Iterator[list[_TextUnit]]:
    group: list[_TextUnit] = []
    for unit in units:
        if group and _breaks_chunk(group, unit):
            body_size = len(group)
            while body_size and group[body_size - 1].heading:
                body_size -= 1
            # A heading never ends a chunk: it goes on with what it heads, unless it stands alone.
            if body_size:
                yield group[:body_size]
                group = group[body_size:]
            elif unit.end - group[0].start > HARD_MAX_CHARS:
                yield group
                group = []
        group.append(unit)
    if group:
        yield group


def _breaks_chunk(group: list[_TextUnit], unit: _TextUnit) -> bool:
    if unit.end - group[0].start > MAX_CHARS:
        return True
    return unit.heading and group[-1].end - group[0].start >= MIN_CHARS


def _shared_path(group: list[_TextUnit]) -> tuple[str, ...]:
    body = [unit.path for unit in group if not unit.heading] or [group[-1].path]
    shared: list[str] = []
    for titles in zip(*body, strict=False):
        if len(set(titles)) > 1:
            break
        shared.append(titles[0])
    return tuple(shared)
