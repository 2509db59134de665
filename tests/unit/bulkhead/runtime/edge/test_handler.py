"""Edges over the in-memory bus, and what every service shares: requests, ids, blobs."""

import asyncio

import pytest

from bulkhead.runtime.edge.protocol import EdgeComponent, ReceivedMessage
from bulkhead.runtime.errors import HandBack
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts.budget import Amount, ReserveReplied, ReserveRequested, Settled
from bulkhead_contracts.result import Usage
from tests.eventually import until

pytestmark = pytest.mark.virtual_time


class Stubborn(EdgeComponent):
    """An edge that wants each message twice."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.rpc = {ReserveRequested: self.handle_message}

    async def handle_message(self, message: ReceivedMessage) -> None:
        times = self.seen[message.envelope.id] = self.seen.get(message.envelope.id, 0) + 1
        if times == 1:
            raise HandBack(0.0, "not yet")


async def test_retry_hands_a_message_back_to_an_edge():
    edge = Stubborn()
    async with MemoryMesh({"budget": lambda c: edge}) as mesh:
        await mesh.context("rag").publisher.send(
            "budget", Settled(reservation_id="r", call_id="c", usage=Usage()), tenant="demo", task="t1", cause="x"
        )
        await until(lambda: list(edge.seen.values()) == [2])


class Foresighted(EdgeComponent):
    """An edge that makes an answer ready, and may give another one in the end."""

    def __init__(self) -> None:
        self.rpc = {ReserveRequested: self.answer}

    async def handle_message(self, message: ReceivedMessage) -> None:
        return None

    async def answer(self, message: ReceivedMessage) -> ReserveReplied:
        assert isinstance(message.body, ReserveRequested)
        name = message.body.reservation_id
        ready = ReserveReplied(reservation_id=name, decision="reserved")
        message.prepare(ready)
        await asyncio.sleep(0)
        return ready if name == "foreseen" else ReserveReplied(reservation_id=name, decision="wait")


@pytest.mark.parametrize(("name", "decision"), [("foreseen", "reserved"), ("otherwise", "wait")])
async def test_an_answer_that_was_made_ready_goes_out_only_if_it_is_the_answer(name: str, decision: str):
    async with MemoryMesh({"budget": lambda c: Foresighted()}) as mesh:
        ask = ReserveRequested(reservation_id=name, call_id="c", purpose="tool", resource="x", worst_case=Amount())
        answer = await mesh.context("rag").publisher.request("budget", ask, tenant="demo", task="t1", cause="x")
        assert isinstance(answer, ReserveReplied)
        assert (answer.reservation_id, answer.decision) == (name, decision)


async def test_an_rpc_that_the_catalog_does_not_allow_is_answered_with_the_reason():
    async with MemoryMesh({"budget": lambda c: Stubborn()}) as mesh:
        body = ReserveRequested(reservation_id="r", call_id="c", purpose="tool", resource="x", worst_case=Amount())
        with pytest.raises(Exception, match="may not say"):
            await mesh.context("worker").publisher.request("budget", body, tenant="demo", task="t1", cause="x")


async def test_two_authors_may_store_the_same_text():
    async with MemoryMesh({}) as mesh:
        one = await mesh.context("rag").blobs.put("demo", "the same words")
        other = await mesh.context("tool_executor").blobs.put("demo", "the same words")
        reader = mesh.context("checker").blobs
        assert await reader.get_text("demo", one) == await reader.get_text("demo", other) == "the same words"
