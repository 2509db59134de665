"""The wires of the in-memory broker: those of one service can be cut, made long, or stand still.

In: what a service says to the broker and is told by it. Out: the same, later, never, or once it may. For meshes in one
process; processes have a `bulkhead.testing.relay.BrokerRelay` each.
"""

import asyncio
from collections import defaultdict
from typing import Any

from bulkhead.bus.memory.broker import MemoryBroker, Offer
from bulkhead.bus.port import BusUnavailable

ASKING = frozenset({"publish", "read", "ack", "request"})


class Wires:
    """Which services stand still, which are cut off, how long the way is. A service is a bus's name."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self._paused: set[str] = set()
        self._cut: set[str] = set()
        self._waiting: dict[str, list[Offer]] = defaultdict(list)

    def pause(self, service: str) -> None:
        """Its messages wait, in both directions."""
        self._paused.add(service)

    def resume(self, service: str) -> None:
        """The waiting messages go on, in their order."""
        self._paused.discard(service)
        for offer in self._waiting.pop(service, []):
            self.carry(offer, service)

    def cut(self, service: str) -> None:
        """It reaches nobody and nobody reaches it."""
        self._cut.add(service)

    def mend(self, service: str) -> None:
        """End of `cut`; what was lost comes again after its ack wait."""
        self._cut.discard(service)

    def carry(self, offer: Offer, service: str) -> None:
        """Over this service's wire. Raises BusUnavailable where it asks on one that is cut."""
        if service in self._cut:
            if offer.kind in ASKING:
                raise BusUnavailable("the broker cannot be reached: this service is cut off")
            return
        if service in self._paused:
            self._waiting[service].append(offer)
        elif self.delay_s:
            asyncio.get_running_loop().call_later(self.delay_s, offer.hand)
        else:
            offer.hand()


class WiredBroker(MemoryBroker):
    """The broker's end: what it delivers by itself goes over the wire of whom it reaches."""

    wires: Wires

    def deliver(self, offer: Offer) -> None:
        """Copies from stream to stream are its own business."""
        if offer.kind == "source" or offer.whom == "broker":
            offer.hand()
        else:
            self.wires.carry(offer, offer.whom)


class WiredService:
    """A service's end: stands between its bus and the broker."""

    def __init__(self, broker: WiredBroker, service: str) -> None:
        self._broker, self._service = broker, service

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def deliver(self, offer: Offer) -> None:
        """Its messages go over its wire, and the answers come back over it."""
        if offer.kind == "request":
            # Two wires: its own to the broker, then that of who answers.
            there = Offer("request", "broker", offer.what, lambda: self._broker.deliver(offer))
            self._broker.wires.carry(there, self._service)
        else:
            self._broker.wires.carry(offer, self._service)
