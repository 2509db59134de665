"""Somebody else's tests, as in ../test_external.py, on the images of this tree: the same on containers as elsewhere."""

from collections.abc import Mapping

from tests.e2e.fixtures.stranger import Stranger

THESE = "rests_on_the_documents or payer_dies or stand_still or fills_up"
"""Each kind of fault once: containers take their time."""


def test_their_tests_pass_on_containers(stranger: Stranger, built: Mapping[str, str]) -> None:
    done = stranger.pytest("--meshes", "containers", "-o", "asyncio_mode=auto", "-k", THESE)
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout[-8_000:] + done.stderr[-2_000:]
