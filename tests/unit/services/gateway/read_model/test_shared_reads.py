"""One reading for many: who asks while a page is read gets the next one, since this one may miss what he knows of."""

import asyncio

from bulkhead_services.gateway.read_model.shared_reads import REST_S, SharedReads


class Room:
    """Reads are held until they are let go on."""

    def __init__(self) -> None:
        self.times = 0
        self.held = asyncio.Event()

    async def read(self) -> int:
        self.times += 1
        number = self.times
        await self.held.wait()
        return number


async def asked(reads: SharedReads[int], room: Room, count: int) -> list["asyncio.Task[int]"]:
    found = [asyncio.create_task(reads.get("key", room.read)) for _ in range(count)]
    await asyncio.sleep(0)
    return found


async def test_a_hundred_who_ask_at_once_are_one_reading_and_later_ones_the_next():
    reads, room = SharedReads[int](), Room()
    first = await asked(reads, room, 100)
    await asyncio.sleep(0)
    assert room.times == 1
    later = await asked(reads, room, 100)
    first[0].cancel()
    room.held.set()
    began = asyncio.get_running_loop().time()
    assert {await one for one in first[1:]} == {1}
    assert {await one for one in later} == {2} and room.times == 2
    assert asyncio.get_running_loop().time() - began >= REST_S * 0.9
    await asyncio.sleep(2 * REST_S)
    assert await reads.get("key", room.read) == 3
    assert await reads.get("other", room.read) == 4, "another key does not wait"


async def test_a_reading_that_fails_fails_for_its_own_askers_alone():
    reads, room = SharedReads[int](), Room()
    room.held.set()

    async def fails() -> int:
        raise ValueError("no")

    found = await asyncio.gather(*(reads.get("key", fails) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in found] == [ValueError] * 3
    assert await reads.get("key", room.read) == 1
