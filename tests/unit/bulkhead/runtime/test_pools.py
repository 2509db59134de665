"""Places that an autoscaler counts: those that are taken, and those that are waited for."""

import asyncio

from bulkhead.runtime.fair_semaphore import FairSemaphore


async def test_slots_are_wanted_while_they_are_taken_or_waited_for() -> None:
    slots = FairSemaphore(2)
    assert await slots.acquire_slot("acme", 0.0) and await slots.acquire_slot("acme", 0.0)
    waiting = asyncio.create_task(slots.acquire_slot("acme", 5.0))
    await asyncio.sleep(0)
    assert (slots.used, slots.demand) == (2, 3)
    slots.release_slot("acme")
    assert await waiting
    assert (slots.used, slots.demand) == (2, 2)
    given_up = asyncio.create_task(slots.acquire_slot("acme", 0.01))
    assert not await given_up
    assert slots.demand == 2, "a call that has given up is not waited for"


async def test_people_of_a_tenant_take_turns_and_nobody_pays_for_a_colleague_s_queue() -> None:
    slots, served = FairSemaphore(1), list[str]()

    async def serve(tenant: str, person: str) -> None:
        async with slots.hold_slot(tenant, person):
            served.append(person)
            await asyncio.sleep(0)

    callers = [*[("acme", "ada")] * 4, ("acme", "bob"), ("bolt", "cyd"), ("acme", "bob")]
    await asyncio.gather(*(serve(*caller) for caller in callers))
    assert served == ["ada", "bob", "ada", "bob", "ada", "ada", "cyd"], "a tenant comes by its oldest call"
