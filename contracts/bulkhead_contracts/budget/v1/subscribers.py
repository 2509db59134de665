"""Outside subscribers on the wire: how many events of a tenant wait for each of its own."""

from typing import Annotated

from pydantic import Field

from bulkhead_contracts import bounds
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task.v1 import RequesterClaim
from bulkhead_contracts.types import Body, Contract, Count, Token, UnixMs


class SubscribersRequested(Body, type="mesh.budget.subscribers_requested"):
    """An operator or auditor asks how far the tenant's outside subscribers have come (rpc).

    names: those of the tenant's rows, which the gateway knows.
    """

    requester: RequesterClaim
    names: Annotated[tuple[Token, ...], Field(max_length=bounds.MAX_SUBSCRIBERS)]


class SubscriberLoad(Contract):
    """Events of one subscriber.

    pending: that wait for it. in_work: handed to it and not acknowledged. asking: requests for events that it has
    standing; 0 while it is busy, or away. All three are null where the broker has no durable of this name.
    active_unix_ms: when it last took or acknowledged one; 0 where the broker knows of none since its start.
    """

    name: Token
    pending: Count | None = None
    in_work: Count | None = None
    asking: Count | None = None
    active_unix_ms: UnixMs = 0


class SubscribersReplied(Body, type="mesh.budget.subscribers_replied"):
    """One row for each name that was asked about. failure: why nothing can be told."""

    subscribers: Annotated[tuple[SubscriberLoad, ...], Field(max_length=bounds.MAX_SUBSCRIBERS)] = ()
    failure: Failure | None = None
