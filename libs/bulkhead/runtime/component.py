"""The base of `Edge` and `Doer`: what a service may do beside its messages, with a default for each.

In: calls of the runtime. Out: requests that are answered, health and metrics. The deciders of a service are no
component: they have nothing but their inbox.
"""

from collections.abc import Awaitable, Callable, Mapping

from bulkhead.runtime.consume.inbound import Received
from bulkhead.telemetry.metrics import Look
from bulkhead_contracts.types import Body

RpcTable = Mapping[type[Body], Callable[[Received], Awaitable[Body]]]


class Component:
    """One service's part. rpc: what answers requests, by the type of the request."""

    rpc: RpcTable = {}

    async def start(self) -> None:
        """Open what it needs, before the first message."""

    async def stop(self) -> None:
        """Close it, after the last message."""

    def drain(self) -> None:
        """Nothing that waits is to begin any more."""

    def ready(self) -> bool:
        """Whether it can serve."""
        return True

    def problem(self) -> str:
        """Why it cannot do its work although it runs; "" when it can."""
        return ""

    def degraded(self) -> str:
        """What does not work while the rest goes on: what; what to do. "" when nothing."""
        return ""

    def gauges(self) -> dict[str, Look]:
        """What metrics tell of it, by name."""
        return {}
