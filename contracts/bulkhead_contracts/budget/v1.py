"""Money: reserved before a call, settled after it, halted when the ceiling is reached."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .. import limits
from ..result import Usage
from ..types import Body, Contract, Count, Name, Reason, Summary, Token, TokenCount, UnixMs, UsdMicros


class Amount(Contract):
    """What a call may cost at worst, or did cost."""

    tokens: TokenCount = 0
    cost_usd_micros: UsdMicros = 0
    model_calls: Count = 0
    tool_calls: Count = 0


class ReserveRequested(Body):
    """Ask for admission before an outward call (rpc). The envelope carries the grants that bound it.

    reservation_id derives from the call and its provider attempt: a repeated id gets the first answer.
    """

    TYPE: ClassVar[str] = "mesh.budget.reserve_requested"

    reservation_id: Token
    call_id: Token
    step_id: str = ""
    purpose: Literal["model", "tool", "retrieval"]
    resource: Name
    worst_case: Amount
    price_digest: Summary = ""


class ReserveReplied(Body):
    """`refused` is final (the ceiling); `wait` means ask again after `retry_after_ms`."""

    TYPE: ClassVar[str] = "mesh.budget.reserve_replied"

    reservation_id: Token
    decision: Literal["reserved", "refused", "wait"]
    scope: Summary = ""
    reason: Reason = ""
    retry_after_ms: Count = 0


class ScopeLimit(Contract):
    """One account of the ledger, e.g. `task:acme:t1` or `day:acme:2026-11-21`, and its ceiling."""

    scope: Annotated[str, Field(max_length=200)]
    cost_usd_micros: UsdMicros
    tokens: TokenCount


class Reserved(Body):
    """Fact, appended to the journal before the answer: from these the ledger is rebuilt."""

    TYPE: ClassVar[str] = "mesh.budget.reserved"

    reservation_id: Token
    call_id: Token
    step_id: str = ""
    service: Token
    resource: Name
    amount: Amount
    scopes: Annotated[tuple[ScopeLimit, ...], Field(max_length=8)]
    price_digest: Summary = ""
    reserved_unix_ms: UnixMs


class Settled(Body):
    """The doer says what the call really used; idempotent by reservation id.

    estimated: the provider gave no usage, so the reservation itself is charged.
    """

    TYPE: ClassVar[str] = "mesh.budget.settled"

    reservation_id: Token
    call_id: Token
    usage: Usage
    estimated: bool = False


class LedgerMarked(Body):
    """Budget is about to read this inbox to rebuild its ledger: it has read enough when it has read this."""

    TYPE: ClassVar[str] = "mesh.budget.ledger_marked"

    epoch: Token


class Tripped(Body):
    """Fact: a detector of coordination health has found something; `evidence` are the ids of the messages that show it.

    trip derives from the evidence: whoever finds the same again names it the same. halted: the task was stopped for it.
    """

    TYPE: ClassVar[str] = "mesh.budget.tripped"

    trip: Token
    detector: Name
    level: Literal["warn", "stop"]
    agents: Annotated[tuple[Summary, ...], Field(max_length=limits.MAX_TRIP_AGENTS)] = ()
    what: Reason
    hint: Reason = ""
    evidence: Annotated[tuple[Summary, ...], Field(max_length=limits.MAX_TRIP_EVIDENCE)] = ()
    halted: bool = False
    tripped_unix_ms: UnixMs


class TaskHalted(Body):
    """Budget stopped the task; the planner ends it. Live halts travel beside this, by KV_CONTROL."""

    TYPE: ClassVar[str] = "mesh.budget.task_halted"

    code: Name
    reason: Reason
    scope: Summary = ""
