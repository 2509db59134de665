"""The checker decides: plain checks first, then a judge model asked by message. Verdicts carry reasons.

In: StepProposed (with the text of the result and its evidence), the judge's reply. Out: VerdictReached for the
planner. What is missing or degraded in the result is never dropped.
"""

import hashlib
from typing import Any

from bulkhead.flow import Decider, Decision, Message, Send, SetTimer, replace, standing
from bulkhead.flow.content import reference
from bulkhead.grounding.rules import shown
from bulkhead.grounding.sentences import MARKER
from bulkhead.grounding.sources import Source, Sources
from bulkhead_contracts import bounds
from bulkhead_contracts.control import CallDeferred, CallResumed, TimerFired
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.output import DRAFT
from bulkhead_contracts.result import Completeness, ContentRef, Omission, Result, merge_completeness, worst
from bulkhead_contracts.step import StepExtended, StepPaused, StepProposed
from bulkhead_contracts.types import Body
from bulkhead_contracts.verdict import CheckNote, VerdictReached
from bulkhead_services.checker import checks, judging
from bulkhead_services.checker.state import Case, Key, State

MAX_JUDGE_TRIES = 2
MAX_REWRITES = 1
"""Attempts that are refused for statements without a source; a later one stands, with them marked."""
SEARCH = "search_documents"
"""The tool that rag serves: a step that was given it is expected to look something up."""
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
            evidence, inputs = (
                (row.content for row in judging.evidence(body)),
                (row.result.content for row in body.inputs),
            )
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


def _proposed(state: State, message: Message, body: StepProposed) -> Decision[State]:
    key = (body.plan_version, body.step.id, body.attempt)
    if key in state.cases:
        return Decision(state)
    text = message.contents.get(body.result.content.sha256, "") if body.result.content else ""
    case = Case(phase="judging", proposed=body, grant=message.envelope.grant, result=body.result)
    if body.result.standing == "failed":
        note = CheckNote(code="failed", message=body.result.standing_reason or "the result stands as failed")
        return _verdict(state, key, replace(case, notes=(note, *checks.refusals(text))), False)
    if notes := checks.refusals(text):
        return _verdict(state, key, replace(case, notes=notes), False)
    sources = _sources(body, message)
    looked_up = bool(body.evidence or body.inputs or SEARCH not in body.step.tools)
    checked = checks.check(text, sources, body.step.instruction, body.output or DRAFT, looked_up=looked_up)
    if sources.cut:
        lacks = Omission(reason="pruned", what="evidence beyond what the plain checks read")
        completeness = merge_completeness(case.result.completeness, Completeness.missing(lacks))
        case = replace(case, result=case.result.model_copy(update={"completeness": completeness}))
    case = replace(case, checked=checked, notes=checked.remarks)
    if checked.wrong and _rewrites(case):
        # What values and arithmetic show needs no judge.
        return _unverified(state, key, case)
    rounds = judging.rounds(body, frozenset(marker for row in checked.rows for marker in row.markers))
    return _ask(state, key, replace(case, rounds=rounds))


def _sources(body: StepProposed, message: Message) -> Sources:
    """What the text may rest on."""
    objective = message.contents.get(body.objective.sha256, "")
    rows = [
        Source(
            row.content.marker,
            message.contents.get(row.content.sha256, ""),
            "passage" if row.citation else "tool_result",
            row.citation.document if row.citation else "",
        )
        for row in judging.evidence(body)
    ]
    for given in body.inputs:
        content = given.result.content
        held = message.contents.get(content.sha256, "") if content else given.result.summary
        # A noop's result is its summary alone; the model is shown it under the digest of the text.
        marker = content.marker if content else hashlib.sha256(held.encode("utf-8", "replace")).hexdigest()[:12]
        # A marker that an accepted input carries was resolved when that input was checked.
        carried = (*(row.marker for row in given.result.citations), *MARKER.findall(held))
        rows.append(Source(marker, held, "input", also=tuple(dict.fromkeys(carried))))
    rows.append(Source(body.objective.marker, objective, "objective"))
    return Sources(rows, f"{objective}\n{body.step.title}\n{body.step.instruction}")


# The judge


def _ask(state: State, key: Key, case: Case) -> Decision[State]:
    asked = judging.request(key, case)
    case = replace(case, asked=asked, tries=case.tries + 1, asleep=False, held=False)
    return Decision(state.with_case(key, case), (Send("model_gateway", asked, grant=case.grant),))


def _judged(state: State, message: Message, key: Key, case: Case, body: ModelCallReplied) -> Decision[State]:
    case = replace(case, usage=case.usage + body.usage)
    if body.failure is not None and body.failure.code in ("refused_by_budget", "halted"):
        note = CheckNote(code=body.failure.code, message=body.failure.message)
        return _verdict(state, key, replace(case, notes=(*case.notes, note)), False)
    text = message.contents.get(body.content.sha256, "") if body.content else ""
    verdict = judging.read(text)
    if verdict is None:
        if case.tries < MAX_JUDGE_TRIES:
            return _ask(state, key, case)
        why = body.failure.message if body.failure else "the judge's answer could not be read"
        if body.failure and case.policy.delivery != "draft":
            why = body.failure.code
        return _no_judge(state, key, case, why)
    if smaller := judging.split(case, body):
        return _ask(state, key, replace(case, rounds=smaller, tries=0))
    result = standing.resting_on(case.result, standing.said_of("the judge", body))
    scores = [score for score in (case.score, verdict.score) if score is not None]
    case = replace(case, result=result, score=min(scores, default=None))
    notes = tuple(CheckNote(code="judge", message=reason, blocking=not verdict.accepted) for reason in verdict.reasons)
    if not verdict.accepted:
        notes = notes or (CheckNote(code="judge", message="the judge did not accept it and gave no reason"),)
        # Of its topics the judge alone knows: what it refuses may not stand then.
        stands = not case.policy.topics
        return _verdict(state, key, replace(case, notes=(*case.notes, *notes)), False, stands=stands)
    seen = judging.seen(case)
    case = replace(case, checked=judging.confirmed(case.checked, verdict, seen), notes=(*case.notes, *notes))
    if len(case.rounds) > 1:
        return _ask(state, key, replace(case, rounds=case.rounds[1:], seen=case.seen + 1, tries=0))
    return _judged_all(state, key, case)


def _judged_all(state: State, key: Key, case: Case) -> Decision[State]:
    """No judge objects: accepted, unless statements without a source are worth another attempt."""
    if case.checked.reason and _rewrites(case):
        return _unverified(state, key, case)
    return _verdict(state, key, case, True)


def _rewrites(case: Case) -> bool:
    """Whether another attempt is made for statements without a source."""
    assert case.proposed is not None
    return case.policy.unverified == "rewrite" and case.proposed.attempt <= MAX_REWRITES


def _unverified(state: State, key: Key, case: Case) -> Decision[State]:
    """Another attempt may mend what the plain checks found."""
    return _verdict(state, key, replace(case, notes=(*case.checked.notes, *case.notes)), False, stands=True)


def _no_judge(state: State, key: Key, case: Case, why: str) -> Decision[State]:
    """No judge can be had. Where nothing may leave before it is accepted, nothing does."""
    case = _unjudged(case, why)
    if case.policy.delivery == "held" or case.policy.topics:
        return _verdict(state, key, case, False)
    return _judged_all(state, key, case)


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


def _verdict(state: State, key: Key, case: Case, accepted: bool, *, stands: bool = False) -> Decision[State]:
    proposed = case.proposed
    assert proposed is not None
    stands = stands and case.policy.delivery != "held"
    result, contents = _result(case) if accepted or stands else (case.result, ())
    reached = VerdictReached(
        step_id=proposed.step.id,
        attempt=proposed.attempt,
        plan_version=proposed.plan_version,
        accepted=accepted,
        notes=tuple(sorted(case.notes, key=lambda note: not note.blocking))[:32],
        judged_by=case.asked.tier if case.asked else None,
        score=case.score,
        stands=stands,
        result=result,
        usage=proposed.usage + case.usage,
    )
    return Decision(state.with_case(key, Case(phase="over")), (Send("planner", reached, contents=contents),))


def _result(case: Case) -> tuple[Result, tuple[str, ...]]:
    """The result as it may stand, each statement with its markers or marked; and its text, where that changed."""
    result, checked = case.result, case.checked
    before = result.content
    assert before is not None
    text = shown(checked.text, checked.rows, case.policy)
    if len(text) > bounds.MAX_ANSWER_CHARS:
        # Markers are long: what does not fit is left out, and said.
        text = text[: text.rfind("\n", 0, bounds.MAX_ANSWER_CHARS) + 1] or text[: bounds.MAX_ANSWER_CHARS]
        cut = Completeness.missing(Omission(reason="truncated", what="the answer with its markers"))
        result = result.model_copy(update={"completeness": merge_completeness(result.completeness, cut)})
    contents: tuple[str, ...] = ()
    if hashlib.sha256(text.encode()).hexdigest() != before.sha256:
        content = reference("checker", text.encode(), before.media_type)
        result, contents = result.model_copy(update={"content": content, "summary": content.summary}), (text,)
    if reason := checked.reason:
        said = "; ".join(filter(None, (result.standing_reason, reason)))[: bounds.MAX_REASON_CHARS]
        result = result.model_copy(update={"standing": worst(result.standing, "degraded"), "standing_reason": said})
    if case.policy.delivery != "draft":
        # Details quote models, tools and providers; an operator reads them with `bulkhead why`.
        rows = tuple(row.model_copy(update={"detail": ""}) for row in result.completeness.omissions)
        whole = result.completeness.model_copy(update={"omissions": rows})
        result = result.model_copy(update={"completeness": whole})
    # Only those citations that its text makes.
    cited = set(MARKER.findall(text))
    kept = tuple(row for row in result.citations if row.marker in cited)
    return result.model_copy(update={"citations": kept}), contents


# Pauses


def _deferred(state: State, message: Message, key: Key, case: Case, body: CallDeferred) -> Decision[State]:
    """The judge's call was put off: it sleeps until its timer, or until it is resumed. No cap ends a pause."""
    # What a call has spent until it is put off is told once, here.
    case = replace(case, usage=case.usage + body.usage)
    after_ms = body.after_ms
    if not body.paused:
        if case.deferrals >= bounds.MAX_CALL_DEFERRALS:
            return _no_judge(state, key, case, body.reason)
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
