"""One service's clock jumps by an hour, either way, before a task and in the middle of it.

Every service keeps the broker's time and goes on by its monotonic clock: nothing comes of it but that the service says
whose clock is wrong, and what to do.
"""

import glob
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from bulkhead_infra.local.supervisor import START_ORDER
from tests.e2e.fixtures.world import until
from tests.faults.fixtures.errand import Errand, ingest, nothing_waits
from tests.faults.fixtures.standing import READY_TIMEOUT_S, Standing, short_waits
from tests.needs import FAKETIME

pytestmark = [pytest.mark.nightly, pytest.mark.needs("faketime")]
HOUR_S = 3600


class Clocks(Standing):
    """A mesh in which every service has a clock of its own."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        [library] = glob.glob(FAKETIME)
        self._folder = directory
        for service in START_ORDER:
            self.set(service, 0)
            self.environ[service].update(
                {
                    "LD_PRELOAD": library,
                    "FAKETIME_TIMESTAMP_FILE": str(self._file(service)),
                    "FAKETIME_NO_CACHE": "1",
                    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                }
            )

    def _file(self, service: str) -> Path:
        return self._folder / f"clock-{service}"

    def set(self, service: str, ahead_s: int) -> None:
        """From now on, also in a process that runs."""
        new = self._file(service).with_suffix(".new")
        new.write_text(f"{ahead_s:+d}s\n")
        new.replace(self._file(service))

    async def says(self, service: str, words: str) -> bool:
        """Whether it is ready and says this of its clock, with what to do."""
        port = json.loads((self.mesh.directory / "run" / f"{service}-0.json").read_text())["port"]
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"http://127.0.0.1:{port}/readyz")
        why = str(answer.json()["why"])
        return answer.status_code == 200 and words in why and "NTP" in why


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clocks(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Clocks]:
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
        assert document["status"] == "succeeded", document["failure"]
        await until(partial(clocks.says, service, "ahead of" if ahead_s > 0 else "behind"), "it says that it is wrong")
        await errand.ends_rightly()
        await nothing_waits(clocks)
    finally:
        clocks.set(service, 0)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("service", "ahead_s"), [("gateway", HOUR_S), ("model_gateway", -HOUR_S), ("signer", -HOUR_S)])
async def test_a_service_that_starts_with_a_wrong_clock(clocks: Clocks, service: str, ahead_s: int) -> None:
    """It has only the broker's word for the time from its first moment on."""
    clocks.set(service, ahead_s)
    try:
        await clocks.mesh.kill_replica(service)
        await clocks.mesh.unit_of(service).wait_until_ready(READY_TIMEOUT_S)
        await Errand(clocks).run()
        assert await clocks.says(service, f"{HOUR_S} s " + ("ahead of" if ahead_s > 0 else "behind"))
    finally:
        clocks.set(service, 0)


@pytest.mark.asyncio(loop_scope="module")
async def test_clocks_that_are_right_again_leave_nothing_behind(clocks: Clocks) -> None:
    await Errand(clocks).run()
