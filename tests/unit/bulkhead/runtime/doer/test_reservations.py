"""What a doer asked of budget and heard no answer to: it gives back what may be held, and settles what it used."""

import asyncio

import pytest

from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.bus.memory.clock import StandingClock
from bulkhead.bus.port import BusUnavailable
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.envelope import parse
from bulkhead_contracts.result import Usage
from tests.eventually import until
from tests.settlements import settlements
from tests.unit.bulkhead.runtime.doer.test_handler import Purse, Recording, call, grant, replies

pytestmark = pytest.mark.virtual_time


class Vague(Purse):
    """A budget whose answers are lost, each in the way that is next; then it says `wait`, of which nothing follows."""

    def __init__(self, *ways: str) -> None:
        super().__init__("wait")
        self.ways, self.ids = list(ways), []

    async def reserve(self, received: ReceivedMessage):
        self.ids.append(received.body.reservation_id)
        way = self.ways.pop(0) if self.ways else ""
        if way == "late":
            await asyncio.sleep(60)
        if way == "broken":
            raise ValueError("after it was held")
        answer = await super().reserve(received)
        decision = "reserved" if way == "reserved" else "wait"
        return answer.model_copy(update={"doubtful": way == "doubtful", "decision": decision})


@pytest.mark.parametrize(
    ("ways", "given_back"),
    [(["late"], 1), (["broken"], 1), (["doubtful"], 1), (["doubtful", "", ""], 1), ([], 0), (["late", "reserved"], 0)],
)
async def test_who_gives_up_asking_gives_back_what_may_be_held(monkeypatch, ways, given_back):
    """And nothing where every answer was that nothing is held."""
    monkeypatch.setattr("bulkhead.runtime.doer.reservations.BUDGET_PATIENCE_S", 0.6)
    monkeypatch.setattr(Publisher.request, "__kwdefaults__", {"timeout_s": 0.1})
    doer, purse = Recording(), Vague(*ways)
    async with MemoryMesh({"budget": lambda c: purse, "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        kind, _ = (await replies(mesh, 1))[0]
        done = int("reserved" in ways)
        assert (kind == CallDeferred.ce_type(), doer.done) == (not done, done)
        settled = await settlements(mesh)
        [asked] = set(purse.ids)
        assert [(one.reservation_id, one.estimated, one.wall_ms) for one in settled if one.usage == Usage()] == [
            (asked, False, 0)
        ] * given_back
        await call(mesh, grant(mesh), index=1)
        await replies(mesh, 2)
        assert len(set(purse.ids)) == 2 - done, "asked anew under a reservation of its own; what is done is not"
        assert len(await settlements(mesh)) == given_back + done


async def test_what_a_call_used_is_settled_also_where_its_outcome_cannot_be_stored(monkeypatch):
    """Its key has an outcome, which a follower that lags does not show, twice; then it is handled again."""
    doer, purse, real, looks = Recording(), Purse(), MemoryBus.last_on, []

    async def lags(bus, stream, subject):
        looks.append(subject)
        return await real(bus, stream, subject) if len(looks) > 2 else None

    async with MemoryMesh({"budget": lambda c: purse, "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        await replies(mesh, 1)
        monkeypatch.setattr(MemoryBus, "last_on", lags)
        await call(mesh, grant(mesh), index=1)
        assert (await replies(mesh, 2))[1][1]["outcome"] == "succeeded" and doer.done == 2
        assert len({one.reservation_id for one in await settlements(mesh)}) == 2


class Away:
    """A broker that answers none of these publishes, so often."""

    def __init__(self, monkeypatch, prefix: str, times: int) -> None:
        self.left, real = times, MemoryBus.publish

        async def publish(bus, subject, body, *rest, **more):
            if self.left and subject.startswith(prefix):
                self.left -= 1
                raise BusUnavailable("no answer")
            return await real(bus, subject, body, *rest, **more)

        monkeypatch.setattr(MemoryBus, "publish", publish)
        monkeypatch.setattr("bulkhead.runtime.publish.publisher.PUBLISH_BACKOFF_S", 0.001)


@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("prefix", ["mesh.tool_executor.worker."])
async def test_an_outcome_is_kept_for_as_long_as_the_broker_is_away(monkeypatch, writes, prefix):
    """It is not done again, nobody is asked whether it was done, and what it used is settled as it was."""
    doer, purse = Recording(writes=writes), Purse()
    async with MemoryMesh({"budget": lambda c: purse, "tool_executor": lambda c: doer}) as mesh:
        away = Away(monkeypatch, prefix, 9)
        await call(mesh, grant(mesh))
        assert (await replies(mesh, 1))[0][1]["outcome"] == "succeeded" and doer.done == 1
        assert not away.left and [(one.usage.tool_calls, one.estimated) for one in await settlements(mesh)] == [
            (1, False)
        ]


async def test_what_was_spent_until_it_failed_is_settled_also_where_the_broker_is_away(monkeypatch):
    """Otherwise it is held for nobody until its lease ends, and counts as spent then."""
    doer, purse = Recording(crash=1), Purse()
    async with MemoryMesh({"budget": lambda c: purse, "tool_executor": lambda c: doer}) as mesh:
        Away(monkeypatch, "mesh.tool_executor.budget.", 9)
        await call(mesh, grant(mesh))
        await replies(mesh, 1)
        assert sorted(one.estimated for one in await settlements(mesh)) == [False, True]


async def test_two_handlings_of_one_delivery_never_share_a_reservation():
    """A broker that forgot what it had handed out begins to count deliveries again."""
    doer, purse = Recording(crash=1), Purse()
    async with MemoryMesh({"budget": lambda c: purse, "tool_executor": lambda c: doer}) as mesh:
        for durable in mesh.broker._durables.values():
            durable.attempts = Forgetful()
        await call(mesh, grant(mesh))
        await replies(mesh, 1)
        assert len({one.reservation_id for one in await settlements(mesh)}) == 2


class Slow(Recording):
    """Ends what it does when it may."""

    def __init__(self) -> None:
        super().__init__(writes=True)
        self.began, self.may_end = asyncio.Event(), asyncio.Event()

    async def act(self, job, hands, turn):
        self.began.set()
        answer = await super().act(job, hands, turn)
        await self.may_end.wait()
        return answer


async def test_two_handlings_of_one_delivery_never_share_a_claim(monkeypatch):
    """A broker that restarts hands out again what it had not written down yet that it did, as if for the first time.
    The other replica claims it, too, where it looked into a follower that lags; it does not do it a second time."""
    doer, last, publish, lagging, claims = Slow(), MemoryBus.last, MemoryBus.publish, [], list[str]()

    async def lags(bus, stream, subject):
        if stream == "RECORDS_TOOL_EXECUTOR" and lagging and lagging.pop():
            return None
        return await last(bus, stream, subject)

    async def counted(bus, subject, *rest, **more):
        try:
            return await publish(bus, subject, *rest, **more)
        finally:
            claims.extend([subject] * subject.startswith("record.tool_executor."))

    monkeypatch.setattr(MemoryBus, "last", lags)
    monkeypatch.setattr(MemoryBus, "publish", counted)
    async with MemoryMesh({"budget": lambda c: Purse(), "tool_executor": lambda c: doer}) as mesh:
        [durable] = [one for (stream, _), one in mesh.broker._durables.items() if stream == "INBOX_TOOL_EXECUTOR"]
        durable.attempts = Forgetful()
        await call(mesh, grant(mesh))
        await doer.began.wait()
        mesh.running[("tool_executor", "0")].bus.break_connection()
        await mesh.start("tool_executor", "1")
        lagging.append(True)
        mesh.broker.wait_for_ack(durable, 1, 0)
        await until(lambda: len(claims) >= 2)
        doer.may_end.set()
        await replies(mesh, 1)
        assert doer.done == 1


class Forgetful(dict):
    """Remembers no count."""

    def get(self, key, default=None):
        return default


async def test_no_answer_is_from_before_its_request_however_far_behind_a_doers_clock_is():
    """Who is put off counts from the answer's time: were that in the past, it would ask at once."""
    doer, clock = Recording(), StandingClock()
    async with MemoryMesh({"budget": lambda c: Purse("wait"), "tool_executor": lambda c: doer}, clock=clock) as mesh:
        began_ms = clock.now_ms()
        mesh._now = lambda: began_ms - 3_600_000
        await mesh.start("tool_executor", "1")
        mesh.kill_replica("tool_executor", "0")
        await call(mesh, grant(mesh))
        await replies(mesh, 1)
        [answer] = await mesh.messages("INBOX_WORKER", "mesh.tool_executor.worker.>")
        assert answer.ce_type == CallDeferred.ce_type()
        assert parse(answer.headers).time_unix_ms == began_ms
