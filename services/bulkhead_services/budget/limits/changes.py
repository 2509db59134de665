"""A change of a tenant's limits: who may make it, and the fact that it gives or the refusal. Pure.

In: the limits as the last fact has them, a request, the time. Out: `LimitsChanged` with all limits as they then stand,
or a Failure. A repeat is told from another change by the id of its request and a digest of its content.
"""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

from pydantic import ValidationError

from bulkhead_contracts.bounds import MAX_LIMIT_CHANGES, MAX_LIMIT_TARGETS, MAX_TOP_UP_CHANGES, MAX_TOP_UPS
from bulkhead_contracts.budget import Alerted, Limit, LimitsChanged, LimitsRequested, TargetLimit, TopUp, TopUpRequested
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import CALLER_ROLES
from bulkhead_services.budget.ledger.accounts import TOP_UP, Limits, targets_of

ChangeRequest = LimitsRequested | TopUpRequested
MAY_CHANGE, MAY_READ = ("operator",), CALLER_ROLES
CONTENT_CHARS = 16
MAX_ID_CHARS = 64 - 1 - CONTENT_CHARS


@dataclass(frozen=True)
class TenantLimits:
    """A tenant's limits as one fact has them. sequence: of that fact, 0 where there is none."""

    revision: int = 0
    sequence: int = 0
    change: str = ""
    limits: Limits = field(default_factory=dict)
    top_ups: tuple[TopUp, ...] = ()
    changed_unix_ms: int = 0
    changes: tuple[str, ...] = ()

    @property
    def known_changes(self) -> frozenset[str]:
        """Ids that a repeat is told by: of the tenant's last changes, and of the last top-ups of each task."""
        return frozenset((self.change, *self.changes, *(change for row in self.top_ups for change in row.changes)))

    def changes_with(self, change: str) -> tuple[str, ...]:
        """The last changes after one more."""
        before = self.changes or ((self.change,) if self.change else ())
        return (*before, change)[-MAX_LIMIT_CHANGES:]

    @cached_property
    def effective_limits(self) -> Limits:
        """Limits as an admission takes them: top-ups under targets of their own (scopes.TOP_UP)."""
        return {**self.limits, **{f"{TOP_UP}/{row.task}": row.add for row in self.top_ups}}


def is_in_force(alert: Alerted, tenant_limits: TenantLimits) -> bool:
    """True when the limit that came near may still stand: others than operators limit tasks and days, too."""
    return alert.scope.partition(":")[0] in ("task", "day", "mesh") or any(
        getattr(tenant_limits.limits.get(target), alert.unit, None) == alert.limit for target in targets_of(alert.scope)
    )


def check_requester(body: LimitsRequested, tenant: str) -> Failure | None:
    """Why this person may not."""
    who, changes = body.requester, body.target is not None
    if who.tenant != tenant:
        reason = f"{who.person} of tenant {who.tenant} may not touch tenant {tenant}'s limits"
        return Failure.from_text("forbidden", reason, "use a key of that tenant")
    if who.role not in (MAY_CHANGE if changes else MAY_READ):
        return Failure.from_text("forbidden", f"the role {who.role} may not change limits", "ask an operator")
    return None


def build_limits_change(
    tenant_limits: TenantLimits, body: LimitsRequested, tenant: str, change: str, now_unix_ms: int
) -> LimitsChanged | Failure:
    """The fact that makes a change, or why it cannot be made. Pure."""
    assert body.target is not None
    if _is_reused(tenant_limits, change):
        hint = "use a new key for another change, or repeat the first one unchanged"
        return Failure.from_text(
            "idempotency_reused", "another limit, or another value of it, was set under this key", hint
        )
    if body.expect_revision is not None and body.expect_revision != tenant_limits.revision:
        reason = f"the limits are at revision {tenant_limits.revision}, not at {body.expect_revision}"
        return Failure.from_text("changed_meanwhile", reason, "read them again and decide anew")
    limits = dict(tenant_limits.limits)
    old = limits.pop(body.target, Limit())
    if body.limit != Limit():
        limits[body.target] = body.limit
    if len(limits) > MAX_LIMIT_TARGETS:
        hint = "remove one that is not needed any more, for example of a task that has ended"
        return Failure.from_text("too_many_limits", f"a tenant may have limits for {MAX_LIMIT_TARGETS} targets", hint)
    return LimitsChanged(
        tenant=tenant,
        revision=tenant_limits.revision + 1,
        target=body.target,
        old=old,
        new=body.limit,
        by=body.requester.person,
        changed_unix_ms=now_unix_ms,
        change=change,
        limits=rows_of(limits),
        reason=body.reason,
        top_ups=_running_top_ups(tenant_limits, now_unix_ms),
        changes=tenant_limits.changes_with(change),
    )


def check_top_up(body: TopUpRequested, tenant: str) -> Failure | None:
    """Why this person may not give the task more, or nobody that much."""
    who = body.requester
    if who.tenant != tenant:
        reason = f"{who.person} of tenant {who.tenant} may not top up tenant {tenant}'s tasks"
        return Failure.from_text("forbidden", reason, "use a key of that tenant")
    if who.role not in MAY_CHANGE:
        return Failure.from_text("forbidden", f"the role {who.role} may not top up tasks", "ask an operator")
    if not any(body.add.model_dump().values()):
        return Failure.from_text("adds_nothing", "the top-up adds nothing", "name an amount above 0: --usd 0.50")
    return None


def content_digest(body: ChangeRequest) -> str:
    """Digest of what a repeat has to have in common with the first: 16 hex digits."""
    if isinstance(body, TopUpRequested):
        content = f"{body.add.model_dump_json()} {body.reason}"
    else:
        content = f"{body.target} {body.limit.model_dump_json()} {body.expect_revision}"
        content += f" {body.reason}" if body.reason else ""
    return hashlib.sha256(content.encode()).hexdigest()[:CONTENT_CHARS]


def _is_reused(tenant_limits: TenantLimits, change: str) -> bool:
    """True when the id of this change is known with another content."""
    request_id = change.rpartition("-")[0]
    return bool(request_id) and any(earlier.rpartition("-")[0] == request_id for earlier in tenant_limits.known_changes)


def build_top_up_change(
    tenant_limits: TenantLimits, body: TopUpRequested, tenant: str, change: str, now_unix_ms: int
) -> LimitsChanged | Failure:
    """The fact that gives a task more, or why it cannot. Pure."""
    if _is_reused(tenant_limits, change):
        reason = f"task {body.task} was topped up under this key with another amount or reason"
        hint = "use a new key for another top-up, or repeat the first one unchanged"
        return Failure.from_text("idempotency_reused", reason, hint)
    top_ups = {top_up.task: top_up for top_up in _running_top_ups(tenant_limits, now_unix_ms)}
    before = top_ups.pop(body.task, TopUp(task=body.task, add=Limit()))
    added = {name: (getattr(before.add, name) or 0) + (getattr(body.add, name) or 0) for name in Limit.model_fields}
    try:
        sum_ = Limit(**{name: value or None for name, value in added.items()})
    except ValidationError:
        return Failure.from_text("too_much", "with this the task's top-ups exceed what a limit may be", "add less")
    if len(top_ups) >= MAX_TOP_UPS:
        reason = f"a tenant may have {MAX_TOP_UPS} tasks that were topped up and still run"
        return Failure.from_text("too_many_limits", reason, "wait until some of them have ended")
    top_ups[body.task] = TopUp(
        task=body.task,
        add=sum_,
        until_unix_ms=max(before.until_unix_ms, body.until_unix_ms),
        changes=(*before.changes, change)[-MAX_TOP_UP_CHANGES:],
    )
    return LimitsChanged(
        tenant=tenant,
        revision=tenant_limits.revision + 1,
        target=f"task/{body.task}",
        old=before.add,
        new=sum_,
        by=body.requester.person,
        changed_unix_ms=now_unix_ms,
        change=change,
        limits=rows_of(tenant_limits.limits),
        topped_up=True,
        reason=body.reason,
        top_ups=tuple(top_ups.values()),
        changes=tenant_limits.changes_with(change),
    )


def _running_top_ups(tenant_limits: TenantLimits, now_unix_ms: int) -> tuple[TopUp, ...]:
    """Top-ups that still count: a task that has ended needs none."""
    return tuple(
        top_up for top_up in tenant_limits.top_ups if not top_up.until_unix_ms or top_up.until_unix_ms > now_unix_ms
    )


def rows_of(limits: Limits) -> tuple[TargetLimit, ...]:
    return tuple(TargetLimit(target=target, limit=limit) for target, limit in sorted(limits.items()))
