"""The gauges of the whole mesh: what waits for services and what streams hold, and nothing while the broker is away."""

import asyncio

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.telemetry import names
from bulkhead_contracts import catalog, subjects
from bulkhead_services.budget.watch.mesh_counts import MeshCounts
from tests.eventually import until


async def test_every_shard_counts_and_an_absent_broker_leaves_nothing_told() -> None:
    broker = MemoryBroker.mesh(shards=2)
    bus = MemoryBus(broker, "budget")
    for number, task in enumerate(("t1", "t2", "t3", "t4")):
        await bus.publish(subjects.mesh("planner", "worker", "demo", task), b"{}", {"ce-id": str(number)}, str(number))
    await bus.publish(subjects.dead("worker", "demo", "t1"), b"{}", {}, "dead")
    counts = MeshCounts(bus, every_s=0.01)
    gauges = counts.gauges()
    work = asyncio.create_task(counts.run())
    try:
        pending = await until(gauges[names.INBOX_PENDING])
        assert pending[((names.INBOX, "worker"),)] == 4 and pending[((names.INBOX, "rag"),)] == 0
        assert {key[0][1] for key in gauges[names.STREAM_BYTES]()} == set(catalog.COUNTED_STREAMS)
        assert gauges[names.STREAM_BYTES]()[((names.STREAM, "INBOX_WORKER"),)] > 0
        assert gauges[names.STREAM_LIMIT]() == {}, "a stream without a bound has none"
        assert gauges[names.DEAD_LETTERS]() == {((names.SERVICE, "worker"),): 1}
        bus.kill()
        await until(lambda: not gauges[names.INBOX_PENDING](), "old counts are told no more")
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
