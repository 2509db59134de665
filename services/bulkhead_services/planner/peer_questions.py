"""Steps that ask each other: the planner knows who they are, hands questions on, and answers with results. Pure.

In: an ask of a running step, an opinion of another, and the state after any other message. Out: questions to those
that run, and one answer for each step that was asked: its opinion, its result, or why there will be none. The asker
puts them together; an ask is forgotten with its last answer, with its asker's attempt, and with its plan.
"""

from typing import Any

from bulkhead.flow import Decision, Output, Send, replace
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.result import Failure
from bulkhead_services.planner import steps
from bulkhead_services.planner.state import Ask, State, StepState

MAX_ASKS = 256
"""Of one task at once: every running step has few."""
Outputs = tuple[Output, ...]


def asked(state: State, body: AnswerRequested) -> Decision[State]:
    """A step asks. What can be answered now is answered by `settle`."""
    known = any(one.body.ask_id == body.ask_id for one in state.asks)
    if known or not _runs(state, body.step_id, body.attempt, body.plan_version):
        return Decision(state)
    refused = {target: why for target in body.targets if (why := _why_not(state, body, target))}
    if len(state.asks) >= MAX_ASKS:
        refused = {one: Failure.of("too_many_asks", f"{MAX_ASKS} asks of this task are open") for one in body.targets}
    outputs = tuple(_answer(state, body, target, failure=why) for target, why in refused.items())
    left = tuple(one for one in body.targets if one not in refused)
    return Decision(replace(state, asks=(*state.asks, Ask(body, left))) if left else state, outputs)


def answered(state: State, body: AnswerGiven) -> Decision[State]:
    """An opinion: handed on to who asked, as it is."""
    ask = next((one for one in state.asks if one.body.ask_id == body.ask_id), None)
    if ask is None or body.target not in ask.left or body.step_id != ask.body.step_id:
        return Decision(state)
    said = body.model_copy(update={"result": None, "failure": None, "outcome": "answered"})
    return Decision(_without(state, ask, body.target), (Send("worker", said, grant=state.grant),))


def settle(state: State) -> Decision[State]:
    """After any message: answers that are there by now, questions to those that run by now; what is over is dropped."""
    outputs: list[Output] = []
    for ask in state.asks:
        body = ask.body
        if not _runs(state, body.step_id, body.attempt, body.plan_version):
            state = replace(state, asks=tuple(one for one in state.asks if one.body.ask_id != body.ask_id))
            continue
        for target in ask.left:
            step = state.step(target)
            now = next((one for one in state.asks if one.body.ask_id == body.ask_id), None)
            if now is None:
                break  # Any answer was enough.
            if step is None or step.status == "failed":
                why = Failure.of("step_failed", f"step {target} failed")
                outputs.append(_answer(state, body, target, failure=why))
                state = _without(state, now, target, refused=True)
            elif step.status == "done":
                outputs.append(_answer(state, body, target, step))
                state = _without(state, now, target)
            elif step.status == "running" and body.question and (target, step.attempt) not in now.handed:
                outputs.append(Send("worker", body.model_copy(update={"targets": (target,)}), grant=state.grant))
                state = _with(state, replace(now, handed=(*now.handed, (target, step.attempt))))
    return Decision(state, tuple(outputs))


def _why_not(state: State, body: AnswerRequested, target: str) -> Failure | None:
    names = ", ".join(one.step.id for one in state.steps if one.step.id != body.step_id)
    if state.step(target) is None:
        return Failure.of("unknown_step", f"there is no step {target}", f"ask one of: {names}")
    if body.step_id in _needs(state, target):
        what = f"step {target} builds on the result of {body.step_id}: it would wait for the step that asks it"
        return Failure.of("waits_for_asker", what, "answer without it")
    return None


def _needs(state: State, step_id: str) -> set[str]:
    """Every step whose result this one builds on, in one hop or several."""
    found: set[str] = set()
    front = [step_id]
    while front:
        step = state.step(front.pop())
        fresh = [name for name in (step.step.inputs if step else ()) if name not in found]
        found.update(fresh)
        front += fresh
    return found


def _runs(state: State, step_id: str, attempt: int, version: int) -> bool:
    return steps.running(state, step_id, attempt, version) is not None


def _answer(
    state: State, body: AnswerRequested, target: str, step: StepState | None = None, failure: Failure | None = None
) -> Send:
    given: dict[str, Any] = {"ask_id": body.ask_id, "step_id": body.step_id, "target": target}
    given |= {"outcome": "refused" if failure else "answered", "failure": failure}
    return Send("worker", AnswerGiven(**given, result=step.result if step else None), grant=state.grant)


def _without(state: State, ask: Ask, target: str, *, refused: bool = False) -> State:
    """One target has answered; for `any` that is enough."""
    left = tuple(one for one in ask.left if one != target)
    if not left or (ask.body.mode == "any" and not refused):
        return replace(state, asks=tuple(one for one in state.asks if one.body.ask_id != ask.body.ask_id))
    return _with(state, replace(ask, left=left))


def _with(state: State, ask: Ask) -> State:
    return replace(state, asks=tuple(ask if one.body.ask_id == ask.body.ask_id else one for one in state.asks))
