"""The worker decides: one step as an agent loop, by messages: think, act, observe, finish. Everything is capped.

In: StepAssigned, replies of models, tools, retrieval and doors, answers of leases and peers, cancels, pauses, timers.
Out: calls, and at the end the proposed result (to the checker) or the finished step (to the planner).
"""

from typing import Any

from bulkhead.flow import Decider, Decision, Message, Send, replace
from bulkhead_contracts import bounds
from bulkhead_contracts.agent import AgentWarned, WaitRefused
from bulkhead_contracts.control import CallDeferred, CallResumed, TimerFired
from bulkhead_contracts.lease import LeaseEnded, LeaseGranted, LeaseQueued, LeaseRefused
from bulkhead_contracts.model import ModelCallReplied, Part, ToolAnswer
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.result import Completeness, ContentRef, Failure, Omission, merge_completeness, merge_labels
from bulkhead_contracts.retrieval import RetrievalReplied
from bulkhead_contracts.step import (
    DelegationReplied,
    Evidence,
    StepAssigned,
    StepCancelRequested,
    StepExtended,
    StepFinished,
    StepProposed,
)
from bulkhead_contracts.tool import ToolCallReplied
from bulkhead_contracts.types import Body
from bulkhead_services.worker import calls, delegated, pauses, peer_tools, peers, results, turns
from bulkhead_services.worker.state import Attempt, Key, State, place_of

Reply = ModelCallReplied | ToolCallReplied | RetrievalReplied | DelegationReplied


class Worker(Decider[State]):
    """Decision logic, version 1."""

    service = "worker"
    opening = frozenset({StepAssigned})
    begins = frozenset({StepProposed})

    def decide(self, state: State, message: Message) -> Decision[State]:
        """The transition table of state.py; pauses that changed are told first, and ended attempts give back leases."""
        after, outputs = _decide(state, message)
        # First: whoever hears of a step's end need not hear of its pause.
        after, paused = pauses.settle(state, after)
        going = ((attempt, after.attempts[key]) for key, attempt in state.attempts.items() if attempt.phase != "over")
        ended = (before for before, now in going if now.phase == "over")
        back = tuple(send for attempt in ended for send in peer_tools.give_back(attempt, message.task))
        return Decision(after, (*paused, *outputs, *back))

    def initial(self) -> State:
        """Before any message."""
        return State()

    def wants(self, body: Body) -> tuple[ContentRef, ...]:
        """A worker reads no content: what is not read cannot instruct."""
        return ()

    def ended(self, state: State) -> bool:
        """A task's later steps may still come; memory is bounded by the shell."""
        return False


def _decide(state: State, message: Message) -> Decision[State]:
    body: Any = message.body
    match body:
        case StepAssigned():
            return _assigned(state, message, body)
        case ModelCallReplied() | ToolCallReplied() | RetrievalReplied() | DelegationReplied():
            row = state.owner_of(body.call_id)
            return Decision(state) if row is None else _replied(state, message, *row, body)
        case CallDeferred() | CallResumed() if message.envelope.source == "doors":
            return delegated.held(state, body)
        case CallDeferred():
            return pauses.deferred(state, message, body)
        case CallResumed():
            return pauses.ask_again(state, message, body.call_id, resumed=True)
        case TimerFired() if body.key.startswith(pauses.TIMER):
            return pauses.ask_again(state, message, body.key.removeprefix(pauses.TIMER), resumed=False)
        case StepExtended():
            return delegated.extended(pauses.extended(state, message, body), body)
        case StepCancelRequested():
            return _cancelled(state, body)
        case LeaseGranted():
            return peers.granted(state, message, body)
        case LeaseEnded():
            return peers.lease_ended(state, message, body)
        case LeaseRefused():
            return peers.lease_refused(state, message, body)
        case LeaseQueued():
            return Decision(state)  # It stands in the inbox for those who ask why the step waits.
        case AnswerGiven():
            return peers.answered(state, message, body)
        case AnswerRequested():
            return Decision(peers.asked(state, body))
        case WaitRefused():
            return peers.refused(state, message, body)
        case AgentWarned():
            return Decision(peers.warned(state, body))
        case _:
            return Decision(state)


def _assigned(state: State, message: Message, body: StepAssigned) -> Decision[State]:
    key = (body.plan_version, body.step.id, body.attempt)
    if key in state.attempts:
        return Decision(state)
    attempt = Attempt(assigned=body, grant=message.envelope.grant)
    if body.step.kind == "noop":
        finished = StepFinished(**place_of(body), result=results.noted(body))
        return Decision(state.with_attempt(key, turns.over(attempt)), (Send("planner", finished),))
    if body.delegated is not None:
        return delegated.begin(state, key, attempt)
    return turns.think(state, message, key, attempt)


def _cancelled(state: State, body: StepCancelRequested) -> Decision[State]:
    key = (body.plan_version, body.step_id, body.attempt)
    attempt = state.attempts.get(key)
    if attempt is None or attempt.phase == "over":
        return Decision(state)
    if delegated.at_doors(attempt):
        return delegated.cancelled(state, attempt, body)
    # What was spent until now must be counted, though nobody waits for the result.
    ended = turns.fail(state, key, attempt, Failure.of("cancelled", body.reason or "the step was stopped"))
    return Decision(ended.state, (*delegated.stops(attempt), *ended.outputs))


# Replies


def _replied(state: State, message: Message, key: Key, attempt: Attempt, body: Reply) -> Decision[State]:
    _, _, model_call = attempt.outstanding[body.call_id]
    outstanding = {name: row for name, row in attempt.outstanding.items() if name != body.call_id}
    labels = merge_labels(attempt.labels, body.provenance)
    attempt = replace(attempt, outstanding=outstanding, usage=attempt.usage + body.usage, deferrals=0, labels=labels)
    if isinstance(body, ModelCallReplied):
        return _thought(state, message, key, attempt, body)
    said = body.standing_reason if isinstance(body, DelegationReplied) else ""
    why = body.failure.message if body.failure else said or "by its source"
    attempt = _short_of(attempt, body.completeness, body.standing, why)
    if isinstance(body, ToolCallReplied) and body.outcome == "uncertain":
        failure = body.failure or Failure.of("uncertain", "a write may or may not have happened")
        return turns.fail(state, key, attempt, failure.model_copy(update={"code": "uncertain_effect"}))
    if body.failure is not None and body.failure.code in ("refused_by_budget", "halted"):
        return turns.fail(state, key, attempt, body.failure)
    if isinstance(body, DelegationReplied) or attempt.assigned.delegated is not None:
        content = None if isinstance(body, RetrievalReplied) else body.content
        return delegated.answered(state, key, attempt, content, body.failure)
    return turns.next_turn(state, message, key, _observe(attempt, body, model_call))


def _short_of(attempt: Attempt, lacks: Completeness, standing: str, reason: str) -> Attempt:
    """The attempt with what a reply lacks, and why it is degraded."""
    degraded = (*attempt.degraded, reason)[-8:] if standing == "degraded" else attempt.degraded
    return replace(attempt, completeness=merge_completeness(attempt.completeness, lacks), degraded=degraded)


def _thought(state: State, message: Message, key: Key, attempt: Attempt, body: ModelCallReplied) -> Decision[State]:
    if body.outcome != "answered":
        failure = body.failure or Failure.of("model_failed", "the model gave no answer")
        return turns.fail(state, key, attempt, failure)
    attempt = _short_of(attempt, body.completeness, body.standing, body.standing_reason)
    if body.tool_calls:
        return turns.act(state, message, key, attempt, body)
    if body.content is None:
        empty = Failure.of("empty_answer", "the model answered with nothing")
        return turns.fail(state, key, attempt, empty)
    return turns.finish(state, key, attempt, body.content)


def _observe(attempt: Attempt, body: ToolCallReplied | RetrievalReplied, model_call: str) -> Attempt:
    """Keep the answer for the model, and what was seen as evidence."""
    call = attempt.asked_as(model_call)
    name = call.name if call is not None else ""
    if body.failure is not None:
        if body.outcome in ("failed", "refused"):
            slip = body.failure.code in calls.SLIPS
            attempt = results.missed(attempt, call, body.failure, slip=slip)
        errors = attempt.errors + (body.outcome == "refused")
        answer = ToolAnswer(tool_call_id=model_call, error=body.failure)
        return replace(attempt, answers={**attempt.answers, model_call: answer}, errors=errors)
    parts: tuple[Part, ...]
    if isinstance(body, RetrievalReplied):
        parts = tuple(
            Part(kind="passage", content=row.content, source=row.citation.document, title=row.title)
            for row in body.passages
        )
        seen = tuple(
            Evidence(content=row.content, label=label, citation=row.citation)
            for row, label in zip(body.passages, body.provenance, strict=False)
        )
    else:
        parts = (Part(kind="tool_result", content=body.content, source=name),) if body.content else ()
        seen = tuple(Evidence(content=body.content, label=label) for label in body.provenance[:1] if body.content)
    answer = ToolAnswer(tool_call_id=model_call, parts=parts)
    attempt = replace(results.worked(attempt, call), answers={**attempt.answers, model_call: answer})
    return _with_evidence(attempt, seen)


def _with_evidence(attempt: Attempt, seen: tuple[Evidence, ...]) -> Attempt:
    """The attempt with what it has not seen before; what is too much is told as an omission."""
    known = {row.content.sha256 for row in attempt.evidence}
    evidence = (*attempt.evidence, *(row for row in seen if row.content.sha256 not in known))
    completeness = attempt.completeness
    if len(evidence) > bounds.MAX_EVIDENCE:
        cut = Omission(reason="pruned", what=f"evidence beyond the first {bounds.MAX_EVIDENCE} pieces")
        completeness = merge_completeness(completeness, Completeness.missing(cut))
        evidence = evidence[: bounds.MAX_EVIDENCE]
    return replace(attempt, evidence=evidence, completeness=completeness)
