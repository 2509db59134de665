"""Coordination of a tenant's tasks as the watch sees it now: who waits for whom, what was found, how calls went."""

import operator
from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds
from bulkhead_contracts.control import BreakerPhase, BreakerScope
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task.v1 import RequesterClaim
from bulkhead_contracts.types import Body, Contract, Count, Name, Reason, Summary, Token, UnixMs

from .alerts import Tripped


class CoordinationRequested(Body, type="mesh.budget.coordination_requested"):
    """An operator or auditor asks how the tenant's tasks hang together (rpc). at_unix_ms: a moment of the last minutes
    whose waits are asked for; 0 for now."""

    requester: RequesterClaim
    at_unix_ms: Annotated[UnixMs, Field(exclude_if=operator.not_)] = 0


class OpenWait(Contract):
    """`waiter` cannot go on before all of its targets, or any of them, have answered.

    Parties are steps (`task/step`) and resources. kind: `ask` another step; `want` a resource; `held`: a resource waits
    for who holds it, until then at the latest; `plan`: a step waits for its inputs. stuck: it is part of a circle in
    which nobody can go on, or behind one.
    """

    kind: Name
    task: Token
    waiter: Summary
    targets: Annotated[tuple[Summary, ...], Field(max_length=bounds.MAX_WAIT_TARGETS_LISTED)]
    mode: Literal["all", "any"] = "all"
    stuck: bool = False
    until_unix_ms: UnixMs = 0


class TaskTrip(Contract):
    """A finding of a detector about a task."""

    task: Token
    trip: Tripped


class BreakerWindow(Contract):
    """Counts of a breaker in the time that it looks at: calls, and those of them that failed or were slow."""

    scope: BreakerScope
    name: Name
    phase: BreakerPhase
    calls: Count
    failed: Count
    slow: Count
    window_ms: Count


class WaitMinute(Contract):
    """Open waits at the fullest moment of a minute. stuck: how many of them nobody can end."""

    start_unix_ms: UnixMs
    waits: Count
    stuck: Count


class ControlChange(Contract):
    """A halt, its lift, or the reset of a breaker by a person. act: which of them. name: of what it is about. by: who
    did it."""

    act: Literal["halted", "resumed", "reset"]
    scope: Name
    name: Summary
    by: Annotated[str, Field(max_length=64)]
    reason: Reason = ""
    at_unix_ms: UnixMs


class CoordinationReplied(Body, type="mesh.budget.coordination_replied"):
    """Open waits, the tasks in their order; findings, the newest first, as far as the watch remembers them; windows of
    breakers that count calls. more_waits: how many are not listed. minutes: those of the last hours that had waits, the
    oldest first. changes: halts, lifts and resets by people, the newest first, as far as the watch remembers them.
    failure: why nothing can be told."""

    waits: Annotated[tuple[OpenWait, ...], Field(max_length=bounds.MAX_WAITS_LISTED)] = ()
    more_waits: Count = 0
    trips: Annotated[tuple[TaskTrip, ...], Field(max_length=bounds.MAX_TRIPS_LISTED)] = ()
    windows: Annotated[tuple[BreakerWindow, ...], Field(max_length=bounds.MAX_WINDOWS_LISTED)] = ()
    minutes: Annotated[tuple[WaitMinute, ...], Field(max_length=bounds.MAX_WAIT_MINUTES, exclude_if=operator.not_)] = ()
    changes: Annotated[
        tuple[ControlChange, ...], Field(max_length=bounds.MAX_CONTROL_CHANGES, exclude_if=operator.not_)
    ] = ()
    failure: Failure | None = None
