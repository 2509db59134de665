"""The AsyncAPI document is valid by the AsyncAPI project's own parser (npm; pinned in package-lock.json)."""

import fcntl
import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bulkhead_contracts import catalog
from bulkhead_infra.render import asyncapi, schemas
from tests.needs import need
from tests.paths import ROOT

HERE = Path(__file__).resolve().parent
LOCK = HERE / "package-lock.json"
INSTALLED = HERE / "node_modules" / ".installed"
INSTALL_TIMEOUT_S = 150
Validate = Callable[[str], tuple[int, dict[str, Any]]]


def _install(npm: str) -> None:
    """`npm ci` once per lock file; workers of one test run wait for each other."""
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    with (Path(tempfile.gettempdir()) / f"bulkhead-asyncapi-{wanted[:12]}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if INSTALLED.is_file() and INSTALLED.read_text() == wanted:
            return
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=HERE,
            text=True,
            capture_output=True,
            timeout=INSTALL_TIMEOUT_S,
        )
        assert done.returncode == 0, f"npm ci failed; try it in {HERE.name}/\n{done.stdout}{done.stderr}"
        INSTALLED.write_text(wanted)


@pytest.fixture(scope="module")
def validate(tmp_path_factory: pytest.TempPathFactory) -> Validate:
    need("node")  # The AsyncAPI parser is an npm package.
    node, npm = shutil.which("node"), shutil.which("npm")
    assert node and npm
    _install(npm)
    file = tmp_path_factory.mktemp("asyncapi") / "asyncapi.yaml"

    def run(text: str) -> tuple[int, dict[str, Any]]:
        file.write_text(text)
        done = subprocess.run([node, HERE / "validate.mjs", file], capture_output=True, text=True, timeout=60)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    return run


@pytest.mark.slow
def test_the_committed_document_is_valid_and_whole(validate):
    code, found = validate((asyncapi_file()).read_text())
    assert (code, found["errors"], found["warnings"]) == (0, [], [])
    assert found["channels"] == len({(row.plane, *edge) for row in catalog.ROWS for edge in row.edges})
    assert found["operations"] == 2 * sum(len(row.edges) for row in catalog.ROWS)
    assert found["messages"] == len(schemas.body_classes())


def test_the_lock_file_names_no_registry():
    package = json.loads((HERE / "package.json").read_text())
    lock = json.loads(LOCK.read_text())
    assert lock["packages"][""]["dependencies"] == package["dependencies"]
    assert not [name for name, one in lock["packages"].items() if "resolved" in one]
    assert all("integrity" in one for name, one in lock["packages"].items() if name)


def asyncapi_file() -> Path:
    [name] = asyncapi.files()
    return ROOT / name
