"""Gates and branches: steps without a model that look at the result of another. A leaf, pure.

In: an attempt at such a step, with the text of that result. Out: the finished step: why a gate lets the result not
pass, or the steps that a branch begins; the planner, which reads no content, routes by it and hands the result on.
"""

from bulkhead.flow import InboxMessage, Send, Transition
from bulkhead.plans.gates import choose_steps, list_gate_reasons, list_judge_reasons
from bulkhead_contracts import bounds
from bulkhead_contracts.result import ContentRef, Failure, Result
from bulkhead_contracts.step import StepAssigned, StepFinished
from bulkhead_services.worker.attempts import fail_attempt
from bulkhead_services.worker.state import StepAttempt, WorkerState, identity_of


def looked_at_content(body: StepAssigned) -> tuple[ContentRef, ...]:
    """The content that a gate or a branch has to read; () where it is too large, or the result is a summary alone."""
    result = _looked_at_result(body)
    content = result.content if result is not None else None
    return (content,) if content is not None and content.size_bytes <= bounds.MAX_GATE_BYTES else ()


def look_at_result(state: WorkerState, message: InboxMessage, attempt: StepAttempt) -> Transition[WorkerState]:
    """Evaluate a gate or a branch: the attempt is over at once."""
    body, step = attempt.assigned, attempt.assigned.step
    result = _looked_at_result(body)
    if result is None:
        failure = Failure.from_text("no_input", f"step {step.id} looks at a result that it was not handed")
        return fail_attempt(state, attempt, failure)
    text = message.contents.get(result.content.sha256) if result.content is not None else result.summary
    if text is None:
        size_bytes = result.content.size_bytes if result.content is not None else 0
        reason = f"step {step.id} looks at a result of {size_bytes} bytes; {bounds.MAX_GATE_BYTES} are read"
        return fail_attempt(state, attempt, Failure.from_text("input_too_large", reason, "have a step shorten it"))
    reasons: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    judge = step.gate.judge if step.gate is not None else None
    if judge is not None:
        reasons = list_judge_reasons(judge, text)
    elif step.gate is not None:
        reasons = list_gate_reasons(step.gate, text, is_citing=bool(result.citations))
    elif step.branch is not None:
        steps = choose_steps(step.branch, text)
        if isinstance(steps, Failure):
            return fail_attempt(state, attempt, steps)
        chosen = steps
    if not reasons and not chosen:
        # A worker that knows neither gates nor branches would say nothing, too; one that knows no judges not theirs.
        chosen = tuple(looked_at.of for looked_at in (step.gate, step.branch) if looked_at is not None)
        chosen += (judge.step,) if judge is not None else ()
    finished = StepFinished(**identity_of(body), result=Result(), reasons=reasons, chosen=chosen)
    return Transition(state.without_attempt(attempt), (Send("planner", finished),))


def _looked_at_result(body: StepAssigned) -> Result | None:
    """The result that a gate or a branch looks at, with a judge that judge's verdict; None of any other step."""
    gate, looked_at = body.step.gate, body.step.gate or body.step.branch
    step_id = looked_at.of if looked_at is not None else ""
    if gate is not None and gate.judge is not None:
        step_id = gate.judge.step
    return next((row.result for row in body.inputs if row.step_id == step_id), None)
