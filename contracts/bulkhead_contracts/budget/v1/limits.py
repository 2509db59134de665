"""Limits on the wire: a tenant's limits, top-ups, and tasks halted at a ceiling."""

import operator
from typing import Annotated

from pydantic import Field

from bulkhead_contracts import bounds
from bulkhead_contracts.budget.v1.alerts import Alerted
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task.v1 import RequesterClaim
from bulkhead_contracts.types import Body, Contract, Count, Name, Reason, Summary, Token, UnixMs


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
    """Allowance of a task beyond its limits, all top-ups together, by unit.

    until_unix_ms: the task has ended by then. changes: of the last top-ups, so that one which is repeated
    counts once.
    """

    task: Token
    add: Limit
    until_unix_ms: UnixMs = 0
    changes: Annotated[tuple[Token, ...], Field(max_length=bounds.MAX_TOP_UP_CHANGES)] = ()


class TopUpRequested(Body, type="mesh.budget.top_up_requested"):
    """An operator lets a task spend more than its limits say (rpc); halted at its ceiling, it goes on.

    add: by unit, at least one. until_unix_ms: when the task ends at the latest.
    """

    requester: RequesterClaim
    task: Token
    add: Limit
    until_unix_ms: UnixMs
    reason: Annotated[Reason, Field(min_length=1)]


class TopUpReplied(Body, type="mesh.budget.top_up_replied"):
    """Sum of all top-ups of the task, and whether it was halted and goes on; or why nothing was changed."""

    added: Limit = Limit()
    revision: Count = 0
    resumed: bool = False
    failure: Failure | None = None


class LimitsRequested(Body, type="mesh.budget.limits_requested"):
    """An operator reads or changes a tenant's limits (rpc). No `target`: they are read. An empty `limit` removes one.

    expect_revision: the change is made only to this revision; null to any. history: the last changes are told, too.
    reason: of the change.
    """

    requester: RequesterClaim
    target: LimitTarget | None = None
    limit: Limit = Limit()
    expect_revision: Count | None = None
    history: bool = False
    reason: Annotated[Reason, Field(exclude_if=operator.not_)] = ""


class LimitChange(Contract):
    """Change of a limit: by whom, from what to what, when. topped_up, reason: as in `LimitsChanged`."""

    target: LimitTarget
    old: Limit
    new: Limit
    by: Name
    changed_unix_ms: UnixMs
    topped_up: bool = False
    reason: Reason = ""


class LimitsReplied(Body, type="mesh.budget.limits_replied"):
    """The limits as they stand now, or why they were not read or changed.

    alerts: the tenant's latest, the newest first, as far as they are remembered beside the ledger. history: its last
    changes, the newest first, where it was asked for.
    """

    revision: Count = 0
    limits: Annotated[tuple[TargetLimit, ...], Field(max_length=bounds.MAX_LIMIT_TARGETS)] = ()
    failure: Failure | None = None
    top_ups: Annotated[tuple[TopUp, ...], Field(max_length=bounds.MAX_TOP_UPS)] = ()
    alerts: Annotated[tuple[Alerted, ...], Field(max_length=bounds.MAX_ALERTS_LISTED)] = ()
    history: Annotated[tuple[LimitChange, ...], Field(max_length=bounds.MAX_CHANGES_LISTED)] = ()


class LimitsChanged(Body, type="mesh.budget.limits_changed"):
    """Fact: a tenant's limit was changed, by whom and from what to what, with all limits as they stand since then.

    Lies in the journal under tenant `limits`, task = the tenant that it is about: nobody outside can name that subject.
    topped_up: a task was given more; `target` names it, and `old` and `new` are what all its top-ups came to. changes:
    ids of the tenant's last ones, this one last, by which one that is asked for again is known.
    """

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


class TaskHalted(Body, type="mesh.budget.task_halted"):
    """Budget stopped the task; the planner ends it. Live halts travel beside this, by KV_CONTROL."""

    code: Name
    reason: Reason
    scope: Summary = ""
