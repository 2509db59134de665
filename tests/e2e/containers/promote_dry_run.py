"""`make promote-dry-run`: real images, built, tested by digest, signed, promoted, refused and rolled back."""

import json
import subprocess
import sys

import pytest

from tests.paths import ROOT

REFUSALS = {"untested", "unsigned", "wrong_signer", "incomplete", "not_in_staging", "altered"}


@pytest.mark.needs("registry")
def test_a_dry_run_promotes_what_is_tested_and_refuses_the_rest() -> None:
    command = [sys.executable, "-m", "bulkhead_infra.promotion.dry_run", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    steps = json.loads(done.stdout)["steps"]
    assert all(step["as_expected"] for step in steps)
    assert {step["error"]["code"] for step in steps if "error" in step} == REFUSALS
    promoted = [
        step["command"].split_round()[:4] for step in steps if step["exit_code"] == 0 and "promote" in step["command"]
    ]
    assert [row[1] for row in promoted] == ["v1.json", "v1.json", "v2.json", "v2.json"]
    rollback, verified = (
        next(step for step in steps if step["command"].startswith(name)) for name in ("roll", "verify")
    )
    assert rollback["exit_code"] == 0 and verified["exit_code"] == 0
