"""README stays true: its commands and targets exist, its links lead somewhere; and CI does what it says."""

import re
from pathlib import Path

import pytest
import typer

from bulkhead.cli.main import app
from tests.repo.commands import exists

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", *(str(one.relative_to(ROOT)) for one in sorted((ROOT / "docs").glob("*.md"))))
README = (ROOT / "README.md").read_text()
FENCED = "\n".join(re.findall(r"```\n(.*?)```", README, re.S))
COMMANDS = re.findall(r"^\.venv/bin/(bulkhead .*?)(?:\s+#.*)?$", FENCED, re.M)
TARGETS = {name for page in PAGES for name in re.findall(r"(?:`|^ *)make ([a-z]+(?:-[a-z]+)*)\b",
                                                         (ROOT / page).read_text(), re.M)}
LINKS = [(page, link) for page in PAGES
         for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text())]


def test_there_is_something_to_look_at() -> None:
    assert len(COMMANDS) >= 8 and {"demo", "setup", "test"} <= TARGETS and len(LINKS) > 15


@pytest.mark.parametrize("line", sorted(set(COMMANDS)))
def test_a_command_exists_with_its_options(line: str) -> None:
    exists(line)


def test_every_command_is_named() -> None:
    told = {line.split()[1] for line in COMMANDS}
    told |= {word for names in re.findall(r"lists the rest\s+\(`([^`]*)`\)", README) for word in names.split()}
    there = {*typer.main.get_command(app).commands}
    assert (there - told, told - there - {"--help"}) == (set(), set())


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_target_of_make_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


def test_links_lead_somewhere() -> None:
    assert [one for one in LINKS if not (ROOT / one[0]).parent.joinpath(one[1]).exists()] == []


def test_the_two_commands_set_up_first() -> None:
    rules = (ROOT / "Makefile").read_text()
    assert re.search(r"^demo: setup\b", rules, re.M) and re.search(r"^up: setup\b", rules, re.M)
    assert re.search(r"^test: setup\b", rules, re.M)


def test_ci_is_one_script_that_calls_what_people_call() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert re.findall(r"^\s+- run: (.*)$", workflow, re.M) == [".ci/run"]
    script = (ROOT / ".ci" / "run").read_text()
    assert re.search(r"^make setup$", script, re.M) and re.search(r"^BULKHEAD_STRICT_SKIPS=1 make test ", script, re.M)
