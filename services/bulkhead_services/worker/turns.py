"""One turn of a step's agent loop: ask the model, send the calls it makes, and end the step. Everything is capped.

In: an attempt, and a reply of its model. Out: a model call, calls of tools and of peers, or the step's end: a proposed
result (to the checker) or a finished step (to the planner). Content is handed on by reference, never read here.
"""

from collections.abc import Iterator

from bulkhead.flow import Decision, Message, Output, Send, replace
from bulkhead_contracts import bounds, envelope
from bulkhead_contracts.model import (
    DEFAULT_TIER,
    ModelCallReplied,
    ModelCallRequested,
    Part,
    ToolAnswer,
    ToolCall,
    Turn,
)
from bulkhead_contracts.result import ContentRef, Failure, Label, Result, Usage, merge_labels
from bulkhead_contracts.step import Evidence, StepAssigned, StepFinished, StepProposed
from bulkhead_contracts.types import Body
from bulkhead_services.worker import calls, peer_tools, results
from bulkhead_services.worker.state import Attempt, Key, State, place_of

STEP_OUTPUT_TOKENS = 2_000
OBSERVED = frozenset({"passage", "tool_result"})
MADE_ONCE = Failure.of(
    "repeated_call",
    "the same call stands twice in one turn, and is made once",
    "if it is to be made twice, call it again in a later turn",
)
CHECK_MARGIN_MS = 5_000
"""So much of a step's time is left to the checker, when there is that much."""


# Think


def think(state: State, message: Message, key: Key, attempt: Attempt) -> Decision[State]:
    """Ask the model, with all that was answered until now."""
    assigned = attempt.assigned
    if len(attempt.turns) >= bounds.MAX_TURNS_PER_STEP:
        what = f"no answer after {bounds.MAX_TURNS_PER_STEP} turns of the model"
        failure = Failure.of("turn_cap", what, "the step may be too large or loops: look at `bulkhead timeline TASK`")
        return fail(state, key, attempt, failure)
    call_id = envelope.derive_id("worker", "/".join(map(str, key)), f"turn-{len(attempt.turns)}")
    body = ModelCallRequested(
        call_id=call_id,
        step_id=assigned.step.id,
        attempt=assigned.attempt,
        prompt_id=f"worker.{assigned.step.role}",
        parts=_parts(assigned),
        latest=peer_tools.shown(attempt),
        turns=attempt.turns,
        labels=_labels(attempt),
        tools=assigned.tools,
        tier=assigned.route or DEFAULT_TIER,
        max_output_tokens=STEP_OUTPUT_TOKENS,
        output=assigned.output,
        deadline_unix_ms=call_deadline(assigned, message),
    )
    attempt = replace(
        attempt, phase="thinking", asked=(), said=None, answers={}, outstanding={call_id: (body, "model_gateway", "")}
    )
    return Decision(state.with_attempt(key, attempt), (Send("model_gateway", body, grant=attempt.grant),))


def call_deadline(assigned: StepAssigned, message: Message) -> int:
    """Until when a model may answer that is asked now."""
    left = assigned.deadline_unix_ms - message.time_unix_ms
    return assigned.deadline_unix_ms - min(CHECK_MARGIN_MS, max(0, left // 4))


def _parts(assigned: StepAssigned) -> tuple[Part, ...]:
    step = assigned.step
    parts = [Part(kind="objective", content=assigned.objective), Part(kind="step", text=step.text, step_id=step.id)]
    for given in assigned.inputs:
        content, summary = given.result.content, "" if given.result.content else given.result.summary
        parts.append(Part(kind="input", content=content, step_id=given.step_id, title=given.title, text=summary))
        if warning := _warning(given.result):
            parts.append(Part(kind="context", text=f"About the result of {given.step_id}: {warning}"))
    if assigned.notes:
        text = "\n".join(f"- {note}" for note in assigned.notes)
        parts.append(Part(kind="notes", text=text[: bounds.MAX_INSTRUCTION_CHARS]))
    return tuple(parts)


def _labels(attempt: Attempt) -> tuple[Label, ...]:
    """What the model gateway may go by where it says from where a call's arguments come: the requester's own words, and
    what tools and documents said, here and in the steps that this one builds on."""
    if not any(tool.consequential for tool in attempt.assigned.tools):
        return ()  # Nobody asks from where they come.
    before = (given.result.provenance for given in attempt.assigned.inputs)
    own = attempt.assigned.labels
    seen = merge_labels(own, attempt.labels, *before)
    return tuple(label for label in seen if label in own or label.kind in OBSERVED)


def _warning(result: Result) -> str:
    """What whoever builds on a result must know."""
    reasons = []
    if result.standing != "ok":
        reasons.append(f"it is {result.standing}: {result.standing_reason}")
    reasons += [f"{row.reason}: {row.what} {row.detail}".strip() for row in result.completeness.omissions[:8]]
    return "; ".join(reasons)[: bounds.MAX_REASON_CHARS]


# Act


def act(state: State, message: Message, key: Key, attempt: Attempt, body: ModelCallReplied) -> Decision[State]:
    """Send every call that can be sent, in parallel; the others are answered with an error at once."""
    made: calls.Outgoing | peer_tools.AtOnce | Failure
    turn = len(attempt.turns)
    answers: dict[str, ToolAnswer] = {}
    outstanding: dict[str, tuple[Body, str, str]] = {}
    sends: list[Output] = []
    sent: set[str] = set()
    errors = attempt.errors
    granted = {tool.name: tool for tool in attempt.assigned.tools}
    for index, call in enumerate(body.tool_calls):
        if call.name in granted and granted[call.name].consequential and calls.identity(call) in sent:
            # Nearly always a slip. Whoever means it twice says so once he has seen what came of it.
            answers[call.id] = ToolAnswer(tool_call_id=call.id, error=MADE_ONCE)
            continue
        if call.name in peer_tools.TOOLS:
            made = peer_tools.request(attempt, message, call, (turn, index), outstanding)
        else:
            made = calls.request(attempt.assigned, call, turn, index, _made_before(attempt, call))
        if isinstance(made, peer_tools.AtOnce):
            attempt, answers[call.id] = made.attempt, made.answer
            sends += made.sends
            continue
        if isinstance(made, Failure) and call.name in granted:
            # A tool that no call ever reached is missing from the result as much as one that failed.
            attempt = results.missed(attempt, call, made, slip=True)
        if isinstance(made, calls.Outgoing) and made.call_id in outstanding:
            made = Failure.of("repeated_call", "the same call stands twice in one turn")
        if isinstance(made, Failure):
            errors += 1
            answers[call.id] = ToolAnswer(tool_call_id=call.id, error=made)
        else:
            sent.add(calls.identity(call))
            outstanding[made.call_id] = (made.body, made.to, call.id)
            sends.append(Send(made.to, made.body, grant=attempt.grant, task=made.task))
    attempt = replace(attempt, phase="acting", asked=body.tool_calls, said=body.content, answers=answers)
    attempt = replace(attempt, outstanding=outstanding, errors=errors, calls=attempt.calls + len(sends))
    if failure := _over_a_cap(attempt):
        return fail(state, key, attempt, failure)
    if outstanding:
        return Decision(state.with_attempt(key, attempt), tuple(sends))
    following = next_turn(state, message, key, attempt)
    return Decision(following.state, (*sends, *following.outputs))


def _over_a_cap(attempt: Attempt) -> Failure | None:
    """Why the calls of this turn are too many."""
    if attempt.errors > bounds.MAX_CALL_ERRORS_PER_STEP:
        refused = [answer.error.message for answer in attempt.answers.values() if answer.error is not None]
        why = refused[-1] if refused else ""
        what = f"the model made {attempt.errors} calls that no tool can take; last: {why}"
        hint = "use a model that calls tools well, or simplify the tools' parameters"
        return Failure.of("call_error_cap", what, hint)
    if attempt.calls > bounds.MAX_CALLS_PER_STEP:
        what = f"over {bounds.MAX_CALLS_PER_STEP} calls in one step"
        return Failure.of("call_cap", what, "the step may loop: look at `bulkhead timeline TASK`")
    return None


def _made_before(attempt: Attempt, call: ToolCall) -> int:
    """In how many earlier turns this attempt made the same call; in one turn it is made once.

    One that was refused or failed was not made: counted, its repeat would have a key that the next attempt, which may
    succeed at once, does not have, and the write would be done twice.
    """
    this = calls.identity(call)
    return sum(any(calls.identity(one) == this for one in _answered(turn)) for turn in attempt.turns)


def _answered(turn: Turn) -> Iterator[ToolCall]:
    """The calls of a turn that gave a result."""
    made = {answer.tool_call_id for answer in turn.answers if answer.error is None}
    return (call for call in turn.tool_calls if call.id in made)


def next_turn(state: State, message: Message, key: Key, attempt: Attempt) -> Decision[State]:
    """When every call of the turn is answered, the model sees the answers, in its own order."""
    if attempt.outstanding:
        return Decision(state.with_attempt(key, attempt))
    if attempt.errors > bounds.MAX_CALL_ERRORS_PER_STEP:
        hint = "look at `bulkhead timeline TASK`; the model does not use its tools well"
        failure = Failure.of("call_error_cap", f"{attempt.errors} calls of this step were refused", hint)
        return fail(state, key, attempt, failure)
    answers = tuple(attempt.answers[call.id] for call in attempt.asked if call.id in attempt.answers)
    asked = tuple(call.model_copy(update={"attribution": None}) for call in attempt.asked)
    turn = Turn(content=attempt.said, tool_calls=asked, answers=answers)
    return think(state, message, key, replace(attempt, turns=(*attempt.turns, turn)))


# The end


def finish(state: State, key: Key, attempt: Attempt, content: ContentRef) -> Decision[State]:
    """The model has answered: the result goes to the checker, or to the planner where none is asked for."""
    assigned = attempt.assigned
    attempt = replace(attempt, evidence=_in_order(attempt))
    result = results.made(attempt, content)
    done = state.with_attempt(key, over(attempt))
    if not assigned.check:
        finished = StepFinished(**place_of(assigned), result=result, usage=attempt.usage)
        return Decision(done, (Send("planner", finished),))
    proposed = StepProposed(
        step=assigned.step,
        attempt=assigned.attempt,
        plan_version=assigned.plan_version,
        objective=assigned.objective,
        result=result,
        evidence=attempt.evidence,
        inputs=assigned.inputs,
        usage=attempt.usage,
        output=assigned.output,
        deadline_unix_ms=assigned.deadline_unix_ms,
    )
    return Decision(done, (Send("checker", proposed, grant=attempt.grant),))


def _in_order(attempt: Attempt) -> tuple[Evidence, ...]:
    """What was seen, as the model was shown it: calls are answered in any order, and a judge's question that stood in
    the order of arrival would be another one each time, which no response cache knows."""
    seen = [part.content.sha256 for turn in attempt.turns for one in turn.answers for part in one.parts if part.content]
    place = {sha256: number for number, sha256 in reversed(list(enumerate(seen)))}
    return tuple(sorted(attempt.evidence, key=lambda row: place.get(row.content.sha256, len(seen))))


def fail(state: State, key: Key, attempt: Attempt, failure: Failure) -> Decision[State]:
    """The attempt ends without a result."""
    result = Result(standing="failed", standing_reason=failure.message[: bounds.MAX_REASON_CHARS])
    finished = StepFinished(**place_of(attempt.assigned), result=result, failure=failure, usage=attempt.usage)
    return Decision(state.with_attempt(key, over(attempt)), (Send("planner", finished),))


def over(attempt: Attempt) -> Attempt:
    """Forget what an ended attempt gathered; its key stays, so that a repeat is known."""
    return Attempt(
        assigned=attempt.assigned.model_copy(update={"inputs": (), "tools": ()}), grant="", phase="over", usage=Usage()
    )
