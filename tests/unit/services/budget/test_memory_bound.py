"""Memory of budget stays bounded, measured in a process of its own: what other tests left behind grows in theirs."""

import subprocess
import sys
from pathlib import Path

import pytest

MEASURED = Path(__file__).with_name("memory_growth.py")


@pytest.mark.slow
def test_tasks_that_are_over_leave_nothing_behind() -> None:
    alone = ("-q", "-n0", "-p", "no:cacheprovider", "-o", f"python_files={MEASURED.name}")
    done = subprocess.run([sys.executable, "-m", "pytest", *alone, str(MEASURED)], capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-4_000:]
