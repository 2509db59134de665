"""Grant decisions, pure: a request is held to its tenant's policy, and its limits are never lowered silently.

In: a GrantRequested, the task it is for, the policies, the tools that exist, the time. Out: a TaskGrant and the
specs of its tools, or why not. The same request gives the same grant.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from bulkhead.gateway_api.ratings import OF_EVALUATORS, OF_ONLINE_JUDGES
from bulkhead.policy.constraints import Constraint, unreadable_reason
from bulkhead.text.validation_errors import find_misfits, suggest_name
from bulkhead_contracts import bounds, subjects
from bulkhead_contracts.approval import APPROVING_ROLES, ApprovalGrant, SignatureRequested
from bulkhead_contracts.delegation import DelegatedRole, DelegatedRoles
from bulkhead_contracts.grant import GrantRequested, TaskGrant
from bulkhead_contracts.output import InputPolicy, OutputPolicy
from bulkhead_contracts.plan import ASK_PERSON, JUDGE_ROLE, WORKER_ROLE, Delegation, RoleSpec
from bulkhead_contracts.prompt import TRIAL
from bulkhead_contracts.prompt.gate_policy import GatePolicy
from bulkhead_contracts.push_policy import PushPolicy
from bulkhead_contracts.quota import Quota
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import RequesterClaim, TaskLimits
from bulkhead_contracts.tool import ToolSpec
from bulkhead_contracts.types import Constraints, Contract, Count, Name, Token

GRANTING_ROLES = ("submitter", "operator", "evaluator")
EVALUATOR = "evaluator"
PROMPT_ROLES = ("prompt_editor", "operator")
EXPIRY_SLACK_MS = bounds.GRANT_SLACK_MS
"""A grant outlives its task's time by this, so that what was started in time can be ended in order."""


Caller = Literal["api_key", "jwt", "publisher"]
CALLERS: tuple[Caller, ...] = ("api_key", "jwt", "publisher")


class TenantsFileError(ValueError):
    """The tenants file cannot be used; the message says where and what to do."""


class DayCeiling(Contract, extra="forbid"):
    """Money and tokens of one day."""

    cost_usd_micros: Count
    tokens: Count


class TenantGrantPolicy(Contract, extra="forbid"):
    """The policy of one tenant. `roles`: false takes the right to submit from a role. callers: with which credentials
    its people may ask; `[jwt]` leaves nobody in whose name the gateway alone could ask.

    quota: how much at once; the gateway holds the tenant to it. input, output: rules for objectives and answers.
    default_writes: tools of `tools` that change something and that a task gets which names no tools. constraints: on
    the values of arguments, in each of its grants. delegated_roles: by role, who carries out its steps elsewhere.
    push: where push notifications may go; gates: before labels of prompts. Others hold it to both.
    """

    tools: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    document_scopes: Annotated[tuple[Token, ...], Field(max_length=16)] = ("default",)
    task: TaskLimits
    day: DayCeiling
    quota: Quota = Quota()
    input: InputPolicy = InputPolicy()
    output: OutputPolicy = OutputPolicy()
    roles: Mapping[str, bool] = {}
    default_writes: Annotated[tuple[Name, ...], Field(max_length=bounds.MAX_TOOLS)] = ()
    constraints: Constraints = ()
    callers: Annotated[tuple[Caller, ...], Field(max_length=len(CALLERS))] = CALLERS
    delegated_roles: DelegatedRoles = {}
    push: PushPolicy = PushPolicy()
    gates: Annotated[dict[Name, GatePolicy], Field(max_length=bounds.MAX_RELEASE_LABELS)] = {}


@dataclass(frozen=True, slots=True)
class GrantPolicies:
    """The checked tenants file, and the tools of this mesh (`unavailable`: known, but not configured; built_in: of a
    worker's own loop)."""

    tenants: Mapping[str, TenantGrantPolicy]
    tools: Mapping[str, ToolSpec]
    unavailable: frozenset[str] = frozenset()
    built_in: frozenset[str] = frozenset()
    worker_roles: frozenset[str] = frozenset({WORKER_ROLE, JUDGE_ROLE})
    max_age_ms: int = 600_000
    max_ahead_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class GrantDecision:
    """A grant to be signed."""

    grant: TaskGrant
    tools: tuple[ToolSpec, ...]
    left_out: tuple[str, ...] = ()
    roles: tuple[RoleSpec, ...] = ()
    input: InputPolicy = InputPolicy()
    output: OutputPolicy = OutputPolicy()


def decide_grant(
    policies: GrantPolicies, request: GrantRequested, tenant: str, task: str, now_unix_ms: int
) -> GrantDecision | Failure:
    """Grant all of what was asked, or nothing."""
    policy = _policy_of(policies, request.requester, tenant)
    if isinstance(policy, Failure):
        return policy
    if request.purpose == "ingest":
        # Nobody states limits for a document: those of the contract must not shut a small tenant out.
        request = request.model_copy(update={"limits": _lower_limits(request.limits, policy.task)})
    for problem in (
        _check_caller(policy, request.requester),
        _check_role(policy, request.requester),
        _check_time(policies, request.requested_unix_ms, now_unix_ms),
        _check_tools(policies, policy, request),
        _check_evaluation(policies, policy, request),
        _check_worker_roles(policies, policy, request),
        _check_limits(policy, tenant, request),
        _check_constraints(policies, policy, request),
    ):
        if problem is not None:
            return problem
    return _build_grant(policies, policy, request, tenant, task)


def _policy_of(policies: GrantPolicies, requester: RequesterClaim, tenant: str) -> TenantGrantPolicy | Failure:
    if requester.tenant != tenant:
        reason = f"{requester.person} of tenant {requester.tenant} asks for authority over tenant {tenant}"
        return Failure.from_text("foreign_tenant", reason, "submit under the tenant that the API key or token names")
    if tenant not in policies.tenants:
        hint = "an operator adds the tenant to infra/bulkhead_infra/identity/tenants.yaml and restarts the signer"
        return Failure.from_text("unknown_tenant", f"tenant {tenant} has no policy", hint)
    return policies.tenants[tenant]


def grantable_tools(policies: GrantPolicies, requester: RequesterClaim, tenant: str) -> tuple[ToolSpec, ...] | Failure:
    """The tools that a task of this requester could be granted, and that who is outside can call."""
    policy = _policy_of(policies, requester, tenant)
    if isinstance(policy, Failure):
        return policy
    if (refusal := _check_caller(policy, requester) or _check_role(policy, requester)) is not None:
        return refusal
    names = sorted({name for name in policy.tools if name in policies.tools} - policies.built_in)
    return tuple(policies.tools[name] for name in names)


def decide_approval(
    policies: GrantPolicies, request: SignatureRequested, tenant: str, task: str, now_unix_ms: int
) -> ApprovalGrant | Failure:
    """A person's word about one call, one plan, or one act on prompts, to be signed, or why not."""
    requester = request.requester
    policy = policies.tenants.get(tenant)
    if requester.tenant != tenant or policy is None:
        reason = f"{requester.person} of tenant {requester.tenant} decides about a call of tenant {tenant}"
        return Failure.from_text("foreign_tenant", reason, "decide under the tenant that the API key or token names")
    roles, act = (PROMPT_ROLES, "change prompts") if request.kind == "prompt" else (APPROVING_ROLES, "approve")
    if requester.role not in roles or not policy.roles.get(requester.role, True):
        reason = f"{requester.person} is {requester.role} here, and {requester.role} may not {act}"
        hint = f"only {' or '.join(roles)} may; ask for that role in the identity provider"
        return Failure.from_text("role_may_not_approve", reason, hint)
    if requester.agent:
        reason = f"the credential of {requester.person} is an agent's, and people alone {act}"
        return Failure.from_text("agent_may_not_approve", reason, "use a person's own key or token")
    for problem in (_check_caller(policy, requester), _check_time(policies, request.requested_unix_ms, now_unix_ms)):
        if problem is not None:
            return problem
    return ApprovalGrant(
        kind=request.kind,
        tenant=tenant,
        task=task,
        approval_id=request.approval_id,
        arguments_sha256=request.arguments_sha256,
        decision=request.decision,
        person=requester.person,
        role=requester.role,
        via=requester.via,
        reason=request.reason,
        decided_unix_ms=now_unix_ms,
    )


def _build_grant(
    policies: GrantPolicies, policy: TenantGrantPolicy, request: GrantRequested, tenant: str, task: str
) -> GrantDecision:
    names, left_out = _choose_tools(policies, policy, request)
    wait_ms = min(request.limits.approval_wait_ms, policy.task.approval_wait_ms)
    limits = request.limits.model_copy(update={"approval_wait_ms": wait_ms})
    # Whoever calls no tool waits for no approval.
    lives_ms = limits.lifetime_ms if names else limits.deadline_ms
    grant = TaskGrant(
        tenant=tenant,
        task=task,
        actor=request.requester.person,
        role=request.requester.role,
        tools=names,
        document_scopes=policy.document_scopes,
        limits=limits,
        day_cost_usd_micros=policy.day.cost_usd_micros,
        day_tokens=policy.day.tokens,
        expires_unix_ms=request.requested_unix_ms + lives_ms + EXPIRY_SLACK_MS,
        origin=request.origin,
        feature=request.feature,
        workflow=request.workflow,
        workflow_release=request.workflow_release,
        constraints=_held_constraints(policy, request, names),
        delegated=_delegations_of(policies, policy, request),
    )
    roles = choosable_roles(policy.delegated_roles, grant.delegated, policies.tools)
    tools = tuple(policies.tools[name] for name in names)
    return GrantDecision(grant, tools, left_out, roles, policy.input, policy.output)


def _choose_tools(
    policies: GrantPolicies, policy: TenantGrantPolicy, request: GrantRequested
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tools that a task gets, and those that it could have had by naming them: what changes something is named, by
    the request, by the plan that it brings, or by the tenant's policy."""
    if request.purpose != "task":
        return (), ()
    agents = {row.agent_tool for row in _delegations_of(policies, policy, request) if row.agent_tool in policies.tools}
    if request.tools:
        return tuple(sorted({*request.tools, *agents})), ()
    usable = sorted({name for name in policy.tools if name in policies.tools})
    granted = tuple(name for name in usable if name in agents or _is_given_unasked(policies, policy, request, name))
    # What asks a person comes with a plan that asks, and is no tool that anybody misses.
    return granted, tuple(name for name in usable if name not in granted and name != ASK_PERSON)


def _is_given_unasked(policies: GrantPolicies, policy: TenantGrantPolicy, request: GrantRequested, name: str) -> bool:
    """True when a task whose request names no tools gets this one of its tenant's. An evaluator, and what nobody has
    reviewed, writes nothing by default."""
    if policies.tools[name].effect == "read" or name in request.plan_tools:
        return True
    is_trial = request.release.partition(".")[0] == TRIAL
    return name in policy.default_writes and not is_trial and request.requester.role != EVALUATOR


def _delegations_of(
    policies: GrantPolicies, policy: TenantGrantPolicy, request: GrantRequested
) -> tuple[Delegation, ...]:
    """Delegations of the roles in the request's plan, and of the one that every other step has; of all that it may
    choose where the mesh makes the plan: an agent's only with its tool, which a model must not get by another
    name.
    """
    if request.purpose != "task":
        return ()
    roles = {*request.worker_roles, WORKER_ROLE}
    if request.drafted:
        rows = delegations_for(policy.delegated_roles, policy.delegated_roles)
        roles |= {
            row.role for row in rows if not row.agent_tool or _gets_tool(policies, policy, request, row.agent_tool)
        }
    return delegations_for(policy.delegated_roles, roles)


def _gets_tool(policies: GrantPolicies, policy: TenantGrantPolicy, request: GrantRequested, tool: str) -> bool:
    """True when a task gets this tool of its tenant's, apart from any role."""
    if tool not in policies.tools:
        return False
    return tool in request.tools if request.tools else _is_given_unasked(policies, policy, request, tool)


def _held_constraints(policy: TenantGrantPolicy, request: GrantRequested, names: tuple[str, ...]) -> tuple[str, ...]:
    """The tenant's constraints and the request's: every one holds, so the request's can only narrow."""
    texts = dict.fromkeys((*policy.constraints, *request.constraints))
    return tuple(text for text in texts if Constraint.parse(text).tool in ("*", *names))


def _check_constraints(policies: GrantPolicies, policy: TenantGrantPolicy, request: GrantRequested) -> Failure | None:
    names, _ = _choose_tools(policies, policy, request)
    if cause := unreadable_reason(request.constraints, names, policies.tools):
        hint = f"docs/how-to/policy.md lists the tests; the tools of this task are {', '.join(names) or 'none'}"
        return Failure.from_text("bad_constraint", cause, hint)
    if (count := len(_held_constraints(policy, request, names))) > bounds.MAX_CONSTRAINTS:
        reason = (
            f"the task would have {count} constraints with those of its tenant, and may have {bounds.MAX_CONSTRAINTS}"
        )
        return Failure.from_text("too_many_constraints", reason, "write fewer; one-of and regex hold several values")
    return None


def _check_caller(policy: TenantGrantPolicy, requester: RequesterClaim) -> Failure | None:
    if requester.via in policy.callers:
        return None
    reason = f"tenant {requester.tenant} takes no request by {requester.via}; it takes {', '.join(policy.callers)}"
    hint = "use another credential, or have an operator change `callers` of the tenant in the tenants file"
    return Failure.from_text("caller_not_taken", reason, hint)


def _check_role(policy: TenantGrantPolicy, requester: RequesterClaim) -> Failure | None:
    role = requester.role
    if role in GRANTING_ROLES and policy.roles.get(role, True):
        return None
    reason = f"{requester.person} is {role} here, and {role} may not submit"
    hint = f"only {' or '.join(GRANTING_ROLES)} may submit; ask for that role in the identity provider"
    return Failure.from_text("role_may_not_submit", reason, hint)


def _check_evaluation(policies: GrantPolicies, policy: TenantGrantPolicy, request: GrantRequested) -> Failure | None:
    """An evaluator's tasks are evaluations that change nothing, and votes of online judges are an evaluator's."""
    if request.purpose != "task":
        return None
    is_evaluator = request.requester.role == EVALUATOR
    if is_evaluator and request.feature not in OF_EVALUATORS:
        reason = f"an evaluator submits tasks of the features {' and '.join(OF_EVALUATORS)} alone"
        return Failure.from_text("evaluations_alone", reason, "submit it with the key of a submitter")
    if not is_evaluator and request.feature == OF_ONLINE_JUDGES:
        reason = f"the feature {OF_ONLINE_JUDGES} is that of the votes of online judges, which evaluators submit"
        return Failure.from_text("reserved_feature", reason, "name another feature, or use the key of an evaluator")
    names, _ = _choose_tools(policies, policy, request)
    writes = [name for name in names if name in policies.tools and policies.tools[name].effect != "read"]
    if is_evaluator and writes:
        reason = f"tasks of an evaluator change nothing, and this one would get {', '.join(writes)}"
        return Failure.from_text("evaluations_alone", reason, "name only tools that read, or use a submitter's key")
    return None


def _check_time(policies: GrantPolicies, requested_unix_ms: int, now_unix_ms: int) -> Failure | None:
    age_ms = now_unix_ms - requested_unix_ms
    if age_ms > policies.max_age_ms:
        return Failure.from_text(
            "request_too_old",
            f"the request is {age_ms} ms old; at most {policies.max_age_ms} ms are accepted",
            "submit the task again; if that is said at once, the clocks of gateway and signer differ: set the "
            "clocks of all machines by NTP",
        )
    if -age_ms > policies.max_ahead_ms:
        reason = f"the request's time lies {-age_ms} ms ahead of the signer's clock"
        hint = "the clocks of gateway and signer differ: set the clocks of all machines by NTP, then submit again"
        return Failure.from_text("request_from_the_future", reason, hint)
    return None


def _check_worker_roles(policies: GrantPolicies, policy: TenantGrantPolicy, request: GrantRequested) -> Failure | None:
    available = policies.worker_roles | policy.delegated_roles.keys()
    unknown = sorted(set(request.worker_roles) - available)
    if not unknown:
        return None
    return Failure.from_text(
        "unknown_role",
        f"no worker of this mesh plays the role {', '.join(unknown)}",
        f"the steps of a plan may have the roles {', '.join(sorted(available))}; a pack "
        "(BULKHEAD_PACKS of the signer and "
        f"the model gateway) or delegated_roles of the tenants file brings others{suggest_name(unknown[0], available)}",
    )


def _check_tools(policies: GrantPolicies, policy: TenantGrantPolicy, request: GrantRequested) -> Failure | None:
    tenant = request.requester.tenant
    if request.purpose == "ingest" and request.tools:
        return Failure.from_text("tools_not_granted", "taking in a document uses no tools", "leave `tools` empty")
    if foreign := sorted(set(request.tools) - set(policy.tools)):
        usable = [tool for tool in policy.tools if tool in policies.tools]
        reason = f"tenant {tenant} may not use: {', '.join(foreign)}"
        return Failure.from_text(
            "tools_not_granted", reason, f"it may use: {', '.join(usable)}{suggest_name(foreign[0], usable)}"
        )
    if absent := sorted(set(request.tools) - set(policies.tools)):
        hint = "see `requires` in libs/bulkhead/tools/tools.yaml, or submit without them"
        return Failure.from_text("tools_not_available", f"not configured in this mesh: {', '.join(absent)}", hint)
    return None


def _lower_limits(asked: TaskLimits, most: TaskLimits) -> TaskLimits:
    return TaskLimits(**{name: min(getattr(asked, name), getattr(most, name)) for name in TaskLimits.model_fields})


def _check_limits(policy: TenantGrantPolicy, tenant: str, request: GrantRequested) -> Failure | None:
    for name, (label, option) in _LIMITS.items():
        requested, most = getattr(request.limits, name), getattr(policy.task, name)
        if requested > most:
            typed = _format_typed(name, most)
            return Failure.from_text(
                "limit_above_policy",
                f"{label} of {_format_limit(name, requested)} is asked; a task of tenant {tenant} may have "
                f"{_format_limit(name, most)} at most",
                f"submit with {option} {typed} or less (over HTTP: limits.{name} {most}), or have an operator "
                f"raise task.{name} of {tenant} in the tenants file",
            )
    return None


_LIMITS = {
    "cost_usd_micros": ("a cost limit", "--limit-usd"),
    "tokens": ("a token limit", "--limit-tokens"),
    "deadline_ms": ("a deadline", "--deadline"),
}
"""Names of the limits for people, and the options that set them."""


def _format_limit(name: str, value: int) -> str:
    match name:
        case "cost_usd_micros":
            dollars, micros = divmod(value, 1_000_000)
            return f"${dollars:,}.{f'{micros:06d}'.rstrip('0').ljust(2, '0')}"
        case "tokens":
            return f"{value:,} tokens"
        case _:
            return _format_typed(name, value)


def _format_typed(name: str, value: int) -> str:
    match name:
        case "cost_usd_micros":
            return f"{value // 1_000_000}.{f'{value % 1_000_000:06d}'.rstrip('0').ljust(2, '0')}"
        case "tokens":
            return str(value)
        case _:
            return f"{value / 1000:.3f}".rstrip("0").rstrip(".") + "s"


def policies_from(
    document: Any,
    known: Mapping[str, ToolSpec],
    available: Mapping[str, ToolSpec],
    *,
    worker_roles: frozenset[str] = frozenset(),
    built_in: frozenset[str] = frozenset(),
    **skew: int,
) -> GrantPolicies:
    """Check a tenants document (parsed YAML). worker_roles: those besides the mesh's own. Raises TenantsFileError."""
    if not isinstance(document, dict) or not isinstance(document.get("tenants"), dict) or not document["tenants"]:
        raise TenantsFileError("the tenants file must hold a mapping `tenants:` with at least one tenant")
    tenants: dict[str, TenantGrantPolicy] = {}
    for name, declared in document["tenants"].items():
        if name in subjects.RESERVED_TENANTS:
            raise TenantsFileError(
                f"tenants file: {name}: the mesh keeps facts of its own under this name; choose another"
            )
        try:
            tenants[str(name)] = TenantGrantPolicy.model_validate(declared)
        except ValidationError as error:
            raise TenantsFileError(f"tenants file: {name}: {find_misfits(error, TenantGrantPolicy)[0]}") from error
        if undeclared := sorted(set(tenants[str(name)].default_writes) - set(tenants[str(name)].tools)):
            reason = f"tenants file: {name}: default_writes names {', '.join(undeclared)}, which tools does not"
            raise TenantsFileError(f"{reason}; name them in tools, too, or take them out")
        if cause := unreadable_reason(tenants[str(name)].constraints, tenants[str(name)].tools, known):
            raise TenantsFileError(f"tenants file: {name}: {cause}")
        if cause := delegation_misfit(tenants[str(name)].delegated_roles, tenants[str(name)].tools):
            raise TenantsFileError(f"tenants file: {name}: {cause}")
        if unknown := sorted(set(tenants[str(name)].tools) - set(known)):
            mend = "declare them in libs/bulkhead/tools/tools.yaml, or in a pack that BULKHEAD_PACKS names"
            reason = f"tenants file: {name}: tools {', '.join(unknown)} are not declared"
            raise TenantsFileError(f"{reason}; {mend}, or take them out")
    unavailable = frozenset(known) - frozenset(available)
    return GrantPolicies(tenants, available, unavailable, built_in, worker_roles | {WORKER_ROLE, JUDGE_ROLE}, **skew)


# Roles whose steps are carried out elsewhere


def delegation_misfit(rows: Mapping[str, DelegatedRole], tools: Collection[str]) -> str:
    """Fault in a tenant's rows, and what to do; "" when there is none. tools: the tenant's."""
    for role, row in sorted(rows.items()):
        named, unexpected = (row.identity, row.agent) if row.to == "worker" else (row.agent, row.identity)
        field, wrong = ("identity", "agent") if row.to == "worker" else ("agent", "identity")
        if named is None:
            return f"delegated_roles.{role}: `to: {row.to}` needs `{field}`; name it"
        if unexpected is not None:
            return f"delegated_roles.{role}: `to: {row.to}` has no `{wrong}`; take it out"
        if (tool := _delegation_of(role, row).agent_tool) and tool not in tools:
            return f"delegated_roles.{role}: the tenant may not use the tool {tool}; name it in tools, too"
    return ""


def delegations_for(rows: Mapping[str, DelegatedRole], roles: Collection[str]) -> tuple[Delegation, ...]:
    """The delegations that a task with steps of these roles has."""
    return tuple(_delegation_of(role, rows[role]) for role in sorted(rows.keys() & set(roles)))


def choosable_roles(
    rows: Mapping[str, DelegatedRole], granted: Iterable[Delegation], tools: Mapping[str, ToolSpec]
) -> tuple[RoleSpec, ...]:
    """The granted roles, each with one line: its row's, or what the card of its agent tells."""
    # Every step has the worker's role where it names none: nobody chooses it.
    chosen = [row for row in granted if row.role != WORKER_ROLE]
    cards = {row.role: tools[row.agent_tool].description if row.agent_tool in tools else "" for row in chosen}
    return tuple(
        RoleSpec(name=name, description=_one_line(rows[name].description or card)) for name, card in cards.items()
    )


def _one_line(text: str) -> str:
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    most = bounds.MAX_SUMMARY_CHARS
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _delegation_of(role: str, row: DelegatedRole) -> Delegation:
    name = row.identity if row.to == "worker" else row.agent
    return Delegation(role=role, to=row.to, name=name or "", deadline_ms=round(row.deadline_s * 1000))
