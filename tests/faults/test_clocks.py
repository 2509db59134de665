"""One service's clock jumps by an hour, either way, before a task and in the middle of it.

Time is a message: who decides does not look at a clock, so nothing changes for most. Who judges whether a grant still
holds needs one, and says no when it is wrong: the task ends with a reason, does nothing twice, and is right again as
soon as the clock is.
"""

import glob
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from infra.local.supervisor import START_ORDER
from tests.conftest import ENVIRONMENTS, FAKETIME
from tests.faults.fixtures.errand import Errand, ingest, nothing_waits
from tests.faults.fixtures.standing import Standing, short_waits

HOUR_S = 3600
TOLD: dict[tuple[str, int], tuple[str, str, str]] = {
    ("signer", HOUR_S): ("rejected", "request_too_old", "request is 36000"),
    ("signer", -HOUR_S): ("rejected", "request_from_the_future", "ahead of the signer's clock"),
    ("budget", HOUR_S): ("halted", "refused_by_budget", "the grant has expired"),
    ("model_gateway", HOUR_S): ("failed", "step_failed", "the grant has expired"),
    # Its answers carry its time, and the next step's grant is made from that.
    ("model_gateway", -HOUR_S): ("halted", "refused_by_budget", "the grant has expired"),
}
"""Whose wrong clock ends a task: how it ends, and what is said."""
LEFT_OUT = {("rag", HOUR_S): "search_documents", ("tool_executor", HOUR_S): "calculate"}
"""Whose wrong clock leaves a hole in the answer: the answer says so."""
ENDED_BEFORE = {"signer"}
"""Has no part in a task once it has begun."""


class Clocks(Standing):
    """A mesh in which every service has a clock of its own."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        [library] = glob.glob(FAKETIME)
        self._folder = directory
        for service in START_ORDER:
            self.set(service, 0)
            self.environ[service].update({
                "LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(self._file(service)), "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            })  # fmt: skip

    def _file(self, service: str) -> Path:
        return self._folder / f"clock-{service}"

    def set(self, service: str, ahead_s: int) -> None:
        """From now on, also in a process that runs."""
        new = self._file(service).with_suffix(".new")
        new.write_text(f"{ahead_s:+d}s\n")
        new.replace(self._file(service))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clocks(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Clocks]:
    if ENVIRONMENTS["no-faketime"]():
        pytest.skip("libfaketime is not installed")
    with short_waits():
        async with Clocks(tmp_path_factory.mktemp("clocks")) as world:
            await ingest(world)
            await Errand(world).run()
            yield world


async def _run(clocks: Clocks, service: str, ahead_s: int, middle: bool) -> tuple[Errand, dict[str, Any]]:
    errand = Errand(clocks)
    if middle:
        async with clocks.counter.held() as arrived:
            await errand.submit()
            await arrived()
            clocks.set(service, ahead_s)
    else:
        clocks.set(service, ahead_s)
        await errand.submit()
    assert errand.task is not None
    return errand, await clocks.finish(errand.task)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("middle", [False, True], ids=["before", "in-the-middle"])
@pytest.mark.parametrize("ahead_s", [HOUR_S, -HOUR_S], ids=["ahead", "behind"])
@pytest.mark.parametrize("service", START_ORDER)
async def test_an_hour(clocks: Clocks, service: str, ahead_s: int, middle: bool) -> None:
    try:
        errand, document = await _run(clocks, service, ahead_s, middle)
        told = None if middle and service in ENDED_BEFORE else TOLD.get((service, ahead_s))
        hole = LEFT_OUT.get((service, ahead_s), "")
        if told is None and not hole:
            await errand.ends_rightly()
        elif told is not None:
            status, code, words = told
            assert (document["status"], document["failure"]["code"]) == (status, code), document["failure"]
            assert words in document["failure"]["message"], document["failure"]
        else:
            assert f"The tool {hole} did not work (expired)." in document["answer"], document["answer"]
            assert document["result"]["standing"] == "degraded", document["result"]
        assert errand.counted() <= 1
        await nothing_waits(clocks)
        if document["status"] != "rejected":
            await errand.replays(at_least=1)
        if document["usage"]["model_calls"]:
            await errand.adds_up(document)
    finally:
        clocks.set(service, 0)


@pytest.mark.asyncio(loop_scope="module")
async def test_clocks_that_are_right_again_leave_nothing_behind(clocks: Clocks) -> None:
    await Errand(clocks).run()
