"""The ledger on the wire: reservations, settlements, charges, marks and checkpoints."""

import operator
from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds
from bulkhead_contracts.types import (
    Body,
    Contract,
    Count,
    Digest16,
    Name,
    Reason,
    Summary,
    Tag,
    Token,
    TokenCount,
    UnixMs,
    UsdMicros,
)


class Amount(Contract):
    """Cost of a call, at worst or in fact."""

    tokens: TokenCount = 0
    cost_usd_micros: UsdMicros = 0
    model_calls: Count = 0
    tool_calls: Count = 0


class Charge(Amount):
    """Cost of calls that were made. estimated_tokens, estimated_usd_micros: the part that no provider told."""

    estimated_tokens: TokenCount = 0
    estimated_usd_micros: UsdMicros = 0


def id_ahead(reservation_id: str, number: int) -> str:
    """Id of the number-th reservation (from 1) that is held ahead with this one."""
    return f"{reservation_id}-{number}"


def id_before(reservation_id: str) -> str:
    """Id of the reservation that is used before this one, which is held ahead; "" of any other."""
    first, _, number = reservation_id.rpartition("-")
    if not first or not number.isdigit():
        return ""
    return id_ahead(first, int(number) - 1) if int(number) > 1 else first


PromptName = Annotated[str, Field(max_length=bounds.MAX_PROMPT_NAME_CHARS, exclude_if=operator.not_)]
"""A version of a prompt, `worker.step@r3`; "" of a call without one."""


class CallAhead(Contract):
    """A call that probably follows, and the most that it may use; see ReserveRequested."""

    purpose: Literal["model", "tool", "retrieval"]
    resource: Name
    worst_case: Amount
    price_digest: Summary = ""
    agent: Tag = ""
    prompt: PromptName = ""


class ReserveRequested(Body, type="mesh.budget.reserve_requested"):
    """Ask for admission before an outward call (rpc). The envelope carries the grants that bound it.

    reservation_id derives from the call and its provider attempt: a repeated id gets the first answer.
    agent: on whose behalf, `worker.researcher`; what it spends is counted under that name, and under the version of
    its `prompt`. ahead: the calls of the same
    step that follow, in their order: budget holds what they may use as well, where that is far from every ceiling.
    """

    reservation_id: Token
    call_id: Token
    step_id: str = ""
    purpose: Literal["model", "tool", "retrieval"]
    resource: Name
    worst_case: Amount
    price_digest: Summary = ""
    agent: Tag = ""
    prompt: PromptName = ""
    ahead: Annotated[tuple[CallAhead, ...], Field(max_length=bounds.MAX_CALLS_AHEAD, exclude_if=operator.not_)] = ()


class ReserveReplied(Body, type="mesh.budget.reserve_replied"):
    """`refused` is final (the ceiling); `wait` means ask again after `retry_after_ms`.

    pauses: refused for now: the task is halted (since `halted_unix_ms`) until somebody raises the ceiling, and the call
    is asked again, under another reservation, when the halt is lifted. doubtful: `wait`, and it may be held all the
    same: who asks no more settles it with nothing. ended: `refused`, for its task is over. wall_ms: `reserved`: the
    least that a limit of wall time leaves, for what can be cut; 0 without one. ahead: so many of the calls that follow
    are reserved, too (see id_ahead), to be made within `ahead_ms`.
    """

    reservation_id: Token
    decision: Literal["reserved", "refused", "wait"]
    scope: Summary = ""
    reason: Reason = ""
    retry_after_ms: Count = 0
    pauses: bool = False
    halted_unix_ms: UnixMs = 0
    doubtful: bool = False
    ended: bool = False
    wall_ms: Annotated[Count, Field(exclude_if=operator.not_)] = 0
    ahead: Annotated[Count, Field(exclude_if=operator.not_)] = 0
    ahead_ms: Annotated[Count, Field(exclude_if=operator.not_)] = 0


class AllowanceRequested(Body, type="mesh.budget.allowance_requested"):
    """Ask how much the calls of a task may still spend (rpc). The envelope carries the grants that bind them."""


class AllowanceReplied(Body, type="mesh.budget.allowance_replied"):
    """The least that is left under any limit of the task's calls, by unit; None without one. Amounts that open calls
    hold are not taken off. known: False while the ledger does not answer, or the grant is refused.
    """

    known: bool = False
    tokens: Count | None = None
    cost_usd_micros: Count | None = None


class ScopeLimit(Contract):
    """One account of the ledger, e.g. `task:acme:t1` or `day:acme:2026-11-21`, and its ceiling.

    The largest value that a unit can have means that there is no ceiling in it. until_unix_ms: nothing is admitted to
    it after that (a task's grant has expired); 0 where its name says how long it counts.
    """

    scope: Annotated[str, Field(max_length=200)]
    cost_usd_micros: UsdMicros
    tokens: TokenCount
    model_calls: Count = bounds.UNLIMITED
    tool_calls: Count = bounds.UNLIMITED
    wall_ms: Count = bounds.UNLIMITED
    until_unix_ms: UnixMs = 0


class Reserved(Body, type="mesh.budget.reserved"):
    """Fact, appended to the journal before the answer: from these the ledger is rebuilt.

    more_scopes: further accounts that it is charged to, after those of `scopes`.
    """

    reservation_id: Token
    call_id: Token
    step_id: str = ""
    service: Token
    resource: Name
    amount: Amount
    scopes: Annotated[tuple[ScopeLimit, ...], Field(max_length=8)]
    price_digest: Summary = ""
    reserved_unix_ms: UnixMs
    more_scopes: Annotated[tuple[ScopeLimit, ...], Field(max_length=8)] = ()
    prompt: PromptName = ""


class ReservedRow(Contract):
    """A `Reserved` of its own, with what its envelope and subject would say: id, cause, actor, task."""

    id: Digest16
    cause: Summary
    task: Token
    actor: Summary = ""
    grant_digest: Summary = ""
    reserved: Reserved


class ReservedTogether(Body, type="mesh.ledger.reserved_together"):
    """Fact: reservations that are stored at once: of one tenant that waited for the journal at the same moment, under
    tenant `ledger` and the tenant's name; or of a call and those that follow it, under their task.

    A row counts as a `Reserved` of that id in that task.
    """

    rows: Annotated[tuple[ReservedRow, ...], Field(min_length=1, max_length=bounds.MAX_RESERVED_TOGETHER)]


class TaskCharged(Body, type="mesh.budget.task_charged"):
    """Total cost of a task that was ended early: said when it stops, and again with every late settlement.

    charged: what its calls used. held: what is reserved for calls that have not settled yet; with nothing
    held the sum is final. settled_calls grows with every settlement: of two, the one with more is the later.
    """

    charged: Charge
    held: Amount
    settled_calls: Count = 0


class Overran(Body, type="mesh.budget.overran"):
    """Fact: a call used more than was reserved for it. It is charged in full; for a model it counts as a failure."""

    reservation_id: Token
    call_id: Token
    step_id: str = ""
    service: Token
    resource: Name
    reserved: Amount
    used: Amount
    what: Reason
    overran_unix_ms: UnixMs


class LedgerMarked(Body, type="mesh.budget.ledger_marked"):
    """Budget is about to read this inbox to rebuild its ledger: it has read enough when it has read this."""

    epoch: Token


Units = tuple[int, int, int, int, int]


"""Tokens, micro dollars, model calls, tool calls, milliseconds."""


class LedgerBalance(Contract):
    """Balance of one account at a checkpoint: spent, by how many settlements, and held."""

    scope: Annotated[str, Field(max_length=200)]
    reserved: Units
    spent: Units
    settled: Count
    stopped: bool = False
    until_unix_ms: UnixMs = 0


class LedgerEntry(Contract):
    """One reservation that had not been settled at a checkpoint."""

    key: Annotated[str, Field(max_length=300)]
    ask: Units
    scopes: Annotated[tuple[ScopeLimit, ...], Field(max_length=16)]
    reserved_unix_ms: UnixMs


class LedgerSettled(Contract):
    """One reservation that had been settled shortly before a checkpoint; its money is in the balances."""

    key: Annotated[str, Field(max_length=300)]
    reserved_unix_ms: UnixMs


class LedgerPart(Body, type="mesh.budget.ledger_part"):
    """Fact: a part of the ledger as it stood at a checkpoint.

    settled: a second copy of these reservations' facts may be stored after the checkpoint, and opens nothing.
    """

    checkpoint: Token
    balances: Annotated[tuple[LedgerBalance, ...], Field(max_length=bounds.MAX_CHECKPOINT_ROWS)] = ()
    entries: Annotated[tuple[LedgerEntry, ...], Field(max_length=bounds.MAX_CHECKPOINT_ROWS)] = ()
    settled: Annotated[tuple[LedgerSettled, ...], Field(max_length=bounds.MAX_CHECKPOINT_SETTLED)] = ()


class ReplyPosition(Contract):
    """Position up to which a doer's replies to an asker have been read: a sequence of the asker's inbox."""

    doer: Token
    asker: Token
    sequence: Count


class LedgerCheckpointed(Body, type="mesh.budget.ledger_checkpointed"):
    """Fact: the ledger as it follows from the journal's inbox up to one sequence and budget's up to another.

    parts: where its parts lie, by sequence. replies: how far it has the settlements in replies. What lies below these
    sequences may be removed: it is in here.
    """

    checkpoint: Token
    journal_sequence: Count
    budget_sequence: Count
    parts: Annotated[tuple[Count, ...], Field(max_length=bounds.MAX_CHECKPOINT_PARTS)] = ()
    at_unix_ms: UnixMs
    replies: Annotated[
        tuple[ReplyPosition, ...], Field(max_length=bounds.MAX_EDGES_LISTED, exclude_if=operator.not_)
    ] = ()
