"""What an edge or watcher is (gateway, budget, signer): neither a pure decider nor a one-request doer."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.types import Body


class Retry(Exception):
    """Hand the message back: nothing was done, try again after a delay."""

    def __init__(self, delay_s: float, reason: str) -> None:
        super().__init__(reason)
        self.delay_s = delay_s
        self.reason = reason


def _unprepared(answer: Body) -> None:
    """Nobody waits for an answer to a stored message."""


@dataclass(frozen=True, slots=True)
class Received:
    """A stored message or a request, decoded as the latest version and checked against the catalog.

    sender is enforced by the broker. sequence is 0 and attempts 1 for requests. prepare: makes an answer ready to be
    sent while the handler still waits; it goes out if the handler returns this very one.
    """

    envelope: Envelope
    body: Body
    tenant: str
    task: str
    sender: str
    sequence: int
    time_unix_ms: int
    attempts: int
    prepare: Callable[[Body], None] = _unprepared


RpcTable = Mapping[type[Body], Callable[[Received], Awaitable[Body]]]


@runtime_checkable
class Edge(Protocol):
    """Optional members that the runtime also calls: start(), stop(), ready() -> bool, degraded() -> str, rpc."""

    async def handle(self, message: Received) -> None:
        """Take one stored message; returning acks it, Retry hands it back."""
        ...
