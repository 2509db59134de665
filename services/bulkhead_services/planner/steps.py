"""The steps of a running plan: handed out, accepted, tried again, stopped when their time is up. Pure.

In: a plan that passed its check; verdicts, finished steps and the steps' timer. Out: `StepAssigned` with its grant to
the worker, progress for the gateway, timers, a new draft when a step fails for good, or the task's end.
"""

from typing import Literal

from bulkhead.flow import InboxMessage, Output, Send, SetTimer, Transition, replace, shown_tools, standing
from bulkhead_contracts import bounds
from bulkhead_contracts.control import TimerFired
from bulkhead_contracts.grant import StepGrant
from bulkhead_contracts.model import UNKNOWN_ROUTE
from bulkhead_contracts.output import DRAFT
from bulkhead_contracts.plan import PlanAdopted, PlanNote, PlanStep
from bulkhead_contracts.provenance import Flow
from bulkhead_contracts.result import Failure, Label, Result, Usage, digest_of
from bulkhead_contracts.step import StepAssigned, StepFinished, StepInput
from bulkhead_contracts.task import StepEnded, StepStarted
from bulkhead_contracts.tool import ToolSpec
from bulkhead_contracts.verdict import VerdictReached
from bulkhead_services.planner import drafting, plans, reuse
from bulkhead_services.planner.ending import STOPPED_BY_BUDGET, cancel_step, end_task
from bulkhead_services.planner.state import PlannerState, StepState

TIMER = "steps"
GRANT_SLACK_MS = 60_000
ANSWER_MARGIN_MS = 500
"""A step's deadline lies so long before the task's, so that the task can still say what happened."""
NOT_REPEATABLE = frozenset({"uncertain_effect", UNKNOWN_ROUTE})

Outputs = tuple[Output, ...]
Outcome = Literal["accepted", "rejected", "failed"]


# Handing out


def adopt_plan(
    state: PlannerState, message: InboxMessage, steps: tuple[PlanStep, ...], notes: tuple[PlanNote, ...]
) -> Transition[PlannerState]:
    """Run these steps; those whose results are held are done from the start."""
    steps, left_out = _limit_shown_tools(state, steps)
    plan = plans.compose_plan(steps, (*notes, *left_out)[: bounds.MAX_PLAN_NOTES], state.generation)
    final = next(iter(plans.find_sinks(plan.steps)), "")
    state = replace(
        state, phase="running", plan=plan, steps=reuse.take_over_results(plan.steps, state.held), final=final
    )
    taken_over = (
        _step_ended(state, step, "accepted", step.notes, step.result, Usage()) for step in state.steps if step.result
    )
    return prepend_outputs((Send("gateway", PlanAdopted(plan=plan)), *taken_over), _assign_ready_steps(state, message))


def _limit_shown_tools(
    state: PlannerState, steps: tuple[PlanStep, ...]
) -> tuple[tuple[PlanStep, ...], tuple[PlanNote, ...]]:
    """The steps with the tools that they are shown, and what of them was left out."""
    shown_steps, notes = [], []
    about = state.objective.summary if state.objective is not None else ""
    for step in steps:
        if step.adopted or state.delegation(step) is not None:
            shown_steps.append(step)  # Its agent is shown tools by doors, and not by a prompt of the mesh.
            continue
        names, left_out = shown_tools.choose_tools(step.tools, state.tools, f"{step.title} {step.instruction} {about}")
        if left_out:
            text = f"step {step.id} has more tools than it can be shown; left out: {', '.join(left_out)}"
            cut = text[: bounds.MAX_REASON_CHARS]
            notes.append(PlanNote(severity="warning", code="tools_left_out", step_id=step.id, message=cut))
            step = step.model_copy(update={"tools": names})
        shown_steps.append(step)
    return tuple(shown_steps), tuple(notes)


def _assign_ready_steps(state: PlannerState, message: InboxMessage) -> Transition[PlannerState]:
    """Hand out every step whose inputs are done; end the task when none is left."""
    done = {step.step.id for step in state.steps if step.status == "done"}
    if len(done) == len(state.steps):
        return end_task(state, message, "succeeded", None)
    outputs: list[Output] = []
    for step in state.steps:
        if step.status == "waiting" and done.issuperset(step.step.inputs):
            state, step_outputs = _assign_step(state, message, step)
            outputs.extend(step_outputs)
    return Transition(state, tuple(outputs))


def _assign_step(state: PlannerState, message: InboxMessage, waiting: StepState) -> tuple[PlannerState, list[Output]]:
    assert state.plan is not None and state.objective is not None
    until = step_deadline(state, message, waiting)
    step = replace(waiting, status="running", attempt=waiting.attempt + 1, deadline_unix_ms=until)
    feeding = {flow.from_tool for flow in _flows_of_step(state, step.step) if flow.step_id == step.step.id}
    tools = tuple(
        tool.model_copy(update={"feeds": True}) if tool.name in feeding else tool
        for tool in _tools_of_step(state, step.step)
    )
    assigned = StepAssigned(
        step=step.step,
        attempt=step.attempt,
        plan_version=state.plan.version,
        objective=state.objective,
        inputs=tuple(_step_input(state, name) for name in step.step.inputs),
        tools=tools,
        notes=step.notes[-16:],
        check=state.check,
        final=step.step.id == state.final,
        output=state.output if state.output != DRAFT else None,
        deadline_unix_ms=until,
        route=state.route,
        labels=_requester_labels(state, step.step),
        delegated=state.delegation(step.step),
    )
    started = StepStarted(
        step_id=step.step.id, title=step.step.title, attempt=step.attempt, plan_version=state.plan.version
    )
    token = make_step_grant(state, message, step, until)
    wrote = state.wrote or any(tool.effect == "write" for tool in tools)
    state, timer = arm_step_timer(state.with_step(step, wrote=wrote))
    handed = Send(step.assignee, assigned, grant=state.grant, step_grant=token)
    return state, [handed, Send("gateway", started), *timer]


def _requester_labels(state: PlannerState, step: PlanStep) -> tuple[Label, ...]:
    """Labels of what this step shows of the requester's own words."""
    assert state.objective is not None
    shown_sha256 = {state.objective.sha256, digest_of(step.prompt_text) if state.submitted is not None else ""}
    return tuple(label for label in state.labels if label.sha256 in shown_sha256)


def step_deadline(state: PlannerState, message: InboxMessage, step: StepState) -> int:
    """Until when a step may run that begins, or goes on, now: longer where its tools need longer than most. An adopted
    one lasts as long as its task."""
    if step.step.adopted:
        return state.deadline_unix_ms
    now_unix_ms, last = message.time_unix_ms, state.deadline_unix_ms - ANSWER_MARGIN_MS
    if (delegated := state.delegation(step.step)) is not None:
        return max(now_unix_ms + 1, min(last, now_unix_ms + delegated.deadline_ms))
    tools = _tools_of_step(state, step.step)
    longer_ms = sum(max(0, tool.timeout_ms - bounds.DEFAULT_TOOL_TIMEOUT_MS) for tool in tools)
    return max(now_unix_ms + 1, min(last, now_unix_ms + bounds.DEFAULT_STEP_TIMEOUT_MS + longer_ms))


def make_step_grant(state: PlannerState, message: InboxMessage, step: StepState, until_unix_ms: int) -> StepGrant:
    """Grant of what this attempt may do. It names the agent's role, so that a halt of that agent reaches its calls."""
    assert state.plan is not None
    return StepGrant(
        tenant=message.tenant,
        task=message.task,
        step_id=step.step.id,
        attempt=step.attempt,
        plan_version=state.plan.version,
        tools=tuple(tool.name for tool in _tools_of_step(state, step.step)),
        expires_unix_ms=until_unix_ms + GRANT_SLACK_MS,
        role=step.step.role,
        flows=_flows_of_step(state, step.step),
    )


def _tools_of_step(state: PlannerState, step: PlanStep) -> tuple[ToolSpec, ...]:
    """The tools of a step: its own, or the one call of a remote agent in its place."""
    delegated = state.delegation(step)
    names = (delegated.agent_tool,) if delegated is not None and delegated.to == "agent" else step.tools
    return tuple(tool for tool in state.tools if tool.name in names)


def _flows_of_step(state: PlannerState, step: PlanStep) -> tuple[Flow, ...]:
    return plans.flows_of(step, [row.step for row in state.steps])


def arm_step_timer(state: PlannerState) -> tuple[PlannerState, list[Output]]:
    """One timer stands for all running steps: set for the earliest deadline, and again when it has fired. An adopted
    step has none: it ends with its task."""
    timed = (step for step in state.steps if step.status == "running" and not step.step.adopted)
    due = min((step.deadline_unix_ms for step in timed), default=0)
    if not due or 0 < state.armed_unix_ms <= due:
        return state, []
    return replace(state, armed_unix_ms=due), [SetTimer(f"{TIMER}-{due}", due)]


def _step_input(state: PlannerState, step_id: str) -> StepInput:
    step = state.step(step_id)
    assert step is not None and step.result is not None
    return StepInput(step_id=step_id, title=step.step.title, result=step.result)


# Results


def running_step(state: PlannerState, step_id: str, attempt: int, version: int) -> StepState | None:
    """The step, if exactly this attempt of it runs now; anything else is late or repeated."""
    step = state.step(step_id)
    if state.phase != "running" or state.plan is None or step is None or step.status != "running":
        return None
    return step if step.attempt == attempt and state.plan.version == version else None


def carries_out(state: PlannerState, message: InboxMessage, step_id: str) -> bool:
    """True when the sender may speak of this step: doors of adopted ones alone, and nobody else of those."""
    step = state.step(step_id)
    return (message.envelope.source == "doors") == (step is not None and step.step.adopted)


def on_verdict_reached(state: PlannerState, message: InboxMessage, body: VerdictReached) -> Transition[PlannerState]:
    """The checker's verdict on an attempt."""
    if not carries_out(state, message, body.step_id):
        return Transition(state)
    step = running_step(state, body.step_id, body.attempt, body.plan_version)
    # Also what comes too late was paid for.
    state = replace(state, usage=state.usage + body.usage)
    if step is None:
        return Transition(state)
    if body.accepted and body.result.standing != "failed":
        return _accept_result(state, message, step, body.result, body.usage)
    reasons = tuple(note.message for note in body.notes if note.blocking) or ("the checker did not accept the result",)
    if body.stands and body.result.standing != "failed":
        step = replace(step, standby=plans.mark_not_accepted(body.result, _reasons_for_people(state, reasons)))
    return _retry_or_end(state, message, step, "rejected", reasons, body.result, body.usage)


def on_step_finished(state: PlannerState, message: InboxMessage, body: StepFinished) -> Transition[PlannerState]:
    """An attempt that ended without a verdict: it failed, or needed none."""
    if not carries_out(state, message, body.step_id):
        return Transition(state)
    step = running_step(state, body.step_id, body.attempt, body.plan_version)
    # Also what comes too late was paid for.
    state = replace(state, usage=state.usage + body.usage)
    if step is None:
        return Transition(state)
    if body.failure is not None:
        state = state.with_step(replace(step, status="failed"))
        if body.failure.code in STOPPED_BY_BUDGET:
            return end_task(state, message, "halted", body.failure)
        if body.failure.code in NOT_REPEATABLE or step.step.adopted:
            return end_task(state, message, "failed", body.failure)
        reasons = (f"{body.failure.code}: {body.failure.message}"[: bounds.MAX_REASON_CHARS],)
        return _retry_or_end(state, message, step, "failed", reasons, None, body.usage)
    if state.check and step.step.kind != "noop":
        # Only the checker's verdict lets a result pass; a worker that skips it is broken or hostile.
        return _retry_or_end(state, message, step, "rejected", ("the result came without a verdict",), None, body.usage)
    return _accept_result(state, message, step, plans.mark_unchecked(step.step, body.result, state.check), body.usage)


def _writes_from(state: PlannerState, step: StepState) -> bool:
    """True when this step or one yet to come may write: nothing is written on a result that was not accepted."""
    names = {tool.name for tool in state.tools if tool.effect == "write"}
    remaining = (row for row in (step, *state.steps) if row.status != "done")
    return any(names.intersection(tool.name for tool in _tools_of_step(state, row.step)) for row in remaining)


def _accept_result(
    state: PlannerState,
    message: InboxMessage,
    step: StepState,
    result: Result,
    usage: Usage,
    reasons: tuple[str, ...] = (),
) -> Transition[PlannerState]:
    if step.step.id == state.final:
        result = standing.resting_on(result, state.drafted)
    state = state.with_step(replace(step, status="done", result=result))
    ended = _step_ended(state, step, "accepted", reasons, result, usage)
    return prepend_outputs((ended,), _assign_ready_steps(state, message))


def _retry_or_end(
    state: PlannerState,
    message: InboxMessage,
    step: StepState,
    outcome: Outcome,
    reasons: tuple[str, ...],
    result: Result | None,
    usage: Usage,
) -> Transition[PlannerState]:
    """The attempt did not do: another attempt, another plan, or the end; each bounded."""
    step_ended = _step_ended(state, step, outcome, reasons, result, usage)
    notes = (*step.notes, *reasons)[-16:]
    in_time = message.time_unix_ms < state.deadline_unix_ms - ANSWER_MARGIN_MS
    if step.attempt < bounds.MAX_STEP_ATTEMPTS and in_time:
        state = state.with_step(replace(step, status="waiting", notes=notes))
        return prepend_outputs((step_ended,), _assign_ready_steps(state, message))
    if step.standby is not None and not _writes_from(state, step):
        # Marked for what is wrong with it, it is worth more than a new plan after all that was spent.
        return _accept_result(state, message, step, step.standby, usage, reasons)
    state = state.with_step(replace(step, status="failed", notes=notes))
    heading = plans.cut_heading(step.step.title or step.step.instruction, 80)
    name = f"step {step.step.id} ({heading})" if state.output.delivery == "draft" else f"step {step.step.id}"
    reason = f"{name} failed {step.attempt} times; last: {'; '.join(_reasons_for_people(state, reasons))}"
    hint = "see `bulkhead timeline TASK`; add the missing documents or tools, or restate the objective"
    failure = Failure.from_text("step_failed", reason, hint)
    if state.generation >= bounds.MAX_PLAN_GENERATIONS:
        return prepend_outputs((step_ended,), end_task(state, message, "failed", failure))
    if state.wrote:
        hint = "a step that may have changed something outside has run: look at it, then submit what is left"
        return prepend_outputs(
            (step_ended,), end_task(state, message, "failed", failure.model_copy(update={"hint": hint}))
        )
    if state.submitted is not None and state.replan == "none":
        hint = (
            "the submission lets nothing take its plan's place: mend the plan, or submit it with `replan: same_tools`"
        )
        return prepend_outputs(
            (step_ended,), end_task(state, message, "failed", failure.model_copy(update={"hint": hint}))
        )
    if state.whole:
        # No draft could be used before, and the whole objective is what failed: another draft would be in vain.
        return prepend_outputs((step_ended,), end_task(state, message, "failed", failure))
    return prepend_outputs((step_ended,), _request_new_plan(state, message, step, reasons))


def _without_doubtful(state: PlannerState) -> tuple[StepState, ...]:
    """The steps without those that stand unaccepted, and without what is built on these: a new plan may write on it."""
    doubtful = {step.step.id for step in state.steps if step.standby is not None and step.result == step.standby}
    while dependent := {
        step.step.id for step in state.steps if doubtful.intersection(step.step.inputs) and step.step.id not in doubtful
    }:
        doubtful |= dependent
    return tuple(step for step in state.steps if step.step.id not in doubtful)


def _request_new_plan(
    state: PlannerState, message: InboxMessage, failed: StepState, reasons: tuple[str, ...]
) -> Transition[PlannerState]:
    """Ask for another plan; what was accepted under this one is held for it."""
    stop = tuple(cancel_step(state, step, "the plan is replaced") for step in state.steps if step.status == "running")
    held_results = reuse.held_results(_without_doubtful(state), state.generation)
    state = replace(state, generation=state.generation + 1, held=held_results)
    failure_note = f"the earlier plan failed at step {failed.step.id}: {failed.step.instruction[:500]}"
    return prepend_outputs(
        stop,
        drafting.request_draft(
            state, message, (failure_note, *reasons, *reuse.advice_for_model(held_results, with_role=bool(state.roles)))
        ),
    )


def _reasons_for_people(state: PlannerState, reasons: tuple[str, ...]) -> tuple[str, ...]:
    """Reasons as people are shown them: they quote what was not accepted, which may leave under `draft` alone."""
    if state.output.delivery == "draft" or not reasons:
        return reasons
    return (f"{len(reasons)} reasons, which an operator can read: `bulkhead why`",)


def _step_ended(
    state: PlannerState,
    step: StepState,
    outcome: Outcome,
    reasons: tuple[str, ...],
    result: Result | None,
    usage: Usage,
) -> Send:
    assert state.plan is not None
    body = StepEnded(
        step_id=step.step.id,
        attempt=step.attempt,
        plan_version=state.plan.version,
        outcome=outcome,
        reasons=_reasons_for_people(state, reasons)[:16],
        result=result if outcome == "accepted" or state.output.delivery == "draft" else None,
        final=step.step.id == state.final,
        usage=usage,
    )
    return Send("gateway", body)


# Time


def on_step_timer_fired(state: PlannerState, message: InboxMessage, body: TimerFired) -> Transition[PlannerState]:
    """Steps whose time is up are stopped and tried again; then the timer is set for the rest."""
    if body.due_unix_ms == state.armed_unix_ms:
        state = replace(state, armed_unix_ms=0)
    outputs: Outputs = ()
    for before in state.steps:
        step = state.step(before.step.id)
        if state.phase != "running" or step is None or step.status != "running":
            continue
        if step.deadline_unix_ms <= body.due_unix_ms:
            reason = "the step's time was up before a result came"
            stop = cancel_step(state, step, "the step's time is up")
            if (doubt := _in_doubt(state, step)) is not None:
                decision = end_task(state.with_step(replace(step, status="failed")), message, "failed", doubt)
            else:
                decision = _retry_or_end(state, message, step, "failed", (reason,), None, Usage())
            state, outputs = decision.state, (*outputs, stop, *decision.outputs)
    if state.phase == "running":
        state, timer = arm_step_timer(state)
        outputs = (*outputs, *timer)
    return Transition(state, outputs)


def _in_doubt(state: PlannerState, step: StepState) -> Failure | None:
    """Why a step whose time is up may not be tried again: its one call is a write, and what became of it is not known.

    Its worker's writes have keys of their arguments. Those of a remote agent hold what went wrong before: another call.
    """
    delegated = state.delegation(step.step)
    if (
        delegated is None
        or delegated.to != "agent"
        or all(tool.effect == "read" for tool in _tools_of_step(state, step.step))
    ):
        return None
    reason = f"the time of step {step.step.id} was up, and its remote agent {delegated.name} may have done it"
    return Failure.from_text("uncertain_effect", reason, "ask the agent's people what it did, then submit what is left")


def prepend_outputs(outputs: Outputs, following: Transition[PlannerState]) -> Transition[PlannerState]:
    """Decision that follows, after these outputs."""
    return Transition(following.state, outputs + following.outputs)
