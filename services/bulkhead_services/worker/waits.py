"""Answers that an attempt waits for or is asked for: of leases, of other steps, and words of the watcher. Pure.

In: `LeaseGranted`, `LeaseEnded`, `LeaseRefused`, `AnswerGiven`, `AnswerRequested`, `WaitRefused`, `AgentWarned`. Out:
the agent loop goes on as after any tool; a lease that came too late is given back.
"""

from bulkhead.flow import InboxMessage, Transition, replace
from bulkhead_contracts import bounds
from bulkhead_contracts.agent import AgentWarned, WaitRefused
from bulkhead_contracts.lease import LeaseEnded, LeaseGranted, LeaseRefused, LeaseRequested
from bulkhead_contracts.model import Part, ToolAnswer
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.result import Failure, cut_completeness, merge_completeness, merge_labels
from bulkhead_contracts.step import StepInput
from bulkhead_contracts.types import Body
from bulkhead_services.worker import calls
from bulkhead_services.worker.attempts import next_turn, record_failed_call, record_working_call
from bulkhead_services.worker.state import StepAttempt, WorkerState

MAX_NOTICES = 8


# Leases


def on_lease_granted(state: WorkerState, message: InboxMessage, body: LeaseGranted) -> Transition[WorkerState]:
    """The lease is there: the call that waits for it is answered."""
    attempt = state.owner_of(body.lease_id)
    if attempt is None:
        if any(body.lease_id in attempt.leases for attempt in state.running.values()):
            return Transition(state)
        # The wait for it was refused, or its attempt is over: the first of both has won.
        owner = next((attempt for (_, step, _), attempt in state.running.items() if step == body.step_id), None)
        if owner is None and all(step != body.step_id for _, step, _ in state.over):
            return Transition(state)
        grant = owner.grant if owner is not None else ""
        withdrawal = calls.withdraw_lease(body.lease_id, body.resource, message.task, body.step_id, grant)
        return Transition(state, (withdrawal,))
    attempt = replace(attempt, leases={**attempt.leases, body.lease_id: body})
    text = (
        f"{body.resource} is leased to this step until unix ms {body.expires_unix_ms}; the fencing token is "
        f"{body.fencing_token}. Give it back with {calls.RELEASE} as soon as it is not needed."
    )
    return _answer_wait(state, message, attempt, body.lease_id, (Part(kind="context", text=text),))


def on_lease_ended(state: WorkerState, message: InboxMessage, body: LeaseEnded) -> Transition[WorkerState]:
    """A lease has expired or was given back."""
    holder = next((attempt for attempt in state.running.values() if body.lease_id in attempt.leases), None)
    if holder is not None:
        leases = {name: lease for name, lease in holder.leases.items() if name != body.lease_id}
        holder = replace(holder, leases=leases)
        if body.why == "expired":
            text = (
                f"The lease of {body.resource} has expired: others may use it now. "
                f"Ask for it again with {calls.ACQUIRE} before anything more is done to it."
            )
            holder = _with_notice(holder, text)
        state = state.with_attempt(holder)
    attempt = state.owner_of(body.call_id)
    if attempt is None:
        return Transition(state)
    text = f"The lease of {body.resource} is given back."
    return _answer_wait(state, message, attempt, body.call_id, (Part(kind="context", text=text),))


def on_lease_refused(state: WorkerState, message: InboxMessage, body: LeaseRefused) -> Transition[WorkerState]:
    """There will be no lease, or nothing to give back."""
    name = body.call_id or body.lease_id
    attempt = state.owner_of(name)
    return Transition(state) if attempt is None else _fail_wait(state, message, attempt, name, body.failure)


# Other steps


def on_answer_given(state: WorkerState, message: InboxMessage, body: AnswerGiven) -> Transition[WorkerState]:
    """One of those that this step asked has answered, or refuses to."""
    attempt = state.owner_of(body.ask_id)
    if attempt is None:
        return Transition(state)
    ask = attempt.outstanding[body.ask_id].request
    before = attempt.peer_answers.get(body.ask_id, ())
    if not isinstance(ask, AnswerRequested) or body.target not in ask.targets:
        return Transition(state)
    if any(answer.target == body.target for answer in before):
        return Transition(state)
    answers = (*before, body)
    attempt = replace(attempt, peer_answers={**attempt.peer_answers, body.ask_id: answers})
    good = [answer for answer in answers if answer.outcome == "answered"]
    if len(answers) < len(ask.targets) and not (ask.mode == "any" and good):
        return Transition(state.with_attempt(attempt))
    attempt = _without_answers(attempt, body.ask_id)
    if not good:
        failures = [answer.failure.message for answer in answers if answer.failure]
        failure = Failure.from_text(
            "no_answer", "; ".join(failures) or "nobody answered", "go on without it, and say so"
        )
        return _fail_wait(state, message, attempt, body.ask_id, failure)
    parts: list[Part] = []
    for answer in answers:
        attempt, part = _part_of_answer(attempt, answer)
        parts.append(part)
    return _answer_wait(state, message, attempt, body.ask_id, tuple(parts))


def _part_of_answer(attempt: StepAttempt, body: AnswerGiven) -> tuple[StepAttempt, Part]:
    """One answer: a result becomes an input of the step, with all that it rests on and lacks; an opinion is a text."""
    if body.outcome == "refused":
        reason = body.failure.message if body.failure else "it gave no reason"
        return attempt, Part(kind="context", text=f"Step {body.target} gave no answer: {reason}")
    if body.result is None:
        labels = attempt.labels, body.provenance
        completeness = merge_completeness(attempt.completeness, cut_completeness(labels))
        attempt = replace(attempt, labels=merge_labels(*labels), completeness=completeness)
        return attempt, Part(kind="answer", text=body.text, step_id=body.target)
    assigned = attempt.assigned
    if all(row.step_id != body.target for row in assigned.inputs) and len(assigned.inputs) < bounds.MAX_STEP_INPUTS:
        step_input = StepInput(step_id=body.target, title=body.result.summary, result=body.result)
        attempt = replace(attempt, assigned=assigned.model_copy(update={"inputs": (*assigned.inputs, step_input)}))
    return attempt, Part(kind="context", text=f"Step {body.target} has finished; its result is one of the inputs now.")


def on_answer_requested(state: WorkerState, message: InboxMessage, body: AnswerRequested) -> Transition[WorkerState]:
    """A peer wants to know something of a step that runs here."""
    for attempt in state.running.values():
        if attempt.assigned.step.id not in body.targets:
            continue
        is_known = any(question.ask_id == body.ask_id for question in attempt.questions)
        if not is_known and len(attempt.questions) < bounds.MAX_OPEN_QUESTIONS:
            state = state.with_attempt(replace(attempt, questions=(*attempt.questions, body)))
    return Transition(state)


# The watcher


def on_wait_refused(state: WorkerState, message: InboxMessage, body: WaitRefused) -> Transition[WorkerState]:
    """The first of {answer, refusal} wins: what was answered is no longer outstanding."""
    attempt = state.owner_of(body.wait_id)
    if attempt is None:
        return Transition(state)
    request: Body = attempt.outstanding[body.wait_id].request
    if not isinstance(request, LeaseRequested | AnswerRequested):
        return Transition(state)
    failure = Failure.from_text("wait_refused", body.reason, body.hint)
    following = _fail_wait(state, message, _without_answers(attempt, body.wait_id), body.wait_id, failure)
    if not isinstance(request, LeaseRequested) or request.lease_id in attempt.leases:
        return following
    step = attempt.assigned.step.id
    back = calls.withdraw_lease(request.lease_id, request.resource, message.task, step, attempt.grant)
    return Transition(following.state, (back, *following.outputs))


def on_agent_warned(state: WorkerState, message: InboxMessage, body: AgentWarned) -> Transition[WorkerState]:
    """A watcher has something to say to a step, or ("") to every step that runs here."""
    for attempt in state.running.values():
        if body.step_id in ("", attempt.assigned.step.id):
            text = f"{body.what}. {body.hint}".strip()[: bounds.MAX_INSTRUCTION_CHARS]
            state = state.with_attempt(_with_notice(attempt, f"A watcher of this mesh says of this step: {text}"))
    return Transition(state)


def _with_notice(attempt: StepAttempt, text: str) -> StepAttempt:
    return attempt if text in attempt.notices else replace(attempt, notices=(*attempt.notices, text)[-MAX_NOTICES:])


def _without_answers(attempt: StepAttempt, ask_id: str) -> StepAttempt:
    """Forget what was answered to this ask so far."""
    peer_answers = {name: answers for name, answers in attempt.peer_answers.items() if name != ask_id}
    return replace(attempt, peer_answers=peer_answers)


# All of them


def _answer_wait(
    state: WorkerState, message: InboxMessage, attempt: StepAttempt, name: str, parts: tuple[Part, ...]
) -> Transition[WorkerState]:
    """Answer a wait: the loop goes on as after any tool."""
    call = attempt.outstanding[name].model_call_id
    attempt = record_working_call(attempt, attempt.call_by_id(call))
    return _continue_loop(state, message, attempt, name, ToolAnswer(tool_call_id=call, parts=parts))


def _fail_wait(
    state: WorkerState, message: InboxMessage, attempt: StepAttempt, name: str, failure: Failure
) -> Transition[WorkerState]:
    """There will be no answer; the model reads why, and the result says that it was made without."""
    call = attempt.outstanding[name].model_call_id
    attempt = record_failed_call(attempt, attempt.call_by_id(call), failure, slip=False)
    return _continue_loop(state, message, attempt, name, ToolAnswer(tool_call_id=call, error=failure))


def _continue_loop(
    state: WorkerState, message: InboxMessage, attempt: StepAttempt, name: str, answer: ToolAnswer
) -> Transition[WorkerState]:
    outstanding = {call_id: row for call_id, row in attempt.outstanding.items() if call_id != name}
    attempt = replace(attempt, outstanding=outstanding, answers={**attempt.answers, answer.tool_call_id: answer})
    return next_turn(state, message, attempt)
