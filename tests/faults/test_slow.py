"""A consumer that does not keep up: frozen with a message in hand, or deaf while others shout at it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from bulkhead_contracts import catalog, subjects
from tests.faults.fixtures.errand import TENANT, Errand, consumers, nothing_waits
from tests.faults.fixtures.standing import ACK_WAIT_S, Standing

FREEZES = 6
"""A service that is between two of its requests for messages gets none while it stands still."""
SHOUT_BYTES = 256 * 1024
SHOUTED_MAX_BYTES = 512 * 1024 * 1024


@asynccontextmanager
async def frozen(world: Standing, service: str) -> AsyncIterator[None]:
    """The process stands still, with its connections open."""
    pid = world.mesh.unit(service).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("service", [*catalog.DECIDERS, *catalog.DOERS])
async def test_what_is_delivered_again_to_a_slow_one_is_done_once(standing: Standing, service: str) -> None:
    """Its ack wait passes while it stands still: the broker delivers again, and it finds both."""
    pid = standing.mesh.unit(service).pid
    for _ in range(FREEZES):
        errand = Errand(standing)
        async with frozen(standing, service):
            await errand.submit()
            # How long it stands still is the fault; whether the broker delivered again in this time is looked at.
            await asyncio.sleep(1.5 * ACK_WAIT_S)
            again = (await consumers(standing))[f"{service}-0"]["num_redelivered"]
        await errand.ends_rightly()
        await errand.said_once()
        await nothing_waits(standing)
        if again:
            break
    else:
        pytest.fail(f"{service} never had a request for messages open when it was frozen")
    assert standing.mesh.unit(service).pid == pid


async def _slow_consumers(world: Standing) -> int:
    async with httpx.AsyncClient() as http:
        return int((await http.get(f"{world.mesh.monitor_url}/varz")).json()["slow_consumers"])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_deaf_gateway_is_cut_off_by_the_broker_and_comes_back(standing: Standing) -> None:
    """Live text is shouted at a gateway that stands still, until the broker gives it up."""
    before, shouted = await _slow_consumers(standing), 0
    errand = Errand(standing)
    await errand.submit()
    subject = subjects.live("model_gateway", TENANT, "nobody")
    async with standing.bus("model_gateway") as bus, frozen(standing, "gateway"):
        while await _slow_consumers(standing) == before:
            assert shouted < SHOUTED_MAX_BYTES, "the broker never gave it up"
            for _ in range(16):
                await bus.publish_live(subject, b"x" * SHOUT_BYTES)
                shouted += SHOUT_BYTES
    await standing.mesh.wait_ready(30)
    await errand.ends_rightly()
    await Errand(standing).run()
    await nothing_waits(standing)
