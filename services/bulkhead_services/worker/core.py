"""The worker decides: one step as an agent loop, by messages: think, act, observe, finish. Everything is capped.

In: StepAssigned, replies of models, tools and retrieval, cancels, timers. Out: calls, and at the end the proposed
result (to the checker) or the finished step (to the planner). Content is handed on by reference, never read here.
"""

from typing import Any

from bulkhead.flow import Decider, Decision, Message, Output, Send, SetTimer, replace
from bulkhead_contracts import bounds, envelope
from bulkhead_contracts.control import CallDeferred, TimerFired
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested, Part, ToolAnswer, Turn
from bulkhead_contracts.result import (
    Completeness,
    ContentRef,
    Failure,
    Omission,
    Result,
    Usage,
    merge_completeness,
    merge_labels,
)
from bulkhead_contracts.retrieval import RetrievalReplied
from bulkhead_contracts.step import Evidence, StepAssigned, StepCancelRequested, StepFinished, StepProposed
from bulkhead_contracts.tool import ToolCallReplied
from bulkhead_contracts.types import Body
from bulkhead_services.worker import calls, peer_tools, results
from bulkhead_services.worker.state import Attempt, Key, State

STEP_OUTPUT_TOKENS = 2_000
CHECK_MARGIN_MS = 5_000
"""So much of a step's time is left to the checker, when there is that much."""


class Worker(Decider[State]):
    """Decision logic, version 1."""

    service = "worker"
    opening = frozenset({StepAssigned})
    begins = frozenset({StepProposed})

    def initial(self) -> State:
        """Before any message."""
        return State()

    def wants(self, body: Body) -> tuple[ContentRef, ...]:
        """A worker reads no content: what is not read cannot instruct."""
        return ()

    def ended(self, state: State) -> bool:
        """A task's later steps may still come; memory is bounded by the shell."""
        return False

    def decide(self, state: State, message: Message) -> Decision[State]:
        """The transition table of state.py."""
        body: Any = message.body
        match body:
            case StepAssigned():
                return _assigned(state, message, body)
            case StepCancelRequested():
                return _cancelled(state, body)
            case TimerFired():
                return _again(state, body)
            case CallDeferred():
                return _deferred(state, message, body)
            case ModelCallReplied() | ToolCallReplied() | RetrievalReplied():
                found = state.owner_of(body.call_id)
                return Decision(state) if found is None else _replied(state, message, *found, body)
            case _:
                return Decision(state)


def _assigned(state: State, message: Message, body: StepAssigned) -> Decision[State]:
    key = (body.plan_version, body.step.id, body.attempt)
    if key in state.attempts:
        return Decision(state)
    attempt = Attempt(assigned=body, grant=message.envelope.grant)
    if body.step.kind == "noop":
        result = results.noted(body)
        finished = StepFinished(
            step_id=body.step.id, attempt=body.attempt, plan_version=body.plan_version, result=result
        )
        return Decision(state.with_attempt(key, _over(attempt)), (Send("planner", finished),))
    return _think(state, message, key, attempt)


def _cancelled(state: State, body: StepCancelRequested) -> Decision[State]:
    key = (body.plan_version, body.step_id, body.attempt)
    attempt = state.attempts.get(key)
    if attempt is None or attempt.phase == "over":
        return Decision(state)
    # What was spent until now must be counted, though nobody waits for the result.
    return _fail(state, key, attempt, Failure.of("cancelled", body.reason or "the step was stopped"))


# Think


def _think(state: State, message: Message, key: Key, attempt: Attempt) -> Decision[State]:
    assigned = attempt.assigned
    if len(attempt.turns) >= bounds.MAX_TURNS_PER_STEP:
        return _fail(
            state,
            key,
            attempt,
            Failure.of(
                code="turn_cap",
                message=f"no answer after {bounds.MAX_TURNS_PER_STEP} turns of the model",
                hint="the step may be too large or loops: look at `bulkhead timeline TASK`",
            ),
        )
    call_id = _model_call_id(key, len(attempt.turns))
    body = ModelCallRequested(
        call_id=call_id,
        step_id=assigned.step.id,
        attempt=assigned.attempt,
        prompt_id=f"worker.{assigned.step.role}",
        parts=(*_parts(assigned), *peer_tools.shown(attempt)),
        turns=attempt.turns,
        tools=assigned.tools,
        max_output_tokens=STEP_OUTPUT_TOKENS,
        deadline_unix_ms=call_deadline(assigned, message),
    )
    attempt = replace(
        attempt, phase="thinking", asked=(), said=None, answers={}, outstanding={call_id: (body, "model_gateway", "")}
    )
    return Decision(state.with_attempt(key, attempt), (Send("model_gateway", body, grant=attempt.grant),))


def _model_call_id(key: Key, turn: int) -> str:
    return envelope.derive_id("worker", "/".join(map(str, key)), f"turn-{turn}")


def call_deadline(assigned: StepAssigned, message: Message) -> int:
    left = assigned.deadline_unix_ms - message.time_unix_ms
    return assigned.deadline_unix_ms - min(CHECK_MARGIN_MS, max(0, left // 4))


def _parts(assigned: StepAssigned) -> tuple[Part, ...]:
    step = assigned.step
    text = f"{step.title}\n{step.instruction}" if step.title else step.instruction
    if step.acceptance:
        text += f"\nAcceptance: {step.acceptance}"
    parts = [Part(kind="objective", content=assigned.objective), Part(kind="step", text=text, step_id=step.id)]
    for one in assigned.inputs:
        parts.append(
            Part(
                kind="input",
                content=one.result.content,
                step_id=one.step_id,
                title=one.title,
                text="" if one.result.content else one.result.summary,
            )
        )
        if warning := _warning(one.result):
            parts.append(Part(kind="context", text=f"About the result of {one.step_id}: {warning}"))
    if assigned.notes:
        text = "\n".join(f"- {note}" for note in assigned.notes)
        parts.append(Part(kind="notes", text=text[: bounds.MAX_INSTRUCTION_CHARS]))
    return tuple(parts)


def _warning(result: Result) -> str:
    """What whoever builds on a result must know."""
    found = []
    if result.standing != "ok":
        found.append(f"it is {result.standing}: {result.standing_reason}")
    found += [f"{one.reason}: {one.what} {one.detail}".strip() for one in result.completeness.omissions[:8]]
    return "; ".join(found)[: bounds.MAX_REASON_CHARS]


# Act and observe


def _replied(
    state: State,
    message: Message,
    key: Key,
    attempt: Attempt,
    body: ModelCallReplied | ToolCallReplied | RetrievalReplied,
) -> Decision[State]:
    _, _, model_call = attempt.outstanding[body.call_id]
    outstanding = {name: one for name, one in attempt.outstanding.items() if name != body.call_id}
    attempt = replace(
        attempt,
        outstanding=outstanding,
        usage=attempt.usage + body.usage,
        deferrals=0,
        labels=merge_labels(attempt.labels, body.provenance),
    )
    if isinstance(body, ModelCallReplied):
        return _thought(state, message, key, attempt, body)
    attempt = replace(
        attempt,
        completeness=merge_completeness(attempt.completeness, body.completeness),
        degraded=_degraded(attempt, body.standing, body.failure.message if body.failure else "by its source"),
    )
    if isinstance(body, ToolCallReplied) and body.outcome == "uncertain":
        failure = body.failure or Failure.of(code="uncertain", message="a write may or may not have happened")
        return _fail(state, key, attempt, failure.model_copy(update={"code": "uncertain_effect"}))
    if body.failure is not None and body.failure.code in ("refused_by_budget", "halted"):
        return _fail(state, key, attempt, body.failure)
    attempt = _observe(attempt, body, model_call)
    return next_turn(state, message, key, attempt)


def _degraded(attempt: Attempt, standing: str, reason: str) -> tuple[str, ...]:
    return (*attempt.degraded, reason)[-8:] if standing == "degraded" else attempt.degraded


def _thought(state: State, message: Message, key: Key, attempt: Attempt, body: ModelCallReplied) -> Decision[State]:
    if body.outcome != "answered":
        failure = body.failure or Failure.of(code="model_failed", message="the model gave no answer")
        return _fail(state, key, attempt, failure)
    attempt = replace(
        attempt,
        degraded=_degraded(attempt, body.standing, body.standing_reason),
        completeness=merge_completeness(attempt.completeness, body.completeness),
    )
    if body.tool_calls:
        return _act(state, message, key, attempt, body)
    if body.content is None:
        return _fail(state, key, attempt, Failure.of(code="empty_answer", message="the model answered with nothing"))
    return _finish(state, key, attempt, body.content)


def _act(state: State, message: Message, key: Key, attempt: Attempt, body: ModelCallReplied) -> Decision[State]:
    """Send every call that can be sent, in parallel; the others are answered with an error at once."""
    made: calls.Outgoing | peer_tools.AtOnce | Failure
    turn, answers, outstanding = len(attempt.turns), {}, {}
    sends: list[Output] = []
    errors, failed = attempt.errors, dict(attempt.failed_tools)
    granted = {tool.name for tool in attempt.assigned.tools}
    logic = message.envelope.logic
    for index, call in enumerate(body.tool_calls):
        if state.waits and call.name in peer_tools.TOOLS:
            made = peer_tools.request(attempt, message, call, (turn, index), outstanding)
        else:
            made = calls.request(attempt.assigned, call, turn, index, _made_before(attempt, body, index, logic), logic)
        if isinstance(made, peer_tools.AtOnce):
            attempt, answers[call.id] = made.attempt, made.answer
            sends += made.sends
            continue
        if isinstance(made, Failure) and call.name in granted:
            # A tool that no call ever reached is missing from the result as much as one that failed.
            failed[call.name] = made.message
        if isinstance(made, Failure) or made.call_id in outstanding:
            errors += 1
            failure = (
                made
                if isinstance(made, Failure)
                else Failure.of(code="repeated_call", message="the same call stands twice in one turn")
            )
            answers[call.id] = ToolAnswer(tool_call_id=call.id, error=failure)
        else:
            outstanding[made.call_id] = (made.body, made.to, call.id)
            sends.append(Send(made.to, made.body, grant=attempt.grant, task=made.task))
    attempt = replace(
        attempt,
        phase="acting",
        asked=body.tool_calls,
        said=body.content,
        answers=answers,
        outstanding=outstanding,
        errors=errors,
        failed_tools=failed,
        calls=attempt.calls + len(sends),
    )
    if errors > bounds.MAX_CALL_ERRORS_PER_STEP:
        return _fail(
            state,
            key,
            attempt,
            Failure.of(
                code="call_error_cap",
                message=f"the model made {errors} calls that no tool can take; last: "
                f"{next(reversed(answers.values())).error.message if answers else ''}",  # type: ignore[union-attr]
                hint="use a model that calls tools well, or simplify the tools' parameters",
            ),
        )
    if attempt.calls > bounds.MAX_CALLS_PER_STEP:
        return _fail(
            state,
            key,
            attempt,
            Failure.of(
                code="call_cap",
                message=f"over {bounds.MAX_CALLS_PER_STEP} calls in one step",
                hint="the step may loop: look at `bulkhead timeline TASK`",
            ),
        )
    if outstanding:
        return Decision(state.with_attempt(key, attempt), tuple(sends))
    following = next_turn(state, message, key, attempt)
    return Decision(following.state, (*sends, *following.outputs))


def _made_before(attempt: Attempt, body: ModelCallReplied, index: int, logic: int) -> int:
    """How often this attempt made the same call in earlier turns (or earlier in this one)."""
    this = body.tool_calls[index]
    same = sum(
        one.name == this.name and _same(one.arguments_json, this.arguments_json, logic)
        for turn in attempt.turns
        for one in turn.tool_calls
    )
    return same + sum(
        one.name == this.name and _same(one.arguments_json, this.arguments_json, logic)
        for one in body.tool_calls[:index]
    )


def _same(one: str, other: str, logic: int) -> bool:
    return calls.canonical(one, logic) == calls.canonical(other, logic)


def _observe(attempt: Attempt, body: ToolCallReplied | RetrievalReplied, model_call: str) -> Attempt:
    """Keep the answer for the model, and what was seen as evidence."""
    name = next((one.name for one in attempt.asked if one.id == model_call), "")
    failed = {key: why for key, why in attempt.failed_tools.items() if key != name}
    evidence = attempt.evidence
    if body.failure is not None:
        if body.outcome in ("failed", "refused"):
            failed[name] = body.failure.message
        errors = attempt.errors + (body.outcome == "refused")
        answer = ToolAnswer(tool_call_id=model_call, error=body.failure)
        return replace(attempt, answers={**attempt.answers, model_call: answer}, failed_tools=failed, errors=errors)
    if isinstance(body, RetrievalReplied):
        parts = tuple(
            Part(kind="passage", content=one.content, source=one.citation.document, title=one.title)
            for one in body.passages
        )
        seen = tuple(
            Evidence(content=one.content, label=label, citation=one.citation)
            for one, label in zip(body.passages, body.provenance, strict=False)
        )
    else:
        parts = (Part(kind="tool_result", content=body.content, source=name),) if body.content else ()
        seen = tuple(Evidence(content=body.content, label=label) for label in body.provenance[:1] if body.content)
    known = {one.content.sha256 for one in evidence}
    evidence = (*evidence, *(one for one in seen if one.content.sha256 not in known))
    completeness = attempt.completeness
    if len(evidence) > bounds.MAX_EVIDENCE:
        cut = Omission(reason="pruned", what=f"evidence beyond the first {bounds.MAX_EVIDENCE} pieces")
        completeness = merge_completeness(completeness, Completeness.missing(cut))
        evidence = evidence[: bounds.MAX_EVIDENCE]
    answer = ToolAnswer(tool_call_id=model_call, parts=parts)
    return replace(attempt, answers={**attempt.answers, model_call: answer}, failed_tools=failed, evidence=evidence)


def next_turn(state: State, message: Message, key: Key, attempt: Attempt) -> Decision[State]:
    """When every call of the turn is answered, the model sees the answers, in its own order."""
    if attempt.outstanding:
        return Decision(state.with_attempt(key, attempt))
    if attempt.errors > bounds.MAX_CALL_ERRORS_PER_STEP:
        return _fail(
            state,
            key,
            attempt,
            Failure.of(
                code="call_error_cap",
                message=f"{attempt.errors} calls of this step were refused",
                hint="look at `bulkhead timeline TASK`; the model does not use its tools well",
            ),
        )
    turn = Turn(
        content=attempt.said,
        tool_calls=attempt.asked,
        answers=tuple(attempt.answers[one.id] for one in attempt.asked if one.id in attempt.answers),
    )
    return _think(state, message, key, replace(attempt, turns=(*attempt.turns, turn)))


# Waiting


def _deferred(state: State, message: Message, body: CallDeferred) -> Decision[State]:
    found = state.owner_of(body.call_id)
    if found is None:
        return Decision(state)
    key, attempt = found
    if attempt.deferrals >= bounds.MAX_CALL_DEFERRALS:
        return _fail(
            state,
            key,
            attempt,
            Failure.of(
                code="deferred_too_often",
                message=f"a call was put off {attempt.deferrals} times; last: {body.reason}",
                hint="is the budget service up? see `bulkhead doctor`",
            ),
        )
    attempt = replace(attempt, deferrals=attempt.deferrals + 1)
    due = message.time_unix_ms + body.after_ms * min(attempt.deferrals, 8)
    return Decision(state.with_attempt(key, attempt), (SetTimer(f"again-{body.call_id}", due),))


def _again(state: State, body: TimerFired) -> Decision[State]:
    found = state.owner_of(body.key.removeprefix("again-"))
    if found is None:
        return Decision(state)
    _, attempt = found
    request, to, _ = attempt.outstanding[body.key.removeprefix("again-")]
    return Decision(state, (Send(to, request, grant=attempt.grant),))


# The end


def _finish(state: State, key: Key, attempt: Attempt, content: ContentRef) -> Decision[State]:
    assigned = attempt.assigned
    result = results.made(attempt, content)
    done = state.with_attempt(key, _over(attempt))
    if not assigned.check:
        return Decision(
            done,
            (
                Send(
                    "planner",
                    StepFinished(
                        step_id=assigned.step.id,
                        attempt=assigned.attempt,
                        plan_version=assigned.plan_version,
                        result=result,
                        usage=attempt.usage,
                    ),
                ),
            ),
        )
    return Decision(
        done,
        (
            Send(
                "checker",
                StepProposed(
                    step=assigned.step,
                    attempt=assigned.attempt,
                    plan_version=assigned.plan_version,
                    objective=assigned.objective,
                    result=result,
                    evidence=attempt.evidence,
                    inputs=assigned.inputs,
                    usage=attempt.usage,
                    deadline_unix_ms=assigned.deadline_unix_ms,
                ),
                grant=attempt.grant,
            ),
        ),
    )


def _fail(state: State, key: Key, attempt: Attempt, failure: Failure) -> Decision[State]:
    assigned = attempt.assigned
    result = Result(standing="failed", standing_reason=failure.message[: bounds.MAX_REASON_CHARS])
    finished = StepFinished(
        step_id=assigned.step.id,
        attempt=assigned.attempt,
        plan_version=assigned.plan_version,
        result=result,
        failure=failure,
        usage=attempt.usage,
    )
    return Decision(state.with_attempt(key, _over(attempt)), (Send("planner", finished),))


def _over(attempt: Attempt) -> Attempt:
    """Forget what an ended attempt gathered; its key stays, so that a repeat is known."""
    return Attempt(
        assigned=attempt.assigned.model_copy(update={"inputs": (), "tools": ()}), grant="", phase="over", usage=Usage()
    )
