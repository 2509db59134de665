"""Faults of the way between a service and the broker, where each service has a `BrokerRelay` of its own.

In: a service's name, or a delay. Out: its wire is cut, mended, or long.
"""

from bulkhead.testing.relay import BrokerRelay


class RelayFaults:
    """The part of a Stage that its wires make; see Stage."""

    _wires: dict[str, BrokerRelay]

    async def disconnect(self, service: str) -> None:
        self._wires[service].cut_wire()

    async def reconnect(self, service: str) -> None:
        self._wires[service].mend_wire()

    async def slow_broker(self, delay_ms: float) -> None:
        for wire in self._wires.values():
            wire.delay_s = delay_ms / 1000
