"""Decision logic 4 of the worker: as before, and an agent may wait for other steps and for leases, and is told things.

In: as before; answers of peers and of leases, questions of peers, refusals of waits, warnings. Out: as before; asks and
requests for leases (waits.py). What an attempt holds it gives back when it is over, however that comes.
"""

from typing import Any

from bulkhead.flow import Decision, Message, SetTimer, replace
from bulkhead_contracts import bounds
from bulkhead_contracts.agent import AgentWarned, WaitRefused
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.lease import LeaseEnded, LeaseGranted, LeaseQueued, LeaseRefused, LeaseRequested
from bulkhead_contracts.model import Part, ToolAnswer
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.result import Failure, merge_labels
from bulkhead_contracts.step import StepInput
from bulkhead_contracts.types import Body
from bulkhead_services.worker import core, peer_tools
from bulkhead_services.worker.state import Attempt, Key, State

MAX_TOLD = 8


class WorkerV4(core.Worker):
    """Decision logic, version 4."""

    def initial(self) -> State:
        """Before any message."""
        return State(waits=True)

    def decide(self, state: State, message: Message) -> Decision[State]:
        """As before, over what can be waited for; who is over gives back what it held."""
        decision = self._decide(state, message)
        ended = [
            before
            for key, before in state.attempts.items()
            if before.phase != "over" and decision.state.attempts[key].phase == "over"
        ]
        back = tuple(send for one in ended for send in peer_tools.give_back(one, message.task))
        return Decision(decision.state, (*decision.outputs, *back))

    def _decide(self, state: State, message: Message) -> Decision[State]:
        body: Any = message.body
        match body:
            case LeaseGranted():
                return _granted(state, message, body)
            case LeaseEnded():
                return _ended(state, message, body)
            case LeaseRefused():
                found = state.owner_of(body.call_id or body.lease_id)
                name = body.call_id or body.lease_id
                return Decision(state) if found is None else _failed(state, message, *found, name, body.failure)
            case LeaseQueued():
                return Decision(state)  # It stands in the inbox for those who ask why the step waits.
            case AnswerGiven():
                return _answered(state, message, body)
            case AnswerRequested():
                return Decision(_asked(state, body))
            case WaitRefused():
                return _refused(state, message, body)
            case AgentWarned():
                return Decision(_warned(state, body))
            case CallDeferred() if body.paused:
                return _paused(state, message, body)
            case _:
                return super().decide(state, message)


# Leases


def _granted(state: State, message: Message, body: LeaseGranted) -> Decision[State]:
    found = state.owner_of(body.lease_id)
    if found is None:
        if any(body.lease_id in one.leases for one in state.attempts.values()):
            return Decision(state)
        # The wait for it was refused, or its attempt is over: the first of both has won.
        attempt = next((one for (_, step, _), one in state.attempts.items() if step == body.step_id), None)
        if attempt is None:
            return Decision(state)
        return Decision(state, (peer_tools.withdrawn(body.lease_id, body.resource, message.task, attempt),))
    key, attempt = found
    attempt = replace(attempt, leases={**attempt.leases, body.lease_id: body})
    text = (
        f"{body.resource} is leased to this step until unix ms {body.expires_unix_ms}; the fencing token is "
        f"{body.fencing_token}. Give it back with {peer_tools.RELEASE} as soon as it is not needed."
    )
    return _done(state, message, key, attempt, body.lease_id, (Part(kind="context", text=text),))


def _ended(state: State, message: Message, body: LeaseEnded) -> Decision[State]:
    for key, attempt in state.attempts.items():
        if body.lease_id in attempt.leases:
            left = {name: one for name, one in attempt.leases.items() if name != body.lease_id}
            attempt = replace(attempt, leases=left)
            if body.why == "expired":
                attempt = _tell(
                    attempt,
                    f"The lease of {body.resource} has expired: others may use it now. "
                    f"Ask for it again with {peer_tools.ACQUIRE} before anything more is done to it.",
                )
            state = state.with_attempt(key, attempt)
            break
    found = state.owner_of(body.call_id)
    if found is None:
        return Decision(state)
    text = f"The lease of {body.resource} is given back."
    return _done(state, message, *found, body.call_id, (Part(kind="context", text=text),))


# Peers


def _answered(state: State, message: Message, body: AnswerGiven) -> Decision[State]:
    found = state.owner_of(body.ask_id)
    if found is None:
        return Decision(state)
    key, attempt = found
    ask = attempt.outstanding[body.ask_id][0]
    before = attempt.heard.get(body.ask_id, ())
    if not isinstance(ask, AnswerRequested) or body.target not in ask.targets:
        return Decision(state)
    if any(one.target == body.target for one in before):
        return Decision(state)
    heard = (*before, body)
    attempt = replace(attempt, heard={**attempt.heard, body.ask_id: heard})
    good = [one for one in heard if one.outcome == "answered"]
    if len(heard) < len(ask.targets) and not (ask.mode == "any" and good):
        return Decision(state.with_attempt(key, attempt))
    attempt = replace(attempt, heard={name: one for name, one in attempt.heard.items() if name != body.ask_id})
    if not good:
        failures = [one.failure.message for one in heard if one.failure]
        failure = Failure.of("no_answer", "; ".join(failures) or "nobody answered", "go on without it, and say so")
        return _failed(state, message, key, attempt, body.ask_id, failure)
    parts: list[Part] = []
    for one in heard:
        attempt, part = _heard(attempt, one)
        parts.append(part)
    return _done(state, message, key, attempt, body.ask_id, tuple(parts))


def _heard(attempt: Attempt, body: AnswerGiven) -> tuple[Attempt, Part]:
    """One answer: a result becomes an input of the step, with all that it rests on and lacks; an opinion is a text."""
    if body.outcome == "refused":
        why = body.failure.message if body.failure else "it gave no reason"
        return attempt, Part(kind="context", text=f"Step {body.target} gave no answer: {why}")
    if body.result is None:
        attempt = replace(attempt, labels=merge_labels(attempt.labels, body.provenance))
        return attempt, Part(kind="answer", text=body.text, step_id=body.target)
    assigned = attempt.assigned
    if all(one.step_id != body.target for one in assigned.inputs) and len(assigned.inputs) < bounds.MAX_STEP_INPUTS:
        given = StepInput(step_id=body.target, title=body.result.summary, result=body.result)
        attempt = replace(attempt, assigned=assigned.model_copy(update={"inputs": (*assigned.inputs, given)}))
    return attempt, Part(kind="context", text=f"Step {body.target} has finished; its result is one of the inputs now.")


def _asked(state: State, body: AnswerRequested) -> State:
    """A peer wants to know something of a step that runs here."""
    for key, attempt in state.attempts.items():
        if attempt.phase == "over" or attempt.assigned.step.id not in body.targets:
            continue
        known = any(one.ask_id == body.ask_id for one in attempt.questions)
        if not known and len(attempt.questions) < bounds.MAX_OPEN_QUESTIONS:
            state = state.with_attempt(key, replace(attempt, questions=(*attempt.questions, body)))
    return state


# What comes from outside


def _refused(state: State, message: Message, body: WaitRefused) -> Decision[State]:
    """The first of {answer, refusal} wins: what was answered is no longer outstanding."""
    found = state.owner_of(body.wait_id)
    if found is None:
        return Decision(state)
    key, attempt = found
    wanted: Body = attempt.outstanding[body.wait_id][0]
    if not isinstance(wanted, LeaseRequested | AnswerRequested):
        return Decision(state)
    attempt = replace(attempt, heard={name: one for name, one in attempt.heard.items() if name != body.wait_id})
    failure = Failure.of("wait_refused", body.reason, body.hint)
    following = _failed(state, message, key, attempt, body.wait_id, failure)
    if not isinstance(wanted, LeaseRequested) or wanted.lease_id in attempt.leases:
        return following
    back = peer_tools.withdrawn(wanted.lease_id, wanted.resource, message.task, attempt)
    return Decision(following.state, (back, *following.outputs))


def _warned(state: State, body: AgentWarned) -> State:
    for key, attempt in state.attempts.items():
        if attempt.phase != "over" and body.step_id in ("", attempt.assigned.step.id):
            text = f"{body.what}. {body.hint}".strip()[: bounds.MAX_INSTRUCTION_CHARS]
            state = state.with_attempt(key, _tell(attempt, f"A watcher of this mesh says of this step: {text}"))
    return state


def _paused(state: State, message: Message, body: CallDeferred) -> Decision[State]:
    """Somebody halted it: it waits for as long as that lasts, and no cap ends it."""
    if state.owner_of(body.call_id) is None:
        return Decision(state)
    return Decision(state, (SetTimer(f"again-{body.call_id}", message.time_unix_ms + body.after_ms),))


def _tell(attempt: Attempt, text: str) -> Attempt:
    return attempt if text in attempt.told else replace(attempt, told=(*attempt.told, text)[-MAX_TOLD:])


# Both


def _done(
    state: State, message: Message, key: Key, attempt: Attempt, name: str, parts: tuple[Part, ...]
) -> Decision[State]:
    """What was waited for is there: the loop goes on as after any tool."""
    call = attempt.outstanding[name][2]
    tool = next((one.name for one in attempt.asked if one.id == call), "")
    failed = {key: why for key, why in attempt.failed_tools.items() if key != tool}
    answer = ToolAnswer(tool_call_id=call, parts=parts)
    return _go_on(state, message, key, replace(attempt, failed_tools=failed), name, answer)


def _failed(state: State, message: Message, key: Key, attempt: Attempt, name: str, failure: Failure) -> Decision[State]:
    """There will be no answer; the model reads why, and the result says that it was made without."""
    call = attempt.outstanding[name][2]
    tool = next((one.name for one in attempt.asked if one.id == call), "")
    attempt = replace(attempt, failed_tools={**attempt.failed_tools, tool: failure.message})
    return _go_on(state, message, key, attempt, name, ToolAnswer(tool_call_id=call, error=failure))


def _go_on(
    state: State, message: Message, key: Key, attempt: Attempt, name: str, answer: ToolAnswer
) -> Decision[State]:
    left = {one: what for one, what in attempt.outstanding.items() if one != name}
    attempt = replace(attempt, outstanding=left, answers={**attempt.answers, answer.tool_call_id: answer})
    return core.next_turn(state, message, key, attempt)
