"""`make compose-test` collects every test of the mesh in containers, those too that CI leaves out for their length."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from bulkhead_infra.docker.image_contents import ROOT

HERE = Path("tests/e2e/containers")


def test_make_compose_test_collects_all_of_them() -> None:
    """pytest drops a file that is named beside its folder: two of them were never run, and all was green."""
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^compose-test:.*\n\t@\$\(BIN\)/python (-m pytest .*) \$\(ARGS\)$", makefile, re.M)
    assert recipe is not None, "compose-test is no line of pytest any more: change this test with it"
    done = subprocess.run(
        [sys.executable, *shlex.split(recipe[1]), "--collect-only", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    collected = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    tests = re.compile(r"^(async )?def test_", re.M)
    written = {str(HERE / one.name) for one in (ROOT / HERE).glob("*.py") if tests.search(one.read_text())}
    long = {"half_a_cluster.py", "restoring.py"}
    assert long <= {Path(one).name for one in written} and collected == written
