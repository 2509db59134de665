"""Which accounts a call is charged to, and how high each may go. Pure.

In: the grant, who calls, a tenant's limits, the time. Out: scopes, the task's first. A name in the limits comes before
what holds for all of its kind; the grant's own ceilings (task, day) can be narrowed by a general limit, and the task's
replaced by one that names the task. A limit of `agent/planner` is each of its roles' (`planner.draft`) that has none of
its own. A top-up is added to the ceiling of its task, whatever that is.

    task:<tenant>:<task>            step:<tenant>:<task>/<step>
    agent|workflow|feature|user:<tenant>:<name>:<UTC day>
    day:<tenant>:<UTC day>          month:<tenant>:<UTC month>          mesh:-:<UTC day>
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from bulkhead_contracts.bounds import UNLIMITED
from bulkhead_contracts.budget import Limit, ScopeLimit
from bulkhead_contracts.grant import TaskGrant
from bulkhead_services.budget.ledger.model import NO_LIMIT, Scope, UnitSums, scope_limits

Limits = Mapping[str, Limit]
"""By target."""
TOP_UP = "topup"
"""Target of what is added to a task's ceiling; nobody can name it in a request."""
AFTERWARDS_MS = 2 * 24 * 3600 * 1000
"""Time for which a day, or a month, is kept after its end."""
IN_FIRST = 8
"""As many scopes as the first field of a fact holds."""


def task_scope(tenant: str, task: str) -> str:
    """The account of a task."""
    return f"task:{tenant}:{task}"


def scopes_of(
    grant: TaskGrant,
    now_unix_ms: int,
    *,
    step_id: str = "",
    agent: str = "",
    limits: Limits | None = None,
    mesh_day: UnitSums = NO_LIMIT,
) -> tuple[Scope, ...]:
    """The accounts that a call of this task is charged to."""
    day = datetime.fromtimestamp(now_unix_ms / 1000, UTC).date().isoformat()
    tenant, limits = grant.tenant, limits or {}
    requested = NO_LIMIT._replace(tokens=grant.limits.tokens, cost_usd_micros=grant.limits.cost_usd_micros)
    granted = NO_LIMIT._replace(tokens=grant.day_tokens, cost_usd_micros=grant.day_cost_usd_micros)
    task = replace_ceiling(narrow_ceiling(requested, limits.get("task")), limits.get(f"task/{grant.task}"))
    task = raise_ceiling(task, limits.get(f"{TOP_UP}/{grant.task}"))
    scopes = [Scope(task_scope(tenant, grant.task), task, grant.expires_unix_ms)]
    if step_id and "step" in limits:
        scopes.append(
            Scope(
                f"step:{tenant}:{grant.task}/{step_id}",
                replace_ceiling(NO_LIMIT, limits.get("step")),
                grant.expires_unix_ms,
            )
        )
    named = (("agent", agent), ("workflow", grant.workflow), ("feature", grant.feature), ("user", grant.actor))
    for kind, name in named:
        if name:
            limit = replace_ceiling(NO_LIMIT, limits.get(kind))
            if kind == "agent" and "." in name:
                limit = replace_ceiling(limit, limits.get(f"{kind}/{name.partition('.')[0]}"))
            limit = replace_ceiling(limit, limits.get(f"{kind}/{name}"))
            scopes.append(Scope(f"{kind}:{tenant}:{name}:{day}", limit))
    scopes += [
        Scope(f"day:{tenant}:{day}", narrow_ceiling(granted, limits.get("day"))),
        Scope(f"month:{tenant}:{day[:7]}", replace_ceiling(NO_LIMIT, limits.get("month"))),
        Scope(f"mesh:-:{day}", mesh_day),
    ]
    return tuple(scopes)


def targets_of(scope: str) -> tuple[str, ...]:
    """Targets whose limits make an account's ceiling, as far as operators change it."""
    kind, _, name = scope.split(":", 2)
    match kind:
        case "task":
            return (kind, f"{kind}/{name}", f"{TOP_UP}/{name}")
        case "agent" | "workflow" | "feature" | "user":
            name = name.rpartition(":")[0]
            return (kind, f"{kind}/{name.partition('.')[0]}", f"{kind}/{name}")
        case _:
            return (kind,)


def narrow_ceiling(ceiling: UnitSums, limit: Limit | None) -> UnitSums:
    """The lower of both, in every unit."""
    if limit is None:
        return ceiling
    return UnitSums(
        *(
            most if (new := getattr(limit, unit)) is None else min(most, new)
            for unit, most in zip(UnitSums._fields, ceiling, strict=True)
        )
    )


def replace_ceiling(ceiling: UnitSums, limit: Limit | None) -> UnitSums:
    """The limit's own units, where it names any."""
    if limit is None:
        return ceiling
    return UnitSums(
        *(
            most if (new := getattr(limit, unit)) is None else new
            for unit, most in zip(UnitSums._fields, ceiling, strict=True)
        )
    )


def raise_ceiling(ceiling: UnitSums, increase: Limit | None) -> UnitSums:
    """The ceiling plus so much, if any."""
    if increase is None:
        return ceiling
    return UnitSums(
        *(
            most if most >= UNLIMITED else min(most + (getattr(increase, unit) or 0), UNLIMITED)
            for unit, most in zip(UnitSums._fields, ceiling, strict=True)
        )
    )


def is_account_expired(name: str, until_unix_ms: int, now_unix_ms: int) -> bool:
    """True when nothing can be admitted to an account any more, and nothing of it is still to be told."""
    kind = name.partition(":")[0]
    if kind in ("task", "step"):
        return 0 < until_unix_ms < now_unix_ms
    # Replicas' clocks differ, and calls end after midnight.
    today = datetime.fromtimestamp(max(0, now_unix_ms - AFTERWARDS_MS) / 1000, UTC).date().isoformat()
    period = name.rpartition(":")[2]
    return period < today[: len(period)]


def fact_scopes(scopes: tuple[Scope, ...]) -> tuple[tuple[ScopeLimit, ...], tuple[ScopeLimit, ...]]:
    """Two fields, as a fact has them."""
    rows = scope_limits(scopes)
    return rows[:IN_FIRST], rows[IN_FIRST:]
