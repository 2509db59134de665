"""Steps that ask each other: the planner knows who they are, hands questions on, and answers with results. Pure.

In: an ask of a running step, an opinion of another, and the state after any other message. Out: questions to those
that run, and one answer for each step that was asked: its opinion, its result, or why there will be none. The asker
puts them together; an ask is forgotten with its last answer, with its asker's attempt, and with its plan.
"""

from typing import Any

from bulkhead.flow import InboxMessage, Output, Send, Transition, replace
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.result import Failure
from bulkhead_services.planner.state import PendingAsk, PlannerState
from bulkhead_services.planner.step_table import StepState

MAX_ASKS = 256
"""Of one task at once: every running step has few."""


def on_answer_requested(state: PlannerState, message: InboxMessage, body: AnswerRequested) -> Transition[PlannerState]:
    """A step asks. What can be answered now is answered by `answer_open_asks`."""
    is_known = any(pending.body.ask_id == body.ask_id for pending in state.asks)
    if is_known or state.running_step(body) is None:
        return Transition(state)
    refused = {target: refusal for target in body.targets if (refusal := _refusal_of(state, body, target))}
    if len(state.asks) >= MAX_ASKS:
        refused = {
            target: Failure.from_text("too_many_asks", f"{MAX_ASKS} asks of this task are open")
            for target in body.targets
        }
    outputs = tuple(_build_answer(state, body, target, failure=failure) for target, failure in refused.items())
    unanswered = tuple(target for target in body.targets if target not in refused)
    return Transition(
        replace(state, asks=(*state.asks, PendingAsk(body, unanswered))) if unanswered else state, outputs
    )


def on_answer_given(state: PlannerState, message: InboxMessage, body: AnswerGiven) -> Transition[PlannerState]:
    """An opinion: handed on to who asked, as it is."""
    ask = next((pending for pending in state.asks if pending.body.ask_id == body.ask_id), None)
    if ask is None or body.target not in ask.unanswered or body.step_id != ask.body.step_id:
        return Transition(state)
    answer = body.model_copy(update={"result": None, "failure": None, "outcome": "answered"})
    return Transition(_without_target(state, ask, body.target), (Send("worker", answer, grant=state.grant),))


def answer_open_asks(state: PlannerState) -> Transition[PlannerState]:
    """After any message: answers that are there by now, questions to those that run by now; what is over is dropped."""
    outputs: list[Output] = []
    for ask in state.asks:
        body = ask.body
        if state.running_step(body) is None:
            state = replace(state, asks=tuple(pending for pending in state.asks if pending.body.ask_id != body.ask_id))
            continue
        for target in ask.unanswered:
            step = state.step(target)
            current = next((pending for pending in state.asks if pending.body.ask_id == body.ask_id), None)
            if current is None:
                break  # Any answer was enough.
            if step is None or step.status in ("failed", "skipped"):
                skipped = step is not None and step.status == "skipped"
                failure = Failure.from_text("step_failed", f"step {target} {'is skipped' if skipped else 'failed'}")
                outputs.append(_build_answer(state, body, target, failure=failure))
                state = _without_target(state, current, target, refused=True)
            elif step.status == "done":
                outputs.append(_build_answer(state, body, target, step))
                state = _without_target(state, current, target)
            elif step.status == "running" and body.question and (target, step.attempt) not in current.informed_attempts:
                outputs.append(Send("worker", body.model_copy(update={"targets": (target,)}), grant=state.grant))
                informed = (*current.informed_attempts, (target, step.attempt))
                state = _with_ask(state, replace(current, informed_attempts=informed))
    return Transition(state, tuple(outputs))


def _refusal_of(state: PlannerState, body: AnswerRequested, target: str) -> Failure | None:
    names = ", ".join(step.plan_step.id for step in state.steps if step.plan_step.id != body.step_id)
    if state.step(target) is None:
        return Failure.from_text("unknown_step", f"there is no step {target}", f"ask one of: {names}")
    if body.step_id in _all_inputs_of(state, target):
        reason = f"step {target} builds on the result of {body.step_id}: it would wait for the step that asks it"
        return Failure.from_text("waits_for_asker", reason, "answer without it")
    return None


def _all_inputs_of(state: PlannerState, step_id: str) -> set[str]:
    """Every step whose result this one builds on, in one hop or several."""
    needed: set[str] = set()
    front = [step_id]
    while front:
        step = state.step(front.pop())
        fresh = [name for name in (step.plan_step.inputs if step else ()) if name not in needed]
        needed.update(fresh)
        front += fresh
    return needed


def _build_answer(
    state: PlannerState,
    body: AnswerRequested,
    target: str,
    step: StepState | None = None,
    failure: Failure | None = None,
) -> Send:
    fields: dict[str, Any] = {"ask_id": body.ask_id, "step_id": body.step_id, "target": target}
    fields |= {"outcome": "refused" if failure else "answered", "failure": failure}
    return Send("worker", AnswerGiven(**fields, result=step.result if step else None), grant=state.grant)


def _without_target(state: PlannerState, ask: PendingAsk, target: str, *, refused: bool = False) -> PlannerState:
    """One target has answered; for `any` that is enough."""
    unanswered = tuple(step_id for step_id in ask.unanswered if step_id != target)
    if not unanswered or (ask.body.mode == "any" and not refused):
        return replace(state, asks=tuple(pending for pending in state.asks if pending.body.ask_id != ask.body.ask_id))
    return _with_ask(state, replace(ask, unanswered=unanswered))


def _with_ask(state: PlannerState, ask: PendingAsk) -> PlannerState:
    return replace(
        state, asks=tuple(ask if pending.body.ask_id == ask.body.ask_id else pending for pending in state.asks)
    )
