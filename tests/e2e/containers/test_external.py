"""Somebody else's tests, as in ../test_external.py, on the images of this tree: the same on containers as elsewhere."""

import re
from collections.abc import Mapping

from bulkhead.testing.stage import SERVICES
from tests.e2e.fixtures.stranger import Stranger

THESE = "rests_on_the_documents or payer_dies or stand_still or fills_up or that_fails"
"""Each kind of fault once: containers take their time. The last one fails on purpose."""


def test_their_tests_pass_on_containers_and_what_fails_leaves_its_evidence(
    stranger: Stranger, built: Mapping[str, str]
) -> None:
    done = stranger.pytest("tests/test_desk.py", "tests/failing.py", "--meshes", "containers", "-o",
                           "asyncio_mode=auto", "-k", THESE, "--bulkhead-evidence=left")  # fmt: skip
    assert done.returncode == 1 and "1 failed, 4 passed" in done.stdout, done.stdout[-8_000:] + done.stderr[-2_000:]
    left = stranger.folder / "left" / "tests-failing.py-test_that_fails-containers"
    assert f"everything of this test: {left}" in done.stdout
    names = {re.sub(r"^t[a-z2-7]{25}", "TASK", one.name) for one in left.iterdir()}
    assert names == {"TASK.json", "TASK.timeline.txt", "TASK.timeline.json", "TASK.journal.jsonl.gz", "logs"}
    logs = {one.stem: one.read_text() for one in (left / "logs").iterdir()}
    assert {*SERVICES, "nats", "redis"} <= set(logs) and all("started" in logs[name] for name in SERVICES)
