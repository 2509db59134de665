"""Workflows at GitHub have the rights that they need, take actions by commit, and end; two linters agree.

Every night runs schedules of its own; a tag that is not the version, or has no section in the changelog, is no release.
"""

import hashlib
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.paths import ROOT
from tests.simulation.__main__ import KNOWN_SEEDS

WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())
NAMES = [file.stem for file in WORKFLOWS]
WORKFLOW = {file.stem: file for file in WORKFLOWS}
BIN = Path(sys.executable).parent
PINNED = {
    "actions/attest@1e69f48acb82d1966a394da916b4c1698aa569d6": "v4.2.2",
    "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1": "v7.0.1",
    "actions/download-artifact@3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c": "v8.0.1",
    "actions/setup-python@5fda3b95a4ea91299a34e894583c3862153e4b97": "v7.0.0",
    "actions/upload-artifact@bbbca2ddaa5d8feaa63e36b76fdaad77386f024f": "v7.0.0",
}
"""Commits that were looked up in the repositories of these actions, each with its tag."""
READ, PULL, PUSH = {"contents": "read"}, {"packages": "read"}, {"packages": "write"}
ATTEST, VERIFY = {"id-token": "write", "attestations": "write"}, {"attestations": "read"}
RIGHTS = {
    ("release", "build"): READ | PUSH,
    ("release", "test"): READ | PULL,
    ("release", "sign"): READ | ATTEST,
    ("release", "publish"): READ | ATTEST,
    ("release", "announce"): {"contents": "write"},
    ("promote", "examine"): READ | PULL | VERIFY,
    ("promote", "promote"): {"contents": "write"} | PUSH | VERIFY,
    ("rollback", "examine"): READ | PULL | VERIFY,
    ("rollback", "rollback"): {"contents": "write"} | PUSH | VERIFY,
}
"""Rights of jobs that have more than reading the code; two have an identity of GitHub's (id-token)."""
SCRIPT = "infra/release/images.sh "


def _read(file: Path) -> dict[str, Any]:
    found = yaml.safe_load(file.read_text())
    assert isinstance(found, dict)
    return found


def _commits(workflow: str, job: str) -> bool:
    """Whether a job commits to the branch: a job that changes an environment is named for its workflow."""
    return job == workflow and job in ("promote", "rollback")


NIGHTLY = _read(ROOT / ".github" / "workflows" / "nightly.yml")["jobs"]["simulate"]


@pytest.mark.parametrize("file", WORKFLOWS, ids=NAMES)
def test_a_workflow_has_the_rights_that_it_needs_and_ends(file: Path) -> None:
    found = _read(file)
    assert found["concurrency"]["group"]
    for name, job in found["jobs"].items():
        assert {**found["permissions"], **job.get("permissions", {})} == RIGHTS.get((file.stem, name), READ)
        assert job["timeout-minutes"] <= 90 and job["runs-on"] == "ubuntu-24.04"
        # An identity, and what changes an environment, is given where reviewers stand before it; there are no secrets.
        authority = "id-token" in job.get("permissions", {}) or _commits(file.stem, name)
        assert authority == ("environment" in job) and "secrets." not in str(job)


@pytest.mark.parametrize("file", WORKFLOWS, ids=NAMES)
def test_every_action_is_a_commit_that_was_looked_up(file: Path) -> None:
    used = re.findall(r"uses: (\S+)(?: # (\S+))?", file.read_text())
    assert used and all(PINNED.get(action) == version for action, version in used)
    for name, job in _read(file)["jobs"].items():
        # A job that waited for its reviewer commits to what the branch has then.
        wanted: dict[str, object] = {"persist-credentials": False}
        wanted |= {"ref": "${{ github.ref }}"} if _commits(file.stem, name) else {}
        # A rollback looks for what the environment had.
        wanted |= {"fetch-depth": 0} if name == "rollback" else {}
        checkouts = [step for step in job["steps"] if "checkout@" in step.get("uses", "")]
        assert all(step["with"] == wanted for step in checkouts)


def test_promotions_and_rollbacks_of_all_environments_wait_for_each_other() -> None:
    """Production takes what staging has now, and both write to one branch."""
    wanted = {"group": "promote", "cancel-in-progress": False}
    assert [_read(WORKFLOW[name])["concurrency"] for name in ("promote", "rollback")] == [wanted, wanted]


def test_the_list_that_was_reviewed_is_the_one_that_is_promoted() -> None:
    """A version may have another list by the time the reviewer has agreed."""
    for name in ("promote", "rollback"):
        jobs = _read(WORKFLOW[name])["jobs"]
        (given,) = [step for step in jobs["examine"]["steps"] if "upload-artifact@" in step.get("uses", "")]
        (taken,) = [step for step in jobs[name]["steps"] if "download-artifact@" in step.get("uses", "")]
        assert given["with"] == {"name": "examined", "path": "images.sha256"}
        assert taken["with"] == {"name": "examined"} and jobs[name]["needs"] == "examine"
        assert "release download" not in str(jobs[name])


def test_workflows_call_the_script_of_images_and_build_in_one_place() -> None:
    calls = {}
    for name in WORKFLOW:
        scripts = [step.get("run", "") for job in _read(WORKFLOW[name])["jobs"].values() for step in job["steps"]]
        calls[name] = [shlex.split(text.partition(" | ")[0])[1:] for text in scripts if text.startswith(SCRIPT)]
    assert {name: [row[0] for row in rows] for name, rows in calls.items() if rows} == {
        "release": ["build", "push", "test"],
        "promote": ["verify", "promote"],
        "rollback": ["verify", "rollback"],
    }


def test_what_is_attested_was_tested_and_no_code_of_the_release_stands_beside_the_identity() -> None:
    jobs = _read(WORKFLOW["release"])["jobs"]
    assert jobs["sign"]["needs"] == "test" and jobs["test"]["needs"] == "build"
    assert "checkout@" not in str(jobs["sign"])


def test_one_statement_names_the_list_its_images_and_their_materials(tmp_path: Path) -> None:
    (step,) = [step for step in _read(WORKFLOW["release"])["jobs"]["sign"]["steps"] if "run" in step]
    (tmp_path / "release").mkdir()
    listed = f"{'1f' * 32}  registry.example.org/bulkhead/worker:v1\n"
    (tmp_path / "release/images.sha256").write_text(listed)
    (tmp_path / "release/worker.cdx.json").write_text("{}")
    subprocess.run(["bash", "-eo", "pipefail", "-c", step["run"]], cwd=tmp_path, check=True, timeout=60)
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in (listed, "{}")]
    wanted = f"{listed}{digests[0]}  images.sha256\n{digests[1]}  worker.cdx.json\n"
    assert (tmp_path / "subjects.sha256").read_text() == wanted


LINTERS = {
    "zizmor": ["zizmor", "--offline", "--pedantic", "--quiet", "--no-progress"],
    "schema": ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"],
    "issue form": ["check-jsonschema", "--builtin-schema", "vendor.github-issue-forms"],
    "issue chooser": ["check-jsonschema", "--builtin-schema", "vendor.github-issue-config"],
}
TEMPLATES = ROOT / ".github" / "ISSUE_TEMPLATE"
LINTED = {
    "zizmor": WORKFLOWS,
    "schema": WORKFLOWS,
    "issue form": [TEMPLATES / "bug.yml", TEMPLATES / "feature.yml"],
    "issue chooser": [TEMPLATES / "config.yml"],
}
UNPINNED = "on: push\njobs: {build: {runs-on: x, steps: [{uses: actions/checkout@v4}], timeout-minutes: soon}}\n"


def _lint(linter: str, *files: Path) -> "subprocess.CompletedProcess[str]":
    program, *options = LINTERS[linter]
    return subprocess.run(
        [str(BIN / program), *options, *map(str, files)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("linter", LINTERS)
@pytest.mark.slow
def test_a_linter_finds_nothing_in_workflows_and_something_in_a_bad_one(linter: str, tmp_path: Path) -> None:
    done = _lint(linter, *LINTED[linter])
    assert done.returncode == 0, done.stdout + done.stderr
    bad = tmp_path / ".github" / "workflows" / "bad.yml"
    bad.parent.mkdir(parents=True)
    bad.write_text(UNPINNED)
    assert _lint(linter, bad).returncode != 0


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CLIENT = "libs/bulkhead-client/pyproject.toml"
HOOKS = _read(ROOT / ".pre-commit-config.yaml")["repos"]


def test_hooks_before_a_commit_call_programs_of_the_venv() -> None:
    """Versions are those of the lock: nothing is fetched for a hook."""
    (local,) = HOOKS
    assert local["repo"] == "local" and {hook["language"] for hook in local["hooks"]} == {"system"}
    for hook in local["hooks"]:
        program = hook["entry"].split()[0]
        assert program.startswith(".venv/bin/") and (BIN / Path(program).name).exists()


def test_every_python_that_the_package_names_is_tried() -> None:
    jobs = _read(WORKFLOW["ci"])["jobs"]
    (setup,) = [step for step in jobs["test"]["steps"] if "setup-python@" in step.get("uses", "")]
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if ":: Python :: 3." in line]
    assert [setup["with"]["python-version"], *jobs["pythons"]["strategy"]["matrix"]["python"]] == named
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_every_page_tells_the_repository_that_the_package_names() -> None:
    home = PROJECT["urls"]["Homepage"]
    name = re.escape(PROJECT["name"])
    pages = [ROOT / "CHANGELOG.md", *sorted(TEMPLATES.iterdir())]
    client = tomllib.loads((ROOT / CLIENT).read_text())["project"]
    assert client["version"] == PROJECT["version"] and client["requires-python"] == PROJECT["requires-python"]
    addresses = [*PROJECT["urls"].values(), *client["urls"].values()]
    addresses += [one for page in pages for one in re.findall(rf"https://github.com/[^/]+/{name}\b", page.read_text())]
    assert len(addresses) > 6 and all(one == home or one.startswith(f"{home}/") for one in addresses)


def _release_of(folder: Path, tag: str) -> "subprocess.CompletedProcess[str]":
    """What the workflow calls for a tag, on a copy of what it reads before it builds."""
    for name in (".ci/package", "pyproject.toml", CLIENT, "CHANGELOG.md", ".github/ISSUE_TEMPLATE/config.yml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            shutil.copy(ROOT / name, folder / name)
    if not (folder / ".venv").exists():
        (folder / ".venv").symlink_to(BIN.parent)
    return subprocess.run([".ci/package", tag], cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("tag", "changelog", "said"),
    [
        ("v9.9.9", None, "the tag is v9.9.9"),
        ("v{version}", "## [Unreleased]\n\n- A change.\n", "no section"),
        ("v{version}", "## [{version}] - 2026-01-01\n\n## [0.0.9] - 2025-01-01\n\n- A change.\n", "no section"),
        ("v{version}", None, "OWNER"),
    ],
)
def test_what_is_no_release_is_refused_before_anything_is_built(
    tmp_path: Path, tag: str, changelog: str | None, said: str
) -> None:
    if changelog is not None:
        (tmp_path / "CHANGELOG.md").write_text(changelog.format(version=PROJECT["version"]))
    elif said == "OWNER":
        # Whatever stands in this tree by now.
        home = "https://github.com/OWNER/bulkhead"
        text = f'[project]\nversion = "{PROJECT["version"]}"\nurls = {{ Homepage = "{home}" }}\n'
        (tmp_path / "pyproject.toml").write_text(text)
    done = _release_of(tmp_path, tag.format(version=PROJECT["version"]))
    assert done.returncode == 4 and said in done.stderr, done.stdout + done.stderr
    assert not (tmp_path / "dist").exists()


def test_the_changelog_is_newest_first_and_has_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == ("Unreleased", "") and headings[1][0] == PROJECT["version"]
    numbers = [tuple(map(int, version.split("."))) for version, _ in headings[1:]]
    assert numbers == sorted(numbers, reverse=True) and all(date for _, date in headings[1:])


def _nightly(number: int) -> list[str]:
    """What a run of this number calls, by make itself: the arguments of `python -m tests.simulation`."""
    (script,) = [step["run"] for step in NIGHTLY["steps"] if "run" in step]
    environ = {**os.environ, "GITHUB_RUN_NUMBER": str(number), "MAKEFLAGS": "n"}
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    (line,) = [one for one in done.stdout.replace("\\\n", "").splitlines() if " -m tests.simulation " in one]
    return shlex.split(line)


def _seeds(called: list[str]) -> range:
    first, last = called[called.index("--seeds") + 1].split("-")
    return range(int(first), int(last) + 1)


def test_every_night_has_seeds_that_no_other_run_has() -> None:
    every = [KNOWN_SEEDS, *(_seeds(_nightly(number)) for number in (1, 2, 3, 400))]
    assert all(before[-1] < after[0] and len(after) > 500_000 for before, after in itertools.pairwise(every))


def test_what_a_night_finds_is_kept() -> None:
    """There is time left to shrink it; and what begins with a dot the action leaves out."""
    called = _nightly(1)
    (upload,) = [step for step in NIGHTLY["steps"] if step.get("uses", "").startswith("actions/upload-artifact@")]
    assert upload["if"] == "failure()" and upload["with"]["path"] == called[called.index("--found") + 1]
    assert not upload["with"]["path"].startswith(".") and "--keep-going" in called
    assert float(called[called.index("--minutes") + 1]) < NIGHTLY["timeout-minutes"] - 10
