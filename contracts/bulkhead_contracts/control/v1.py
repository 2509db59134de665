"""What the runtime says: timers, waiting, rejected messages, halts."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..types import Body, Contract, Count, Name, Reason, Summary, Token, UnixMs


class TimerFired(Body):
    """A time has come. `key` is the one that the decider set; a late timer is ignored by the fold."""

    TYPE: ClassVar[str] = "mesh.control.timer_fired"

    key: Token
    due_unix_ms: UnixMs


class CallDeferred(Body):
    """A doer may not act yet: ask again after `after_ms`, under the same call id."""

    TYPE: ClassVar[str] = "mesh.control.call_deferred"

    call_id: Token
    step_id: str = ""
    after_ms: Count
    reason: Reason = ""


class MessageRejected(Body):
    """The message at `sequence` of this inbox is skipped by every fold; it lies with the dead letters."""

    TYPE: ClassVar[str] = "mesh.control.message_rejected"

    sequence: Count
    code: Name
    reason: Reason
    dead_letter_id: Summary = ""


class Halt(Contract):
    """Value of a control entry: who stopped what, why; `active=False` lifts it.

    tenant: of a halted task; two tenants may use one task id. "" for the other scopes.
    """

    active: bool = True
    scope: Literal["task", "tenant", "tool", "model"]
    tenant: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,64}$")] = ""
    name: Token
    code: Name
    reason: Reason
    by: Annotated[str, Field(max_length=64)]
