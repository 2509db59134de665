"""Events for subscribers in a backup: the same ones under the same ids, and each subscriber goes on where it was."""

import shutil
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead_contracts import subjects
from bulkhead_infra.backup import locations
from bulkhead_infra.backup.archive import ArchiveReader
from bulkhead_infra.local.supervisor import LocalMesh
from tests.integration.broker.bare_broker import bus_of
from tests.integration.broker.test_backup import silent

SUBSCRIBER = "sub_demo"
SUBJECT = subjects.event_subject("demo", "task.ended", "t1")


def bus(mesh: LocalMesh, identity: str) -> AbstractAsyncContextManager[JetStreamBus]:
    return bus_of(mesh.nats_url, mesh.directory / "identity", identity)


async def heard(mesh: LocalMesh, count: int) -> list[tuple[int, str]]:
    """Sequence and id of what the subscriber is handed; at most `count`."""
    async with bus(mesh, SUBSCRIBER) as subscriber:
        consumer = await subscriber.open_consumer(subjects.EVENTS_STREAM, SUBSCRIBER)
        found = []
        while len(found) < count and (deliveries := await consumer.fetch(count - len(found), timeout_s=2)):
            for one in deliveries:
                found.append((one.stored.sequence, one.stored.ce_id))
                await one.ack()
        return found


async def test_events_come_back_and_a_subscriber_goes_on_where_it_was(tmp_path: Path) -> None:
    async with LocalMesh(tmp_path / "a", services=(), durability="process") as mesh:
        async with bus(mesh, "gateway") as gateway:
            for number in range(3):
                await gateway.publish(SUBJECT, b"{}", {"ce-id": f"e{number}"}, f"m{number}")
        assert await heard(mesh, 2) == [(1, "e0"), (2, "e1")]
    await locations.back_up_local(tmp_path / "a", tmp_path / "file", "", silent)
    shutil.copytree(tmp_path / "a" / "identity", tmp_path / "b" / "identity")
    with ArchiveReader(tmp_path / "file") as reader:
        await locations.restore_local(reader, tmp_path / "b", "", silent)
    async with LocalMesh(tmp_path / "b", services=(), durability="process") as mesh:
        assert await heard(mesh, 9) == [(3, "e2")]
        async with bus(mesh, SUBSCRIBER) as subscriber:
            again = f"JSMESH.API.CONSUMER.RESET.{subjects.EVENTS_STREAM}.{SUBSCRIBER}"
            await subscriber.request(again, b'{"seq": 1}', {}, 5.0)
        assert [name for _, name in await heard(mesh, 9)] == ["e0", "e1", "e2"], "those before are there, too"
