"""Money: reserved before a call, settled after it, halted when the ceiling is reached."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bulkhead_contracts import bounds

from ..result import Failure, Usage
from ..task.v1 import RequesterClaim
from ..types import Body, Contract, Count, Digest16, Name, Reason, Summary, Tag, Token, TokenCount, UnixMs, UsdMicros


class Amount(Contract):
    """What a call may cost at worst, or did cost."""

    tokens: TokenCount = 0
    cost_usd_micros: UsdMicros = 0
    model_calls: Count = 0
    tool_calls: Count = 0


class ReserveRequested(Body):
    """Ask for admission before an outward call (rpc). The envelope carries the grants that bound it.

    reservation_id derives from the call and its provider attempt: a repeated id gets the first answer.
    agent: on whose behalf, `worker.researcher`; what it spends is counted under that name.
    """

    TYPE: ClassVar[str] = "mesh.budget.reserve_requested"

    reservation_id: Token
    call_id: Token
    step_id: str = ""
    purpose: Literal["model", "tool", "retrieval"]
    resource: Name
    worst_case: Amount
    price_digest: Summary = ""
    agent: Tag = ""


class ReserveReplied(Body):
    """`refused` is final (the ceiling); `wait` means ask again after `retry_after_ms`.

    pauses: refused for now: the task is halted (since `halted_unix_ms`) until somebody raises the ceiling, and the call
    is asked again, under another reservation, when the halt is lifted. doubtful: `wait`, and it may be held all the
    same: who asks no more settles it with nothing.
    """

    TYPE: ClassVar[str] = "mesh.budget.reserve_replied"

    reservation_id: Token
    decision: Literal["reserved", "refused", "wait"]
    scope: Summary = ""
    reason: Reason = ""
    retry_after_ms: Count = 0
    pauses: bool = False
    halted_unix_ms: UnixMs = 0
    doubtful: bool = False


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


class Reserved(Body):
    """Fact, appended to the journal before the answer: from these the ledger is rebuilt.

    more_scopes: further accounts that it is charged to, after those of `scopes`.
    """

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
    more_scopes: Annotated[tuple[ScopeLimit, ...], Field(max_length=8)] = ()


class ReservedRow(Contract):
    """What would be a `Reserved` of its own, and what its envelope and subject would say: id, cause, actor, task."""

    id: Digest16
    cause: Summary
    task: Token
    actor: Summary = ""
    grant_digest: Summary = ""
    reserved: Reserved


class ReservedTogether(Body):
    """Fact: reservations of one tenant that waited for the journal at the same moment, stored at once.

    It lies under tenant `ledger` and the tenant's name. A row counts as a `Reserved` of that id in that task.
    """

    TYPE: ClassVar[str] = "mesh.ledger.reserved_together"

    rows: Annotated[tuple[ReservedRow, ...], Field(min_length=1, max_length=bounds.MAX_RESERVED_TOGETHER)]


class Settled(Body):
    """The doer says what the call really used; idempotent by reservation id.

    estimated: the provider gave no usage, so the reservation itself is charged. wall_ms: from admission to settlement,
    by the doer's clock.
    """

    TYPE: ClassVar[str] = "mesh.budget.settled"

    reservation_id: Token
    call_id: Token
    usage: Usage
    estimated: bool = False
    wall_ms: Count = 0


class TaskCharged(Body):
    """What a task that was ended early has cost, all of it: said when it stops, and again with every late settlement.

    charged: what its calls used. held: what is reserved for calls that have not settled yet; with nothing held the sum
    is final. settled_calls grows with every settlement: of two, the one with more is the later.
    """

    TYPE: ClassVar[str] = "mesh.budget.task_charged"

    charged: Amount
    held: Amount
    settled_calls: Count = 0


class Alerted(Body):
    """Fact: an account comes near its limit; nothing is stopped. About a task, it is told to who shows it, too.

    alert derives from the account, the limit and the threshold: told again, it is the same. kind `share`: so many
    percent are spent; `rate`: as fast as it was spent lately, the limit is reached at `reached_unix_ms`, before the
    account's period ends.
    """

    TYPE: ClassVar[str] = "mesh.budget.alerted"

    alert: Token
    kind: Literal["share", "rate"]
    scope: Annotated[str, Field(max_length=200)]
    unit: Literal["cost_usd_micros", "tokens", "model_calls", "tool_calls", "wall_ms"]
    percent: Count
    spent: Count
    limit: Count
    reached_unix_ms: UnixMs = 0
    what: Reason
    hint: Reason = ""
    alerted_unix_ms: UnixMs


class NoticeRequested(Body):
    """Ask: tell the people outside who pay for a tenant, by its webhook; without one nothing is told.

    notice: the event's id, the same when it is told again: at least once, and whoever gets it drops doubles. kind:
    open, `share` and `rate` as in `Alerted`; `halted`, `resumed`, `breaker_opened`, `breaker_reset`, `breaker_closed`,
    `stalled`; more may come. account: as `Alerted.scope`, or what else it is about (`tool:acme:http_get`, without
    figures then); never one of several tenants.
    """

    TYPE: ClassVar[str] = "mesh.budget.notice_requested"

    notice: Token
    kind: Tag
    account: Annotated[str, Field(max_length=200)]
    unit: Tag
    percent: Count
    spent: Count
    limit: Count
    reached_unix_ms: UnixMs = 0
    what: Reason
    hint: Reason = ""
    told_unix_ms: UnixMs


class Overran(Body):
    """Fact: a call used more than was reserved for it. It is charged in full; for a model it counts as a failure."""

    TYPE: ClassVar[str] = "mesh.budget.overran"

    reservation_id: Token
    call_id: Token
    step_id: str = ""
    service: Token
    resource: Name
    reserved: Amount
    used: Amount
    what: Reason
    overran_unix_ms: UnixMs


class Limit(Contract):
    """A ceiling by unit; null where there is none."""

    cost_usd_micros: Annotated[int, Field(ge=0, le=bounds.MAX_COST_USD_MICROS)] | None = None
    tokens: Annotated[int, Field(ge=0, le=bounds.MAX_TOKENS)] | None = None
    model_calls: Annotated[int, Field(ge=0, le=bounds.MAX_CALLS)] | None = None
    tool_calls: Annotated[int, Field(ge=0, le=bounds.MAX_CALLS)] | None = None
    wall_ms: Annotated[int, Field(ge=0, le=bounds.MAX_WALL_MS)] | None = None


LimitTarget = Annotated[str, Field(pattern=r"^(step|day|month|(task|agent|workflow|feature|user)(/[!-~]{1,64})?)$")]
"""What a limit holds for: every `task`, one `feature/search`, the tenant's `day` and `month` (UTC)."""


class TargetLimit(Contract):
    """One row of a tenant's limits."""

    target: LimitTarget
    limit: Limit


class TopUp(Contract):
    """What a task may spend beyond its limits, all top-ups together, by unit.

    until_unix_ms: the task has ended by then. changes: of the last top-ups, so that one which is repeated counts once.
    """

    task: Token
    add: Limit
    until_unix_ms: UnixMs = 0
    changes: Annotated[tuple[Token, ...], Field(max_length=bounds.MAX_TOP_UP_CHANGES)] = ()


class TopUpRequested(Body):
    """An operator lets a task spend more than its limits say (rpc); halted at its ceiling, it goes on.

    add: by unit, at least one. until_unix_ms: when the task ends at the latest.
    """

    TYPE: ClassVar[str] = "mesh.budget.top_up_requested"

    requester: RequesterClaim
    task: Token
    add: Limit
    until_unix_ms: UnixMs
    reason: Annotated[Reason, Field(min_length=1)]


class TopUpReplied(Body):
    """What all top-ups of the task come to, and whether it was halted and goes on; or why nothing was changed."""

    TYPE: ClassVar[str] = "mesh.budget.top_up_replied"

    added: Limit = Limit()
    revision: Count = 0
    resumed: bool = False
    failure: Failure | None = None


class LimitsRequested(Body):
    """An operator reads or changes a tenant's limits (rpc). No `target`: they are read. An empty `limit` removes one.

    expect_revision: the change is made only to this revision; null to any.
    """

    TYPE: ClassVar[str] = "mesh.budget.limits_requested"

    requester: RequesterClaim
    target: LimitTarget | None = None
    limit: Limit = Limit()
    expect_revision: Count | None = None


class LimitsReplied(Body):
    """The limits as they stand now, or why they were not read or changed.

    alerts: the tenant's latest, the newest first, as far as they are remembered beside the ledger.
    """

    TYPE: ClassVar[str] = "mesh.budget.limits_replied"

    revision: Count = 0
    limits: Annotated[tuple[TargetLimit, ...], Field(max_length=bounds.MAX_LIMIT_TARGETS)] = ()
    failure: Failure | None = None
    top_ups: Annotated[tuple[TopUp, ...], Field(max_length=bounds.MAX_TOP_UPS)] = ()
    alerts: Annotated[tuple[Alerted, ...], Field(max_length=bounds.MAX_ALERTS_LISTED)] = ()


class LimitsChanged(Body):
    """Fact: who changed which limit of a tenant, from what to what, and all limits as they stand since then.

    Lies in the journal under tenant `limits`, task = the tenant that it is about: nobody outside can name that subject.
    topped_up: a task was given more; `target` names it, and `old` and `new` are what all its top-ups came to.
    changes: ids of the tenant's last ones, this one last, by which one that is asked for again is known.
    """

    TYPE: ClassVar[str] = "mesh.budget.limits_changed"

    tenant: Token
    revision: Count
    target: LimitTarget
    old: Limit
    new: Limit
    by: Name
    changed_unix_ms: UnixMs
    change: Token
    limits: Annotated[tuple[TargetLimit, ...], Field(max_length=bounds.MAX_LIMIT_TARGETS)] = ()
    topped_up: bool = False
    reason: Reason = ""
    top_ups: Annotated[tuple[TopUp, ...], Field(max_length=bounds.MAX_TOP_UPS)] = ()
    changes: Annotated[tuple[Token, ...], Field(max_length=bounds.MAX_LIMIT_CHANGES)] = ()


SpendBy = Literal["agent", "step", "workflow", "feature", "user", "tenant", "model", "task"]


class SpendRequested(Body):
    """An operator or auditor asks what the calls of a tenant cost that were admitted since then (rpc).

    top: so many rows, the dearest; the others come as one sum.
    """

    TYPE: ClassVar[str] = "mesh.budget.spend_requested"

    requester: RequesterClaim
    by: SpendBy
    since_s: Annotated[int, Field(ge=1, le=bounds.MAX_SPEND_S)]
    top: Annotated[int, Field(ge=1, le=bounds.MAX_SPEND_ROWS)] = 20


class Spent(Contract):
    """A sum over calls. input_tokens and output_tokens are the providers' own counts.

    tokens: both, and the reservations of `estimated` calls, whose provider gave no usage.
    """

    calls: Count = 0
    estimated: Count = 0
    input_tokens: Count = 0
    output_tokens: Count = 0
    tokens: Count = 0
    cost_usd_micros: Count = 0
    model_calls: Count = 0
    tool_calls: Count = 0
    wall_ms: Count = 0


class SpendRow(Contract):
    """What was spent under one name, and what is held for calls that have not settled. "": without a name."""

    name: Annotated[str, Field(max_length=200)] = ""
    spent: Spent = Spent()
    held: Spent = Spent()


class SpendReplied(Body):
    """Rows, the dearest first; `rest` sums the other rest_rows; `total` is all of them.

    late: settled since then, of calls that were admitted before: in no row, for their time is another. kept_unix_ms:
    tasks that ended before it may have been purged, and what they spent is kept by day and month, not by name.
    """

    TYPE: ClassVar[str] = "mesh.budget.spend_replied"

    by: SpendBy = "tenant"
    since_unix_ms: UnixMs = 0
    until_unix_ms: UnixMs = 0
    kept_unix_ms: UnixMs = 0
    rows: Annotated[tuple[SpendRow, ...], Field(max_length=bounds.MAX_SPEND_ROWS)] = ()
    rest: SpendRow = SpendRow()
    rest_rows: Count = 0
    total: SpendRow = SpendRow()
    late: Spent = Spent()
    failure: Failure | None = None


class LedgerMarked(Body):
    """Budget is about to read this inbox to rebuild its ledger: it has read enough when it has read this."""

    TYPE: ClassVar[str] = "mesh.budget.ledger_marked"

    epoch: Token


Units = tuple[int, int, int, int, int]
"""Tokens, micro dollars, model calls, tool calls, milliseconds."""


class LedgerBalance(Contract):
    """What one account had spent at a checkpoint, by how many settlements, and what it held."""

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


class LedgerPart(Body):
    """Fact: a part of the ledger as it stood at a checkpoint.

    settled: a second copy of these reservations' facts may be stored after the checkpoint, and opens nothing.
    """

    TYPE: ClassVar[str] = "mesh.budget.ledger_part"

    checkpoint: Token
    balances: Annotated[tuple[LedgerBalance, ...], Field(max_length=bounds.MAX_CHECKPOINT_ROWS)] = ()
    entries: Annotated[tuple[LedgerEntry, ...], Field(max_length=bounds.MAX_CHECKPOINT_ROWS)] = ()
    settled: Annotated[tuple[LedgerSettled, ...], Field(max_length=bounds.MAX_CHECKPOINT_SETTLED)] = ()


class LedgerCheckpointed(Body):
    """Fact: the ledger as it follows from the journal's inbox up to one sequence and budget's up to another.

    parts: where its parts lie, by sequence. What lies below these sequences may be removed: it is in here.
    """

    TYPE: ClassVar[str] = "mesh.budget.ledger_checkpointed"

    checkpoint: Token
    journal_sequence: Count
    budget_sequence: Count
    parts: Annotated[tuple[Count, ...], Field(max_length=bounds.MAX_CHECKPOINT_PARTS)] = ()
    at_unix_ms: UnixMs


class Tripped(Body):
    """Fact: a detector of coordination health has found something; `evidence` are the ids of the messages that show it.

    trip derives from the evidence: whoever finds the same again names it the same. halted: the task was stopped for it.
    """

    TYPE: ClassVar[str] = "mesh.budget.tripped"

    trip: Token
    detector: Name
    level: Literal["warn", "stop"]
    agents: Annotated[tuple[Summary, ...], Field(max_length=bounds.MAX_TRIP_AGENTS)] = ()
    what: Reason
    hint: Reason = ""
    evidence: Annotated[tuple[Summary, ...], Field(max_length=bounds.MAX_TRIP_EVIDENCE)] = ()
    halted: bool = False
    tripped_unix_ms: UnixMs


class TaskHalted(Body):
    """Budget stopped the task; the planner ends it. Live halts travel beside this, by KV_CONTROL."""

    TYPE: ClassVar[str] = "mesh.budget.task_halted"

    code: Name
    reason: Reason
    scope: Summary = ""
