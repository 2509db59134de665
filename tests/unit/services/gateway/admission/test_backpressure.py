"""Who writes faster than the inbox is read waits at the door; nobody else does, and nobody for ever."""

import asyncio

from bulkhead_services.gateway.admission import backpressure
from bulkhead_services.gateway.admission.backpressure import Backlog


async def test_the_next_one_waits_until_one_is_taken_up():
    some = Backlog(most=2)
    some.stored("acme", "a")
    some.stored("acme", "b")
    waits = asyncio.create_task(some.room("acme"))
    await some.room("other")
    await asyncio.sleep(0)
    assert not waits.done()
    some.taken_up("acme", "unknown")
    some.taken_up("acme", "a")
    await asyncio.wait_for(waits, backpressure.PATIENCE_S / 2)
    assert list(some._open["acme"]) == ["b"]
    some.taken_up("acme", "b")
    assert not some._open


async def test_nobody_waits_for_what_nobody_takes_up(monkeypatch):
    """The signer is away, or another replica's word was lost."""
    monkeypatch.setattr(backpressure, "PATIENCE_S", 0.01)
    some = Backlog(most=1)
    for name in "abc":
        await asyncio.wait_for(some.room("acme"), 5)
        some.stored("acme", name)
    await asyncio.wait_for(some.room("acme"), 5)
    assert len(some._open["acme"]) <= 1
