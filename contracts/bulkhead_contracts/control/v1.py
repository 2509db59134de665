"""Control messages of the runtime: timers, deferred calls, rejected messages; halts and breakers."""

import operator
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from bulkhead_contracts import bounds

from ..result import Failure, Usage
from ..settlement import DoerReply
from ..task.v1 import RequesterClaim
from ..types import Body, Contract, Count, Name, Reason, Summary, Tag, Token, UnixMs

HaltScope = Literal["task", "tenant", "agent", "tool", "model", "feature"]
BreakerScope = Literal["tenant", "agent", "tool", "model"]
BreakerPhase = Literal["closed", "open", "half_open"]
TenantOrAll = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,64}$")]
"""A tenant, or "" for every one."""
Called = Annotated[str, Field(max_length=bounds.MAX_NAME_CHARS)]
"""A name as people and providers write it; "" where only its token is known."""


class TimerFired(Body, type="mesh.control.timer_fired"):
    """A time has come. `key` is the one that the decider set; a late timer is ignored by the fold."""

    key: Token
    due_unix_ms: UnixMs


class CallDeferred(Body, DoerReply, type="mesh.control.call_deferred"):
    """A doer may not act yet: ask again after `after_ms`, under the same call id.

    paused: a halt (a person's, or budget's at a ceiling) or an open breaker holds the call back; nothing is wrong with
    it. code: of what holds it. usage: what was spent on it until it was put off (an answer that was cut).
    until_unix_ms: it waits for a person, who may take until then.
    """

    call_id: Token
    step_id: str = ""
    after_ms: Count
    reason: Reason = ""
    paused: bool = False
    code: Tag = ""
    usage: Usage = Usage()
    until_unix_ms: Annotated[UnixMs, Field(exclude_if=operator.not_)] = 0


class CallResumed(Body, type="mesh.control.call_resumed"):
    """The halt or breaker behind a deferred call is lifted: ask again now, under the same call id. Late or repeated it
    changes nothing."""

    call_id: Token
    step_id: str = ""


class SessionEnded(Body, type="mesh.control.session_ended"):
    """A person signed out of the console. The subject's task token is the session's id, which is no secret."""

    person: Name


class MessageRejected(Body, type="mesh.control.message_rejected"):
    """The message at `sequence` of this inbox is skipped by every fold. dead_letter_id: "" where none is kept."""

    sequence: Count
    code: Name
    reason: Reason
    dead_letter_id: Summary = ""


class Halt(Contract):
    """Value of a control entry: who stopped what, why; `active=False` lifts it.

    tenant: of a halted task, since two tenants may use one task id; of the other scopes, whose calls it holds back, ""
    for everybody's. pauses: work waits and goes on when it is lifted; otherwise it is refused, and the task ends.
    changes: ids of the last requests, this one last, so that one which is repeated counts once. name: as a token,
    with a dash for what none may hold; called: the whole name, and no other that looks like it is meant; "" where only
    `name` was known, and all of them are.
    """

    active: bool = True
    scope: HaltScope
    tenant: TenantOrAll = ""
    name: Token
    code: Name
    reason: Reason
    by: Annotated[str, Field(max_length=64)]
    pauses: bool = False
    at_unix_ms: UnixMs = 0
    changes: Annotated[tuple[Token, ...], Field(max_length=bounds.MAX_SWITCH_CHANGES)] = ()
    called: Called = ""

    @property
    def known_as(self) -> str:
        """The name as well as it is known."""
        return self.called or self.name


class HaltV1(Contract):
    """A control entry as it was before agents and features could be halted: readers of then skip those two."""

    model_config = ConfigDict(title="Halt")

    active: bool = True
    scope: Literal["task", "tenant", "tool", "model"]
    tenant: TenantOrAll = ""
    name: Token
    code: Name
    reason: Reason
    by: Annotated[str, Field(max_length=64)]


class Breaker(Contract):
    """Value of a breaker's control entry. until_unix_ms: no call goes out before; then a few, as trials.

    by: the person who closed it; "" when budget did. evidence: ids of the messages that opened it; tasks: of each the
    task in whose messages it stands. actors: for whom those calls were made; they do not reset it. changes: ids of the
    last requests, so that a repeated one counts once.
    name, called: as in `Halt`.
    """

    scope: BreakerScope
    tenant: TenantOrAll = ""
    name: Token
    phase: BreakerPhase
    reason: Reason = ""
    since_unix_ms: UnixMs = 0
    until_unix_ms: UnixMs = 0
    openings: Count = 0
    by: Annotated[str, Field(max_length=64)] = ""
    evidence: Annotated[tuple[Summary, ...], Field(max_length=bounds.MAX_TRIP_EVIDENCE)] = ()
    actors: Annotated[tuple[Summary, ...], Field(max_length=bounds.MAX_TRIP_AGENTS)] = ()
    tasks: Annotated[tuple[Tag, ...], Field(max_length=bounds.MAX_TRIP_EVIDENCE, exclude_if=operator.not_)] = ()
    changes: Annotated[tuple[Token, ...], Field(max_length=bounds.MAX_SWITCH_CHANGES)] = ()
    called: Called = ""

    @property
    def known_as(self) -> str:
        """The name as well as it is known."""
        return self.called or self.name


class HaltRequested(Body, type="mesh.control.halt_requested"):
    """A person of a tenant wants something of this tenant halted, or (`active=False`) to go on (rpc). name, called: as
    in `Halt`."""

    requester: RequesterClaim
    scope: HaltScope
    name: Token
    active: bool = True
    reason: Reason = ""
    called: Called = ""


class HaltReplied(Body, type="mesh.control.halt_replied"):
    """The halt as it stands now, or why nothing was changed."""

    halt: Halt | None = None
    failure: Failure | None = None


class ResetRequested(Body, type="mesh.control.reset_requested"):
    """A person of a tenant wants a breaker of this tenant closed, its cause being mended (rpc). name, called: as in
    `Halt`."""

    requester: RequesterClaim
    scope: BreakerScope
    name: Token
    reason: Reason = ""
    called: Called = ""


class ResetReplied(Body, type="mesh.control.reset_replied"):
    """State of the breaker now, or why nothing was changed."""

    breaker: Breaker | None = None
    failure: Failure | None = None


class BreakerReset(Body, type="mesh.control.breaker_reset"):
    """Fact: a person closed a breaker. breaker: as it stands since then, with who did it; was: why it was open."""

    breaker: Breaker
    was: Reason = ""
    reason: Reason = ""


class Switched(Body, type="mesh.control.switched"):
    """Fact: a halt was set or lifted, with its author and reason."""

    halt: Halt
