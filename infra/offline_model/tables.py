"""Rows of tables in a text. Enters: text. Leaves: prose and rows, each row with its headings.

Lines with the same number of commas, semicolons, tabs or bars are rows; the first without a figure is the head.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

CELL_CHARS_MAX = 80
SEPARATORS = ("|", "\t", ";", ",")
RULE = re.compile(r"^[\s|:+-]+$")


@dataclass(frozen=True)
class Row:
    """One row: (heading, cell) pairs; the heading is empty where the table has none."""

    cells: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        return "; ".join(f"{name} {cell}".strip() for name, cell in self.cells if cell)


Piece = str | Row


def pieces_of(text: str, heads: dict[int, tuple[str, ...]]) -> list[Piece]:
    """Prose and rows in order. heads: headings by number of columns, for tables that go on in another passage."""
    lines, found, prose = text.splitlines(), [], []
    at = 0
    while at < len(lines):
        separator, length = _table_at(lines, at)
        if not separator:
            prose.append(lines[at])
            at += 1
            continue
        if prose:
            found.append("\n".join(prose))
            prose = []
        found.extend(_rows([_cells(line, separator) for line in lines[at : at + length] if not RULE.match(line)], heads))
        at += length
    return [*found, "\n".join(prose)] if prose else found


def _cells(line: str, separator: str) -> tuple[str, ...]:
    return tuple(cell.strip().strip('"') for cell in line.strip().strip("|" if separator == "|" else " ").split(separator))


def _table_at(lines: Sequence[str], at: int) -> tuple[str, int]:
    """The separator and the number of lines of a table that begins here; ("", 0) when none does."""
    for separator in SEPARATORS:
        width = _width(lines[at], separator)
        if not width:
            continue
        length = 1
        while at + length < len(lines) and (
            _width(lines[at + length], separator) == width or (separator == "|" and RULE.match(lines[at + length]))
        ):
            length += 1
        if length >= 2:
            return separator, length
    return "", 0


def _width(line: str, separator: str) -> int:
    if separator not in line or (separator == "," and (re.search(r",\s|[.;:?!]$", line) or line.count(",") < 2)):
        return 0
    if separator == ";" and re.search(r"; |\.$", line):
        return 0
    cells = _cells(line, separator)
    return len(cells) if len(cells) >= 2 and all(len(cell) <= CELL_CHARS_MAX for cell in cells) else 0


def _rows(rows: Sequence[tuple[str, ...]], heads: dict[int, tuple[str, ...]]) -> list[Row]:
    head = heads.get(len(rows[0])) if rows else None
    found = []
    for index, cells in enumerate(rows):
        if index == 0 and not any(re.search(r"\d", cell) for cell in cells) and len(rows) > 1:
            head = heads[len(cells)] = tuple(re.sub(r"[_*`]+", " ", cell) for cell in cells)
            continue
        names = head if head and len(head) == len(cells) else ("",) * len(cells)
        found.append(Row(tuple(zip(names, cells, strict=True))))
    return found
