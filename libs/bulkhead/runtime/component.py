"""The base of `EdgeComponent` and `Doer`: what a service may do beside its messages, with a default for each.

In: calls of the runtime. Out: requests that are answered, health and metrics. The deciders of a service are
no component: they have nothing but their inbox.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.telemetry.metrics import ReadGauge
from bulkhead_contracts.types import Body

RpcTable = Mapping[type[Body], Callable[[ReceivedMessage], Awaitable[Body]]]


@dataclass(frozen=True, slots=True)
class Pool:
    """Places of one kind in one replica. capacity: how many there are; demand: how many are taken or waited for."""

    capacity: int
    demand: int


class Component:
    """One service's part. rpc: what answers requests, by the type of the request. rpc_long_polls: of those the types
    that wait for something to happen, which its handlers bound; they take no turn of the others."""

    rpc: RpcTable = {}
    rpc_long_polls: frozenset[type[Body]] = frozenset()

    async def start(self) -> None:
        """Open what it needs, before the first message."""

    async def stop(self) -> None:
        """Close it, after the last message."""

    def drain(self) -> None:
        """Let nothing that waits begin any more."""

    def is_ready(self) -> bool:
        """Check whether it can serve."""
        return True

    def describe_problem(self) -> str:
        """Why it cannot do its work although it runs; "" when it can."""
        return ""

    def describe_degradation(self) -> str:
        """Parts that do not work while the rest goes on: what; what to do. "" when all work."""
        return ""

    def details(self) -> dict[str, object]:
        """Further fields of `/readyz`, by name."""
        return {}

    def gauges(self) -> dict[str, ReadGauge]:
        """Gauges of the component for metrics, by name."""
        return {}

    def pools(self) -> dict[str, Pool]:
        """Places that bound its work, by kind: an autoscaler adds replicas when the fullest fills."""
        return {}
