"""Who writes faster than the inbox is read waits at the door; nobody else does, and nobody for ever."""

import asyncio

from bulkhead_services.gateway.admission import backpressure
from bulkhead_services.gateway.admission.backpressure import OpenRequests


async def test_the_next_one_waits_until_one_is_taken_up():
    some = OpenRequests(most=2)
    some.add_request("acme", "a")
    some.add_request("acme", "b")
    waits = asyncio.create_task(some.wait_for_room("acme"))
    await some.wait_for_room("other")
    await asyncio.sleep(0)
    assert not waits.done()
    some.discard_request("acme", "unknown")
    some.discard_request("acme", "a")
    await asyncio.wait_for(waits, backpressure.PATIENCE_S / 2)
    assert list(some._open["acme"]) == ["b"]
    some.discard_request("acme", "b")
    assert not some._open


async def test_nobody_waits_for_what_nobody_takes_up(monkeypatch):
    """The signer is away, or another replica's word was lost."""
    monkeypatch.setattr(backpressure, "PATIENCE_S", 0.01)
    some = OpenRequests(most=1)
    for name in "abc":
        await asyncio.wait_for(some.wait_for_room("acme"), 5)
        some.add_request("acme", name)
    await asyncio.wait_for(some.wait_for_room("acme"), 5)
    assert len(some._open["acme"]) <= 1
