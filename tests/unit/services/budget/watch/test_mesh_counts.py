"""The gauges of the whole mesh: what waits for services and what streams hold, and nothing while the broker is away."""

import asyncio

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.telemetry import names
from bulkhead_contracts import catalog, subjects
from bulkhead_services.budget.watch.mesh_counts import MeshCounts
from tests.eventually import until


async def test_every_shard_counts_and_an_absent_broker_leaves_nothing_told() -> None:
    broker = MemoryBroker.for_mesh(shards=2)
    bus = MemoryBus(broker, "budget")
    for number, task in enumerate(("t1", "t2", "t3", "t4")):
        await bus.publish(
            subjects.mesh_subject("planner", "worker", "demo", task), b"{}", {"ce-id": str(number)}, str(number)
        )
    await bus.publish(subjects.dead_letter_subject("worker", "demo", "t1"), b"{}", {}, "dead")
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
        bus.cut_off()
        await until(lambda: not gauges[names.INBOX_PENDING](), "old counts are told no more")
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def test_replicas_come_and_go_and_a_count_that_no_second_look_finds_is_not_told() -> None:
    broker = MemoryBroker.for_mesh(shards=2)
    bus, counts = MemoryBus(broker, "budget"), MeshCounts(MemoryBus(broker, "budget"), every_s=0.01, recheck_s=0.01)
    inbox = subjects.inbox_stream("worker")
    replicas = [MemoryBus(broker, "worker") for _ in range(2)]
    consumers = [
        await one.open_consumer(inbox, subjects.durable_name("worker", shard)) for one in replicas for shard in range(2)
    ]
    work = [asyncio.create_task(counts.run()), *(asyncio.create_task(one.fetch(8, 3_600)) for one in consumers)]
    try:
        await until(lambda: _replicas(counts) == (2, True))
        assert counts.inboxes["rag"].replicas == 0 and counts.inboxes["rag"].listens is False
        replicas[0].cut_off()
        await until(lambda: _replicas(counts) == (1, True))
        replicas[1].cut_off()
        await until(lambda: _replicas(counts) == (0, False))
        await bus.publish(subjects.mesh_subject("planner", "worker", "demo", "t1"), b"{}", {"ce-id": "1"}, "1")
        await until(lambda: counts.inboxes["worker"].pending == 1, "it lags")
        assert counts.open_dead_letters == {}
    finally:
        for one in work:
            one.cancel()
        await asyncio.gather(*work, return_exceptions=True)


def _replicas(counts: MeshCounts) -> tuple[int | None, bool | None] | None:
    found = counts.inboxes.get("worker")
    return (found.replicas, found.listens) if found is not None else None
