"""A plan for the task: submitted with it or drafted by a model, and checked; or the objective as one step. Pure.

In: `TaskSubmitted`; of the draft's model call `ModelCallReplied`, `CallDeferred`, `CallResumed` and its timer. Out:
the draft's call, each repeat of it bounded; a plan whose first steps are handed out; or the task's end.
"""

from collections.abc import Sequence

from bulkhead.flow import InboxMessage, Output, Send, SetTimer, Transition, replace, standing
from bulkhead.flow.deferrals import next_deferral
from bulkhead.plans import plans
from bulkhead.plans.plan_types import WITHOUT_MODEL, must_run_again, references_of
from bulkhead_contracts import bounds
from bulkhead_contracts.control import CallDeferred, CallResumed, TimerFired
from bulkhead_contracts.grant import task_claims
from bulkhead_contracts.model import UNKNOWN_ROUTE, ModelCallReplied
from bulkhead_contracts.output import DRAFT
from bulkhead_contracts.plan import Plan, PlanDecided, PlanNote, PlanProposed, PlanRejected, PlanStep, RoleSpec
from bulkhead_contracts.result import Failure, Result, Usage
from bulkhead_contracts.task import TaskAccepted, TaskSubmitted
from bulkhead_services.planner.assignments import adopt_plan, assign_ready_steps, handed_on_result, skip_steps
from bulkhead_services.planner.drafts import build_draft_call, read_reply, request_draft
from bulkhead_services.planner.ending import (
    STOPPED_BY_BUDGET,
    TASK_TIMER,
    cancel_step,
    end_task,
    releases_of,
    step_ended,
)
from bulkhead_services.planner.state import Pause, PlannerState, may_change_outside
from bulkhead_services.planner.step_table import StepState

DRAFT_TIMER = "draft-again-"
NO_CALL_WORKS = frozenset(
    {
        "rate_limited",
        "unreachable",
        "unknown_model",
        "unknown_price",
        "refused_by_policy",
        "unknown_prompt",
        "bad_grant",
        "content_missing",
        "deadline_exceeded",
    }
)
"""Why a draft failed, where any other call of the task would fail alike: no step is run then."""


def on_task_submitted(state: PlannerState, message: InboxMessage, body: TaskSubmitted) -> Transition[PlannerState]:
    """A task begins: its plan is adopted where it came with one, and drafted otherwise."""
    if state.phase != "new":
        return Transition(state)
    until = body.submitted_unix_ms + body.limits.deadline_ms
    state = replace(
        state,
        objective=body.objective,
        limits=body.limits,
        tools=body.tools,
        check=body.check,
        output=body.output or DRAFT,
        route=body.route,
        labels={label.sha256: label for label in body.labels if label.kind == "objective"},
        requester_trusts=frozenset(label.trust for label in body.labels if label.kind == "objective"),
        delegations=body.delegated,
        roles=body.roles,
        grant=message.envelope.grant,
        deadline_unix_ms=until,
        latest_unix_ms=body.submitted_unix_ms + body.limits.lifetime_ms,
        held_steps=_held_steps(body),
        submitted_plan=body.plan,
        replan=body.replan,
        approve_plan=body.approve_plan,
        retrievals_ahead=body.retrievals_ahead,
    )
    releases = releases_of(task_claims(state.grant))
    begun = TaskAccepted(deadline_unix_ms=until, delivery=state.output.delivery, left_out=body.left_out, **releases)
    accepted = Send("gateway", begun), SetTimer(TASK_TIMER, until)
    if body.plan is None:
        return request_draft(state, message, ()).preceded_by(*accepted)
    # What was submitted as a plan bounds the task: no text that a model reads later can add a tool to it.
    state = replace(state, tools=plans.tools_of(body.plan.steps, body.tools, body.delegated))
    notes = (
        *_check_given_results(body.plan.steps, state.held_steps),
        *_check_plan(replace(state, tools=body.tools), message, body.plan.steps),
    )
    notes = notes[: bounds.MAX_PLAN_NOTES]
    if errors := [note.message for note in notes if note.severity == "error"]:
        reason = "; ".join(errors)[: bounds.MAX_REASON_CHARS]
        failure = Failure.from_text("plan_rejected", reason, "mend the plan and submit again")
        return end_task(state, message, "failed", failure).preceded_by(*accepted, _plan_rejected(state, notes))
    return adopt_plan(state, message, body.plan.steps, notes).preceded_by(*accepted)


def _check_plan(
    state: PlannerState, message: InboxMessage, steps: Sequence[PlanStep], roles: Sequence[RoleSpec] | None = None
) -> tuple[PlanNote, ...]:
    """Findings on a person's plan, that would begin now."""
    began, until = message.time_unix_ms, state.deadline_unix_ms
    if state.clock_stopped_unix_ms:
        until = state.own_deadline_unix_ms + began - state.clock_stopped_unix_ms
    return plans.check_plan(
        steps, state.tools, checked=state.check, roles=roles, began_unix_ms=began, deadline_unix_ms=until
    )


def _held_steps(body: TaskSubmitted) -> tuple[StepState, ...]:
    """Steps of its own plan whose results a submission brings along."""
    steps = {plan_step.id: plan_step for plan_step in body.plan.steps} if body.plan else {}
    held_steps = []
    for row in body.given:
        step = steps.get(row.step_id, PlanStep(id=row.step_id, title="", instruction=""))
        notes = (row.title,) if row.title else ()
        held_steps.append(StepState(step, status="done", notes=notes, result=row.result))
    return tuple(held_steps)


def _check_given_results(steps: Sequence[PlanStep], held: Sequence[StepState]) -> tuple[PlanNote, ...]:
    """Errors of a submission's own results: each must stand for a step, on nothing that is yet to be made.

    A result that does not fit must not merely be left out: its step would run, and write, once more.
    """
    notes = []
    names, plan_steps = [held_step.plan_step.id for held_step in held], {step.id: step for step in steps}
    for held_step in held:
        name = held_step.plan_step.id
        if names.count(name) > 1:
            notes.append(plans.error_note("bad_result", f"two results are given for step {name}", name))
        elif name not in plan_steps:
            notes.append(plans.error_note("bad_result", f"a result is given for {name}, which is no step", name))
        elif must_run_again(plan_steps[name]):
            text = f"a result is given for {name}, which chooses steps or asks a person, and so runs in each task"
            text += ": leave it and the steps after it out of the results"
            notes.append(plans.error_note("bad_result", text, name))
        elif held_step.result is None or held_step.result.standing == "failed":
            notes.append(plans.error_note("bad_result", f"the result that is given for {name} stands as failed", name))
        elif fresh := [step_id for step_id in plan_steps[name].inputs if step_id not in names]:
            text = f"the result that is given for {name} would stand on {', '.join(fresh)}, which runs again"
            notes.append(plans.error_note("bad_result", text, name))
    return tuple(notes[: bounds.MAX_PLAN_NOTES])


def on_model_call_replied(
    state: PlannerState, message: InboxMessage, body: ModelCallReplied
) -> Transition[PlannerState]:
    """The model's reply to the draft's call: a plan that runs, or another draft."""
    if not _awaits_draft(state, body.call_id):
        return Transition(state)
    state = replace(state, usage=state.usage + body.usage)
    if body.outcome != "answered" or body.content is None:
        failure = body.failure or Failure.from_text("no_plan", "the model answered with nothing")
        if failure.code in STOPPED_BY_BUDGET:
            return end_task(state, message, "halted", failure)
        if failure.code == UNKNOWN_ROUTE:
            return end_task(state, message, "failed", failure)
        return _redraft_or_run_whole(state, message, (), failure)
    text = message.contents.get(body.content.sha256)
    steps, notes = read_reply(body, text, state.tools, state.roles)
    if not state.may_draft_flows:
        steps = tuple(
            step.model_copy(update={"flows": (), "calls": plans.without_figures(step.calls)}) for step in steps
        )
    if (submitted := state.submitted_plan) is not None:
        excess = plans.effects_beyond(steps, submitted.steps, state.tools, state.selectable_delegations)
        notes = (*excess, *notes)[: bounds.MAX_PLAN_NOTES]
    if any(note.severity == "error" for note in notes):
        failure = plans.rejection_failure(notes)
        return _redraft_or_run_whole(state, message, notes, failure).preceded_by(_plan_rejected(state, notes))
    state = replace(state, draft_standing=standing.standing_of_reply("the plan", body), vain_drafts=0)
    return _adopt_or_propose(state, message, steps, notes)


def _awaits_draft(state: PlannerState, call_id: str) -> bool:
    """True for the call of the draft that is made now; any other is late or repeated."""
    return state.phase == "drafting" and state.proposed is None and call_id == state.draft_call_id


def _redraft_or_run_whole(
    state: PlannerState, message: InboxMessage, notes: tuple[PlanNote, ...], failure: Failure
) -> Transition[PlannerState]:
    """Go on where no draft is a plan: redraft, then the objective as one step, or the end where that is no way."""
    vain_drafts = state.vain_drafts + 1
    if vain_drafts < bounds.MAX_PLAN_DRAFTS:
        errors = tuple(note.message for note in notes if note.severity == "error")[:16]
        return request_draft(replace(state, vain_drafts=vain_drafts), message, errors or state.draft_notes)
    if state.submitted_plan is not None or failure.code in NO_CALL_WORKS:
        return end_task(state, message, "failed", failure)
    assert state.objective is not None
    step, note = plans.plan_of_objective(state.objective, state.tools, failure.message)
    draft_standing = Result(standing="degraded", standing_reason=note.message)
    state = replace(state, draft_standing=draft_standing, runs_whole=True)
    return _adopt_or_propose(state, message, (step,), (note,))


# A person's word on the plan


def _adopt_or_propose(
    state: PlannerState, message: InboxMessage, steps: tuple[PlanStep, ...], notes: tuple[PlanNote, ...]
) -> Transition[PlannerState]:
    """Run the drafted plan; or let it wait for a person where the task asks for that: the task's clock stands still, as
    for the approval of a call."""
    if not state.approve_plan:
        return adopt_plan(state, message, steps, notes)
    plan = Plan(version=state.generation, approval="in_review", steps=steps, notes=notes)
    until = message.time_unix_ms + max(1, state.limits.approval_wait_ms)
    reason = f"the plan waits for a person: `bulkhead plan show {message.task}`, then approve or reject it"
    pause = Pause("", state.drafts, 0, "plan_review", reason, until)
    proposed = PlanProposed(plan=plan, sha256=plan.steps_sha256, until_unix_ms=until)
    return Transition(replace(state, proposed=plan, pauses=(pause,)), (Send("gateway", proposed),))


def on_plan_decided(state: PlannerState, message: InboxMessage, body: PlanDecided) -> Transition[PlannerState]:
    """A person approves the proposed plan, with its steps or his own, or rejects it; or skips a step of the one that
    runs. A word on another one is late, and one whose token does not verify, which the shell has taken away, is
    nobody's."""
    if body.skip:
        return _skip_step(state, message, body)
    proposed = state.proposed
    if not body.token or state.phase != "drafting" or proposed is None or body.sha256 != proposed.steps_sha256:
        return Transition(state)
    if body.decision == "approve":
        return _run_approved_plan(state, message, body, proposed)
    state, reason = replace(state, proposed=None, pauses=()), body.reason or "no reason was given"
    if body.redraft and state.drafts < bounds.MAX_REVIEWED_DRAFTS:
        return request_draft(state, message, (f"a person did not approve the last plan: {reason}",))
    hint = "submit the task again, with an objective or a plan that meets the reason"
    failure = Failure.from_text("plan_not_approved", f"{body.person} did not approve the plan: {reason}", hint)
    return end_task(state, message, "failed", failure)


def _run_approved_plan(
    state: PlannerState, message: InboxMessage, body: PlanDecided, proposed: Plan
) -> Transition[PlannerState]:
    """An edited plan passes the same check as a draft, with the same tools; else the proposed one goes on waiting."""
    steps, notes = proposed.steps, proposed.notes
    if body.plan is not None:
        steps = body.plan.steps
        notes = _check_plan(state, message, steps, roles=state.roles)
        drafted_bounds = {step.id: (step.flows, step.calls) for step in proposed.steps}
        for step in steps:
            bound = (step.flows, step.calls)
            if step.adopted or (any(bound) and bound != drafted_bounds.get(step.id)):
                # What nobody is asked about is for the submission to say.
                text = f"step {step.id}: `flows`, `calls` and `adopted` of a drafted plan cannot be edited"
                notes = (*notes, plans.error_note("bound_changed", text, step.id))
        if any(note.severity == "error" for note in notes):
            return Transition(state, (_plan_rejected(state, notes[: bounds.MAX_PLAN_NOTES]),))
    return adopt_plan(replace(state, proposed=None, pauses=()), message, steps, notes, "approved")


# A person's word on a step of the plan that runs


def _skip_step(state: PlannerState, message: InboxMessage, body: PlanDecided) -> Transition[PlannerState]:
    """The step is over without a result of its own: what builds on it goes on with an empty finding, and what itself
    reads a field of its result is skipped, too. A gate or a wait hands on what it looks at, so that nothing behind it
    is lost. A word on another plan, or on a step that is over or may not be
    skipped, is late or untrue, and one whose token does not verify, which the shell has taken away, is nobody's."""
    step = state.step(body.skip)
    if not body.token or body.decision != "approve" or state.phase != "running" or state.plan is None or step is None:
        return Transition(state)
    plan_step = step.plan_step
    if step.is_over or not plan_step.skippable or body.sha256 != state.plan.steps_sha256:
        return Transition(state)
    if obstacle := _find_skip_obstacle(state, step):
        note = plans.error_note("not_skipped", f"step {plan_step.id} {obstacle}", plan_step.id)
        return Transition(state, (Send("gateway", PlanRejected(draft=state.drafts, notes=(note,))),))
    stop: tuple[Output, ...] = ()
    if step.status == "running" and plan_step.wait is None:
        stop = (cancel_step(state, step, "a person skipped the step"),)
    reason = f"{body.person} skipped step {plan_step.id}: {body.reason or 'no reason was given'}"
    result = Result(summary="(this step was skipped: it found nothing)")
    # Also a gate that asks a person just now hands on what it looks at.
    hands_on = plan_step.action in WITHOUT_MODEL or plan_step.gate is not None
    if hands_on:
        result = handed_on_result(state, step)
    result = standing.degrade_result(result, reason, result.standing_reason)
    state = state.with_step(replace(step, status="skipped", result=result))
    readers = () if hands_on else state.steps.dependents.get(plan_step.id, ())
    unread = [
        name
        for name in readers
        if any(reference.step_id == plan_step.id for reference in references_of(state.steps.by_id[name].plan_step))
    ]
    state, skipped = skip_steps(state, unread)
    # Not accepted: a task that takes over what this one has done runs the step.
    ended = step_ended(state, step, "failed", (reason,), None, Usage(), (plan_step.id, *skipped))
    return assign_ready_steps(state, message).preceded_by(*stop, ended)


def _find_skip_obstacle(state: PlannerState, step: StepState) -> str:
    """Reason for which a step cannot be skipped now; "" where it can."""
    if step.status == "running" and may_change_outside(state.tools_of_step(step)):
        return "may be changing something outside just now: skip it when its attempt has ended"
    inputs = (state.step(name) for name in step.plan_step.inputs)
    open_inputs = [row.plan_step.id for row in inputs if row is not None and not row.is_over]
    if step.plan_step.action in WITHOUT_MODEL and open_inputs:
        return f"hands on what it looks at: skip it when {', '.join(open_inputs)} is over"
    return ""


def _plan_rejected(state: PlannerState, notes: tuple[PlanNote, ...]) -> Send:
    return Send("gateway", PlanRejected(draft=state.drafts, notes=notes))


# The draft's call, when it is put off


def on_call_deferred(state: PlannerState, message: InboxMessage, body: CallDeferred) -> Transition[PlannerState]:
    """The call was put off: it sleeps until its timer, or until it is resumed. No cap ends a pause."""
    # What a call has spent until it is put off is told once, here; also that of a call nobody waits for.
    state = replace(state, usage=state.usage + body.usage)
    if not _awaits_draft(state, body.call_id):
        return Transition(state)
    deferral = next_deferral(body, state.deferrals)
    if deferral is None:
        reason = f"the model call was put off again and again: {body.reason}"
        return _redraft_or_run_whole(state, message, (), Failure.from_text("deferred_too_often", reason))
    deferrals, delay_ms = deferral
    pauses = (Pause("", state.drafts, 0, body.code, body.reason),) if body.paused else ()
    state = replace(state, deferrals=deferrals, sleeping_call_id=body.call_id, pauses=pauses)
    return Transition(state, (SetTimer(f"{DRAFT_TIMER}{body.call_id}", message.time_unix_ms + delay_ms),))


def on_call_resumed(state: PlannerState, message: InboxMessage, body: CallResumed) -> Transition[PlannerState]:
    """Ask again: nothing holds the draft's call back any longer."""
    return _repeat_draft_call(state, message, body.call_id, pauses=())


def on_draft_timer_fired(state: PlannerState, message: InboxMessage, body: TimerFired) -> Transition[PlannerState]:
    """The draft's call is made again; it may be held back still."""
    return _repeat_draft_call(state, message, body.key.removeprefix(DRAFT_TIMER), pauses=state.pauses)


def _repeat_draft_call(
    state: PlannerState, message: InboxMessage, call_id: str, *, pauses: tuple[Pause, ...]
) -> Transition[PlannerState]:
    """Repeat the call once each time it was put off: while it is out, a late timer or resume repeats nothing."""
    if not _awaits_draft(state, call_id) or state.sleeping_call_id != call_id:
        return Transition(state)
    return Transition(replace(state, sleeping_call_id="", pauses=pauses), (build_draft_call(state, message),))
