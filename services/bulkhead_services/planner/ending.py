"""The end of an attempt and of a task: what is stopped, and who is told with which result or failure. A leaf, pure.

In: the state of a task, and why it or a step ends. Out: `StepEnded` to the gateway; cancels to the steps that run,
`TaskStopped` to budget where money may still be spent, and `TaskEnded`, last: to doors of a task that an outside agent
carries out, to the gateway of each.
"""

from typing import Any, Literal

from bulkhead.flow import InboxMessage, Output, Send, Transition, replace, standing
from bulkhead.flow.answered import DoneStep, settle_task_answer
from bulkhead_contracts.grant import TaskGrant, task_claims
from bulkhead_contracts.result import Failure, Result, Usage
from bulkhead_contracts.step import StepCancelRequested
from bulkhead_contracts.task import RUN_ENDED, StepEnded, TaskEnded, TaskStatus, TaskStopped
from bulkhead_services.planner.state import PlannerState, may_change_outside
from bulkhead_services.planner.step_table import StepState

TASK_TIMER = "task-deadline"
AT_CEILING = "budget_exceeded"
STOPPED_BY_BUDGET = frozenset({"refused_by_budget", "halted"})
HALTED_BY_BUDGET = STOPPED_BY_BUDGET | {AT_CEILING}
Outcome = Literal["accepted", "rejected", "failed"]


def end_task(
    state: PlannerState, message: InboxMessage, status: TaskStatus, failure: Failure | None
) -> Transition[PlannerState]:
    """The task's end, told to everybody who has to do with it."""
    stop = cancel_running_steps(state, "the task has ended")
    result = None
    if status == "succeeded" and state.steps:
        result = _result_of_task(state)
    claims = task_claims(state.grant)
    releases = releases_of(claims)
    ended = TaskEnded(
        status=status,
        failure=failure,
        result=result,
        usage=state.usage,
        steps_done=sum(step.status == "done" and not step.map_id for step in state.steps),
        steps_total=sum(step.status != "skipped" and not step.map_id for step in state.steps),
        plan_versions=state.plan.version if state.plan else 0,
        ended_unix_ms=message.time_unix_ms,
        feature=claims.feature if claims is not None else "",
        began_unix_ms=state.latest_unix_ms - state.limits.lifetime_ms if releases else 0,
        **releases,
    )
    if failure is not None and failure.code not in HALTED_BY_BUDGET:
        # Streams in flight still cost money, and nobody waits for them any more.
        stop = (*stop, Send("budget", TaskStopped(code=failure.code, reason=failure.message)))
    elif failure is None and state.adopted:
        # Its agent may have calls in flight all the same.
        stop = (*stop, Send("budget", TaskStopped(code=RUN_ENDED, reason="the agent's run has ended")))
    if state.adopted:
        stop = (*stop, Send("doors", ended))
    return Transition(replace(state, phase="ended"), (*stop, Send("gateway", ended)))


def releases_of(claims: TaskGrant | None) -> dict[str, Any]:
    """Releases of prompts and of the workflow that a task keeps, and a digest of who asked for it; nothing of a task
    without any."""
    if claims is None or not (claims.release or claims.workflow_release):
        return {}
    return {"release": claims.release, "workflow_release": claims.workflow_release, "asker": claims.asker}


def _result_of_task(state: PlannerState) -> Result | None:
    """The result of the final step, as the steps before it let it be answered. Where that one is skipped it is the
    result of the last step on which nothing that is done builds: the branch that skipped it has one, at least. Where a
    person approves one result at the end, it is that."""
    answers = {
        step.plan_step.id: DoneStep(step.plan_step.id, step.result, may_change_outside(state.tools_of(step.plan_step)))
        for step in state.steps
        if step.result is not None
    }
    done = [step.plan_step for step in state.steps if step.status == "done" and not step.map_id]
    built_on = {name for plan_step in done for name in plan_step.inputs}
    last = next((plan_step.id for plan_step in reversed(done) if plan_step.id not in built_on), "")
    # A step that a person skipped hands on a finding, and is no answer.
    final_step = state.step(state.final_step_id)
    answer_id = state.final_step_id if final_step is not None and final_step.status == "done" else last
    while (step := state.step(answer_id)) and step.plan_step.question and len(step.plan_step.inputs) == 1:
        # What a person releases is the answer, and not his yes.
        answers.pop(answer_id, None)
        answer_id = step.plan_step.inputs[0]
    final = answers.pop(answer_id, None)
    if final is None:
        skipped = [step.plan_step.id for step in state.steps if step.status == "skipped" and step.result is not None]
        if not skipped:
            return None
        final = answers.pop(skipped[-1])  # Nothing else is left: the answer is that a person skipped it.
    result = settle_task_answer(final, tuple(answers.values()))
    for step in state.steps:
        if step.status == "skipped" and step.result is not None:
            result = standing.resting_on(result, step.result)
    # That of the final step rests on the draft since it was accepted.
    return result if answer_id == state.final_step_id else standing.resting_on(result, state.draft_standing)


def cancel_running_steps(state: PlannerState, reason: str) -> tuple[Output, ...]:
    """Stop every attempt that runs; nobody works on a wait."""
    running = (step for step in state.steps.in_order(state.steps.running) if step.plan_step.wait is None)
    return tuple(cancel_step(state, step, reason) for step in running)


def cancel_step(state: PlannerState, step: StepState, reason: str) -> Send:
    """Tell who works on it to stop the attempt that runs."""
    assert state.plan is not None
    body = StepCancelRequested(
        step_id=step.plan_step.id, attempt=step.attempt, plan_version=state.plan.version, reason=reason
    )
    return Send(step.assignee, body, grant=state.grant)


def step_ended(
    state: PlannerState,
    step: StepState,
    outcome: Outcome,
    reasons: tuple[str, ...],
    result: Result | None,
    usage: Usage,
    skipped: tuple[str, ...] = (),
) -> Send:
    """Word to the gateway that an attempt has ended. A result that was not accepted leaves under `draft` alone.
    skipped: the steps that a branch skips."""
    assert state.plan is not None
    body = StepEnded(
        step_id=step.plan_step.id,
        attempt=step.attempt,
        plan_version=state.plan.version,
        outcome=outcome,
        reasons=reasons_for_people(state, reasons)[:16],
        result=result if outcome == "accepted" or state.output.delivery == "draft" else None,
        final=step.plan_step.id == state.final_step_id,
        usage=usage,
        skipped=skipped,
    )
    return Send("gateway", body)


def reasons_for_people(state: PlannerState, reasons: tuple[str, ...]) -> tuple[str, ...]:
    """Reasons as people are shown them: they quote what was not accepted, which may leave under `draft` alone."""
    if state.output.delivery == "draft" or not reasons:
        return reasons
    return (f"{len(reasons)} reasons, which an operator can read: `bulkhead why`",)
