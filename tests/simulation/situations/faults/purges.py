"""Ended tasks are purged while others run; a fork of what is gone is refused.

In: a draw. Out: an act that purges with the provisioner's own code what ended 45 s ago, a task that runs meanwhile, and
a fork that comes too late. Law: what was purged had ended and is gone from every stream; nothing else is missing.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.bus.port import LiveMessage
from bulkhead_contracts import subjects
from bulkhead_contracts.plan import Plan
from bulkhead_infra.nats import purge, stream_reads
from tests.simulation.scenario import Act, Fork, Scenario, Wish, steps_of
from tests.simulation.situations.situation import Situation

KEPT_S = 45.0
"""Nothing of a task is on its way so long after its end."""


def add(draw: random.Random, scenario: Scenario) -> Scenario:
    """At a minute or so; most seeds have no faults by then that are new."""
    at_s = KEPT_S + draw.uniform(5, 25)
    first = scenario.wishes[0]
    late = Wish(
        name="late0",
        tenant=draw.choice(("demo", "acme")),
        plan=Plan(steps=steps_of(draw, "late0")),
        check=True,
        submit_after_s=at_s - draw.uniform(0.05, 0.5),
    )
    fork = Wish(
        name="late1",
        tenant=first.tenant,
        check=first.check,
        submit_after_s=at_s + draw.uniform(-0.5, 1),
        fork=Fork(first.name),
    )
    act = Act("purge", "purges", at_s)
    return replace(scenario, wishes=(*scenario.wishes, late, fork), acts=(*scenario.acts, act))


BOOK = "places"
"""Of who may run, kept by the gateway: no task. Its past goes, its end stays."""
BOOKS = (".lease-", ".event-", ".checkpoint.")
"""Of a lease that nobody holds, of events, of the ledger: no tasks either. They go by their own age."""


OUTSIDE = subjects.published_stream("")


class _Broker:
    """What the purge connects to: reads, and what the provisioner may ask of the broker's API."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self._bus = bus = MemoryBus(world.net, "operator")
        self.last = bus.last

    async def read(self, stream: str, *more: Any, **words: Any) -> Any:
        """Publishers speak into the inbox here, into which a broker copies the streams of their own."""
        return [] if stream.startswith(OUTSIDE) else await self._bus.read(stream, *more, **words)

    async def request(self, subject: str, body: bytes, timeout_s: float) -> LiveMessage:
        """`STREAM.INFO.<stream>`, `STREAM.PURGE.<stream>`."""
        *_, what, stream = subject.split(".")
        asked = json.loads(body)
        if stream.startswith(OUTSIDE):
            answer: dict[str, object] = {"state": {"last_seq": 0}, "purged": 0}
            return LiveMessage(subject, {}, json.dumps(answer).encode())
        answer = {"state": {"last_seq": self._world.net.get_stream(stream).last_sequence}}
        if what == "PURGE":
            answer = {"purged": self._world.net.purge(stream, asked["filter"], asked.get("seq"))}
        await asyncio.sleep(0)
        return LiveMessage(subject, {}, json.dumps(answer).encode())


async def do(world: Any, act: Act) -> None:
    """The purge as it is, over this broker; a checkpoint has counted by then what goes, as after days it has long. What
    one that is cut off does has tests of its own: nothing fails here."""

    @asynccontextmanager
    async def connected(*_: object, **__: object) -> AsyncIterator[_Broker]:
        yield _Broker(world)

    calm, world.chaos.calm, bus = world.chaos.calm, True, stream_reads.open_bus
    stream_reads.open_bus = connected  # type: ignore[assignment]
    try:
        await world.checkpoint()
        await purge.purge("", str, purge.Retention(KEPT_S), now_unix_ms=world.net.clock.now_ms())
    finally:
        world.chaos.calm, stream_reads.open_bus = calm, bus
    world.record.gone |= {one.task for one in world.net.purged.get("INBOX_GATEWAY", ())}


def complain(record: Any) -> Iterator[str]:
    """Gone whole, and rightly."""
    ends = {
        one.task
        for one in record.stored("INBOX_GATEWAY")
        if one.headers.get("ce-type", "").startswith(("mesh.task.ended.", "mesh.task.rejected."))
    }
    asked = set(record.tasks.values())
    # By tenant: halts of each stand under the same name, and go by their own age.
    purged = {(stored.tenant, stored.task) for stored in record.purged.get("INBOX_GATEWAY", ())}
    for tenant, task in sorted(pair for pair in purged if pair[1] != BOOK):
        if task in asked and task not in ends:
            yield f"{task} was purged and had not ended"
        left = {
            name
            for name, stream in record.broker._streams.items()
            for stored in stream.read(">", 0, 1_000_000)
            if name != "BLOBS" and f".{tenant}.{task}." in f"{stored.subject}."
        }
        if left:
            yield f"{task} was purged, and {', '.join(sorted(left))} still hold something of it"
    removed = {
        one.task
        for kept in record.purged.values()
        for one in kept
        if one.subject.startswith("mesh.") and not any(book in one.subject for book in BOOKS)
    }
    if strange := removed - record.gone:
        yield f"{', '.join(sorted(strange))} lost messages and was not due"


SITUATION = Situation("purges", 0.03, add, do, complain)
