"""How far subscribers have come: the broker's counts, for those who may see them."""

import pytest

from bulkhead.bus.memory.broker import MemoryBroker
from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.bus.memory.streams import DurableConfig
from bulkhead.bus.port import BusUnavailable, DurableCounts
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import SubscriberLoad, SubscribersReplied, SubscribersRequested
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.budget.queries.subscribers import SubscriberQuery

NOW = 1_795_231_204_272


async def told(bus: MemoryBus, *names: str, role: str = "operator", of: str = "acme") -> SubscribersReplied:
    claim = RequesterClaim(tenant=of, person="eve", role=role, via="api_key")  # type: ignore[arg-type]
    body = SubscribersRequested(requester=claim, names=names)
    asked = ReceivedMessage(None, body, "acme", "halts", "gateway", 0, NOW, 1)  # type: ignore[arg-type]
    return await SubscriberQuery(bus, lambda: NOW).answer_subscribers(asked)


@pytest.fixture
async def bus() -> MemoryBus:
    broker = MemoryBroker.for_mesh()
    broker.add_durable(DurableConfig(subjects.EVENTS_STREAM, "sub_crm"))
    for number in range(3):
        broker.store(subjects.event_subject("acme", "task.ended", f"t{number}"), {}, b"{}")
    return MemoryBus(broker, "budget")


async def test_what_waits_is_told_and_a_durable_that_is_not_there_is_told_so(bus) -> None:
    found = await told(bus, "sub_crm", "sub_new", "budget-0", role="auditor")
    never = SubscriberLoad(name="sub_crm", pending=3, in_work=0, asking=0, active_unix_ms=0)
    assert found.subscribers == (never, SubscriberLoad(name="sub_new"), SubscriberLoad(name="budget-0"))


@pytest.mark.parametrize(("role", "of"), [("submitter", "acme"), ("operator", "bolt")])
async def test_who_may_not_see_them_is_told_so(bus, role, of) -> None:
    found = await told(bus, "sub_crm", role=role, of=of)
    assert found.failure is not None and found.failure.code == "forbidden" and not found.subscribers


async def test_a_broker_that_does_not_answer_is_told(bus) -> None:
    class Away(MemoryBus):
        async def durable_counts(self, stream: str, durable: str) -> DurableCounts | None:
            raise BusUnavailable("down")

    found = await told(Away(MemoryBroker.for_mesh(), "budget"), "sub_crm")
    assert found.failure is not None and found.failure.code == "unavailable" and "down" in found.failure.message
