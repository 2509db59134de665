"""The repository keeps its own rules: top level, sizes, one declaration for everything."""

import subprocess
from pathlib import Path

import pytest

from bulkhead_contracts import catalog
from bulkhead_infra.render import readmes
from tests.paths import ROOT

TOP = {
    "README.md",
    "examples",
    "services",
    "libs",
    "cli",
    "contracts",
    "infra",
    "tests",
    "Makefile",
    "docker-compose.yml",
    "docker-compose.cluster.yml",
    ".github",
    "docs",
    ".ci",
    "pyproject.toml",
    "requirements.lock",
    "CONTRIBUTING.md",
    ".gitignore",
    "LICENSE",
    "SECURITY.md",
    "CHANGELOG.md",
    ".pre-commit-config.yaml",
    "mkdocs.yml",
}


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(line) for line in listed.splitlines()]


def test_the_top_level_is_the_agreed_one():
    assert {path.parts[0] for path in _tracked()} <= TOP


def test_no_file_is_longer_than_a_sitting():
    long = {
        str(p): n
        for p in _tracked()
        if p.suffix == ".py" and (ROOT / p).is_file() and (n := len((ROOT / p).read_text().splitlines())) > 600
    }
    assert not long


def test_make_has_few_targets():
    targets = [line for line in (ROOT / "Makefile").read_text().splitlines() if ":" in line and "## " in line]
    assert 5 <= len(targets) <= 22


@pytest.mark.parametrize("service", catalog.EVERY_SERVICE)
def test_a_service_has_the_shape_of_its_siblings(service):
    folder = ROOT / "services" / "bulkhead_services" / service
    core = () if service in (*catalog.EDGES, *catalog.IN_KUBERNETES) else ("core.py",)
    settings = () if service in catalog.DECIDERS else ("settings.py",)
    for name in ("README.md", "__init__.py", "app.py", *core, *settings):
        assert (folder / name).is_file(), f"{service} lacks {name}"


@pytest.mark.parametrize("service", catalog.EVERY_SERVICE)
def test_a_readme_fits_a_screen_and_has_its_messages(service):
    text = (ROOT / "services" / "bulkhead_services" / service / "README.md").read_text()
    table = f"{readmes.BEGIN}\n{readmes.message_table(service)}\n{readmes.END}"
    assert table in text
    assert len(text.replace(table, "").splitlines()) <= 60
