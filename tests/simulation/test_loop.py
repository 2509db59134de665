"""What asyncio asks of an event loop, where the mesh makes it ask."""

import asyncio
from collections.abc import AsyncIterator
from contextvars import Context, copy_context

from tests.simulation.mesh.loop import WHO, SimulationLoop


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


def test_who_stands_still_is_not_called_and_hears_later_in_its_order() -> None:
    async def speak(name: str) -> None:
        for number in range(3):
            told.append((loop.time(), name, number))
            await asyncio.sleep(1)

    async def both() -> None:
        contexts = {name: copy_context() for name in "ab"}
        for name, context in contexts.items():
            context.run(WHO.set, name)
        tasks = [loop.create_task(speak(name), context=context) for name, context in contexts.items()]
        # What one begins in a context of its own is in its process all the same.
        contexts["a"].run(lambda: tasks.append(loop.create_task(speak("of a"), context=Context())))
        await asyncio.sleep(0.5)
        loop.stand_still("a")
        await asyncio.sleep(5)
        loop.go_on("a")
        await asyncio.gather(*tasks)

    told: list[tuple[float, str, int]] = []
    loop = SimulationLoop()
    try:
        loop.run_until_complete(both())
    finally:
        loop.close()
    assert [at_s for at_s, name, _ in told if name == "b"] == [0, 1, 2]
    assert [one for one in told if one[1] == "a"] == [(0, "a", 0), (5.5, "a", 1), (6.5, "a", 2)]
    assert [one for one in told if one[1] == "of a"] == [(0, "of a", 0), (5.5, "of a", 1), (6.5, "of a", 2)]
