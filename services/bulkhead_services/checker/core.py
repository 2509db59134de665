"""The checker decides: plain checks first, then a judge model asked by message. Verdicts carry reasons.

In: StepProposed (with the text of the result and its evidence), the judge's reply. Out: VerdictReached for the
planner. What is missing or degraded in the result is never dropped.
"""

import hashlib
from typing import Any

from bulkhead.flow import Decider, Decision, Message, Send, SetTimer, bounded, replace, standing
from bulkhead_contracts import bounds, envelope
from bulkhead_contracts.control import CallDeferred, CallResumed, TimerFired
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested, Part
from bulkhead_contracts.result import ContentRef, Omission, Result, merge_completeness, worst
from bulkhead_contracts.step import StepExtended, StepPaused, StepProposed
from bulkhead_contracts.types import Body
from bulkhead_contracts.verdict import CheckNote, VerdictReached
from bulkhead_services.checker import checks
from bulkhead_services.checker.state import Case, Key, State

EVIDENCE_AUTHORS = frozenset({"rag", "tool_executor"})
"""Only what these stored counts as evidence; the broker enforces a blob's author."""
MAX_JUDGE_TRIES = 2
JUDGE_OUTPUT_TOKENS = 800
TIMER = "again-"


class Checker(Decider[State]):
    """Decision logic, version 1."""

    service = "checker"
    opening = frozenset({StepProposed})

    def decide(self, state: State, message: Message) -> Decision[State]:
        """The transition table of state.py; a case that begins to be held back, or goes on, is told first."""
        after, outputs = _decide(state, message)
        return Decision(after, (*_paused(state, after, message.body), *outputs))

    def initial(self) -> State:
        """Before any message."""
        return State()

    def wants(self, body: Body) -> tuple[ContentRef, ...]:
        """The result, its evidence and inputs; the judge's words."""
        if isinstance(body, StepProposed):
            evidence, inputs = (row.content for row in _evidence(body)), (row.result.content for row in body.inputs)
            return tuple(ref for ref in (body.result.content, body.objective, *evidence, *inputs) if ref is not None)
        if isinstance(body, ModelCallReplied) and body.content is not None:
            return (body.content,)
        return ()

    def ended(self, state: State) -> bool:
        """Later steps of the task may still come."""
        return False


def _decide(state: State, message: Message) -> Decision[State]:
    body: Any = message.body
    match body:
        case StepProposed():
            return _proposed(state, message, body)
        case ModelCallReplied():
            row = state.judging(body.call_id)
            return Decision(state) if row is None else _judged(state, message, *row, body)
        case CallDeferred():
            row = state.judging(body.call_id)
            return Decision(state) if row is None else _deferred(state, message, *row, body)
        case CallResumed():
            return _ask_again(state, body.call_id, resumed=True)
        case TimerFired():
            return _ask_again(state, body.key.removeprefix(TIMER), resumed=False)
        case StepExtended():
            return Decision(_extended(state, message, body))
        case _:
            return Decision(state)


def _evidence(body: StepProposed) -> tuple[Any, ...]:
    return tuple(one for one in body.evidence if one.content.author in EVIDENCE_AUTHORS)


def _proposed(state: State, message: Message, body: StepProposed) -> Decision[State]:
    key = (body.plan_version, body.step.id, body.attempt)
    if key in state.cases:
        return Decision(state)
    text = message.contents.get(body.result.content.sha256, "") if body.result.content else ""
    notes = checks.run(text, _sources(body, message))
    if body.result.standing == "failed":
        notes = (CheckNote(code="failed", message=body.result.standing_reason or "the result stands as failed"), *notes)
    result = _narrowed(body.result, text)
    case = Case(phase="judging", proposed=body, grant=message.envelope.grant, result=result, notes=notes)
    if any(note.blocking for note in notes):
        return _verdict(state, key, case, False)
    return _ask(state, message, key, case)


def _sources(body: StepProposed, message: Message) -> checks.Sources:
    """What the text may rest on, by marker."""
    by_marker: dict[str, str] = {}
    for one in _evidence(body):
        by_marker[one.content.marker] = message.contents.get(one.content.sha256, "")
    objective = message.contents.get(body.objective.sha256, "")
    given = [objective, body.step.instruction]
    by_marker.setdefault(body.objective.marker, objective)
    for one in body.inputs:
        held = message.contents.get(one.result.content.sha256, "") if one.result.content else one.result.summary
        given.append(held)
        # A marker that an accepted input carries was resolved when that input was checked.
        for marker in (*(c.marker for c in one.result.citations), *checks.CITATION.findall(held)):
            by_marker.setdefault(marker, held)
        if one.result.content:
            by_marker.setdefault(one.result.content.marker, held)
        else:
            # A noop's result is its summary alone; the model is shown it under the digest of the text.
            by_marker.setdefault(hashlib.sha256(held.encode("utf-8", "replace")).hexdigest()[:12], held)
    retrieved = frozenset(one.content.marker for one in _evidence(body) if one.citation is not None)
    return checks.Sources(by_marker=by_marker, retrieved=retrieved, given="\n".join(given))


def _narrowed(result: Result, text: str) -> Result:
    """The result with only those citations that its text makes."""
    cited = set(checks.CITATION.findall(text))
    return result.model_copy(update={"citations": tuple(one for one in result.citations if one.marker in cited)})


# The judge


def _ask(state: State, message: Message, key: Key, case: Case) -> Decision[State]:
    proposed = case.proposed
    assert proposed is not None and proposed.result.content is not None
    # Cited evidence first: what a small context has to leave out is taken from the end.
    cited = {row.marker for row in case.result.citations}
    evidence = sorted(_evidence(proposed), key=lambda row: row.content.marker not in cited)
    parts = [
        Part(kind="step", text=proposed.step.instruction, step_id=proposed.step.id),
        Part(kind="acceptance", text=proposed.step.acceptance),
        Part(kind="answer", content=proposed.result.content),
        *(
            Part(kind="passage", content=row.content, source=row.citation.document)
            if row.citation
            else Part(kind="tool_result", content=row.content, source=row.label.source)
            for row in evidence
        ),
        *(
            Part(kind="input", content=given.result.content, step_id=given.step_id)
            for given in proposed.inputs
            if given.result.content
        ),
    ]
    call_id = envelope.derive_id("checker", "/".join(map(str, key)), f"judge-{case.tries}")
    asked = ModelCallRequested(
        call_id=call_id,
        step_id=proposed.step.id,
        attempt=proposed.attempt,
        prompt_id="checker.judge",
        parts=tuple(parts),
        response="verdict",
        tier="judge",
        stream=False,
        max_output_tokens=JUDGE_OUTPUT_TOKENS,
        deadline_unix_ms=proposed.deadline_unix_ms,
    )
    case = replace(case, asked=asked, tries=case.tries + 1, asleep=False, held=False)
    return Decision(state.with_case(key, case), (Send("model_gateway", asked, grant=case.grant),))


def _judged(state: State, message: Message, key: Key, case: Case, body: ModelCallReplied) -> Decision[State]:
    case = replace(case, usage=case.usage + body.usage)
    if body.failure is not None and body.failure.code in ("refused_by_budget", "halted"):
        note = CheckNote(code=body.failure.code, message=body.failure.message)
        return _verdict(state, key, replace(case, notes=(*case.notes, note)), False)
    text = message.contents.get(body.content.sha256, "") if body.content else ""
    verdict = _read(text)
    if verdict is None:
        if case.tries < MAX_JUDGE_TRIES:
            return _ask(state, message, key, case)
        why = body.failure.message if body.failure else "the judge's answer could not be read"
        return _verdict(state, key, _unjudged(case, why), True)
    accepted, reasons, score = verdict
    result = standing.resting_on(case.result, standing.said_of("the judge", body))
    case = replace(case, result=result, score=score)
    notes = tuple(CheckNote(code="judge", message=reason, blocking=not accepted) for reason in reasons)
    if not accepted and not notes:
        notes = (CheckNote(code="judge", message="the judge did not accept it and gave no reason"),)
    return _verdict(state, key, replace(case, notes=(*case.notes, *notes)[:32]), accepted)


def _read(text: str) -> tuple[bool, list[str], float | None] | None:
    """The judge's verdict, its reasons and its score; None when that is no verdict."""
    try:
        found = bounded.loads(text)
    except ValueError:
        return None
    if not isinstance(found, dict) or found.get("verdict") not in ("accept", "reject"):
        return None
    reasons = found.get("reasons")
    listed = [str(one)[: bounds.MAX_REASON_CHARS] for one in reasons[:8]] if isinstance(reasons, list) else []
    score = found.get("score")
    if not isinstance(score, int | float) or isinstance(score, bool) or not 0 <= score <= 1:
        score = None
    return found["verdict"] == "accept", listed, None if score is None else float(score)


def _unjudged(case: Case, why: str) -> Case:
    """The plain checks passed and no judge can be had: it may pass, and says so up to the answer."""
    reason = f"not judged: {why}"[:500]
    before = case.result
    said = "; ".join(filter(None, (before.standing_reason, reason)))[: bounds.MAX_REASON_CHARS]
    lacks = before.completeness.missing(Omission(reason="failed_part", what="judge", detail=reason))
    completeness = merge_completeness(before.completeness, lacks)
    changed = {"standing": worst(before.standing, "degraded"), "standing_reason": said, "completeness": completeness}
    result = before.model_copy(update=changed)
    note = CheckNote(code="not_judged", message=reason, blocking=False)
    return replace(case, result=result, notes=(*case.notes, note))


def _verdict(state: State, key: Key, case: Case, accepted: bool) -> Decision[State]:
    proposed = case.proposed
    assert proposed is not None
    reached = VerdictReached(
        step_id=proposed.step.id,
        attempt=proposed.attempt,
        plan_version=proposed.plan_version,
        accepted=accepted,
        notes=case.notes,
        judged_by=case.asked.tier if case.asked else None,
        score=case.score,
        result=case.result,
        usage=proposed.usage + case.usage,
    )
    return Decision(state.with_case(key, Case(phase="over")), (Send("planner", reached),))


# Pauses


def _deferred(state: State, message: Message, key: Key, case: Case, body: CallDeferred) -> Decision[State]:
    """The judge's call was put off: it sleeps until its timer, or until it is resumed. No cap ends a pause."""
    # What a call has spent until it is put off is told once, here.
    case = replace(case, usage=case.usage + body.usage)
    after_ms = body.after_ms
    if not body.paused:
        if case.deferrals >= bounds.MAX_CALL_DEFERRALS:
            return _verdict(state, key, _unjudged(case, body.reason), True)
        case = replace(case, deferrals=case.deferrals + 1)
        after_ms *= min(case.deferrals, 8)
    case = replace(case, asleep=True, held=body.paused)
    return Decision(state.with_case(key, case), (SetTimer(f"{TIMER}{body.call_id}", message.time_unix_ms + after_ms),))


def _ask_again(state: State, call_id: str, *, resumed: bool) -> Decision[State]:
    """Repeat the call once each time it was put off: while it is out, a late timer or resume repeats nothing."""
    row = state.judging(call_id)
    if row is None or not row[1].asleep:
        return Decision(state)
    key, case = row
    assert case.asked is not None and case.proposed is not None
    asked = case.asked
    if case.held:
        # The time for which a call was held back is not its own.
        until = max(asked.deadline_unix_ms, case.proposed.deadline_unix_ms)
        asked = asked.model_copy(update={"deadline_unix_ms": until})
    # A call that its timer repeats may be held back still; of one that is resumed it is known that it is not.
    case = replace(case, asked=asked, asleep=False, held=case.held and not resumed)
    return Decision(state.with_case(key, case), (Send("model_gateway", asked, grant=case.grant),))


def _extended(state: State, message: Message, body: StepExtended) -> State:
    """More time for a case, and a grant that lasts as long."""
    key = (body.plan_version, body.step_id, body.attempt)
    case = state.cases.get(key)
    if case is None or case.proposed is None or body.deadline_unix_ms <= case.proposed.deadline_unix_ms:
        return state
    proposed = case.proposed.model_copy(update={"deadline_unix_ms": body.deadline_unix_ms})
    return state.with_case(key, replace(case, proposed=proposed, grant=message.envelope.grant))


def _paused(before: State, after: State, cause: Body) -> tuple[Send, ...]:
    """Word of every case that this decision holds back, or lets go on."""
    outputs = []
    for (version, step, attempt), case in after.cases.items():
        earlier = before.cases.get((version, step, attempt))
        if case.held == (earlier is not None and earlier.held):
            continue
        code, reason = (cause.code, cause.reason) if case.held and isinstance(cause, CallDeferred) else ("", "")
        body = StepPaused(
            step_id=step, attempt=attempt, plan_version=version, active=case.held, code=code, reason=reason
        )
        outputs.append(Send("planner", body))
    return tuple(outputs)
