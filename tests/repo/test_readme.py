"""README and the page about code: their commands and targets exist, their examples run and are answered rightly; and
CI does what they say. Links: test_docs.py."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from bulkhead.testing.mesh_under_test import MeshUnderTest
from bulkhead_cli.main import app
from bulkhead_services.planner.app import LOGICS
from tests.paths import ROOT
from tests.repo.commands import exists

DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = ("README.md", "CONTRIBUTING.md", *(str(page.relative_to(ROOT)) for page in DOCS))
README = (ROOT / "README.md").read_text()
FENCED = "\n".join(re.findall(r"```\n(.*?)```", README, re.S))
COMMANDS = re.findall(r"^\.venv/bin/(bulkhead .*?)(?:\s+#.*)?$", FENCED, re.M)
FROM_CODE = (ROOT / "docs" / "how-to" / "use-from-code.md").read_text()
CODE = re.search(r"## Python\n\n```python\n(.*?)```", FROM_CODE, re.S)[1]
ANSWER = re.compile(r"“Access to the closed stacks is approved by the head archivist, Ines Moreau” \[#?\w+\]\.")
TARGETS = {
    name
    for page in PAGES
    for name in re.findall(r"(?:`|^ *)make ([a-z]+(?:-[a-z]+)*)\b", (ROOT / page).read_text(), re.M)
}


def test_there_is_something_to_look_at() -> None:
    assert len(COMMANDS) >= 8 and {"demo", "setup", "test"} <= TARGETS


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


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 120


def test_the_two_commands_set_up_first() -> None:
    rules = (ROOT / "Makefile").read_text()
    assert re.search(r"^demo: \$\(VENV\)/.mesh\b", rules, re.M) and re.search(r"^up: \$\(VENV\)/.mesh\b", rules, re.M)
    assert re.search(r"^\$\(VENV\)/\.ready: \$\(VENV\)/\.mesh$", rules, re.M)
    assert re.search(r"^test: setup\b", rules, re.M)


def test_ci_is_one_script_that_calls_what_people_call() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert re.findall(r"^\s+- run: (.*)$", workflow, re.M) == [".ci/run", "make test", "make coverage"]
    script = (ROOT / ".ci" / "run").read_text()
    assert re.search(r"^make setup$", script, re.M) and re.search(r"\|\| set -- test test-rest$", script, re.M)


def test_the_page_of_replay_tells_every_decision_logic() -> None:
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "explanation" / "durable-execution.md").read_text(), re.M)
    assert [int(one) for one in rows] == sorted(LOGICS)


@pytest.mark.slow
def test_the_example_of_the_command_line_is_answered_rightly(mesh_memory: MeshUnderTest) -> None:
    (line,) = [one for one in COMMANDS if one.startswith("bulkhead submit ")]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bulkhead_cli.main",
            *shlex.split(line)[1:],
            "--url",
            mesh_memory.url,
            "--api-key",
            mesh_memory.key(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.partition("\nsucceeded\n\n")[2].partition("\n\n[1]")[0]
    assert ANSWER.fullmatch(said), done.stdout


@pytest.mark.slow
def test_the_example_in_python_runs_as_it_stands(mesh_memory: MeshUnderTest, tmp_path: Path) -> None:
    """But for the address: there any mesh may be, here this test's is."""
    assert CODE.count("http://127.0.0.1:8080") == 1
    (tmp_path / "infra").symlink_to(ROOT / "infra")
    (tmp_path / ".bulkhead").mkdir()
    (tmp_path / ".bulkhead" / "credentials.json").write_text(json.dumps({"operator": mesh_memory.key()}))
    code = CODE.replace("http://127.0.0.1:8080", mesh_memory.url)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    answer, standing, source, *_ = done.stdout.splitlines()
    assert ANSWER.fullmatch(answer) and standing.startswith("yes ok 0."), done.stdout
    assert source.startswith("archive-access.md characters "), done.stdout
