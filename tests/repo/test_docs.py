"""Pages under docs/: their links lead somewhere, commands, files, classes and functions that they name exist, quoted
messages are said by the code, and all pages together stay short."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from bulkhead.gateway_api.approvals import State as ApprovalState
from bulkhead.gateway_api.tasks import Status, StepStatus
from bulkhead.gateway_api.writes import WriteState
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.retrieval import RetrievalReplied
from bulkhead_contracts.tool import ToolCallReplied
from tests.paths import ROOT
from tests.repo.commands import exists

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
ENTRANCES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
READMES = [*ROOT.glob("services/*/*/README.md"), *ROOT.glob("infra/*/*/README.md")]
FOLDERS = ("contracts/", "docs/", "infra/", "libs/", "services/", "tests/")
_LISTED = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
TREE = [f"/{line}" for line in _LISTED.stdout.decode().splitlines() if (ROOT / line).is_file()]
MAX_WORDS = 45_000
FOREIGN = {"AnthropicModel", "HttpOnly", "PermissionDeniedError", "RuntimeDefault"}
"""Names of others' code that pages quote."""
RENDERED = "<!-- rendered by "
TROUBLES = (DOCS / "how-to" / "troubleshooting.md").read_text()
SAID = re.findall(r"^\| (`.+`) \|", TROUBLES, re.M)


def _commands(text: str) -> set[str]:
    """Calls of `bulkhead` or a module in code blocks and inline code; a line may go on after a backslash."""
    blocks = re.findall(r"^```(?:console|sh)?\n(.*?)^```", text, re.M | re.S)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [inline.replace("\n", " ") for inline in re.findall(r"`((?:bulkhead|python -m) [^`]+)`", text)]
    calls = (re.sub(r"^(?:[A-Z_]+=(?:'[^']*'|\S*) +)*(?:\.venv/bin/)?", "", line) for line in lines)
    return {call for call in calls if call.startswith(("bulkhead ", "python -m ")) and not call.endswith(" COMMAND")}


# What is rendered cannot differ from its source, and its usage lines hold placeholders.
COMMANDS = sorted({call for page in PAGES if page.parent.name != "reference" for call in _commands(page.read_text())})


def test_there_is_something_to_look_at() -> None:
    assert len(COMMANDS) > 40 and len(SAID) > 8 and len(PAGES) > 50 and len(READMES) > 10


@pytest.mark.parametrize("line", COMMANDS)
@pytest.mark.slow
def test_a_command_exists_with_its_options(line: str) -> None:
    exists(line)


def _sources() -> str:
    """All strings of the code as they are when they are said."""
    folders = ("libs", "infra", "services", "contracts", "cli")
    text = "\n".join(path.read_text() for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return re.sub(r'"\s*\n\s*f?"', "", text)


@pytest.mark.parametrize("row", SAID)
def test_a_quoted_message_is_said_by_the_code(row: str) -> None:
    source = _sources()
    for quoted in re.findall(r"`([^`]+)`", row):
        if quoted == "Read-only file system":
            continue  # The system's own words.
        for part in re.split(r"\.\.\.|: |\b[NM]\b", quoted):
            assert part.strip() in source or part.strip() == "Permission denied", f"nobody says {part.strip()!r}"


def _anchor(heading: str) -> str:
    plain = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", lambda match: match[1] or "", heading).strip().lower()
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", plain))


def _anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    return {_anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.M)}


@pytest.mark.parametrize("page", [*ENTRANCES, *PAGES, *READMES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@pytest.mark.parametrize("page", [*ENTRANCES, *PAGES, *READMES], ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path) -> None:
    """Python files by the end of their path, other files and folders by the whole path."""
    for name in re.findall(r"`([\w./-]+)`", page.read_text()):
        if name.endswith(".py") and name != "vN.py":
            assert any(path == f"/{name}" or path.endswith(f"/{name}") for path in TREE), f"there is no {name}"
        elif name.startswith(FOLDERS):
            assert f"/{name}" in TREE or any(path.startswith(f"/{name.rstrip('/')}/") for path in TREE), name


@pytest.fixture(scope="module")
def definitions() -> set[str]:
    """Definitions in the tree: `Class`, `Class.member`, `function()`."""
    names = set[str]()
    for path in (path[1:] for path in TREE if path.endswith(".py")):
        owner = ""
        lines = re.findall(r"^( *)(class |def |async def |)(\w+)(?=[(:\[]| =)", (ROOT / path).read_text(), re.M)
        for indent, kind, name in lines:
            if not indent:
                owner = name if kind == "class " else ""
            elif owner and len(indent) == 4:
                names.add(f"{owner}.{name}")
            names.add(f"{name}()" if kind.endswith("def ") else name if kind else "")
    return names


@pytest.mark.parametrize("page", [*ENTRANCES, *PAGES, *READMES], ids=lambda page: str(page.relative_to(ROOT)))
def test_named_classes_and_functions_exist(page: Path, definitions: set[str]) -> None:
    """In backticks: `Class.member`, `function()`, and a class whose name has two words or more."""
    named = set(re.findall(r"`([A-Z][a-z]\w*\.\w+|\w+\(\)|(?:[A-Z][a-z]+){2,})`", page.read_text()))
    assert named - FOREIGN <= definitions, sorted(named - FOREIGN - definitions)


def test_every_page_stands_in_the_navigation() -> None:
    named = set(re.findall(r"[\w/.-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert named == {str(page.relative_to(DOCS)) for page in PAGES}


def test_every_state_stands_in_the_reference() -> None:
    replies = (ModelCallReplied, RetrievalReplied, ToolCallReplied)
    outcomes = {name for reply in replies for name in get_args(reply.model_fields["outcome"].annotation)}
    states = {*get_args(Status), *get_args(StepStatus), *outcomes, *get_args(ApprovalState), *get_args(WriteState)}
    rows = re.findall(r"^\| .*", (DOCS / "reference" / "states.md").read_text(), re.M)
    assert states <= set(re.findall(r"`(\w+)`", " ".join(rows)))


def test_all_pages_together_stay_short() -> None:
    # Pages that people write: a rendered one is as long as what it lists. A bar or a list's dash is no word.
    texts = {page: page.read_text() for page in [*PAGES, *READMES]}
    words = {page: len(re.findall(r"\S*\w\S*", text)) for page, text in texts.items() if RENDERED not in text[:60]}
    longest = sorted(words.items(), key=lambda item: -item[1])[:5]
    assert sum(words.values()) <= MAX_WORDS, [f"{page.relative_to(ROOT)}: {count}" for page, count in longest]


def test_every_decision_that_the_code_names_has_a_section() -> None:
    listed = set(re.findall(r"^## (\d{4}) ", (DOCS / "adr" / "README.md").read_text(), re.M))
    named = {
        number
        for folder in ("libs", "infra", "services", "contracts", "cli", "tests", "docs")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".md", ".yaml")
        for number in re.findall(r"(?:ADR |adr/)(\d{4})", path.read_text())
    }
    assert named <= listed, sorted(named - listed)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    fetched = re.findall(r'<(?:script|link)[^>]+(?:src|href)="https?://[^"]+', (tmp_path / "index.html").read_text())
    assert not [link for link in fetched if "canonical" not in link], "the site fetches from outside"
