"""Edges over the in-memory bus, and what every service shares: requests, ids, blobs."""

import asyncio

import pytest

from bulkhead.runtime.edge import Received, Retry
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts.budget import Amount, ReserveRequested, Settled
from bulkhead_contracts.result import Usage


class Stubborn:
    """An edge that wants each message twice."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.rpc = {ReserveRequested: self.handle}

    async def handle(self, message: Received) -> None:
        times = self.seen[message.envelope.id] = self.seen.get(message.envelope.id, 0) + 1
        if times == 1:
            raise Retry(0.0, "not yet")


async def test_retry_hands_a_message_back_to_an_edge():
    edge = Stubborn()
    async with MemoryMesh({"budget": lambda c: edge}) as mesh:
        await mesh.context("rag").publisher.send(
            "budget", Settled(reservation_id="r", call_id="c", usage=Usage()), tenant="demo", task="t1", cause="x")
        for _ in range(500):
            if list(edge.seen.values()) == [2]:
                break
            await asyncio.sleep(0.01)
        assert list(edge.seen.values()) == [2]


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
        assert await reader.text("demo", one) == await reader.text("demo", other) == "the same words"
