"""What the bus tests do again and again: store, take, hear, wait for a fact; all within a deadline."""

import asyncio
import time

from bulkhead.bus.port import Bus, BusDelivery, Consumer, LiveMessage, LiveSubscription, StoredMessage
from bulkhead_contracts import subjects
from tests.contract.bus.worlds import INBOX, World

TENANT, TASK = "acme", "task-1"
SUBJECT = subjects.mesh_subject("planner", "worker", TENANT, TASK)
FILTER = subjects.task_filter("worker", TENANT, TASK)
DEADLINE_S = 5.0


async def put(bus: Bus, *names: str, subject: str = SUBJECT) -> None:
    """Store messages whose body and id are their name."""
    for name in names:
        await bus.publish(subject, name.encode(), {"ce-id": name}, name)


async def take(consumer: Consumer, count: int, room: int = 64, within_s: float = DEADLINE_S) -> list[BusDelivery]:
    """Exactly so many deliveries, within a deadline."""
    found: list[BusDelivery] = []
    until = time.monotonic() + within_s
    while len(found) < count:
        left = until - time.monotonic()
        assert left > 0, f"only {bodies(found)} of {count} messages came"
        found += await consumer.fetch(min(room, count - len(found)), left)
    return found


async def attach(world: World, bus: Bus, ack_wait_ms: int = 5_000) -> Consumer:
    """A consumer of the worker's first durable, which is made for it."""
    await world.durable("worker-0", ack_wait_ms)
    return await bus.open_consumer(INBOX, "worker-0")


async def hear(live: LiveSubscription, count: int) -> list[LiveMessage]:
    """The next words of a live subscription."""

    async def collect() -> list[LiveMessage]:
        found = []
        async for word in live:
            found.append(word)
            if len(found) == count:
                break
        return found

    return await asyncio.wait_for(collect(), DEADLINE_S)


def bodies(found: list[BusDelivery] | list[StoredMessage]) -> list[str]:
    """What the messages say."""
    return [(one if isinstance(one, StoredMessage) else one.stored).body.decode() for one in found]
