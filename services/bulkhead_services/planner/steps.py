"""The steps of a running plan: handed out, accepted, tried again, stopped when their time is up. Pure.

In: a plan that passed its check; verdicts, finished steps and the steps' timer. Out: `StepAssigned` with its grant to
the worker, progress for the gateway, timers, a new draft when a step fails for good, or the task's end.
"""

from typing import Literal

from bulkhead.flow import Decision, Message, Output, Send, SetTimer, replace, standing
from bulkhead_contracts import bounds
from bulkhead_contracts.control import TimerFired
from bulkhead_contracts.grant import StepGrant
from bulkhead_contracts.plan import PlanAdopted, PlanNote, PlanStep
from bulkhead_contracts.result import Failure, Result, Usage
from bulkhead_contracts.step import StepAssigned, StepFinished, StepInput
from bulkhead_contracts.task import StepEnded, StepStarted
from bulkhead_contracts.verdict import VerdictReached
from bulkhead_services.planner import drafting, plans, reuse
from bulkhead_services.planner.ending import STOPPED_BY_BUDGET, cancel, end
from bulkhead_services.planner.state import State, StepState

TIMER = "steps"
GRANT_SLACK_MS = 60_000
ANSWER_MARGIN_MS = 500
"""A step's deadline lies so long before the task's, so that the task can still say what happened."""
NOT_REPEATABLE = frozenset({"uncertain_effect"})

Outputs = tuple[Output, ...]
Outcome = Literal["accepted", "rejected", "failed"]


# Handing out


def adopt(state: State, message: Message, steps: tuple[PlanStep, ...], notes: tuple[PlanNote, ...]) -> Decision[State]:
    """Run these steps; those whose results are held are done from the start."""
    plan = plans.adopt(steps, notes, state.generation)
    final = next(iter(plans.sinks(plan.steps)), "")
    state = replace(state, phase="running", plan=plan, steps=reuse.over(plan.steps, state.held), final=final)
    taken = (_ended(state, step, "accepted", step.notes, step.result, Usage()) for step in state.steps if step.result)
    return then((Send("gateway", PlanAdopted(plan=plan)), *taken), _hand_out(state, message))


def _hand_out(state: State, message: Message) -> Decision[State]:
    """Hand out every step whose inputs are done; end the task when none is left."""
    done = {step.step.id for step in state.steps if step.status == "done"}
    if len(done) == len(state.steps):
        return end(state, message, "succeeded", None)
    outputs: list[Output] = []
    for step in state.steps:
        if step.status == "waiting" and done.issuperset(step.step.inputs):
            state, said = _assign(state, message, step)
            outputs.extend(said)
    return Decision(state, tuple(outputs))


def _assign(state: State, message: Message, waiting: StepState) -> tuple[State, list[Output]]:
    assert state.plan is not None and state.objective is not None
    until = deadline(state, message, waiting)
    step = replace(waiting, status="running", attempt=waiting.attempt + 1, deadline_unix_ms=until)
    tools = tuple(tool for tool in state.tools if tool.name in step.step.tools)
    assigned = StepAssigned(
        step=step.step,
        attempt=step.attempt,
        plan_version=state.plan.version,
        objective=state.objective,
        inputs=tuple(_input(state, name) for name in step.step.inputs),
        tools=tools,
        notes=step.notes[-16:],
        check=state.check,
        final=step.step.id == state.final,
        deadline_unix_ms=until,
    )
    started = StepStarted(
        step_id=step.step.id, title=step.step.title, attempt=step.attempt, plan_version=state.plan.version
    )
    token = grant(state, message, step, until)
    wrote = state.wrote or any(tool.effect == "write" for tool in tools)
    state, timer = arm(state.with_step(step, wrote=wrote))
    return state, [Send("worker", assigned, grant=state.grant, step_grant=token), Send("gateway", started), *timer]


def deadline(state: State, message: Message, step: StepState) -> int:
    """Until when a step may run that begins, or goes on, now: longer where its tools need longer than most."""
    now, last = message.time_unix_ms, state.deadline_unix_ms - ANSWER_MARGIN_MS
    tools = (tool for tool in state.tools if tool.name in step.step.tools)
    longer_ms = sum(max(0, tool.timeout_ms - bounds.DEFAULT_TOOL_TIMEOUT_MS) for tool in tools)
    return max(now + 1, min(last, now + bounds.DEFAULT_STEP_TIMEOUT_MS + longer_ms))


def grant(state: State, message: Message, step: StepState, until_unix_ms: int) -> StepGrant:
    """What this attempt may do. The grant names the agent's role, so that a halt of that agent reaches its calls."""
    assert state.plan is not None
    return StepGrant(
        tenant=message.tenant,
        task=message.task,
        step_id=step.step.id,
        attempt=step.attempt,
        plan_version=state.plan.version,
        tools=tuple(tool.name for tool in state.tools if tool.name in step.step.tools),
        expires_unix_ms=until_unix_ms + GRANT_SLACK_MS,
        role=step.step.role,
    )


def arm(state: State) -> tuple[State, list[Output]]:
    """One timer stands for all running steps: set for the earliest deadline, and again when it has fired."""
    due = min((step.deadline_unix_ms for step in state.steps if step.status == "running"), default=0)
    if not due or 0 < state.armed_unix_ms <= due:
        return state, []
    return replace(state, armed_unix_ms=due), [SetTimer(f"{TIMER}-{due}", due)]


def _input(state: State, step_id: str) -> StepInput:
    step = state.step(step_id)
    assert step is not None and step.result is not None
    return StepInput(step_id=step_id, title=step.step.title, result=step.result)


# Results


def running(state: State, step_id: str, attempt: int, version: int) -> StepState | None:
    """The step, if exactly this attempt of it runs now; anything else is late or repeated."""
    step = state.step(step_id)
    if state.phase != "running" or state.plan is None or step is None or step.status != "running":
        return None
    return step if step.attempt == attempt and state.plan.version == version else None


def judged(state: State, message: Message, body: VerdictReached) -> Decision[State]:
    """The checker's verdict on an attempt."""
    step = running(state, body.step_id, body.attempt, body.plan_version)
    # Also what comes too late was paid for.
    state = replace(state, usage=state.usage + body.usage)
    if step is None:
        return Decision(state)
    if body.accepted and body.result.standing != "failed":
        return _accept(state, message, step, body.result, body.usage)
    reasons = tuple(note.message for note in body.notes if note.blocking) or ("the checker did not accept the result",)
    return _again(state, message, step, "rejected", reasons, body.result, body.usage)


def finished(state: State, message: Message, body: StepFinished) -> Decision[State]:
    """An attempt that ended without a verdict: it failed, or needed none."""
    step = running(state, body.step_id, body.attempt, body.plan_version)
    # Also what comes too late was paid for.
    state = replace(state, usage=state.usage + body.usage)
    if step is None:
        return Decision(state)
    if body.failure is not None:
        state = state.with_step(replace(step, status="failed"))
        if body.failure.code in STOPPED_BY_BUDGET:
            return end(state, message, "halted", body.failure)
        if body.failure.code in NOT_REPEATABLE:
            return end(state, message, "failed", body.failure)
        reasons = (f"{body.failure.code}: {body.failure.message}"[: bounds.MAX_REASON_CHARS],)
        return _again(state, message, step, "failed", reasons, None, body.usage)
    if state.check and step.step.kind != "noop":
        # Only the checker's verdict lets a result pass; a worker that skips it is broken or hostile.
        return _again(state, message, step, "rejected", ("the result came without a verdict",), None, body.usage)
    result = plans.unchecked(step.step, body.result) if state.check else body.result
    return _accept(state, message, step, result, body.usage)


def _accept(state: State, message: Message, step: StepState, result: Result, usage: Usage) -> Decision[State]:
    if step.step.id == state.final:
        result = standing.resting_on(result, state.drafted)
    state = state.with_step(replace(step, status="done", result=result))
    ended = _ended(state, step, "accepted", (), result, usage)
    return then((ended,), _hand_out(state, message))


def _again(
    state: State,
    message: Message,
    step: StepState,
    outcome: Outcome,
    reasons: tuple[str, ...],
    result: Result | None,
    usage: Usage,
) -> Decision[State]:
    """The attempt did not do: another attempt, another plan, or the end; each bounded."""
    said = _ended(state, step, outcome, reasons, result, usage)
    notes = (*step.notes, *reasons)[-16:]
    in_time = message.time_unix_ms < state.deadline_unix_ms - ANSWER_MARGIN_MS
    if step.attempt < bounds.MAX_STEP_ATTEMPTS and in_time:
        state = state.with_step(replace(step, status="waiting", notes=notes))
        return then((said,), _hand_out(state, message))
    state = state.with_step(replace(step, status="failed", notes=notes))
    name = f"step {step.step.id} ({plans.heading(step.step.title or step.step.instruction, 80)})"
    what = f"{name} failed {step.attempt} times; last: {'; '.join(reasons)}"
    hint = "see `bulkhead timeline TASK`; add the missing documents or tools, or restate the objective"
    failure = Failure.of("step_failed", what, hint)
    if state.generation >= bounds.MAX_PLAN_GENERATIONS:
        return then((said,), end(state, message, "failed", failure))
    if state.wrote:
        hint = "a step that may have changed something outside has run: look at it, then submit what is left"
        return then((said,), end(state, message, "failed", failure.model_copy(update={"hint": hint})))
    return then((said,), _replan(state, message, step, reasons))


def _replan(state: State, message: Message, failed: StepState, reasons: tuple[str, ...]) -> Decision[State]:
    """Ask for another plan; what was accepted under this one is held for it."""
    stop = tuple(cancel(state, step, "the plan is replaced") for step in state.steps if step.status == "running")
    held = reuse.done(state.steps, state.generation)
    state = replace(state, generation=state.generation + 1, held=held)
    why = f"the earlier plan failed at step {failed.step.id}: {failed.step.instruction[:500]}"
    return then(stop, drafting.draft(state, message, (why, *reasons, *reuse.advice(held))))


def _ended(
    state: State, step: StepState, outcome: Outcome, reasons: tuple[str, ...], result: Result | None, usage: Usage
) -> Send:
    assert state.plan is not None
    body = StepEnded(
        step_id=step.step.id,
        attempt=step.attempt,
        plan_version=state.plan.version,
        outcome=outcome,
        reasons=reasons[:16],
        result=result,
        final=step.step.id == state.final,
        usage=usage,
    )
    return Send("gateway", body)


# Time


def time_up(state: State, message: Message, body: TimerFired) -> Decision[State]:
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
            stop = cancel(state, step, "the step's time is up")
            decision = _again(state, message, step, "failed", (reason,), None, Usage())
            state, outputs = decision.state, (*outputs, stop, *decision.outputs)
    if state.phase == "running":
        state, timer = arm(state)
        outputs = (*outputs, *timer)
    return Decision(state, outputs)


def then(outputs: Outputs, following: Decision[State]) -> Decision[State]:
    """What is said first, and the decision that follows."""
    return Decision(following.state, outputs + following.outputs)
