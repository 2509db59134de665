"""The edge protocol (gateway, budget, signer): a service that is neither a pure decider nor a doer."""

from bulkhead.runtime.component import Component, RpcTable
from bulkhead.runtime.consume.inbound import ReceivedMessage

__all__ = ["EdgeComponent", "ReceivedMessage", "RpcTable"]


class EdgeComponent(Component):
    """A service that takes stored messages one by one, and answers requests (`rpc`)."""

    async def handle_message(self, message: ReceivedMessage) -> None:
        """Take one stored message; returning acks it, HandBack brings it back. An edge without an inbox gets none."""
