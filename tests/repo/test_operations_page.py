"""docs/operations.md stays true: its commands exist with these options, and what it says is said is said somewhere."""

import re
from pathlib import Path

import pytest

from tests.repo.commands import exists

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()
CODE = [block.replace("\\\n", " ") for block in re.findall(r"(?:^    .*\n)+", PAGE, re.M)]
COMMANDS = [line.split(" #")[0].strip() for block in CODE for line in block.splitlines()]
COMMANDS += [inline.replace("\n", " ") for inline in re.findall(r"`((?:bulkhead|python -m) [^`]+)`", PAGE)]
SAID = re.findall(r"^\| (`.+`) \|", PAGE.partition("## When it goes wrong")[2], re.M)


def test_there_is_something_to_look_at() -> None:
    assert len(COMMANDS) > 15 and len(SAID) > 8


@pytest.mark.parametrize("line", sorted(set(COMMANDS)))
def test_a_command_of_the_page_exists_with_its_options(line: str) -> None:
    exists(line)


def _sources() -> str:
    """All strings of the code as they are when they are said."""
    folders = ("libs", "infra", "services", "contracts")
    text = "\n".join(path.read_text() for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return re.sub(r'"\s*\n\s*f?"', "", text)


@pytest.mark.parametrize("row", SAID)
def test_what_the_page_says_is_said_is_said(row: str) -> None:
    source = _sources()
    for quoted in re.findall(r"`([^`]+)`", row):
        if quoted == "Read-only file system":
            continue  # The system's own words.
        for part in re.split(r"\.\.\.|: |\b[NM]\b", quoted):
            assert part.strip() in source or part.strip() == "Permission denied", f"nobody says {part.strip()!r}"
