"""What a doer asked of budget and heard no answer to: it gives back what may be held, and settles what it used."""

import asyncio

import pytest

from bulkhead.bus.memory import MemoryBus
from bulkhead.runtime.edge import Received
from bulkhead.runtime.publisher import Publisher
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.result import Usage
from tests.unit.runtime.test_shells import Purse, Recording, call, grant, replies


async def _settled(purse: Purse, count: int) -> None:
    async with asyncio.timeout(15):
        while len(purse.settled) < count:
            await asyncio.sleep(0.005)


class Vague(Purse):
    """A budget whose answers are lost, each in the way that is next; then it says `wait`, of which nothing follows."""

    def __init__(self, *ways: str) -> None:
        super().__init__("wait")
        self.ways, self.ids = list(ways), []

    async def reserve(self, received: Received):
        self.ids.append(received.body.reservation_id)
        way = self.ways.pop(0) if self.ways else ""
        if way == "late":
            await asyncio.sleep(60)
        if way == "broken":
            raise ValueError("after it was held")
        answer = await super().reserve(received)
        decision = "reserved" if way == "reserved" else "wait"
        return answer.model_copy(update={"doubtful": way == "doubtful", "decision": decision})


@pytest.mark.parametrize(("ways", "given_back"), [
    (["late"], 1), (["broken"], 1), (["doubtful"], 1), (["doubtful", "", ""], 1), ([], 0), (["late", "reserved"], 0),
])
async def test_who_gives_up_asking_gives_back_what_may_be_held(monkeypatch, ways, given_back):
    """And nothing where every answer was that nothing is held."""
    monkeypatch.setattr("bulkhead.runtime.doing.BUDGET_PATIENCE_S", 0.6)
    monkeypatch.setattr(Publisher.request, "__kwdefaults__", {"timeout_s": 0.1})
    doer, purse = Recording(), Vague(*ways)
    async with MemoryMesh({"budget": lambda c: purse, "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        kind, _ = (await replies(mesh, 1))[0]
        done = int("reserved" in ways)
        assert (kind == CallDeferred.ce_type(), doer.done) == (not done, done)
        await _settled(purse, given_back + done)
        [asked] = set(purse.ids)
        assert [(one.reservation_id, one.estimated, one.wall_ms) for one in purse.settled if one.usage == Usage()] == [
            (asked, False, 0)] * given_back
        await call(mesh, grant(mesh), index=1)
        await replies(mesh, 2)
        assert len(set(purse.ids)) == 2 - done, "asked anew under a reservation of its own; what is done is not"
        assert len(purse.settled) == given_back + done


async def test_what_a_call_used_is_settled_also_where_its_record_was_looked_up_in_a_follower_that_lags(monkeypatch):
    """The call had been put off, which stands in its record; whoever makes it again does not see that until it ends."""
    monkeypatch.setattr("bulkhead.runtime.doing.BUDGET_PATIENCE_S", 0.05)
    doer, purse = Recording(), Vague("doubtful")
    async with MemoryMesh({"budget": lambda c: purse, "tool_executor": lambda c: doer}) as mesh:
        await call(mesh, grant(mesh))
        assert (await replies(mesh, 1))[0][0] == CallDeferred.ce_type()
        purse.decision, real, looks = "reserved", MemoryBus.last, []
        purse.ways = ["reserved"] * 9

        async def lags(bus, stream, subject):
            looks.append(subject)
            return await real(bus, stream, subject) if stream != "RECORDS_TOOL_EXECUTOR" or len(looks) > 1 else None

        monkeypatch.setattr(MemoryBus, "last", lags)
        await call(mesh, grant(mesh), index=1)
        assert (await replies(mesh, 2))[1][1]["outcome"] == "succeeded" and doer.done == 1
        await _settled(purse, 2)
        assert {one.reservation_id for one in purse.settled} == set(purse.ids)


async def test_two_handlings_of_one_delivery_never_share_a_reservation():
    """A broker that forgot what it had handed out begins to count deliveries again."""
    doer, purse = Recording(crash=1), Purse()
    async with MemoryMesh({"budget": lambda c: purse, "tool_executor": lambda c: doer}) as mesh:
        for durable in mesh.broker._durables.values():
            durable.attempts = Forgetful()
        await call(mesh, grant(mesh))
        await replies(mesh, 1)
        await _settled(purse, 2)
        assert len({one.reservation_id for one in purse.settled}) == 2


class Forgetful(dict):
    """Remembers no count."""

    def get(self, key, default=None):
        return default
