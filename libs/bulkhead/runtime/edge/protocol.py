"""The edge protocol (gateway, budget, signer): a service that is neither a pure decider nor a doer."""

from abc import ABC, abstractmethod

from bulkhead.runtime.component import Component, RpcTable
from bulkhead.runtime.consume.inbound import Received

__all__ = ["Edge", "Received", "RpcTable"]


class Edge(Component, ABC):
    """A service that takes stored messages one by one, and answers requests (`rpc`)."""

    @abstractmethod
    async def handle(self, message: Received) -> None:
        """Take one stored message; returning acks it, HandBack brings it back."""
