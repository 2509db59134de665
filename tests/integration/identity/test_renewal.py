"""A service whose token is exchanged every few seconds, under a stream of messages and requests: nothing is lost."""

import asyncio
import logging
from pathlib import Path

import pytest

from bulkhead.bus.jetstream import renewal
from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import LiveMessage
from tests.eventually import until
from tests.integration.identity.world import World, running

pytestmark = pytest.mark.nightly

LASTS_S, EXCHANGED_S, RUNS_S = 6, 1.5, 15
BURST = 40
TO = "mesh.planner.worker.3.demo.t1.-"


class Service:
    """A service that logs in with a file which is exchanged as the kubelet does it."""

    def __init__(self, world: World, name: str, *, exchanged_s: float = EXCHANGED_S) -> None:
        self.world, self.name, self._exchanged_s = world, name, exchanged_s
        self.file = world.folder / f"{name}.token"
        self.bus: JetStreamBus
        self._exchanging: asyncio.Task[None] | None = None

    def exchange(self, lasts_s: float = LASTS_S) -> None:
        fresh = Path(f"{self.file}.new")
        fresh.write_text(self.world.issuer.token(self.name, lasts_s))
        fresh.replace(self.file)

    async def _exchange(self) -> None:
        while True:
            await asyncio.sleep(self._exchanged_s)
            self.exchange()

    async def __aenter__(self) -> "Service":
        self.exchange()
        self.bus = await JetStreamBus.connect(self.world.url, service=self.name, token_file=self.file)
        self._exchanging = asyncio.create_task(self._exchange())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._exchanging is not None
        self._exchanging.cancel()
        await self.bus.close()

    @property
    def renewals(self) -> int:
        assert self.bus._connection.renewal is not None
        return self.bus._connection.renewal.count


@pytest.fixture
async def world(tmp_path):
    async with running(tmp_path, replicas=2) as found:
        yield found


async def test_nothing_is_lost_while_logins_are_renewed(world: World, monkeypatch, caplog):
    # The client before is there for longer than its token lasts here, in each of many renewals.
    monkeypatch.setattr(renewal, "OLD_CLIENT_LINGER_S", 4.0)
    caplog.set_level(logging.INFO, "bulkhead")
    sent: list[str] = []
    got: list[str] = []
    answers = 0
    ends = asyncio.get_running_loop().time() + RUNS_S
    async with (
        Service(world, "planner") as planner,
        Service(world, "worker") as worker,
        Service(world, "budget") as budget,
    ):

        async def answer(asked: LiveMessage) -> tuple[dict[str, str], bytes]:
            await asyncio.sleep(0.02)
            return {}, asked.body

        await budget.bus.serve("rpc.*.budget.>", "budget", answer)
        consumer = await worker.bus.open_consumer("INBOX_WORKER", "worker-0")

        async def publish() -> None:
            while asyncio.get_running_loop().time() < ends:
                burst = [str(number) for number in range(len(sent), len(sent) + BURST)]
                sent.extend(burst)
                await asyncio.gather(*(planner.bus.publish(TO, one.encode(), {}, f"m-{one}") for one in burst))
                await asyncio.sleep(0.02)

        async def take() -> None:
            while asyncio.get_running_loop().time() < ends or len(got) < len(sent):
                for delivery in await consumer.fetch(32, 1.0):
                    got.append(delivery.stored.body.decode())
                    assert delivery.attempts == 1, "nothing is delivered twice either"
                    await delivery.ack()

        async def ask() -> None:
            nonlocal answers
            while asyncio.get_running_loop().time() < ends:
                said = await rag.bus.request("rpc.rag.budget.3.demo.t1", b"x")
                assert said.body == b"x"
                answers += 1

        async with Service(world, "rag") as rag, asyncio.timeout(RUNS_S + 30):
            await asyncio.gather(publish(), take(), *(ask() for _ in range(4)))
            counts = [one.renewals for one in (planner, worker, budget, rag)]
    assert min(counts) >= 6, counts
    assert len(sent) > 500 and answers > 500
    assert got == sent, "nothing is lost, and one task's messages come in their order"
    events = [record.message for record in caplog.records]
    assert "connection_lost" not in events and "token_refused" not in events, "no connection broke"
    assert events.count("login_renewed") == sum(counts)


async def test_while_nobody_can_renew_the_login_before_serves_on(world: World, caplog):
    async with Service(world, "worker", exchanged_s=60) as worker:
        for number in (0, 1):
            await world.stop(number, kill=True)
        worker.exchange(lasts_s=60)
        await until(lambda: "token_not_renewed" in [one.message for one in caplog.records], timeout_s=25)
        assert worker.renewals == 0
        # Its own token has ended by now: the connection is gone, and comes back with whoever lets it in.
        await world.start(0)
        await until(lambda: worker.bus._connection.connected, timeout_s=30)
        await worker.bus.publish("mesh.worker.planner.3.demo.t1.-", b"{}", {}, "after")
    assert not any("eyJ" in record.getMessage() + str(vars(record).get("values")) for record in caplog.records)


async def test_a_connection_whose_token_ended_comes_back_with_the_next(world: World, caplog):
    """The file is exchanged too late: the broker has ended the connection by then."""
    async with Service(world, "worker", exchanged_s=60) as worker:
        await until(lambda: not worker.bus._connection.connected, timeout_s=LASTS_S + 10)
        assert "token_not_renewed" in [one.message for one in caplog.records]
        worker.exchange()
        await worker.bus.publish("mesh.worker.planner.3.demo.t1.-", b"{}", {}, "after")
        assert not worker.bus._connection.closed.done()


async def test_a_service_without_an_nkey_runs_through_its_renewals(world: World):
    """A real process of another service, as a pod starts it."""
    name = "planner"
    assert not (world.identity / f"{name}.nkey").exists()
    pod = Service(world, name)
    pod.exchange()
    exchanging = asyncio.create_task(pod._exchange())
    try:
        await world.start(5, module=name, NATS_TOKEN_FILE=str(pod.file))
        await until(lambda: world.log(5).read_text().count("login_renewed") >= 5, timeout_s=60, every_s=0.2)
        assert await world.ready(5)
    finally:
        exchanging.cancel()
    said = world.log(5).read_text()
    assert "connection_lost" not in said and "token_refused" not in said
