"""A skip for what the machine lacks is no failure; in a strict run any other is. Tried with a run of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

CONFTEST = ROOT / "tests" / "conftest.py"
SKIPPED = """
import pytest
def test_skipped():
    pytest.skip("no luck")
"""
NEEDY = """
import pytest
@pytest.mark.needs("{need}")
def test_needy():
    pass
"""


@pytest.mark.parametrize(
    "body, strict, passes",
    [
        (SKIPPED, "", True),
        (SKIPPED, "BULKHEAD_STRICT_SKIPS=1", False),
        (SKIPPED, "CI=true", False),
        (NEEDY.format(need="public-suites"), "CI=true", True),
        ("import pytest\npytest.importorskip('no_such_module')\n", "CI=true", False),
        ("import pytest\n@pytest.mark.xfail\ndef test_it():\n    assert 0\n", "CI=true", False),
        ("def test_it():\n    pass\n", "CI=true", True),
    ],
)
def test_a_skip_for_no_need_of_the_machine_fails_a_strict_run(
    tmp_path: Path, body: str, strict: str, passes: bool
) -> None:
    done = _run(tmp_path, body, strict)
    assert (done.returncode == 0) == passes and ("skipped without leave" in done.stdout) == (not passes), done.stdout


def test_a_need_that_is_not_known_is_an_error(tmp_path: Path) -> None:
    assert "KeyError: 'luck'" in _run(tmp_path, NEEDY.format(need="luck"), "").stdout


def _run(folder: Path, body: str, strict: str) -> "subprocess.CompletedProcess[str]":
    shutil.copy(CONFTEST, folder)
    (folder / "inner").mkdir()
    (folder / "inner" / "conftest.py").touch()
    (folder / "inner" / "test_it.py").write_text(body)
    unset = ("CI", "BULKHEAD_STRICT_SKIPS", "BULKHEAD_REFERENCE_MCP")
    environ = {name: value for name, value in os.environ.items() if name not in unset}
    environ |= dict([strict.split("=")]) if strict else {}
    environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), "inner"]
    return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=folder, timeout=60)
