"""What only a real broker can show: restarts, accounts, refused rights, what the broker remembers."""

import asyncio
import json
import signal
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator

import nats
import pytest

from bulkhead.bus.jetstream import connection, pull_consumer, request_reply
from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import BusUnavailable, PublishRefused, WrongLastSequence
from bulkhead.http_server.tcp_ports import free_port
from bulkhead_contracts import subjects
from tests.contract.bus.probes import FILTER, SUBJECT, TASK, TENANT, attach
from tests.contract.bus.server import NatsServer
from tests.contract.bus.worlds import INBOX, JetStreamWorld
from tests.eventually import until

PATIENCE_S = 60.0
"""So long something may wait that must not."""
ANSWER_S = 4.0
"""Under every timeout of the adapter (5 s): it was told, and did not give up waiting."""


async def test_a_killed_broker_comes_back_and_nothing_is_lost(own_world: JetStreamWorld) -> None:
    world = own_world
    bus = await world.bus()
    consumer = await attach(world, bus, 1_000)
    live = await bus.subscribe_live("control.live.>")
    stopping = asyncio.Event()
    acked: list[str] = []
    seen: set[str] = set()

    async def publish() -> None:
        number = 0
        while not stopping.is_set():
            name = f"m{number}"
            try:
                await bus.publish(SUBJECT, name.encode(), {}, name)
            except BusUnavailable:
                continue  # The same id again: it is stored once.
            acked.append(name)
            number += 1

    async def consume() -> None:
        while True:
            try:
                found = await consumer.fetch(16, 0.5)
            except BusUnavailable:
                continue
            for one in found:
                seen.add(one.stored.body.decode())
                await one.ack()

    publishing, consuming = asyncio.create_task(publish()), asyncio.create_task(consume())
    await until(lambda: len(seen) > 20, "messages are acked and handed out")
    before = len(acked)
    await world.server.restart()
    restarted = time.monotonic()
    while len(acked) <= before + 5:
        assert time.monotonic() - restarted < PATIENCE_S, "publishing did not go on after the restart"
        await asyncio.sleep(0.01)
    stopping.set()
    await asyncio.wait_for(publishing, 15)
    stored = [one.body.decode() for one in await bus.read(INBOX, FILTER, limit=100_000)]
    assert stored == acked, "each acked message is stored once, in order"
    while not seen >= set(acked):
        assert time.monotonic() - restarted < PATIENCE_S, f"never handed out: {set(acked) - seen}"
        await asyncio.sleep(0.01)
    consuming.cancel()
    assert await bus.is_ready()
    await bus.publish(subjects.control_key("task", "t"), b"halt", {}, "halt")
    word = await asyncio.wait_for(anext(aiter(live)), 5)
    assert word.body == b"halt"


async def test_a_standing_fetch_survives_a_restart(own_world: JetStreamWorld) -> None:
    world = own_world
    bus = await world.bus()
    consumer = await attach(world, bus)
    waiting = asyncio.create_task(consumer.fetch(4, PATIENCE_S))
    await asyncio.sleep(0.1)
    await world.server.restart()
    await bus.publish(SUBJECT, b"after", {}, "1")
    [one] = await asyncio.wait_for(waiting, PATIENCE_S / 2)
    assert (one.stored.body, one.attempts) == (b"after", 1)


async def test_while_the_broker_is_down_everything_says_so(own_world: JetStreamWorld) -> None:
    world = own_world
    bus = await world.bus()
    consumer = await attach(world, bus)
    await asyncio.to_thread(world.server.stop)
    while await bus.is_ready():
        await asyncio.sleep(0.01)
    with pytest.raises(BusUnavailable, match="no connection"):
        await bus.request("rpc.a.b.1.t.x", b"", timeout_s=0.2)
    with pytest.raises(BusUnavailable, match="no connection"):
        await consumer.fetch(1, 0.2)
    await bus.publish_live("live.a.b.c", b"unheard")
    await asyncio.to_thread(world.server.start)
    assert (await bus.publish(SUBJECT, b"x", {}, "1")).sequence == 1


async def test_a_silent_broker_is_noticed_and_taken_up_again(
    own_world: JetStreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PING_INTERVAL_S", 0.1)
    bus = await own_world.bus()
    assert await bus.is_ready()
    own_world.server.send(signal.SIGSTOP)
    publishing = asyncio.create_task(bus.publish(SUBJECT, b"x", {}, "1"))
    assert not await bus.is_ready()
    await asyncio.sleep(0.5)
    assert not publishing.done()
    own_world.server.send(signal.SIGCONT)
    assert (await asyncio.wait_for(publishing, 6)).sequence == 1
    assert await bus.is_ready()


async def test_a_bus_closes_while_the_broker_is_down(own_world: JetStreamWorld) -> None:
    bus = await own_world.bus()
    await own_world.durable("worker-0")
    consumer = await bus.open_consumer(INBOX, "worker-0")
    fetching = asyncio.create_task(consumer.fetch(1, 60))
    await asyncio.to_thread(own_world.server.stop)
    await asyncio.wait_for(bus.close(), 3)
    with pytest.raises(BusUnavailable):
        await asyncio.wait_for(fetching, 1)
    assert await bus.wait_closed() == "closed by this process"
    await asyncio.to_thread(own_world.server.start)


async def test_no_broker_is_told_within_the_timeout() -> None:
    with pytest.raises(BusUnavailable, match="bulkhead up"):
        await JetStreamBus.connect(f"nats://127.0.0.1:{free_port()}", service="worker", timeout_s=0.5)


async def test_inboxes_are_renewed_without_losing_a_message(
    jetstream_world: JetStreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_reply, "MAX_QUESTIONS_PER_INBOX", 7)
    monkeypatch.setattr(pull_consumer, "MAX_PULLS_PER_INBOX", 3)
    monkeypatch.setattr(pull_consumer, "MAX_PULL_S", 0.1)
    monkeypatch.setattr(pull_consumer, "OVERDUE_S", 0.05)
    bus = await jetstream_world.bus()
    await jetstream_world.durable("worker-0", ack_wait_ms=60_000)
    consumer = await bus.open_consumer(INBOX, "worker-0")

    async def publish() -> None:
        for n in range(0, 200, 4):
            await asyncio.gather(*(bus.publish(SUBJECT, b"%d" % m, {}, str(m)) for m in range(n, n + 4)))
            await bus.last(INBOX, SUBJECT)

    publishing = asyncio.create_task(publish())
    seen: list[int] = []
    end = time.monotonic() + 10
    while len(seen) < 200:
        assert time.monotonic() < end, f"only {len(seen)} came"
        for one in await consumer.fetch(5, 1):
            assert one.attempts == 1
            seen.append(one.stored.sequence)
            await one.ack()
    await publishing
    assert seen == sorted(seen)
    assert len(bus._connection.nc._subs) < 12  # type: ignore[attr-defined]


ACCOUNTS = """
http: "127.0.0.1:%d"
accounts {
  MESH: {
    jetstream: enabled
    users: [ { user: provisioner, password: p } ]
    exports: [
      { service: "mesh.worker.planner.>", accounts: [SVC_WORKER] }
      { service: "record.rag.>", accounts: [SVC_WORKER] }
      { service: "rpc.worker.budget.>", accounts: [SVC_WORKER] }
      { service: "$JS.API.CONSUMER.MSG.NEXT.INBOX_WORKER.worker-0", response_type: stream, accounts: [SVC_WORKER] }
      { service: "$JS.API.CONSUMER.INFO.INBOX_WORKER.worker-0", accounts: [SVC_WORKER] }
      { service: "$JS.ACK.INBOX_WORKER.worker-0.>", accounts: [SVC_WORKER] }
      { service: "$JS.API.DIRECT.GET.INBOX_WORKER", response_type: stream, accounts: [SVC_WORKER] }
      { service: "$JS.API.DIRECT.GET.INBOX_PLANNER.mesh.worker.planner.>", accounts: [SVC_WORKER] }
      { stream: "control.live.>", accounts: [SVC_WORKER] }
    ]
  }
  SVC_WORKER: {
    users: [ { user: worker, password: p, permissions: {
      publish: { allow: ["mesh.worker.planner.>", "record.rag.>", "rpc.worker.budget.>",
                         "JSMESH.API.CONSUMER.MSG.NEXT.INBOX_WORKER.worker-0",
                         "JSMESH.API.CONSUMER.INFO.INBOX_WORKER.worker-0", "$JS.ACK.INBOX_WORKER.worker-0.>",
                         "JSMESH.API.DIRECT.GET.INBOX_PLANNER.mesh.worker.planner.>",
                         "JSMESH.API.DIRECT.GET.INBOX_WORKER"] }
      subscribe: { allow: ["_INBOX_worker.>", "control.live.>"] } } } ]
    imports: [
      { service: { account: MESH, subject: "mesh.worker.planner.>" } }
      { service: { account: MESH, subject: "record.rag.>" } }
      { service: { account: MESH, subject: "rpc.worker.budget.>" } }
      { service: { account: MESH, subject: "$JS.ACK.INBOX_WORKER.worker-0.>" } }
      { stream:  { account: MESH, subject: "control.live.>" } }
      { service: { account: MESH, subject: "$JS.API.CONSUMER.MSG.NEXT.INBOX_WORKER.worker-0" },
        to: "JSMESH.API.CONSUMER.MSG.NEXT.INBOX_WORKER.worker-0" }
      { service: { account: MESH, subject: "$JS.API.CONSUMER.INFO.INBOX_WORKER.worker-0" },
        to: "JSMESH.API.CONSUMER.INFO.INBOX_WORKER.worker-0" }
      { service: { account: MESH, subject: "$JS.API.DIRECT.GET.INBOX_WORKER" },
        to: "JSMESH.API.DIRECT.GET.INBOX_WORKER" }
      { service: { account: MESH, subject: "$JS.API.DIRECT.GET.INBOX_PLANNER.mesh.worker.planner.>" },
        to: "JSMESH.API.DIRECT.GET.INBOX_PLANNER.mesh.worker.planner.>" }
    ]
  }
}
"""


class Accounts:
    """A broker with an account per service, and the worker's and the provisioner's way in."""

    def __init__(self, server: NatsServer, monitor_port: int) -> None:
        self.server = server
        self._monitor = f"http://127.0.0.1:{monitor_port}/accountz?acc=MESH"

    def url(self, user: str) -> str:
        return self.server.url.replace("nats://", f"nats://{user}:p@")

    def remembered(self) -> int:
        """How many answers the broker keeps a way open for."""
        with urllib.request.urlopen(self._monitor) as answer:
            return len(json.load(answer)["account_detail"].get("responses") or ())


@pytest.fixture(scope="module")
def accounts_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    monitor = free_port()
    server = NatsServer(tmp_path_factory.mktemp("accounts"), ACCOUNTS % monitor)
    server.start()
    yield Accounts(server, monitor)
    server.stop()


@pytest.fixture
async def accounts(accounts_server: Accounts) -> AsyncIterator[Accounts]:
    admin = await nats.connect(accounts_server.url("provisioner"))

    async def api(what: str, body: object) -> None:
        answer = json.loads((await admin.request(f"$JS.API.{what}", json.dumps(body).encode(), timeout=10)).data)
        assert "error" not in answer, answer

    for name, subject in ((INBOX, "mesh.*.worker.>"), ("INBOX_PLANNER", "mesh.*.planner.>"), ("RECORDS", "record.>")):
        await api(f"STREAM.CREATE.{name}", {"name": name, "subjects": [subject], "allow_direct": True})
        await api(f"STREAM.PURGE.{name}", {})
    config = {"durable_name": "worker-0", "ack_policy": "explicit", "ack_wait": 5 * 10**9, "max_deliver": -1}
    await api(f"CONSUMER.CREATE.{INBOX}.worker-0", {"stream_name": INBOX, "config": config})
    for n in range(50):
        await admin.jetstream().publish(SUBJECT, b"%d" % n)
    yield accounts_server
    await api(f"CONSUMER.DELETE.{INBOX}.worker-0", {})
    await admin.close()


@pytest.fixture
async def bus(accounts: Accounts) -> AsyncIterator[JetStreamBus]:
    """The worker's."""
    found = await JetStreamBus.connect(accounts.url("worker"), service="worker")
    yield found
    await found.close()


async def test_the_whole_port_works_across_accounts(bus: JetStreamBus) -> None:
    consumer = await bus.open_consumer(INBOX, "worker-0")
    found = []
    while len(found) < 50:
        found += await consumer.fetch(20, 2)
    for one in found:
        await one.ack()
    assert [one.stored.body for one in found] == [b"%d" % n for n in range(50)]
    assert found[0].stream == INBOX
    page = await bus.read(INBOX, FILTER, limit=30)
    assert [one.body for one in page] == [b"%d" % n for n in range(30)]
    last = await bus.last(INBOX, SUBJECT)
    assert last is not None and last.body == b"49"
    ack = await bus.publish(subjects.mesh_subject("worker", "planner", TENANT, TASK), b"x", {}, "1")
    assert ack.stream == "INBOX_PLANNER"


async def test_a_denied_publish_is_refused_at_once(bus: JetStreamBus) -> None:
    begun = time.monotonic()
    with pytest.raises(PublishRefused, match="policy"):
        await bus.publish(subjects.mesh_subject("worker", "checker", TENANT, TASK), b"x", {}, "1")
    with pytest.raises(PublishRefused, match="policy"):
        await bus.publish(subjects.mesh_subject("planner", "worker", TENANT, TASK), b"forged", {}, "1")
    with pytest.raises(PublishRefused, match="policy"):
        await bus.last("INBOX_PLANNER", SUBJECT)
    with pytest.raises(PublishRefused, match="policy"):
        await bus.open_consumer("INBOX_PLANNER", "planner-0")
    assert time.monotonic() - begun < ANSWER_S


async def test_of_another_inbox_a_service_reads_only_what_it_said_there_under_a_key(bus: JetStreamBus) -> None:
    said = subjects.mesh_subject("worker", "planner", TENANT, TASK, "call-1")
    assert await bus.last_on("INBOX_PLANNER", said) is None
    await bus.publish(said, b"x", {}, "said", expect_last_on_subject=0)
    await bus.publish(subjects.mesh_subject("worker", "planner", TENANT, TASK), b"y", {}, "unkeyed")
    last = await bus.last_on("INBOX_PLANNER", said)
    assert last is not None and last.body == b"x"
    again = await bus.publish(said, b"x", {}, "said", expect_last_on_subject=0)
    assert again.duplicate and again.sequence == last.sequence, "after a lost ack it meets itself"
    with pytest.raises(WrongLastSequence):
        await bus.publish(said, b"rival", {}, "rival", expect_last_on_subject=0)
    begun = time.monotonic()
    with pytest.raises(PublishRefused, match="policy"):
        await bus.last_on("INBOX_PLANNER", subjects.mesh_subject("budget", "planner", TENANT, TASK))
    with pytest.raises(PublishRefused, match="policy"):
        await bus.last("INBOX_PLANNER", said)
    assert time.monotonic() - begun < ANSWER_S


async def test_listening_without_the_right_is_refused(bus: JetStreamBus) -> None:
    with pytest.raises(PublishRefused, match="policy"):
        await bus.subscribe_live("live.>")
    await bus.subscribe_live("control.live.>")


async def test_a_conflict_that_cannot_be_read_stays_a_conflict(bus: JetStreamBus) -> None:
    await bus.publish("record.rag.t.x.k", b"x", {}, "1", expect_last_on_subject=0)
    begun = time.monotonic()
    with pytest.raises(WrongLastSequence):
        await bus.publish("record.rag.t.x.k", b"y", {}, "2", expect_last_on_subject=0)
    assert time.monotonic() - begun < ANSWER_S


async def test_nobody_answers_across_accounts(bus: JetStreamBus) -> None:
    with pytest.raises(BusUnavailable, match="nobody answers"):
        await bus.request(subjects.rpc_subject("worker", "budget", TENANT, TASK), b"x")


async def test_what_the_broker_remembers_of_requests_is_bounded(
    accounts: Accounts, bus: JetStreamBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_reply, "MAX_QUESTIONS_PER_INBOX", 50)
    start = accounts.remembered()
    most = 0
    for n in range(300):
        await bus.last(INBOX, SUBJECT)
        if n % 20 == 0:
            most = max(most, accounts.remembered() - start)
    assert most <= 100


async def test_a_refused_key_is_told_at_once(accounts: Accounts) -> None:
    begun = time.monotonic()
    with pytest.raises(BusUnavailable, match="refuses this service's key"):
        await JetStreamBus.connect(accounts.url("stranger"), service="worker", timeout_s=PATIENCE_S)
    assert time.monotonic() - begun < PATIENCE_S / 2
