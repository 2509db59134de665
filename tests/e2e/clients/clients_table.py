"""The page on clients: which program and version was tried with what, what works, what is refused and why.

In: what tests saw, row by row. Out: docs/reference/clients.md. Tests compare their rows with the page; with
BULKHEAD_WRITE_CLIENTS=1 they write them onto it.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tests.paths import ROOT

PAGE = ROOT / "docs" / "reference" / "clients.md"
WRITES = os.environ.get("BULKHEAD_WRITE_CLIENTS") == "1"
_LINE = re.compile(r"^\| (.+) \|$", re.M)


@dataclass(frozen=True)
class ClientRow:
    """One line of a table. section: the heading above the table. key: the cells that say what was tried."""

    section: str
    key: tuple[str, ...]
    outcome: tuple[str, ...]

    @property
    def line(self) -> str:
        """The line as it stands on the page."""
        return f"| {' | '.join((*self.key, *self.outcome))} |"


def check_row(row: ClientRow) -> None:
    """Compare a row with the page, or write it. Raises AssertionError."""
    text = PAGE.read_text()
    if WRITES:
        PAGE.write_text(_put(text, row))
        return
    assert row.line in text.splitlines(), f"{PAGE.name} tells otherwise: set BULKHEAD_WRITE_CLIENTS=1\n{row.line}"


def rows_of(section: str) -> list[Sequence[str]]:
    """Cells of the lines of a section, without those of its head."""
    part = _section(PAGE.read_text(), section)[1]
    return [line.split(" | ") for line in _LINE.findall(part)][2:]


def _put(text: str, row: ClientRow) -> str:
    before, part, after = _section(text, row.section)
    start = f"| {' | '.join(row.key)} | "
    lines = part.rstrip("\n").split("\n")
    places = [index for index, line in enumerate(lines) if line.startswith(start)]
    if places:
        lines[places[0]] = row.line
    else:
        lines.append(row.line)
    end = "\n\n" if after else "\n"
    return before + "\n".join(lines) + end + after


def _section(text: str, name: str) -> tuple[str, str, str]:
    """The text before a section, the section with its heading, and the text after it."""
    start = text.index(f"## {name}\n")
    end = text.find("\n## ", start) + 1 or len(text)
    return text[:start], text[start:end], text[end:]
