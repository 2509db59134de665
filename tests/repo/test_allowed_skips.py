"""A skip that nobody allowed fails the run; an allowed one does not. Tried with a run of its own."""

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
@pytest.mark.parametrize("way", ["a"])
def test_skipped(way):
    pytest.skip("no luck")
"""


@pytest.mark.parametrize(
    "body, listed, strict, code",
    [
        (SKIPPED, "", "", 0),
        (SKIPPED, "", "BULKHEAD_STRICT_SKIPS=1", 1),
        (SKIPPED, "", "CI=true", 1),
        (SKIPPED, "any | inner/test_it.py::test_skipped[[]a] | a reason\n", "CI=true", 1),
        (SKIPPED, "any | inner/test_it.py::test_skipped[a] | a reason\n", "CI=true", 0),
        (SKIPPED, "any | inner/test_it.py::test_other* | a reason\n", "CI=true", 1),
        ("import pytest\npytest.importorskip('no_such_module')\n", "", "CI=true", 1),
        ("import pytest\n@pytest.mark.xfail\ndef test_it():\n    assert 0\n", "", "CI=true", 1),
        ("def test_it():\n    pass\n", "", "CI=true", 0),
        ("def test_it():\n    pass\n", "any | no reason\n", "CI=true", 3),
    ],
)
def test_a_skip_needs_leave(tmp_path: Path, body: str, listed: str, strict: str, code: int) -> None:
    shutil.copy(CONFTEST, tmp_path)
    (tmp_path / "allowed_skips.txt").write_text(listed)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "conftest.py").touch()
    (tmp_path / "inner" / "test_it.py").write_text(body)
    environ = {name: value for name, value in os.environ.items() if name not in ("CI", "BULKHEAD_STRICT_SKIPS")}
    environ |= dict([strict.split("=")]) if strict else {}
    environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "inner"]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=tmp_path, timeout=60)
    said = done.stdout + done.stderr
    if code == 0:
        assert done.returncode == 0, said
    elif code == 1:
        assert done.returncode != 0 and "skipped without leave" in said, said
    else:
        assert done.returncode != 0 and "environment | test id | reason" in said, said
