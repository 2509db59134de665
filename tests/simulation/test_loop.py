"""What asyncio asks of an event loop, where the mesh makes it ask."""

import asyncio
from collections.abc import AsyncIterator

from tests.simulation.loop import SimulationLoop


def test_an_async_generator_that_is_let_go_before_its_end_is_closed() -> None:
    closed = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    async def first() -> int:
        async for one in numbers():
            return one
        return 0

    async def asked() -> int:
        found = await first()
        while not closed:
            await asyncio.sleep(0)
        return found

    loop = SimulationLoop()
    try:
        assert loop.run_until_complete(asyncio.wait_for(asked(), 1.0)) == 1
    finally:
        loop.close()
