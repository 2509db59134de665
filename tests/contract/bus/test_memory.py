"""What only the in-memory broker offers: time that is told, deliveries that are chosen, clients that are killed."""

import asyncio
import random

import pytest

from bulkhead.bus.memory.broker import mesh_streams
from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.bus.memory.clock import VirtualClock
from bulkhead.bus.port import BusDelivery, BusUnavailable, Schedule
from bulkhead_contracts import catalog, subjects
from bulkhead_infra.nats.streams import Layout
from bulkhead_infra.nats.streams import stream_configs as provisioned

TENANT, TASK = "acme", "task-1"
SUBJECT = subjects.mesh_subject("planner", "worker", TENANT, TASK)
INBOX, DURABLE = "INBOX_WORKER", "worker-0"


async def settle() -> None:
    """Let every task run as far as it can without time passing."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_the_mesh_has_every_stream_of_the_catalog() -> None:
    broker = MemoryBroker.for_mesh(shards=2)
    bus = MemoryBus(broker, "test")
    for name in catalog.INBOXES:
        assert await bus.read(subjects.inbox_stream(name), "mesh.>") == []
        if name != catalog.JOURNAL:
            await bus.open_consumer(subjects.inbox_stream(name), subjects.durable_name(name, 1))
    for name in ("JOURNAL", "BLOBS", "KV_CONTROL", "DEAD_LETTERS", "TIMERS_PLANNER", "RECORDS_RAG"):
        assert await bus.last(name, "x") is None


async def test_shards_split_the_partitions() -> None:
    broker = MemoryBroker.for_mesh(shards=2)
    bus = MemoryBus(broker, "worker")
    tasks = [f"task-{n}" for n in range(20)]
    for task in tasks:
        await bus.publish(subjects.mesh_subject("planner", "worker", TENANT, task), task.encode(), {}, task)
    shards = [await (await bus.open_consumer(INBOX, f"worker-{n}")).fetch(64) for n in range(2)]
    for number, shard in enumerate(shards):
        assert shard and {subjects.partition_of(one.stored.body.decode()) % 2 for one in shard} == {number}
    assert sorted(one.stored.body.decode() for shard in shards for one in shard) == sorted(tasks)


async def test_time_passes_only_when_told() -> None:
    clock = VirtualClock()
    bus = MemoryBus(MemoryBroker.for_mesh(clock=clock), "worker")
    consumer = await bus.open_consumer(INBOX, DURABLE)
    due = clock.now_ms() + 7 * 24 * 3600 * 1000
    target = subjects.timer_fired("worker", TENANT, TASK)
    await bus.schedule(Schedule(subjects.timer_set("worker", TENANT, TASK, "k"), target, due, b"week"), "t")
    fetching = asyncio.create_task(consumer.fetch(1, 14 * 24 * 3600))
    await settle()
    clock.advance(due - clock.now_ms() - 1)
    await settle()
    assert not fetching.done()
    clock.advance(1)
    [fired] = await fetching
    assert fired.stored.time_unix_ms == due
    clock.advance(5_000)
    [again] = await consumer.fetch(1)
    assert again.attempts == 2
    empty = asyncio.create_task(consumer.fetch(1, 3))
    await settle()
    clock.advance(3_000)
    assert await empty == []


async def test_a_killed_client_leaves_its_messages_to_the_next() -> None:
    clock = VirtualClock()
    broker = MemoryBroker.for_mesh(clock=clock)
    first, second = MemoryBus(broker, "worker"), MemoryBus(broker, "worker")
    await first.publish(SUBJECT, b"a", {}, "1")
    [held] = await (await first.open_consumer(INBOX, DURABLE)).fetch(1)
    waiting = asyncio.create_task(first.wait_closed())
    first.cut_off()
    assert await waiting == "killed"
    with pytest.raises(BusUnavailable):
        await held.ack()
    consumer = await second.open_consumer(INBOX, DURABLE)
    taking = asyncio.create_task(consumer.fetch(1, 60))
    await settle()
    assert not taking.done()
    clock.advance(5_000)
    [again] = await taking
    assert (again.stored.body, again.attempts) == (b"a", 2)


async def test_what_is_held_can_be_lost_repeated_and_reordered() -> None:
    clock = VirtualClock()
    broker = MemoryBroker.for_mesh(clock=clock)
    bus = MemoryBus(broker, "worker")
    consumer = await bus.open_consumer(INBOX, DURABLE)
    broker.hold = True
    publishing = [asyncio.create_task(bus.publish(SUBJECT, b"%d" % n, {}, str(n))) for n in range(2)]
    await settle()
    assert [offer.kind for offer in broker.held] == ["publish", "publish"]
    second, first = broker.held.pop(), broker.held.pop()
    second.hand()
    second.hand()  # A repeated publish is stored once.
    first.hand()
    answers = [offer for offer in broker.held if offer.kind == "answer"]
    broker.held.clear()
    answers[-1].hand()  # The other's ack is lost.
    assert (await publishing[0]).sequence == 2
    clock.advance(5_000)
    with pytest.raises(BusUnavailable, match="unknown"):
        await publishing[1]
    fetching = asyncio.create_task(consumer.fetch(2, 60))
    await settle()
    broker.held.pop().hand()
    messages = [offer for offer in broker.held if offer.kind == "message"]
    assert [offer.what for offer in messages] == ["INBOX_WORKER/worker-0:1", "INBOX_WORKER/worker-0:2"]
    messages[1].hand()
    [one] = await fetching
    assert (one.stored.body, one.consumer_sequence) == (b"0", 2)


async def run_once(seed: int) -> list[tuple[str, int, int]]:
    """A small mesh under a seeded order of events; returns what the worker saw."""
    choose = random.Random(seed)
    clock = VirtualClock()
    broker = MemoryBroker.for_mesh(clock=clock)
    broker.hold = True
    bus, other = MemoryBus(broker, "worker"), MemoryBus(broker, "worker")
    seen: list[tuple[str, int, int]] = []

    async def work(client: MemoryBus) -> None:
        consumer = await client.open_consumer(INBOX, DURABLE)
        while True:
            found: list[BusDelivery] = list(await consumer.fetch(4, 5))
            for one in found:
                seen.append((one.stored.body.decode(), one.consumer_sequence, one.attempts))
                await one.ack()

    tasks = [asyncio.create_task(work(bus)), asyncio.create_task(work(other))]
    tasks += [asyncio.create_task(bus.publish(SUBJECT, b"%d" % n, {}, str(n))) for n in range(8)]
    for _ in range(400):
        await settle()
        if broker.held:
            offer = broker.held.pop(choose.randrange(len(broker.held)))
            if offer.kind != "publish" and choose.random() < 0.1:
                continue
            offer.hand()
        else:
            clock.advance(1_000)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return seen


async def test_the_same_seed_gives_the_same_history() -> None:
    first, again, other = await run_once(7), await run_once(7), await run_once(8)
    assert first == again
    assert first != other
    assert {body for body, _, _ in first} == {str(n) for n in range(8)}


def test_the_streams_in_memory_take_what_the_provisioned_ones_take() -> None:
    """Who outgrows a stream must find out in a simulation, not in production."""
    # In memory what is said outside goes into the gateway's inbox itself: nothing there fills a disk.
    real = {one["name"]: one["max_msg_size"] for one in provisioned(Layout(publishers=()))}
    assert {one.name: one.max_message_bytes for one in mesh_streams()} == real
