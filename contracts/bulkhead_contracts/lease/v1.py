"""Leases: named, expiring, exclusive rights of a tenant's steps to a resource of the outside world.

All requests for one resource meet in one fold of the planner's inbox, under the name `resource_token(resource)` in the
place of a task; so their order is that of the inbox. Answers go to the inbox of the step that asked, under its own
task.
"""

import hashlib
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from bulkhead_contracts import bounds

from ..result import Failure
from ..types import Body, Count, Token, UnixMs

ResourceName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:@/-]*$", max_length=bounds.MAX_RESOURCE_NAME_CHARS)
]
"""As a tenant names it, e.g. `crm:account:42`; another tenant's of the same name is another resource."""
TtlMs = Annotated[int, Field(ge=bounds.MIN_LEASE_TTL_MS, le=bounds.MAX_LEASE_TTL_MS)]


def resource_token(resource: str) -> str:
    """The token under which everything about a resource is folded."""
    return "lease-" + hashlib.blake2b(resource.encode(), digest_size=16).hexdigest()


class LeaseRequested(Body, type="mesh.lease.requested"):
    """A step wants a resource for itself. lease_id names the lease to be; asked again, what is held is prolonged."""

    lease_id: Token
    task: Token
    step_id: Token
    attempt: Count
    plan_version: Count
    resource: ResourceName
    ttl_ms: TtlMs = bounds.DEFAULT_LEASE_TTL_MS


class LeaseQueued(Body, type="mesh.lease.queued"):
    """Another step holds the resource: wait. place: 1 is next."""

    lease_id: Token
    step_id: Token
    attempt: Count
    plan_version: Count
    resource: ResourceName
    holder_task: Token
    holder_step: Token
    place: Count
    until_unix_ms: UnixMs


class LeaseGranted(Body, type="mesh.lease.granted"):
    """It is this step's until then. fencing_token grows with every grant of this resource: what guards the resource can
    refuse a lower one than it has seen."""

    lease_id: Token
    step_id: Token
    attempt: Count
    plan_version: Count
    resource: ResourceName
    fencing_token: Count
    expires_unix_ms: UnixMs


class LeaseReleaseRequested(Body, type="mesh.lease.release_requested"):
    """A step gives a lease back, or no longer waits for it. call_id: the tool call that asks; "" when nobody waits."""

    lease_id: Token
    call_id: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)] = ""
    task: Token
    step_id: Token
    resource: ResourceName


class LeaseEnded(Body, type="mesh.lease.ended"):
    """A lease is over: given back (or the wait for it was), or its time was up."""

    lease_id: Token
    call_id: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)] = ""
    step_id: Token
    resource: ResourceName
    why: Literal["released", "expired"]


class LeaseRefused(Body, type="mesh.lease.refused"):
    """Refusal of a lease, or of a release of it. Codes: lease_queue_full, not_lease_holder."""

    lease_id: Token
    call_id: Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)] = ""
    step_id: Token
    resource: ResourceName
    failure: Failure
