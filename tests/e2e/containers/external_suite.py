"""Somebody else's tests, as in ../test_external.py, on the images of this tree: the same on containers as elsewhere."""

import re
from collections.abc import Mapping

from bulkhead_contracts.catalog import SERVICES
from tests.e2e.fixtures.stranger import Stranger

PASSED = 10
"""All of theirs. The one that fails does so on purpose."""


def test_their_tests_pass_on_containers_and_what_fails_leaves_its_evidence(
    stranger: Stranger, built: Mapping[str, str]
) -> None:
    done = stranger.pytest(
        "tests/test_desk.py",
        "tests/failing.py",
        "--meshes",
        "containers",
        "-o",
        "asyncio_mode=auto",
        "--bulkhead-evidence=left",
    )
    said = done.stdout[-8_000:] + done.stderr[-2_000:]
    assert done.returncode == 1 and f"1 failed, {PASSED} passed" in done.stdout and "skipped" not in done.stdout, said
    left = stranger.folder / "left" / "tests-failing.py-test_that_fails-containers"
    assert f"everything of this test: {left}" in done.stdout
    names = {re.sub(r"^t[a-z2-7]{25}", "TASK", one.name) for one in left.iterdir()}
    assert names == {"TASK.json", "TASK.timeline.txt", "TASK.timeline.json", "TASK.journal.jsonl.gz", "logs"}
    logs = {one.stem: one.read_text() for one in (left / "logs").iterdir()}
    assert {*SERVICES, "nats", "redis"} <= set(logs) and all("started" in logs[name] for name in SERVICES)
