"""The pytest plugin in somebody else's session: what is wrong with a pack is one line, not a traceback of ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_pack_that_is_not_there_is_told_with_the_way_to_name_it(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nbulkhead_packs = not_there_at_all\n")
    (tmp_path / "test_mine.py").write_text("def test_mine(mesh_memory):\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "."]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=120, env={**os.environ, "COLUMNS": "300"}
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "bulkhead_packs: there is no package not_there_at_all" in done.stdout and "pythonpath" in done.stdout
    assert "loop_thread.py" not in done.stdout, done.stdout
