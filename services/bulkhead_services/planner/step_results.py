"""Results of steps: accepted, tried again, or the end of their plan or task; and steps whose time is up. Pure.

In: `VerdictReached`, `StepFinished`, `EventMatched`, the steps' timer. Out: the attempt's end for the gateway, and then
the steps that are ready by now, another attempt, a new draft when a step fails for good, or the task's end.
"""

import json

from bulkhead.flow import InboxMessage, Output, Transition, replace, standing
from bulkhead.flow.answered import AnswerFinding, lower_answer
from bulkhead.plans import plans
from bulkhead.plans.plan_types import WITHOUT_MODEL, branch_targets
from bulkhead_contracts import bounds
from bulkhead_contracts.control import TimerFired
from bulkhead_contracts.model import UNKNOWN_ROUTE
from bulkhead_contracts.outside_event import EventMatched, event_channel
from bulkhead_contracts.plan import JUDGE_ROLE, ApprovalQuestion
from bulkhead_contracts.result import Failure, Result, Usage
from bulkhead_contracts.step import StepFinished
from bulkhead_contracts.verdict import VerdictReached
from bulkhead_services.planner import maps
from bulkhead_services.planner.assignments import (
    ANSWER_MARGIN_MS,
    arm_step_timer,
    assign_ready_steps,
    await_event,
    done_inputs,
    handed_on_result,
    inputs_of_item,
    skip_steps,
)
from bulkhead_services.planner.drafts import request_draft
from bulkhead_services.planner.ending import (
    STOPPED_BY_BUDGET,
    Outcome,
    cancel_running_steps,
    cancel_step,
    end_task,
    reasons_for_people,
    step_ended,
)
from bulkhead_services.planner.state import STEP_FAILED, Pause, PlannerState, may_change_outside
from bulkhead_services.planner.step_table import StepState

NOT_ACCEPTED = AnswerFinding("partly", "the checker did not accept the answer")
NOT_REPEATABLE = frozenset({"uncertain_effect", UNKNOWN_ROUTE, "approval_denied", "approval_expired"})
"""Also what a person has not let be done is not asked for by another plan."""
PLAN_CALLS = ("tool", "approval")
"""Actions of one call that the plan makes; their results are the doer's word."""
PLAN_CALL_UNFIT = frozenset(
    {
        "arguments_too_long",
        "bad_arguments",
        "constraint",
        "forbidden",
        "input_too_long",
        "malformed_arguments",
        "no_such_field",
        "not_granted",
        "policy",
        "tainted_code",
        "unknown_input",
        "unknown_tool",
    }
)
"""Failures of a plan's own call that it would have each time: no model writes it otherwise."""
MAX_ADVICE_CHARS = bounds.MAX_INSTRUCTION_CHARS // 2
ADVICE = "these steps are done and will not run again; repeat those that are still needed exactly as they stand: "


def on_verdict_reached(state: PlannerState, message: InboxMessage, body: VerdictReached) -> Transition[PlannerState]:
    """The checker's verdict on an attempt."""
    if not state.may_report(message.envelope.source, body.step_id):
        return Transition(state)
    step = state.running_step(body)
    # Also what comes too late was paid for.
    state = replace(state, usage=state.usage + body.usage)
    if step is None:
        return Transition(state)
    if step.plan_step.kind == "noop" or step.gathering is not None:
        # What such a step hands on is proven otherwise; a worker could have proposed whatever it likes in its place.
        reason = f"a verdict came on a step of action {step.plan_step.action}, which no checker judges"
        return _retry_or_end(state, message, step, "rejected", (reason,), None, body.usage)
    if body.accepted and body.result.standing != "failed":
        return _accept_result(state, message, step, body.result, body.usage)
    reasons = tuple(note.message for note in body.notes if note.blocking) or ("the checker did not accept the result",)
    if body.stands and body.result.standing != "failed":
        objections = "; ".join(reasons_for_people(state, reasons))
        standby = _mark_result(body.result, f"the checker did not accept it: {objections}")
        step = replace(step, standby=lower_answer(standby, NOT_ACCEPTED))
    return _retry_or_end(state, message, step, "rejected", reasons, body.result, body.usage)


def on_step_finished(state: PlannerState, message: InboxMessage, body: StepFinished) -> Transition[PlannerState]:
    """An attempt that ended without a verdict: it failed, or needed none."""
    if not state.may_report(message.envelope.source, body.step_id):
        return Transition(state)
    step = state.running_step(body)
    # Also what comes too late was paid for.
    state = replace(state, usage=state.usage + body.usage)
    if step is None:
        return Transition(state)
    if body.failure is not None:
        state = state.with_step(replace(step, status="failed"))
        if body.failure.code in STOPPED_BY_BUDGET:
            return end_task(state, message, "halted", body.failure)
        is_unfit = step.plan_step.action == "tool" and body.failure.code in PLAN_CALL_UNFIT
        reasons = (f"{body.failure.code}: {body.failure.message}"[: bounds.MAX_REASON_CHARS],)
        if body.failure.code in NOT_REPEATABLE or is_unfit or step.plan_step.adopted:
            # What may have been done is for a person to look at, however many items may fail.
            is_doubtful = body.failure.code == "uncertain_effect"
            if step.item is not None and not is_doubtful and maps.may_leave_out(state, step):
                return _leave_item_out(state, message, step, reasons, body.usage)
            return end_task(state, message, "failed", body.failure)
        if step.plan_step.action in WITHOUT_MODEL or (step.plan_step.over is not None and step.gathering is None):
            # It reads what it read, and says the same again.
            ended = step_ended(state, step, "failed", reasons, None, body.usage)
            return _give_up(state, message, step, reasons).preceded_by(ended)
        return _retry_or_end(state, message, step, "failed", reasons, None, body.usage)
    if not _is_informed(step, body):
        reasons = ("the worker that had the step does not know its kind: update the workers",)
        return _retry_or_end(state, message, step, "failed", reasons, None, body.usage)
    if step.gathering is not None:
        return _accept_result(state, message, step, maps.gathered_result(state, step, body.result), body.usage)
    if step.plan_step.over is not None:
        if body.items is None or body.items > step.plan_step.over.max_items:
            reasons = ("the step's list was not counted",)
            return _retry_or_end(state, message, step, "failed", reasons, None, body.usage)
        inputs = inputs_of_item(state, step.plan_step, step.plan_step.over.of)
        item_bytes = sum(len(row.model_dump_json().encode()) for row in inputs)
        if excess := maps.find_excess(state, step, body.items, item_bytes):
            ended = step_ended(state, step, "failed", (excess,), None, body.usage)
            return _give_up(state, message, step, (excess,)).preceded_by(ended)
        return assign_ready_steps(maps.open_map(state, step, body.items, item_bytes), message)
    is_judge = step.plan_step.role == JUDGE_ROLE and step.plan_step.kind != "noop"
    if state.check and step.plan_step.kind != "noop" and not is_judge:
        # Only the checker's verdict lets a result pass; a worker that skips it is broken or hostile.
        return _retry_or_end(state, message, step, "rejected", ("the result came without a verdict",), None, body.usage)
    if step.plan_step.action == "validate" and body.reasons:
        return _repeat_gated_step(state, message, step, body.reasons, body.usage)
    result = body.result
    if step.plan_step.action in PLAN_CALLS and not _is_word_of_doer(state, step, result):
        # Its call is the plan's, and its result the doer's own word: there is nothing that a judge could know better.
        # That a worker made the result up is ruled out by the label, which the executor signed for this very step.
        reasons = ("the result lacks the signed label of the tool that the step calls",)
        return _retry_or_end(state, message, step, "rejected", reasons, None, body.usage)
    skipped: tuple[str, ...] = ()
    if (branch := step.plan_step.branch) is not None:
        choices = (branch.otherwise, *(case.steps for case in branch.cases))
        if body.chosen not in [steps or (branch.of,) for steps in choices]:
            reasons = ("the worker chose steps that no case of the branch begins",)
            return _retry_or_end(state, message, step, "failed", reasons, None, body.usage)
        state, skipped = skip_steps(state, branch_targets(step.plan_step).difference(body.chosen))
    if step.plan_step.action in WITHOUT_MODEL or step.plan_step.gate is not None:
        # Not what the worker says: what it hands on was judged where it was made.
        result = handed_on_result(state, step)
    elif is_judge:
        pass  # The one gate that names it reads it, and what the gate hands on was judged where it was made.
    elif step.plan_step.action not in PLAN_CALLS and state.check:
        result = _mark_result(result, f"step {step.plan_step.id} {plans.NOT_CHECKED}")
    elif step.plan_step.kind != "noop":
        result = _mark_result(result, "not checked, as the task asked")
    return _accept_result(state, message, step, result, body.usage, skipped=skipped)


def on_event_matched(state: PlannerState, message: InboxMessage, body: EventMatched) -> Transition[PlannerState]:
    """The event that a step waits for came. Two waits of a task for one name and key take two events."""
    step = state.running_step(body)
    wait = step.plan_step.wait if step is not None else None
    if message.envelope.source != "gateway" or step is None or wait is None or wait.event is None:
        return Transition(state)
    if body.failure is not None:
        return _give_up_wait(state, message, step, body.failure.message)
    channel = event_channel(body.name, body.key)
    places = state.event_places.get(channel, ())
    if body.place in places:
        # A wait beside this one was told of it first. Events before this place did not count: its time is no matter.
        return Transition(state, (await_event(state, message, step, wait.event, 0, after=body.place),))
    state = replace(state, event_places={**state.event_places, channel: (*places, body.place)})
    labels = (body.label,) if body.label is not None else ()
    summary = body.content.summary if body.content is not None else ""
    event = Result(content=body.content, summary=summary, provenance=labels)
    inputs = (row.result for row in done_inputs(state, step.plan_step))
    return _accept_result(state, message, step, standing.merge_results((*inputs, event), event), Usage())


def _end_wait(state: PlannerState, message: InboxMessage, step: StepState) -> Transition[PlannerState]:
    """The time of a wait is over: it is done, unless it was for an event."""
    result, wait = handed_on_result(state, step), step.plan_step.wait
    if wait is not None and (event := wait.event) is not None:
        reason = f"no event {event.name} of {event.key} came in the time of step {step.plan_step.id}"
        if event.on_timeout == "fail":
            return _give_up_wait(state, message, step, reason)
        result = _mark_result(result, reason)
    return _accept_result(state, message, step, result, Usage())


def _give_up_wait(state: PlannerState, message: InboxMessage, step: StepState, reason: str) -> Transition[PlannerState]:
    ended = step_ended(state, step, "failed", (reason,), None, Usage())
    return _give_up(state, message, step, (reason,)).preceded_by(ended)


def _is_informed(step: StepState, body: StepFinished) -> bool:
    """True for the word of a worker that knows the step's action. One of an earlier version ends any noop at once: it
    neither chooses nor counts."""
    plan_step = step.plan_step
    if step.gathering is not None:
        return body.items == len(step.gathers)
    if step.item is not None:
        return body.items == step.item.index
    if plan_step.action == "validate" and plan_step.gate is not None:
        judge = plan_step.gate.judge
        return bool(body.reasons) or body.chosen == (plan_step.gate.of, *((judge.step,) if judge is not None else ()))
    return plan_step.action != "branch" or bool(body.chosen)


def _is_word_of_doer(state: PlannerState, step: StepState, result: Result) -> bool:
    """True for a result that the executor labelled for this step (the shell marks the source of a label whose signature
    is false); of a search, whose passages the worker lists, always."""
    if any(tool.served_by != "tool_executor" for tool in state.tools_of(step.plan_step)):
        return True
    return any(
        label.kind == "tool_result"
        and label.observed_by == "tool_executor"
        and result.content is not None
        and (label.sha256, label.source, label.step_id)
        == (result.content.sha256, step.plan_step.called_tool, step.plan_step.id)
        for label in result.provenance
    )


def _mark_result(result: Result, reason: str) -> Result:
    """The result, marked up to the answer: nobody checked it, or the checker did not accept it."""
    return standing.degrade_result(result, reason[: bounds.MAX_REASON_CHARS // 2], result.standing_reason)


def _accept_result(
    state: PlannerState,
    message: InboxMessage,
    step: StepState,
    result: Result,
    usage: Usage,
    reasons: tuple[str, ...] = (),
    skipped: tuple[str, ...] = (),
) -> Transition[PlannerState]:
    """The step is done. reasons: why its result stands though it was not accepted. skipped: the steps that it skips."""
    if step.plan_step.id == state.final_step_id:
        result = standing.resting_on(result, state.draft_standing)
    step = replace(step, status="done", result=result)
    state = maps.settle_item(state, step) if step.item is not None else state.with_step(step)
    decision = assign_ready_steps(state, message)
    if step.gathering is not None and step.open_map is None:
        return decision  # Such a part of a map is no step of the plan.
    return decision.preceded_by(step_ended(state, step, "accepted", reasons, result, usage, skipped))


def _leave_item_out(
    state: PlannerState, message: InboxMessage, item: StepState, reasons: tuple[str, ...], usage: Usage
) -> Transition[PlannerState]:
    """An item has failed, and its map goes on without it."""
    ended = step_ended(state, item, "failed", reasons, None, usage)
    item = replace(item, status="left_out", notes=(*item.notes, *reasons)[-16:])
    return assign_ready_steps(maps.settle_item(state, item), message).preceded_by(ended)


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
    ended = step_ended(state, step, outcome, reasons, result, usage)
    if _may_repeat(state, message, step):
        state = state.with_step(_with_notes(replace(step, status="waiting"), reasons))
        return assign_ready_steps(state, message).preceded_by(ended)
    if step.standby is not None and not _may_write_from(state, step):
        # Marked for what is wrong with it, it is worth more than a new plan after all that was spent.
        return _accept_result(state, message, step, step.standby, usage, reasons)
    if step.item is not None and maps.may_leave_out(state, step):
        return _leave_item_out(state, message, step, reasons, usage)
    return _give_up(state, message, step, reasons).preceded_by(ended)


def _may_repeat(state: PlannerState, message: InboxMessage, step: StepState) -> bool:
    """True while the step has an attempt left, and the task has time for one."""
    return step.attempt < bounds.MAX_STEP_ATTEMPTS and message.time_unix_ms < state.deadline_unix_ms - ANSWER_MARGIN_MS


def _with_notes(step: StepState, reasons: tuple[str, ...]) -> StepState:
    """The step with what its next attempt is told of this one: nothing where its plan wants a fresh one."""
    return step if step.plan_step.retry == "fresh" else replace(step, notes=(*step.notes, *reasons)[-16:])


def _repeat_gated_step(
    state: PlannerState, message: InboxMessage, gate_step: StepState, reasons: tuple[str, ...], usage: Usage
) -> Transition[PlannerState]:
    """A gate did not let a result pass: the step that made it runs again, and then its judge, or a person is asked, as
    the gate says; else the plan fails, or by a judge's advice alone goes on.

    Nothing else builds on a step that runs again: the plan's check sees to it."""
    gate, ended = gate_step.plan_step.gate, step_ended(state, gate_step, "rejected", reasons, None, usage)
    gated = state.step(gate.of) if gate is not None else None
    if gate is not None and gate.on_fail == "person":
        # The same step, as one of action `approval`: what it hands on is still the result that it looked at.
        text = f"The result of {gate.of} does not pass: {'; '.join(reasons)}"
        question = ApprovalQuestion(text=text[: bounds.MAX_REASON_CHARS])
        asking = gate_step.plan_step.model_copy(update={"question": question})
        state = state.with_step(replace(gate_step, plan_step=asking, status="waiting"))
        return assign_ready_steps(state, message).preceded_by(ended)
    judging = state.step(gate.judge.step) if gate is not None and gate.judge is not None else None
    repeated = [step for step in (gated, judging) if step is not None]
    may_retry = gate is not None and gate.on_fail == "retry" and gate_step.attempt <= gate.retries
    if gated is None or not may_retry or not all(_may_repeat(state, message, step) for step in repeated):
        if gate is not None and gate.judge is not None and gate.judge.uncertified == "advise":
            text = f"the judge did not let it pass, which is advice: {'; '.join(reasons_for_people(state, reasons))}"
            result = _mark_result(handed_on_result(state, gate_step), text)
            return _accept_result(state, message, gate_step, result, usage, reasons)
        return _give_up(state, message, gate_step, reasons).preceded_by(ended)
    state = state.with_step(_with_notes(replace(gated, status="waiting", result=None, standby=None), reasons))
    if judging is not None:
        # Anew, and not told what it said before: it would say it again.
        state = state.with_step(replace(judging, status="waiting", result=None))
    state = state.with_step(replace(gate_step, status="waiting"))
    return assign_ready_steps(state, message).preceded_by(ended)


def _give_up(
    state: PlannerState, message: InboxMessage, step: StepState, reasons: tuple[str, ...]
) -> Transition[PlannerState]:
    """The step has failed for good: another plan, or the task's end; one that a person may skip waits for him."""
    state = state.with_step(replace(step, status="failed", notes=(*step.notes, *reasons)[-16:]))
    if (map_step := state.step(step.map_id)) is not None:
        # What fails with one of its parts is the map.
        reasons = maps.failed_items(state, map_step) or reasons
        ended = step_ended(state, map_step, "failed", reasons, None, Usage())
        return _give_up(state, message, map_step, reasons).preceded_by(ended)
    heading = plans.cut_heading(step.plan_step.title or step.plan_step.instruction, 80)
    name = f"step {step.plan_step.id} ({heading})" if state.output.delivery == "draft" else f"step {step.plan_step.id}"
    reason = f"{name} failed {step.attempt} times; last: {'; '.join(reasons_for_people(state, reasons))}"
    if step.plan_step.skippable and state.plan is not None:
        until = message.time_unix_ms + max(1, state.limits.approval_wait_ms)
        pause = Pause(step.plan_step.id, step.attempt, state.plan.version, STEP_FAILED, reason, until)
        return assign_ready_steps(replace(state, pauses=(*state.pauses, pause)), message)
    hint = _hint_without_new_plan(state)
    if hint is None:
        return _request_new_plan(state, message, step, reasons)
    return end_task(state, message, "failed", Failure.from_text("step_failed", reason, hint))


def _may_write_from(state: PlannerState, step: StepState) -> bool:
    """True when this step or one yet to come may write: nothing is written on a result that was not accepted."""
    remaining = (row for row in (step, *state.steps) if not row.is_over)
    return any(may_change_outside(state.tools_of(row.plan_step)) for row in remaining)


def _hint_without_new_plan(state: PlannerState) -> str | None:
    """Advice to people when a step has failed and no other plan may take this one's place; None when one may."""
    mend = "see `bulkhead timeline TASK`; add the missing documents or tools, or restate the objective"
    if state.generation >= bounds.MAX_PLAN_GENERATIONS:
        return mend
    if state.wrote:
        return "a step that may have changed something outside has run: look at it, then submit what is left"
    if any(row.plan_step.action not in ("agent", "noop") for row in state.steps):
        return (
            "the plan is a person's (it has gates, questions, branches or calls of its own), and no model replaces it: "
            "mend what failed, then submit it or run the workflow again"
        )
    if state.submitted_plan is not None and state.replan == "none":
        reason = "the submission lets nothing take its plan's place"
        return f"{reason}: mend the plan, or submit it with `replan: same_tools`"
    # No draft could be used before, and the whole objective is what failed: another draft would be in vain.
    return mend if state.runs_whole else None


def _request_new_plan(
    state: PlannerState, message: InboxMessage, failed: StepState, reasons: tuple[str, ...]
) -> Transition[PlannerState]:
    """Ask for another plan; what was accepted under this one is held for it."""
    stop = cancel_running_steps(state, "the plan is replaced")
    # Not what stands unaccepted, nor what is built on it: a new plan may write on what it takes over.
    doubtful = {step.plan_step.id for step in state.steps if step.standby is not None and step.result == step.standby}
    while dependent := {
        step.plan_step.id
        for step in state.steps
        if doubtful.intersection((*step.plan_step.inputs, *step.gathers)) and step.plan_step.id not in doubtful
    }:
        doubtful |= dependent
    notes = (f"taken over from plan {state.generation}",)
    held_steps = tuple(
        StepState(step.plan_step, status="done", notes=notes, result=step.result)
        for step in state.steps
        if step.status == "done" and not step.map_id and step.plan_step.id not in doubtful
    )
    state = replace(state, generation=state.generation + 1, held_steps=held_steps)
    failure_note = f"the earlier plan failed at step {failed.plan_step.id}: {failed.plan_step.instruction[:500]}"
    advice = _advice_for_model(state)
    return request_draft(state, message, (failure_note, *reasons, *advice)).preceded_by(*stop)


def _advice_for_model(state: PlannerState) -> tuple[str, ...]:
    """Advice by which a model that plans anew keeps what is done; () when nothing is."""
    if not state.held_steps:
        return ()
    rows: list[str] = []
    fields = {"id", "title", "instruction", "tools", "inputs", "acceptance", *(("role",) if state.roles else ())}
    for step in state.held_steps:
        row = json.dumps(step.plan_step.model_dump(include=fields))
        if sum(map(len, rows)) + len(row) <= MAX_ADVICE_CHARS:
            rows.append(row)
    return (ADVICE + " ".join(rows),)


# Time


def on_step_timer_fired(state: PlannerState, message: InboxMessage, body: TimerFired) -> Transition[PlannerState]:
    """Steps whose time is up are stopped and tried again; then the timer is set for the rest."""
    if body.due_unix_ms == state.step_timer_unix_ms:
        state = replace(state, step_timer_unix_ms=0)
    outputs: tuple[Output, ...] = ()
    for before in state.steps.in_order(state.steps.running):
        step = state.step(before.plan_step.id)
        if state.phase != "running" or step is None or step.status != "running":
            continue
        if step.deadline_unix_ms > body.due_unix_ms:
            continue
        if step.plan_step.wait is not None:
            decision = _end_wait(state, message, step)
            state, outputs = decision.state, (*outputs, *decision.outputs)
        else:
            reason = "the step's time was up before a result came"
            stop = cancel_step(state, step, "the step's time is up")
            if (doubt := _in_doubt(state, step)) is not None:
                decision = end_task(state.with_step(replace(step, status="failed")), message, "failed", doubt)
            else:
                decision = _retry_or_end(state, message, step, "failed", (reason,), None, Usage())
            state, outputs = decision.state, (*outputs, stop, *decision.outputs)
    if state.phase == "running":
        return arm_step_timer(state).preceded_by(*outputs)
    return Transition(state, outputs)


def _in_doubt(state: PlannerState, step: StepState) -> Failure | None:
    """Why a step whose time is up may not be tried again: its one call is a write, and what became of it is not known.

    Its worker's writes have keys of their arguments. Those of a remote agent hold what went wrong before: another call.
    """
    delegated = state.delegation(step.plan_step)
    if (
        delegated is None
        or delegated.to != "agent"
        or all(tool.effect == "read" for tool in state.tools_of(step.plan_step))
    ):
        return None
    reason = f"the time of step {step.plan_step.id} was up, and its remote agent {delegated.name} may have done it"
    return Failure.from_text("uncertain_effect", reason, "ask the agent's people what it did, then submit what is left")
