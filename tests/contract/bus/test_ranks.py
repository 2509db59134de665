"""Which of several replicas is served: the nearest that has room, and another at once when it is full or gone.

Only a real broker heeds ranks: they are a hint, and the in-memory one serves whoever asks.
"""

import asyncio
import json

import pytest

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import BusDelivery, BusUnavailable, Consumer
from bulkhead.runtime.consume.loop import RANKS, shard_rank
from bulkhead_contracts import catalog, subjects
from bulkhead_infra.nats.streams import PRIORITY_GROUP, Layout, durable_configs
from tests.contract.bus.worlds import INBOX, JetStreamWorld
from tests.eventually import until

SUBJECT = subjects.mesh_subject("planner", "worker", "acme", "Task-1")
DEADLINE_S = 20.0
BASE = {"durable_name": "worker-0", "ack_policy": "explicit", "max_deliver": -1}
[RANKED] = [
    {key: value for key, value in config.items() if key.startswith("priority_")}
    for _, config in durable_configs(Layout({"worker": 2}))
    if config["name"] == "worker-0"
]


async def durable(world: JetStreamWorld, **more: object) -> None:
    await world.api(f"CONSUMER.CREATE.{INBOX}.worker-0", {"stream_name": INBOX, "config": BASE | more})


async def put(bus: JetStreamBus, first: int, count: int) -> list[str]:
    names = [f"m{number}" for number in range(first, first + count)]
    for name in names:
        await bus.publish(SUBJECT, name.encode(), {}, name)
    return names


class Replica:
    """Takes what it is handed, as a shell does; acks while it is told to."""

    def __init__(self, consumer: Consumer, room: int = 16) -> None:
        self.consumer, self.room = consumer, room
        self.got: list[BusDelivery] = []
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            try:
                self.got += (found := await self.consumer.fetch(self.room, 5.0))
            except BusUnavailable:
                await asyncio.sleep(0.05)
                continue
            for one in found:
                await one.ack()

    def names(self) -> list[str]:
        return [one.stored.body.decode() for one in self.got]

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.consumer.close()


async def asking(world: JetStreamWorld, count: int) -> None:
    """Until so many requests wait at the broker."""
    async with asyncio.timeout(DEADLINE_S):
        while (await world.api(f"CONSUMER.INFO.{INBOX}.worker-0"))["num_waiting"] < count:
            await asyncio.sleep(0.02)


async def had(names: list[str], *replicas: Replica) -> None:
    await until(lambda: set(names) <= {name for one in replicas for name in one.names()})


async def test_a_shard_stays_with_the_nearest_replica_and_goes_to_another_when_that_is_gone(jetstream_world) -> None:
    await durable(jetstream_world, **RANKED)
    near, far = await jetstream_world.bus(), await jetstream_world.bus()
    second = Replica(await far.open_consumer(INBOX, "worker-0", rank=3))
    first = Replica(await near.open_consumer(INBOX, "worker-0", rank=0))
    await asking(jetstream_world, 2)
    names = await put(far, 0, 30)
    await had(names, first, second)
    assert first.names() == names and second.got == [], "served without a gap: its folds in memory are whole"
    assert [one.consumer_sequence for one in first.got] == list(range(1, 31))
    await first.stop()
    more = await put(far, 30, 5)
    await had(more, second)
    assert second.names() == more
    await second.stop()


async def test_what_the_nearest_has_no_room_for_goes_to_another_at_once(jetstream_world) -> None:
    await durable(jetstream_world, **RANKED)
    near, far = await jetstream_world.bus(), await jetstream_world.bus()
    full = await near.open_consumer(INBOX, "worker-0", rank=0)
    fetching = asyncio.create_task(full.fetch(1, DEADLINE_S))
    other = Replica(await far.open_consumer(INBOX, "worker-0", rank=7))
    await asking(jetstream_world, 2)
    names = await put(far, 0, 4)
    [mine] = await fetching
    await had(names[1:], other)
    assert mine.stored.body.decode() == "m0" and other.names() == names[1:]
    await other.stop()
    await full.close()


@pytest.mark.parametrize("later", [True, False], ids=["now_ranked", "not_ranked_any_more"])
async def test_a_durable_that_is_changed_under_a_running_replica_is_asked_as_it_is_now(jetstream_world, later) -> None:
    """The number of shards of a running mesh grows: the provisioner comes before the replicas are started again."""
    await durable(jetstream_world, **({} if later else RANKED))
    bus = await jetstream_world.bus()
    replica = Replica(await bus.open_consumer(INBOX, "worker-0", rank=1))
    await asking(jetstream_world, 1)
    await durable(jetstream_world, **(RANKED if later else {}))
    names = await put(bus, 0, 5)
    await had(names, replica)
    await replica.stop()


def test_every_replica_has_a_shard_of_its_own_and_more_shards_are_spread() -> None:
    def nearest(replicas: int, shard: int) -> int:
        return min(range(replicas), key=lambda one: shard_rank(str(one), shard))

    for count in range(1, RANKS + 1):
        shards = [nearest(count, shard) for shard in range(count)]
        assert sorted(shards) == list(range(count)), (count, shards)
        assert len({shard_rank(str(one), 5) for one in range(count)}) == count, "no two are equally near"
    most = [sum(nearest(2, shard) == one for shard in range(32)) for one in (0, 1)]
    assert most == [16, 16]
    assert 0 <= shard_rank("a7c91be2f3d0", 31) < RANKS and shard_rank("a7c91be2f3d0", 3) == shard_rank(
        "a7c91be2f3d0", 3
    )


def test_one_shard_is_everybodys() -> None:
    """Ranked, it would be one replica's, and the others would stand by."""
    assert not any("priority_groups" in config for _, config in durable_configs(Layout()))
    ranked = [config for _, config in durable_configs(Layout({"worker": 2})) if "priority_groups" in config]
    assert [json.loads(json.dumps(one["priority_groups"])) for one in ranked] == [[PRIORITY_GROUP]] * 2


def test_doers_take_turns_in_every_shard_since_they_fold_nothing() -> None:
    """Else the calls of one shard wait for one replica's places while another's are free."""
    shards = dict.fromkeys(catalog.INBOXES, 2)
    made = [config for _, config in durable_configs(Layout(shards)) if "priority_groups" in config]
    ranked = {config["name"].rpartition("-")[0] for config in made}
    assert set(catalog.DECIDERS) <= ranked and not ranked & set(catalog.DOERS)
