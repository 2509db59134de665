"""Headings, paragraphs, items and rows of a text. Enters: text. Leaves: blocks with offsets.

Pure. Blocks are in order, do not overlap, and hold every character that is not white space.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

BlockKind = Literal["heading", "paragraph", "item", "row", "code"]


@dataclass(frozen=True, slots=True)
class Block:
    """One piece of text: characters [start, end). level is a heading's depth, 0 for everything else."""

    kind: BlockKind
    start: int
    end: int
    level: int = 0


@dataclass(frozen=True, slots=True)
class ExtractedText:
    """The text that offsets refer to, and its structure."""

    text: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class BlockText:
    """A block before it has a place. text: on one line, unless it is code."""

    kind: BlockKind
    level: int
    text: str


def join_blocks(texts: Sequence[BlockText]) -> ExtractedText:
    """The text of blocks: blank lines between them, but not between rows or items; headings and items are marked."""
    pieces: list[str] = []
    blocks: list[Block] = []
    offset, previous = 0, ""
    for block in texts:
        kind, level = block.kind, block.level
        gap = "" if not pieces else "\n" if kind == previous and kind in ("item", "row") else "\n\n"
        mark = "- " if kind == "item" else "#" * level + " " if kind == "heading" else ""
        pieces.append(gap + mark + block.text)
        blocks.append(Block(kind, offset + len(gap), offset + len(pieces[-1]), level))
        offset += len(pieces[-1])
        previous = kind
    return ExtractedText("".join(pieces) + ("\n" if pieces else ""), tuple(blocks))


_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+\S")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_ITEM = re.compile(r"[ \t]*(?:[-*+•–]|\(?\d{1,3}[.)]|[a-z][.)])[ \t]+\S")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_ROW = re.compile(r"[ \t]*\|.*\||[^|]+\|[^|]+\|[^|]+")
_NUMBERED = re.compile(r"(\d{1,3}(?:\.\d{1,3})*)\.?[ \t]+\S")
_MAX_PLAIN_HEADING_CHARS = 80


def heading_text(text: str, block: Block) -> str:
    """A heading without its marks, on one line."""
    lines = text[block.start : block.end].strip().splitlines()
    if len(lines) > 1 and _UNDERLINE.match(lines[-1]):
        lines.pop()
    line = " ".join(" ".join(lines).split())
    return re.sub(r"^#{1,6}\s+|\s+#+$", "", line)


def read_structure(text: str, *, markdown: bool) -> ExtractedText:
    """Blocks of Markdown, or of plain text, whose headings are recognised by how they stand alone."""
    reader = _StructureReader(text, markdown)
    offset = 0
    for line in text.splitlines(keepends=True):
        reader.add_line(line, offset)
        offset += len(line)
    reader.end_block()
    blocks = reader.blocks if markdown else _plain_headings(text, reader.blocks)
    return ExtractedText(text, tuple(blocks))


class _StructureReader:
    """Line by line; `open` is the block that the next line may continue."""

    def __init__(self, text: str, markdown: bool) -> None:
        self._text, self._markdown = text, markdown
        self._kind: BlockKind = "paragraph"
        self._start = -1
        self._end = -1
        self._lines = 0
        self._fence = ""
        self.blocks: list[Block] = []

    def add_line(self, line: str, at: int) -> None:
        """Take the next line, which begins at offset `at`."""
        if self._fence:
            self._add_fenced_line(line, at)
        elif not line.strip():
            self.end_block()
        elif self._markdown and (fence := _FENCE.match(line)):
            self.end_block()
            self._fence = fence.group(1)
            self._open_block("code", line, at)
        elif self._markdown and (atx := _ATX.match(line)):
            self.end_block()
            self._open_block("heading", line, at)
            self.end_block(level=len(atx.group(1)))
        elif self._markdown and self._kind == "paragraph" and self._lines == 1 and _UNDERLINE.match(line):
            self._extend_block(line, at)
            self._kind = "heading"
            self.end_block(level=1 if line.lstrip().startswith("=") else 2)
        elif _ITEM.match(line):
            self.end_block()
            self._open_block("item", line, at)
        elif _ROW.match(line):
            self.end_block()
            self._open_block("row", line, at)
        elif self._start < 0 or self._kind == "row":
            self.end_block()
            self._open_block("paragraph", line, at)
        else:
            self._extend_block(line, at)

    def _add_fenced_line(self, line: str, at: int) -> None:
        if line.strip():
            self._extend_block(line, at)
        if line.strip().startswith(self._fence) and not line.strip().strip(self._fence[0]):
            self._fence = ""
            self.end_block()

    def _open_block(self, kind: BlockKind, line: str, at: int) -> None:
        self._kind, self._start, self._lines = kind, at + len(line) - len(line.lstrip()), 0
        self._extend_block(line, at)

    def _extend_block(self, line: str, at: int) -> None:
        self._end = at + len(line.rstrip())
        self._lines += 1

    def end_block(self, level: int = 0) -> None:
        """End the open block, if any."""
        if self._start >= 0:
            self.blocks.append(Block(self._kind, self._start, self._end, level))
        self._kind, self._start, self._lines = "paragraph", -1, 0


def _plain_headings(text: str, blocks: list[Block]) -> list[Block]:
    """In plain text a heading is a short line alone between blank lines, without a stop, with text below."""
    marked_blocks: list[Block] = []
    for index, block in enumerate(blocks):
        level = 0
        if index + 1 < len(blocks) and block.kind in ("paragraph", "item") and _stands_alone(text, blocks, index):
            level = _plain_level(text[block.start : block.end], first=index == 0)
        marked_blocks.append(Block("heading", block.start, block.end, level) if level else block)
    return marked_blocks


def _stands_alone(text: str, blocks: list[Block], index: int) -> bool:
    before = text[blocks[index - 1].end : blocks[index].start] if index else "\n\n"
    after = text[blocks[index].end : blocks[index + 1].start]
    return before.count("\n") >= 2 and after.count("\n") >= 2


def _plain_level(line: str, *, first: bool) -> int:
    if "\n" in line or len(line) > _MAX_PLAIN_HEADING_CHARS or line[-1] in ".!?:;,":
        return 0
    if line[0] in "-*+•–" or not any(character.isalpha() for character in line):
        return 0
    if numbered := _NUMBERED.match(line):
        return min(6, 2 + numbered.group(1).count("."))
    return 1 if first or line.isupper() else 2
