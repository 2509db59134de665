"""A person skips a step of the running plan, where the plan lets him. Pure.

In: `PlanDecided` that names a step. Out: the step's end for the gateway, a cancel for who works on it, and the steps
that are ready by now. What builds on the step goes on with an empty finding; what itself reads a field of its result is
skipped, too. A gate or a wait hands on what it looks at, so that nothing behind it is lost.
"""

from bulkhead.flow import InboxMessage, Output, Send, Transition, replace, standing
from bulkhead.plans import plans
from bulkhead.plans.plan_types import WITHOUT_MODEL, references_of
from bulkhead_contracts.plan import PlanDecided, PlanRejected
from bulkhead_contracts.result import Result, Usage
from bulkhead_services.planner.assignments import assign_ready_steps, handed_on_result, skip_steps
from bulkhead_services.planner.ending import cancel_step, step_ended
from bulkhead_services.planner.state import PlannerState, may_change_outside
from bulkhead_services.planner.step_table import StepState


def on_step_skipped(state: PlannerState, message: InboxMessage, body: PlanDecided) -> Transition[PlannerState]:
    """The step is over without a result of its own. A word on another plan, or on a step that is over or may not be
    skipped, is late or untrue, and one whose token does not verify, which the shell has taken away, is nobody's."""
    step = state.step(body.skip)
    if not body.token or body.decision != "approve" or state.phase != "running" or state.plan is None or step is None:
        return Transition(state)
    plan_step = step.plan_step
    if step.is_over or not plan_step.skippable or body.sha256 != state.plan.steps_sha256:
        return Transition(state)
    if obstacle := _find_obstacle(state, step):
        note = plans.error_note("not_skipped", f"step {plan_step.id} {obstacle}", plan_step.id)
        return Transition(state, (Send("gateway", PlanRejected(draft=state.drafts, notes=(note,))),))
    stop: tuple[Output, ...] = ()
    if step.status == "running" and plan_step.wait is None:
        stop = (cancel_step(state, step, "a person skipped the step"),)
    reason = f"{body.person} skipped step {plan_step.id}: {body.reason or 'no reason was given'}"
    result = Result(summary="(this step was skipped: it found nothing)")
    if plan_step.action in WITHOUT_MODEL:
        result = handed_on_result(state, step)
    result = standing.degrade_result(result, reason, result.standing_reason)
    state = state.with_step(replace(step, status="skipped", result=result))
    readers = () if plan_step.action in WITHOUT_MODEL else state.steps.dependents.get(plan_step.id, ())
    unread = [
        name
        for name in readers
        if any(reference.step_id == plan_step.id for reference in references_of(state.steps.by_id[name].plan_step))
    ]
    state, skipped = skip_steps(state, unread)
    # Not accepted: a task that takes over what this one has done runs the step.
    ended = step_ended(state, step, "failed", (reason,), None, Usage(), (plan_step.id, *skipped))
    return assign_ready_steps(state, message).preceded_by(*stop, ended)


def _find_obstacle(state: PlannerState, step: StepState) -> str:
    """Reason for which a step cannot be skipped now; "" where it can."""
    if step.status == "running" and may_change_outside(state.tools_of_step(step)):
        return "may be changing something outside just now: skip it when its attempt has ended"
    inputs = (state.step(name) for name in step.plan_step.inputs)
    open_inputs = [row.plan_step.id for row in inputs if row is not None and not row.is_over]
    if step.plan_step.action in WITHOUT_MODEL and open_inputs:
        return f"hands on what it looks at: skip it when {', '.join(open_inputs)} is over"
    return ""
