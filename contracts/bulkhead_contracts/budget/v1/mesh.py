"""The mesh as budget sees it now: load of each service, messages between them. No tenant, task or person is named."""

from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task.v1 import RequesterClaim
from bulkhead_contracts.types import Body, Contract, Count, Name

MeshTrouble = Literal["no_replica", "full", "dead_letters", "failures"]
"""no_replica: messages wait, and no replica asks for them. full: messages wait, and no replica has room for more, or
those that held the last ones are gone. dead_letters: some are open. failures: something failed in the window."""


class MeshRequested(Body, type="mesh.budget.mesh_requested"):
    """An operator or auditor asks how the mesh as a whole is loaded (rpc)."""

    requester: RequesterClaim


class ServiceLoad(Contract):
    """Load of one service.

    replicas: how many ask for its messages; null where the broker cannot tell: while it is busy, or without an inbox.
    listens: whether at least one does; null where that is not known. pending, in_work: messages that wait, and that
    were handed out and have not ended; null without an inbox. received, failed, rejected: messages to it, results of it
    that failed, and messages that it could not handle, in the window. dead_letters: open ones, of all time.
    """

    service: Name
    replicas: Count | None = None
    listens: bool | None = None
    pending: Count | None = None
    in_work: Count | None = None
    received: Count = 0
    failed: Count = 0
    rejected: Count = 0
    dead_letters: Count = 0
    troubles: Annotated[tuple[MeshTrouble, ...], Field(max_length=4)] = ()


class MessageEdge(Contract):
    """Messages stored in the window from one to another. sender: a service, `publisher` or `operator`; receiver: a
    service or `journal` (facts that nobody acts on)."""

    sender: Name
    receiver: Name
    messages: Annotated[Count, Field(ge=1)]


class MeshReplied(Body, type="mesh.budget.mesh_replied"):
    """Services in the catalog's order; edges with messages in the last window_ms. failure: why nothing can be told."""

    services: Annotated[tuple[ServiceLoad, ...], Field(max_length=bounds.MAX_SERVICES_LISTED)] = ()
    edges: Annotated[tuple[MessageEdge, ...], Field(max_length=bounds.MAX_EDGES_LISTED)] = ()
    window_ms: Count = 0
    failure: Failure | None = None
