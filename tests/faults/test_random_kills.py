"""kill -9 of services, broker and Redis (which also loses everything), at moments and in pairs that a seed draws.

`FAULT_ROUNDS=200` for a longer run, `FAULT_SEED=n` to begin elsewhere; the id of a test that fails is its seed.
"""

import asyncio
import os
import random

import pytest

from infra.local.supervisor import START_ORDER
from tests.faults.fixtures.errand import Errand, nothing_waits
from tests.faults.fixtures.standing import Standing

FIRST = int(os.environ.get("FAULT_SEED", "1"))
ROUNDS = int(os.environ.get("FAULT_ROUNDS", "12"))
VICTIMS = (*START_ORDER, *START_ORDER, "broker", "broker", "redis", "redis", "redis, emptied")
LATEST_S = 0.4
"""An errand takes half of that: some are over when the blow falls."""


async def _kill(world: Standing, victim: str) -> None:
    match victim:
        case "broker":
            await world.mesh.kill_broker()
            await world.mesh.restart_broker()
        case "redis" | "redis, emptied":
            await world.mesh.kill_redis(empty=victim != "redis")
        case service:
            await world.mesh.kill(service)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("seed", range(FIRST, FIRST + ROUNDS))
async def test_whatever_dies_changes_nothing(standing: Standing, seed: int) -> None:
    draw = random.Random(seed)
    victims = draw.sample(VICTIMS, draw.choice((1, 1, 2)))
    blows = [(one, draw.uniform(0, LATEST_S)) for one in dict.fromkeys(victims)]
    print(f"seed {seed}: {blows}")
    errands = [Errand(standing) for _ in range(draw.choice((1, 2, 3)))]

    async def blow(victim: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await _kill(standing, victim)

    struck = [asyncio.create_task(blow(*one)) for one in blows]
    for errand in errands:
        await errand.submit_until_taken()
    await asyncio.gather(*struck)
    for errand in errands:
        await errand.ends_rightly()
        await errand.said_once()
    await standing.mesh.wait_ready(30)
    await nothing_waits(standing)
