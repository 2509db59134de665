"""Answers that an attempt waits for or is asked for: of leases, of other steps, and words of the watcher. Pure.

In: what the planner says of leases and of peers, refusals of waits, warnings. Out: the agent loop goes on as after any
tool; a lease that came too late is given back.
"""

from bulkhead.flow import Decision, Message, replace
from bulkhead_contracts import bounds
from bulkhead_contracts.agent import AgentWarned, WaitRefused
from bulkhead_contracts.lease import LeaseEnded, LeaseGranted, LeaseRefused, LeaseRequested
from bulkhead_contracts.model import Part, ToolAnswer
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.result import Failure, merge_labels
from bulkhead_contracts.step import StepInput
from bulkhead_contracts.types import Body
from bulkhead_services.worker import peer_tools, results, turns
from bulkhead_services.worker.state import Attempt, Key, State

MAX_TOLD = 8


# Leases


def granted(state: State, message: Message, body: LeaseGranted) -> Decision[State]:
    """The lease is there: the call that waits for it is answered."""
    row = state.owner_of(body.lease_id)
    if row is None:
        if any(body.lease_id in attempt.leases for attempt in state.attempts.values()):
            return Decision(state)
        # The wait for it was refused, or its attempt is over: the first of both has won.
        owner = next((attempt for (_, step, _), attempt in state.attempts.items() if step == body.step_id), None)
        if owner is None:
            return Decision(state)
        return Decision(state, (peer_tools.withdrawn(body.lease_id, body.resource, message.task, owner),))
    key, attempt = row
    attempt = replace(attempt, leases={**attempt.leases, body.lease_id: body})
    text = (
        f"{body.resource} is leased to this step until unix ms {body.expires_unix_ms}; the fencing token is "
        f"{body.fencing_token}. Give it back with {peer_tools.RELEASE} as soon as it is not needed."
    )
    return _done(state, message, key, attempt, body.lease_id, (Part(kind="context", text=text),))


def lease_ended(state: State, message: Message, body: LeaseEnded) -> Decision[State]:
    """A lease has expired or was given back."""
    for key, attempt in state.attempts.items():
        if body.lease_id in attempt.leases:
            left = {name: lease for name, lease in attempt.leases.items() if name != body.lease_id}
            attempt = replace(attempt, leases=left)
            if body.why == "expired":
                text = (
                    f"The lease of {body.resource} has expired: others may use it now. "
                    f"Ask for it again with {peer_tools.ACQUIRE} before anything more is done to it."
                )
                attempt = _tell(attempt, text)
            state = state.with_attempt(key, attempt)
            break
    row = state.owner_of(body.call_id)
    if row is None:
        return Decision(state)
    text = f"The lease of {body.resource} is given back."
    return _done(state, message, *row, body.call_id, (Part(kind="context", text=text),))


def lease_refused(state: State, message: Message, body: LeaseRefused) -> Decision[State]:
    """There will be no lease, or nothing to give back."""
    name = body.call_id or body.lease_id
    row = state.owner_of(name)
    return Decision(state) if row is None else _failed(state, message, *row, name, body.failure)


# Other steps


def answered(state: State, message: Message, body: AnswerGiven) -> Decision[State]:
    """One of those that this step asked has answered, or refuses to."""
    row = state.owner_of(body.ask_id)
    if row is None:
        return Decision(state)
    key, attempt = row
    ask = attempt.outstanding[body.ask_id][0]
    before = attempt.heard.get(body.ask_id, ())
    if not isinstance(ask, AnswerRequested) or body.target not in ask.targets:
        return Decision(state)
    if any(answer.target == body.target for answer in before):
        return Decision(state)
    heard = (*before, body)
    attempt = replace(attempt, heard={**attempt.heard, body.ask_id: heard})
    good = [answer for answer in heard if answer.outcome == "answered"]
    if len(heard) < len(ask.targets) and not (ask.mode == "any" and good):
        return Decision(state.with_attempt(key, attempt))
    attempt = _unheard(attempt, body.ask_id)
    if not good:
        failures = [answer.failure.message for answer in heard if answer.failure]
        failure = Failure.of("no_answer", "; ".join(failures) or "nobody answered", "go on without it, and say so")
        return _failed(state, message, key, attempt, body.ask_id, failure)
    parts: list[Part] = []
    for answer in heard:
        attempt, part = _shown(attempt, answer)
        parts.append(part)
    return _done(state, message, key, attempt, body.ask_id, tuple(parts))


def _shown(attempt: Attempt, body: AnswerGiven) -> tuple[Attempt, Part]:
    """One answer: a result becomes an input of the step, with all that it rests on and lacks; an opinion is a text."""
    if body.outcome == "refused":
        why = body.failure.message if body.failure else "it gave no reason"
        return attempt, Part(kind="context", text=f"Step {body.target} gave no answer: {why}")
    if body.result is None:
        attempt = replace(attempt, labels=merge_labels(attempt.labels, body.provenance))
        return attempt, Part(kind="answer", text=body.text, step_id=body.target)
    assigned = attempt.assigned
    if all(row.step_id != body.target for row in assigned.inputs) and len(assigned.inputs) < bounds.MAX_STEP_INPUTS:
        given = StepInput(step_id=body.target, title=body.result.summary, result=body.result)
        attempt = replace(attempt, assigned=assigned.model_copy(update={"inputs": (*assigned.inputs, given)}))
    return attempt, Part(kind="context", text=f"Step {body.target} has finished; its result is one of the inputs now.")


def asked(state: State, body: AnswerRequested) -> State:
    """A peer wants to know something of a step that runs here."""
    for key, attempt in state.attempts.items():
        if attempt.phase == "over" or attempt.assigned.step.id not in body.targets:
            continue
        known = any(question.ask_id == body.ask_id for question in attempt.questions)
        if not known and len(attempt.questions) < bounds.MAX_OPEN_QUESTIONS:
            state = state.with_attempt(key, replace(attempt, questions=(*attempt.questions, body)))
    return state


# The watcher


def refused(state: State, message: Message, body: WaitRefused) -> Decision[State]:
    """The first of {answer, refusal} wins: what was answered is no longer outstanding."""
    row = state.owner_of(body.wait_id)
    if row is None:
        return Decision(state)
    key, attempt = row
    wanted: Body = attempt.outstanding[body.wait_id][0]
    if not isinstance(wanted, LeaseRequested | AnswerRequested):
        return Decision(state)
    failure = Failure.of("wait_refused", body.reason, body.hint)
    following = _failed(state, message, key, _unheard(attempt, body.wait_id), body.wait_id, failure)
    if not isinstance(wanted, LeaseRequested) or wanted.lease_id in attempt.leases:
        return following
    back = peer_tools.withdrawn(wanted.lease_id, wanted.resource, message.task, attempt)
    return Decision(following.state, (back, *following.outputs))


def warned(state: State, body: AgentWarned) -> State:
    """A watcher has something to say to a step, or ("") to every step that runs here."""
    for key, attempt in state.attempts.items():
        if attempt.phase != "over" and body.step_id in ("", attempt.assigned.step.id):
            text = f"{body.what}. {body.hint}".strip()[: bounds.MAX_INSTRUCTION_CHARS]
            state = state.with_attempt(key, _tell(attempt, f"A watcher of this mesh says of this step: {text}"))
    return state


def _tell(attempt: Attempt, text: str) -> Attempt:
    return attempt if text in attempt.told else replace(attempt, told=(*attempt.told, text)[-MAX_TOLD:])


def _unheard(attempt: Attempt, ask_id: str) -> Attempt:
    """Forget what was answered to this ask so far."""
    return replace(attempt, heard={name: answers for name, answers in attempt.heard.items() if name != ask_id})


# All of them


def _done(
    state: State, message: Message, key: Key, attempt: Attempt, name: str, parts: tuple[Part, ...]
) -> Decision[State]:
    """What was waited for is there: the loop goes on as after any tool."""
    call = attempt.outstanding[name][2]
    attempt = results.worked(attempt, attempt.asked_as(call))
    return _go_on(state, message, key, attempt, name, ToolAnswer(tool_call_id=call, parts=parts))


def _failed(state: State, message: Message, key: Key, attempt: Attempt, name: str, failure: Failure) -> Decision[State]:
    """There will be no answer; the model reads why, and the result says that it was made without."""
    call = attempt.outstanding[name][2]
    attempt = results.missed(attempt, attempt.asked_as(call), failure, slip=False)
    return _go_on(state, message, key, attempt, name, ToolAnswer(tool_call_id=call, error=failure))


def _go_on(
    state: State, message: Message, key: Key, attempt: Attempt, name: str, answer: ToolAnswer
) -> Decision[State]:
    left = {call_id: row for call_id, row in attempt.outstanding.items() if call_id != name}
    attempt = replace(attempt, outstanding=left, answers={**attempt.answers, answer.tool_call_id: answer})
    return turns.next_turn(state, message, key, attempt)
