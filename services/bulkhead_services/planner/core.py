"""The planner decides: objective -> checked plan -> steps handed out -> the task's end. Always an end, with a reason.

In: TaskSubmitted, ModelCallReplied, VerdictReached, StepFinished, timers, cancels, halts. Out: model calls, steps,
progress for the gateway. Results are fed forward by reference.
"""

from typing import Any

from bulkhead.flow import Decider, Decision, Message, Output, Send, SetTimer, replace
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import TaskHalted
from bulkhead_contracts.control import CallDeferred, TimerFired
from bulkhead_contracts.grant import StepGrant
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested, Part
from bulkhead_contracts.plan import PlanAdopted, PlanNote, PlanRejected, PlanStep
from bulkhead_contracts.result import ContentRef, Failure, Result, Usage
from bulkhead_contracts.step import StepAssigned, StepCancelRequested, StepFinished, StepInput
from bulkhead_contracts.task import (
    StepEnded,
    StepStarted,
    TaskAccepted,
    TaskCancelRequested,
    TaskEnded,
    TaskStatus,
    TaskStopped,
    TaskSubmitted,
)
from bulkhead_contracts.types import Body
from bulkhead_contracts.verdict import VerdictReached
from bulkhead_services.planner import plans, reuse
from bulkhead_services.planner.state import State, StepState

TASK_TIMER = "task-deadline"
DRAFT_TIMER = "draft-again"
STEPS_TIMER = "steps"
PLAN_OUTPUT_TOKENS = 4_000
STEP_GRANT_SLACK_MS = 60_000
ANSWER_MARGIN_MS = 500
"""A step's deadline lies so long before the task's, so that the task can still say what happened."""

STOPPED_BY_BUDGET = frozenset({"refused_by_budget", "halted"})
HALTED_BY_BUDGET = frozenset({"budget_exceeded", "refused_by_budget", "halted"})
NOT_REPEATABLE = frozenset({"uncertain_effect"})

Outputs = tuple[Output, ...]


class Planner(Decider[State]):
    """Decision logic, version 1."""

    service = "planner"
    opening = frozenset({TaskSubmitted})
    begins = frozenset({StepAssigned})

    def initial(self) -> State:
        """Before any message."""
        return State()

    def wants(self, body: Body) -> tuple[ContentRef, ...]:
        """The text of a drafted plan."""
        if isinstance(body, ModelCallReplied) and body.content and body.content.size_bytes <= plans.MAX_PLAN_BYTES:
            return (body.content,)
        return ()

    def ended(self, state: State) -> bool:
        """Nothing follows an ended task."""
        return state.phase == "ended"

    def unopened(self, code: str, reason: str) -> tuple[Send, ...]:
        """What to say when the message that opens a task had to be rejected: that task ends, too."""
        hint = "this is a bug: look at `bulkhead dead-letters`; then submit again"
        failure = Failure.of(code, f"the planner could not take the task: {reason}", hint)
        return (Send("gateway", TaskEnded(status="failed", failure=failure)),)

    def decide(self, state: State, message: Message) -> Decision[State]:
        """The transition table of state.py."""
        if state.phase == "ended":
            return Decision(state)
        body: Any = message.body
        match body:
            case TaskSubmitted():
                return _submitted(state, message, body) if state.phase == "new" else Decision(state)
            case ModelCallReplied():
                return _drafted(state, message, body)
            case CallDeferred():
                return _deferred(state, message, body)
            case VerdictReached():
                return _judged(state, message, body)
            case StepFinished():
                return _finished(state, message, body)
            case TimerFired():
                return _time(state, message, body)
            case TaskCancelRequested():
                reason = body.reason or "cancelled on request"
                return end(state, message, "cancelled", Failure.of(code="cancelled", message=reason))
            case TaskHalted():
                if body.code == "budget_exceeded":
                    hint = "raise the limit and submit again, or look at `bulkhead timeline` for what was spent"
                else:
                    hint = f"`bulkhead why {message.task}` shows why, with the evidence"
                return end(state, message, "halted", Failure.of(code=body.code, message=body.reason, hint=hint))
            case _:
                return Decision(state)


def _submitted(state: State, message: Message, body: TaskSubmitted) -> Decision[State]:
    state = replace(
        state,
        objective=body.objective,
        limits=body.limits,
        tools=body.tools,
        check=body.check,
        grant=message.envelope.grant,
        deadline_unix_ms=body.submitted_unix_ms + body.limits.deadline_ms,
    )
    outputs: Outputs = (
        Send("gateway", TaskAccepted(deadline_unix_ms=state.deadline_unix_ms)),
        SetTimer(TASK_TIMER, state.deadline_unix_ms),
    )
    if body.plan is None:
        return _then(outputs, _draft(state, message, ()))
    notes = (*reuse.check(body.plan.steps, state.held), *plans.check(body.plan.steps, body.tools, checked=body.check))
    notes = notes[: bounds.MAX_PLAN_NOTES]
    if _errors(notes):
        failure = Failure.of(code="plan_rejected", message=_join(notes), hint="mend the plan and submit again")
        return _then((*outputs, _rejected(state, notes)), end(state, message, "failed", failure))
    return _then(outputs, _adopt(state, message, body.plan.steps, notes))


# Drafting


def _draft(state: State, message: Message, notes: tuple[str, ...]) -> Decision[State]:
    """Ask the model for a plan; `notes` say what was wrong with the last one."""
    state = replace(state, phase="drafting", drafts=state.drafts + 1, deferrals=0, draft_notes=notes, steps=())
    return Decision(state, (draft_request(state, message),))


def draft_request(state: State, message: Message) -> Send:
    """The call that drafts a plan, with as much time as there is now."""
    assert state.objective is not None
    tools = "\n".join(f"{one.name}: {one.description} ({one.effect})" for one in state.tools)
    parts = [Part(kind="objective", content=state.objective), Part(kind="tools", text=tools or "none")]
    if state.draft_notes:
        text = "\n".join(f"- {one}" for one in state.draft_notes)
        parts.append(Part(kind="notes", text=text[: bounds.MAX_INSTRUCTION_CHARS]))
    body = ModelCallRequested(
        call_id=draft_call(state),
        attempt=state.drafts,
        prompt_id="planner.revise" if state.draft_notes else "planner.draft",
        parts=tuple(parts),
        response="plan",
        stream=False,
        max_output_tokens=PLAN_OUTPUT_TOKENS,
        deadline_unix_ms=min(state.deadline_unix_ms, _now(message) + bounds.DEFAULT_MODEL_CALL_TIMEOUT_MS),
    )
    return Send("model_gateway", body, grant=state.grant)


def draft_call(state: State) -> str:
    return f"plan-{state.generation}-{state.drafts}"


def _drafted(state: State, message: Message, body: ModelCallReplied) -> Decision[State]:
    if state.phase != "drafting" or body.call_id != draft_call(state):
        return Decision(state)
    state = replace(state, usage=state.usage + body.usage)
    if body.outcome != "answered" or body.content is None:
        failure = body.failure or Failure.of(code="no_plan", message="the model answered with nothing")
        if failure.code in STOPPED_BY_BUDGET:
            return end(state, message, "halted", failure)
        return _draft_again(state, message, (), failure)
    text = message.contents.get(body.content.sha256)
    steps, notes = plans.read(body, text, state.tools, message.envelope.logic)
    if _errors(notes):
        failure = plans.failure(notes)
        return _then((_rejected(state, notes),), _draft_again(state, message, notes, failure))
    return _adopt(state, message, steps, notes)


def _draft_again(state: State, message: Message, notes: tuple[PlanNote, ...], failure: Failure) -> Decision[State]:
    if state.drafts >= bounds.MAX_PLAN_DRAFTS * state.generation:
        return end(state, message, "failed", failure)
    texts = tuple(one.message for one in notes if one.severity == "error")[:16]
    return _draft(state, message, texts or state.draft_notes)


def _deferred(state: State, message: Message, body: CallDeferred) -> Decision[State]:
    if state.phase != "drafting" or body.call_id != draft_call(state):
        return Decision(state)
    if state.deferrals >= bounds.MAX_CALL_DEFERRALS:
        failure = Failure.of(
            code="deferred_too_often", message=f"the model call was put off again and again: {body.reason}"
        )
        return _draft_again(state, message, (), failure)
    state = replace(state, deferrals=state.deferrals + 1)
    due = _now(message) + body.after_ms * min(state.deferrals, 8)
    return Decision(state, (SetTimer(f"{DRAFT_TIMER}-{draft_call(state)}", due),))


# Running


def _adopt(state: State, message: Message, steps: tuple[PlanStep, ...], notes: tuple[PlanNote, ...]) -> Decision[State]:
    plan = plans.adopt(steps, notes, state.generation)
    final = next(iter(plans.sinks(plan.steps)), "")
    state = replace(state, phase="running", plan=plan, steps=reuse.over(plan.steps, state.held), final=final)
    taken = (_step_ended(state, one, "accepted", one.notes, one.result, Usage()) for one in state.steps if one.result)
    return _then((Send("gateway", PlanAdopted(plan=plan)), *taken), _hand_out(state, message))


def _hand_out(state: State, message: Message) -> Decision[State]:
    """Hand out every step whose inputs are done; end the task when none is left."""
    done = {one.step.id for one in state.steps if one.status == "done"}
    if len(done) == len(state.steps):
        return end(state, message, "succeeded", None)
    outputs: list[Output] = []
    for one in state.steps:
        if one.status == "waiting" and done.issuperset(one.step.inputs):
            state, said = _hand_out_one(state, message, one)
            outputs.extend(said)
    return Decision(state, tuple(outputs))


def _hand_out_one(state: State, message: Message, one: StepState) -> tuple[State, list[Output]]:
    assert state.plan is not None and state.objective is not None
    step, now = one.step, _now(message)
    last = state.deadline_unix_ms - ANSWER_MARGIN_MS
    deadline = max(now + 1, min(last, now + bounds.DEFAULT_STEP_TIMEOUT_MS))
    running = replace(one, status="running", attempt=one.attempt + 1, deadline_unix_ms=deadline)
    tools = tuple(tool for tool in state.tools if tool.name in step.tools)
    version = state.plan.version
    inputs = tuple(_input(state, name) for name in step.inputs)
    assigned = StepAssigned(
        step=step,
        attempt=running.attempt,
        plan_version=version,
        objective=state.objective,
        inputs=inputs,
        tools=tools,
        notes=running.notes[-16:],
        check=state.check,
        final=step.id == state.final,
        deadline_unix_ms=deadline,
    )
    grant = StepGrant(
        tenant=message.tenant,
        task=message.task,
        step_id=step.id,
        attempt=running.attempt,
        plan_version=version,
        tools=tuple(tool.name for tool in tools),
        expires_unix_ms=deadline + STEP_GRANT_SLACK_MS,
    )
    started = StepStarted(step_id=step.id, title=step.title, attempt=running.attempt, plan_version=version)
    wrote = state.wrote or any(tool.effect == "write" for tool in tools)
    state, timer = arm(state.with_step(running, wrote=wrote))
    return state, [Send("worker", assigned, grant=state.grant, step_grant=grant), Send("gateway", started), *timer]


def arm(state: State) -> tuple[State, list[Output]]:
    """One timer stands for all running steps: set for the earliest deadline, and again when it has fired."""
    due = min((one.deadline_unix_ms for one in state.steps if one.status == "running"), default=0)
    if not due or 0 < state.armed_unix_ms <= due:
        return state, []
    return replace(state, armed_unix_ms=due), [SetTimer(f"{STEPS_TIMER}-{due}", due)]


def _input(state: State, step_id: str) -> StepInput:
    one = state.step(step_id)
    assert one is not None and one.result is not None
    return StepInput(step_id=step_id, title=one.step.title, result=one.result)


def running(state: State, step_id: str, attempt: int, version: int) -> StepState | None:
    """The step, if exactly this attempt of it runs now; anything else is late or repeated."""
    one = state.step(step_id)
    if state.phase != "running" or state.plan is None or one is None or one.status != "running":
        return None
    return one if one.attempt == attempt and state.plan.version == version else None


def _judged(state: State, message: Message, body: VerdictReached) -> Decision[State]:
    one = running(state, body.step_id, body.attempt, body.plan_version)
    # Also what comes too late was paid for.
    state = replace(state, usage=state.usage + body.usage)
    if one is None:
        return Decision(state)
    if body.accepted and body.result.standing != "failed":
        return _accept(state, message, one, body.result, body.usage)
    reasons = tuple(note.message for note in body.notes if note.blocking) or ("the checker did not accept the result",)
    return _again(state, message, one, "rejected", reasons, body.result, body.usage)


def _finished(state: State, message: Message, body: StepFinished) -> Decision[State]:
    one = running(state, body.step_id, body.attempt, body.plan_version)
    # Also what comes too late was paid for.
    state = replace(state, usage=state.usage + body.usage)
    if one is None:
        return Decision(state)
    if body.failure is not None:
        state = state.with_step(replace(one, status="failed"))
        if body.failure.code in STOPPED_BY_BUDGET:
            return end(state, message, "halted", body.failure)
        if body.failure.code in NOT_REPEATABLE:
            return end(state, message, "failed", body.failure)
        reasons = (f"{body.failure.code}: {body.failure.message}"[: bounds.MAX_REASON_CHARS],)
        return _again(state, message, one, "failed", reasons, None, body.usage)
    if state.check and one.step.kind != "noop":
        # Only the checker's verdict lets a result pass; a worker that skips it is broken or hostile.
        return _again(state, message, one, "rejected", ("the result came without a verdict",), None, body.usage)
    result = plans.unchecked(one.step, body.result) if state.check else body.result
    return _accept(state, message, one, result, body.usage)


def _accept(state: State, message: Message, one: StepState, result: Result, usage: Usage) -> Decision[State]:
    state = state.with_step(replace(one, status="done", result=result))
    ended = _step_ended(state, one, "accepted", (), result, usage)
    return _then((ended,), _hand_out(state, message))


def _again(
    state: State,
    message: Message,
    one: StepState,
    outcome: str,
    reasons: tuple[str, ...],
    result: Result | None,
    usage: Usage,
) -> Decision[State]:
    """The attempt did not do: another attempt, another plan, or the end; each bounded."""
    said = _step_ended(state, one, outcome, reasons, result, usage)
    notes = (*one.notes, *reasons)[-16:]
    if one.attempt < bounds.MAX_STEP_ATTEMPTS and _now(message) < state.deadline_unix_ms - ANSWER_MARGIN_MS:
        state = state.with_step(replace(one, status="waiting", notes=notes))
        return _then((said,), _hand_out(state, message))
    state = state.with_step(replace(one, status="failed", notes=notes))
    failure = Failure.of(
        code="step_failed",
        message=f"step {one.step.id} ({plans.heading(one.step.title or one.step.instruction, 80)}) failed "
        f"{one.attempt} times; last: {'; '.join(reasons)}"[: bounds.MAX_REASON_CHARS],
        hint="see `bulkhead timeline TASK`; add the missing documents or tools, or restate the objective",
    )
    if state.generation >= bounds.MAX_PLAN_GENERATIONS:
        return _then((said,), end(state, message, "failed", failure))
    if state.wrote:
        hint = "a step that may have changed something outside has run: look at it, then submit what is left"
        return _then((said,), end(state, message, "failed", failure.model_copy(update={"hint": hint})))
    stop = tuple(_cancel(state, other, "the plan is replaced") for other in state.steps if other.status == "running")
    held = reuse.done(state.steps, state.generation) if state.keeps else state.held
    state = replace(state, generation=state.generation + 1, held=held)
    why = (
        f"the earlier plan failed at step {one.step.id}: {one.step.instruction[:500]}",
        *reasons,
        *reuse.advice(state.held),
    )
    return _then((said, *stop), _draft(state, message, why))


def _step_ended(
    state: State, one: StepState, outcome: str, reasons: tuple[str, ...], result: Result | None, usage: Usage
) -> Send:
    assert state.plan is not None
    return Send(
        "gateway",
        StepEnded(
            step_id=one.step.id,
            attempt=one.attempt,
            plan_version=state.plan.version,
            outcome=outcome,  # type: ignore[arg-type]
            reasons=reasons[:16],
            result=result,
            final=one.step.id == state.final,
            usage=usage,
        ),
    )


# Time and the end


def _time(state: State, message: Message, body: TimerFired) -> Decision[State]:
    if body.key == TASK_TIMER:
        waiting = ", ".join(one.step.id for one in state.steps if one.status == "running") or state.phase
        failure = Failure.of(
            code="deadline_exceeded",
            message=f"the task's deadline of {state.limits.deadline_ms} ms passed; it was waiting for: {waiting}",
            hint="submit with a longer --deadline, or see `bulkhead timeline TASK` for where the time went",
        )
        return end(state, message, "failed", failure)
    if state.phase == "drafting" and body.key == f"{DRAFT_TIMER}-{draft_call(state)}":
        return Decision(state, (draft_request(state, message),))
    if body.key.startswith(STEPS_TIMER):
        return _steps_time(state, message, body)
    return Decision(state)


def _steps_time(state: State, message: Message, body: TimerFired) -> Decision[State]:
    """Steps whose time is up are stopped and tried again; then the timer is set for the rest."""
    if body.due_unix_ms == state.armed_unix_ms:
        state = replace(state, armed_unix_ms=0)
    outputs: Outputs = ()
    for each in state.steps:
        one = state.step(each.step.id)
        if state.phase != "running" or one is None or one.status != "running":
            continue
        if one.deadline_unix_ms <= body.due_unix_ms:
            reason = "the step's time was up before a result came"
            stop = _cancel(state, one, "the step's time is up")
            decision = _again(state, message, one, "failed", (reason,), None, Usage())
            state, outputs = decision.state, (*outputs, stop, *decision.outputs)
    if state.phase == "running":
        state, timer = arm(state)
        outputs = (*outputs, *timer)
    return Decision(state, outputs)


def _cancel(state: State, one: StepState, reason: str) -> Send:
    assert state.plan is not None
    return Send(
        "worker",
        StepCancelRequested(step_id=one.step.id, attempt=one.attempt, plan_version=state.plan.version, reason=reason),
        grant=state.grant,
    )


def end(state: State, message: Message, status: TaskStatus, failure: Failure | None) -> Decision[State]:
    """The task's end, told to everybody who has to do with it."""
    stop = tuple(_cancel(state, one, "the task has ended") for one in state.steps if one.status == "running")
    result = None
    if status == "succeeded" and state.steps:
        last = state.step(state.final)
        result = last.result if last else None
    ended = TaskEnded(
        status=status,
        failure=failure,
        result=result,
        usage=state.usage,
        steps_done=sum(one.status == "done" for one in state.steps),
        steps_total=len(state.steps),
        plan_versions=state.plan.version if state.plan else 0,
        ended_unix_ms=_now(message),
    )
    if failure is not None and failure.code not in HALTED_BY_BUDGET:
        # Streams in flight still cost money, and nobody waits for them any more.
        stop = (*stop, Send("budget", TaskStopped(code=failure.code, reason=failure.message)))
    return Decision(replace(state, phase="ended"), (*stop, Send("gateway", ended)))


# Leaves


def _then(outputs: Outputs, following: Decision[State]) -> Decision[State]:
    return Decision(following.state, outputs + following.outputs)


def _now(message: Message) -> int:
    return message.time_unix_ms


def _errors(notes: tuple[PlanNote, ...]) -> bool:
    return any(one.severity == "error" for one in notes)


def _join(notes: tuple[PlanNote, ...]) -> str:
    return "; ".join(one.message for one in notes if one.severity == "error")[: bounds.MAX_REASON_CHARS]


def _rejected(state: State, notes: tuple[PlanNote, ...]) -> Send:
    return Send("gateway", PlanRejected(draft=state.drafts, notes=notes))
