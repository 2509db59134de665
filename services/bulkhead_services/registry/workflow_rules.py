"""Decisions about workflows, pure: what a version may become, by whose word.

In: an act that a person signed, and the version as it stands. Out: the next fact about it, or why there is none.
"""

from collections.abc import Iterable

from bulkhead.workflows.acts import APPROVERS, EDITORS, RULES
from bulkhead.workflows.schedules import describe_schedule_misfit
from bulkhead.workflows.triggers import describe_trigger_misfit
from bulkhead_contracts import bounds
from bulkhead_contracts.approval import ApprovalGrant
from bulkhead_contracts.result import Failure
from bulkhead_contracts.workflow import (
    WorkflowAction,
    WorkflowActRequested,
    WorkflowCanary,
    WorkflowRelease,
    WorkflowRow,
    WorkflowTransition,
    WorkflowVersion,
)


def describe_state(row: WorkflowRow) -> str:
    """The state in words."""
    return row.state.replace("_", " ")


def judge_role(action: WorkflowAction, role: str) -> Failure | None:
    """Reason for which this role may not do it; None when it may."""
    roles = EDITORS if action == "draft" else RULES[action].roles
    if role in roles:
        return None
    reason = f"{role} may not {action} a workflow"
    return Failure.from_text("role_may_not", reason, f"ask one who is {' or '.join(roles)}")


def make_version(
    request: WorkflowActRequested, signed_word: ApprovalGrant, number: int, now_unix_ms: int
) -> WorkflowVersion | Failure:
    """The version of this number."""
    if number > bounds.MAX_WORKFLOW_VERSIONS:
        reason = f"{request.workflow} has {bounds.MAX_WORKFLOW_VERSIONS:,} versions, and may have no more"
        return Failure.from_text("too_many_versions", reason, "draft it under another name")
    assert request.content is not None
    return WorkflowVersion(
        workflow=request.workflow,
        number=number,
        content=request.content,
        sha256=request.content.sha256,
        note=request.reason,
        source_task=request.source_task,
        person=signed_word.person,
        role=signed_word.role,
        act=request.act,
        act_sha256=request.act_sha256,
        drafted_unix_ms=now_unix_ms,
    )


def plan_transition(
    request: WorkflowActRequested, row: WorkflowRow, signed_word: ApprovalGrant, now_unix_ms: int
) -> WorkflowTransition | Failure:
    """The next fact about a version."""
    rule, name = RULES[request.action], f"{row.workflow}.{row.number}"
    if request.sha256 != row.sha256:
        reason = f"{name} has the digest {row.sha256[:12]}, and not the one that you saw"
        return Failure.from_text("other_digest", reason, f"look at `bulkhead workflows show {name}` again")
    if row.state not in rule.before:
        needed = rule.before[0].replace("_", " ")
        reason = f"{name} is {describe_state(row)}; to {request.action} it, it has to be {needed}"
        return Failure.from_text("wrong_state", reason, _next_step(row))
    if request.action == "approve":
        drafters = {
            row.person: "drafted",
            **{fact.person: "submitted" for fact in row.transitions if fact.action == "submit"},
        }
        if signed_word.person in drafters:
            reason = f"{signed_word.person} {drafters[signed_word.person]} {name}, and another person has to approve it"
            return Failure.from_text("four_eyes", reason, f"ask another one who is {' or '.join(APPROVERS)}")
    bindings = [binding for binding in (request.schedule, request.trigger) if binding is not None]
    if len(bindings) != (request.action == "schedule"):
        reason = "one schedule or one trigger belongs to the act `schedule`, and to no other"
        return Failure.from_text("bad_schedule", reason, "a version has one of them: the next replaces it")
    if bindings and signed_word.via != "api_key":
        # A token ends within the hour, and who is behind it is not known at the times of the runs.
        reason = f"its runs begin while an API key of {signed_word.person} is there, and you came with a token"
        return Failure.from_text("key_needed", reason, "set the schedule with an operator's API key")
    if request.schedule is not None and (misfit := describe_schedule_misfit(request.schedule)):
        return Failure.from_text("bad_schedule", misfit, "write five fields of cron, and a zone like Europe/Berlin")
    if request.trigger is not None and (misfit := describe_trigger_misfit(request.trigger)):
        return Failure.from_text("bad_schedule", misfit, "name each parameter once")
    if request.action == "unschedule" and row.schedule is None and row.trigger is None:
        return Failure.from_text("wrong_state", f"{name} has no schedule and no trigger", "nothing is left to do")
    if len(row.transitions) >= bounds.MAX_WORKFLOW_TRANSITIONS and request.action != "retire":
        reason = f"{len(row.transitions)} facts are known about {name}, and only one that retires it may follow"
        return Failure.from_text("too_many_changes", reason, "draft the same content as its next version")
    return WorkflowTransition(
        workflow=row.workflow,
        number=row.number,
        place=len(row.transitions) + 1,
        action=request.action,
        state=rule.after,
        sha256=row.sha256,
        schedule=request.schedule,
        trigger=request.trigger,
        reason=request.reason,
        person=signed_word.person,
        role=signed_word.role,
        via=signed_word.via,
        act=request.act,
        act_sha256=request.act_sha256,
        moved_unix_ms=now_unix_ms,
    )


def plan_canary(
    request: WorkflowActRequested,
    row: WorkflowRow,
    published: WorkflowRow | None,
    standing: WorkflowRelease | None,
    number: int,
    signed_word: ApprovalGrant,
    now_unix_ms: int,
) -> WorkflowRelease | Failure:
    """The release of this number, which gives a share of the runs to an approved version, or ends that. standing: the
    one whose canary stands."""
    assert request.canary is not None
    name, percent = f"{row.workflow}.{row.number}", request.canary.percent
    if request.action != "publish" or request.sha256 != row.sha256:
        reason = f"a canary is published, by the digest of {name}, {row.sha256[:12]}"
        return Failure.from_text("other_digest", reason, f"look at `bulkhead workflows show {name}` again")
    canary = standing.canary if standing is not None else None
    if canary is not None and canary.number != row.number:
        reason = f"a canary stands, of {row.workflow}.{canary.number}"
        hint = f"publish it, or `bulkhead workflows canary stop {row.workflow}`"
        return Failure.from_text("canary_stands", reason, hint)
    if not percent and canary is None:
        reason = f"{name} has no canary"
        return Failure.from_text("no_canary", reason, "nothing is left to do")
    if percent and (row.state != "approved" or published is None or published.number > row.number):
        beside = f"{row.workflow}.{published.number} is published" if published is not None else "nothing is published"
        reason = f"{name} is {describe_state(row)} and {beside}; a canary is approved, and newer than the published one"
        return Failure.from_text("wrong_state", reason, _next_step(row))
    if canary is not None and canary.percent == percent:
        return Failure.from_text("nothing_changes", f"{name} has {percent} % of the runs", "nothing is left to do")
    if percent and canary is None:
        assert published is not None
        canary = WorkflowCanary(
            number=row.number,
            facts=len(row.transitions),
            published=published.number,
            percent=percent,
            sticky_by=request.canary.sticky_by,
            began=number,
        )
    return WorkflowRelease(
        workflow=row.workflow,
        number=number,
        canary=canary.model_copy(update={"percent": percent}) if canary is not None and percent else None,
        reason=request.reason,
        person=signed_word.person,
        role=signed_word.role,
        act=request.act,
        act_sha256=request.act_sha256,
        moved_unix_ms=now_unix_ms,
    )


def without_values(row: WorkflowRow) -> WorkflowRow:
    """The row with its history; of its schedules and triggers the one that stands alone has its values."""
    return row.model_copy(update={"transitions": tuple(map(_without_fact_values, row.transitions))})


def shorten_history(row: WorkflowRow) -> WorkflowRow:
    """The row with the beginnings of the reasons in its history."""
    transitions = (
        fact.model_copy(update={"reason": fact.reason[: bounds.MAX_SUMMARY_CHARS]}) for fact in row.transitions
    )
    return row.model_copy(update={"transitions": tuple(transitions)})


def as_listed(row: WorkflowRow) -> WorkflowRow:
    """The row for a list: its last fact, short texts, and no values of a schedule or trigger."""
    changes = {"transitions": row.transitions[-1:]} | _bindings_without_values(row)
    return shorten_history(without_values(row.model_copy(update=changes)))


def fit_rows(rows: Iterable[WorkflowRow], limit_bytes: int) -> tuple[WorkflowRow, ...]:
    """The first rows, as many as take so many bytes as JSON."""
    fitting: list[WorkflowRow] = []
    for row in rows:
        limit_bytes -= size_of_rows((row,))
        if limit_bytes < 0:
            break
        fitting.append(row)
    return tuple(fitting)


def size_of_rows(rows: Iterable[WorkflowRow]) -> int:
    """Bytes of rows as JSON, with a comma each."""
    return sum(len(row.model_dump_json().encode()) + 1 for row in rows)


def _without_fact_values(fact: WorkflowTransition) -> WorkflowTransition:
    return fact.model_copy(update=_bindings_without_values(fact))


def _bindings_without_values(row: WorkflowRow | WorkflowTransition) -> dict[str, object]:
    bindings = {"schedule": row.schedule, "trigger": row.trigger}
    return {
        name: binding.model_copy(update={"parameters": {}}) for name, binding in bindings.items() if binding is not None
    }


def _next_step(row: WorkflowRow) -> str:
    name = f"{row.workflow} --version {row.number}"
    return {
        "draft": f"`bulkhead workflows submit-for-review {name}`",
        "in_review": f"`bulkhead workflows approve {name}`, by another person",
        "approved": f"`bulkhead workflows publish {name}`",
        "published": "it can be run, scheduled and retired",
        "retired": "draft the same content as its next version",
    }[row.state]
