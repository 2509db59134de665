"""The checker decides: plain checks first, then a judge model asked by message. Verdicts carry reasons.

In: StepProposed (with the text of the result and its evidence), the judge's reply. Out: VerdictReached for the
planner. What is missing or degraded in the result is never dropped.
"""

import hashlib
from typing import Any

from bulkhead.flow import Decider, InboxMessage, Send, SetTimer, Transition, replace, standing
from bulkhead.flow.content import reference
from bulkhead.grounding.rules import render_answer
from bulkhead.grounding.sentences import MARKER
from bulkhead.grounding.sources import GroundingSource, GroundingSources
from bulkhead_contracts import bounds
from bulkhead_contracts.control import CallDeferred, CallResumed, TimerFired
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.output import DRAFT
from bulkhead_contracts.result import Completeness, ContentRef, Omission, Result, merge_completeness, worst_standing
from bulkhead_contracts.step import StepExtended, StepPaused, StepProposed
from bulkhead_contracts.types import Body
from bulkhead_contracts.verdict import CheckNote, VerdictReached
from bulkhead_services.checker import checks, judging
from bulkhead_services.checker.state import CheckCase, CheckerState, Key

MAX_JUDGE_TRIES = 2
MAX_REWRITES = 1
"""Attempts that are refused for statements without a source; a later one stands, with them marked."""
SEARCH = "search_documents"
"""The tool that rag serves: a step that was given it is expected to look something up."""
TIMER = "again-"


class Checker(Decider[CheckerState]):
    """Decision logic, version 1."""

    service = "checker"
    opening = frozenset({StepProposed})

    def decide(self, state: CheckerState, message: InboxMessage) -> Transition[CheckerState]:
        """The transition table of state.py; a case that begins to be held back, or goes on, is told first."""
        after, outputs = _apply_message(state, message)
        return Transition(after, (*_pause_messages(state, after, message.body), *outputs))

    def initial_state(self) -> CheckerState:
        """Before any message."""
        return CheckerState()

    def wanted_contents(self, body: Body) -> tuple[ContentRef, ...]:
        """The result, its evidence and inputs; the judge's words."""
        if isinstance(body, StepProposed):
            evidence, inputs = (
                (row.content for row in judging.countable_evidence(body)),
                (row.result.content for row in body.inputs),
            )
            return tuple(ref for ref in (body.result.content, body.objective, *evidence, *inputs) if ref is not None)
        if isinstance(body, ModelCallReplied) and body.content is not None:
            return (body.content,)
        return ()

    def has_ended(self, state: CheckerState) -> bool:
        """Later steps of the task may still come."""
        return False


def _apply_message(state: CheckerState, message: InboxMessage) -> Transition[CheckerState]:
    body: Any = message.body
    match body:
        case StepProposed():
            return _on_step_proposed(state, message, body)
        case ModelCallReplied():
            row = state.judging_case(body.call_id)
            return Transition(state) if row is None else _on_judge_replied(state, message, *row, body)
        case CallDeferred():
            row = state.judging_case(body.call_id)
            return Transition(state) if row is None else _on_call_deferred(state, message, *row, body)
        case CallResumed():
            return _repeat_judge_call(state, body.call_id, resumed=True)
        case TimerFired():
            return _repeat_judge_call(state, body.key.removeprefix(TIMER), resumed=False)
        case StepExtended():
            return Transition(_on_step_extended(state, message, body))
        case _:
            return Transition(state)


def _on_step_proposed(state: CheckerState, message: InboxMessage, body: StepProposed) -> Transition[CheckerState]:
    key = (body.plan_version, body.step.id, body.attempt)
    if key in state.cases:
        return Transition(state)
    text = message.contents.get(body.result.content.sha256, "") if body.result.content else ""
    case = CheckCase(phase="judging", proposed=body, grant=message.envelope.grant, result=body.result)
    if body.result.standing == "failed":
        note = CheckNote(code="failed", message=body.result.standing_reason or "the result stands as failed")
        return _reach_verdict(state, key, replace(case, notes=(note, *checks.refusal_notes(text))), False)
    if notes := checks.refusal_notes(text):
        return _reach_verdict(state, key, replace(case, notes=notes), False)
    sources = _grounding_sources(body, message)
    looked_up = bool(body.evidence or body.inputs or SEARCH not in body.step.tools)
    checked = checks.check_text(text, sources, body.step.instruction, body.output or DRAFT, looked_up=looked_up)
    if sources.cut:
        lacks = Omission(reason="pruned", what="evidence beyond what the plain checks read")
        completeness = merge_completeness(case.result.completeness, Completeness.with_omissions(lacks))
        case = replace(case, result=case.result.model_copy(update={"completeness": completeness}))
    case = replace(case, checked=checked, notes=checked.correction_notes)
    if checked.has_wrong_values and _may_rewrite(case):
        # What values and arithmetic show needs no judge.
        return _reject_unverified(state, key, case)
    rounds = judging.evidence_rounds(body, frozenset(marker for row in checked.rows for marker in row.markers))
    return _request_judgement(state, key, replace(case, rounds=rounds))


def _grounding_sources(body: StepProposed, message: InboxMessage) -> GroundingSources:
    """Sources that the text may rest on."""
    objective = message.contents.get(body.objective.sha256, "")
    rows = [
        GroundingSource(
            row.content.marker,
            message.contents.get(row.content.sha256, ""),
            "passage" if row.citation else "tool_result",
            row.citation.document if row.citation else "",
        )
        for row in judging.countable_evidence(body)
    ]
    for step_input in body.inputs:
        content = step_input.result.content
        input_text = message.contents.get(content.sha256, "") if content else step_input.result.summary
        # A noop's result is its summary alone; the model is shown it under the digest of the text.
        marker = content.marker if content else hashlib.sha256(input_text.encode("utf-8", "replace")).hexdigest()[:12]
        # A marker that an accepted input carries was resolved when that input was checked.
        carried = (*(row.marker for row in step_input.result.citations), *MARKER.findall(input_text))
        rows.append(GroundingSource(marker, input_text, "input", alias_markers=tuple(dict.fromkeys(carried))))
    rows.append(GroundingSource(body.objective.marker, objective, "objective"))
    return GroundingSources(rows, f"{objective}\n{body.step.title}\n{body.step.instruction}")


# The judge


def _request_judgement(state: CheckerState, key: Key, case: CheckCase) -> Transition[CheckerState]:
    judge_call = judging.build_judge_call(key, case)
    case = replace(case, asked=judge_call, tries=case.tries + 1, asleep=False, held=False)
    return Transition(state.with_case(key, case), (Send("model_gateway", judge_call, grant=case.grant),))


def _on_judge_replied(
    state: CheckerState, message: InboxMessage, key: Key, case: CheckCase, body: ModelCallReplied
) -> Transition[CheckerState]:
    case = replace(case, usage=case.usage + body.usage)
    if body.failure is not None and body.failure.code in ("refused_by_budget", "halted"):
        note = CheckNote(code=body.failure.code, message=body.failure.message)
        return _reach_verdict(state, key, replace(case, notes=(*case.notes, note)), False)
    text = message.contents.get(body.content.sha256, "") if body.content else ""
    verdict = judging.read_verdict(text)
    if verdict is None:
        if case.tries < MAX_JUDGE_TRIES:
            return _request_judgement(state, key, case)
        unjudged_reason = body.failure.message if body.failure else "the judge's answer could not be read"
        if body.failure and case.policy.delivery != "draft":
            unjudged_reason = body.failure.code
        return _decide_unjudged(state, key, case, unjudged_reason)
    if smaller := judging.split_round(case, body):
        return _request_judgement(state, key, replace(case, rounds=smaller, tries=0))
    result = standing.resting_on(case.result, standing.standing_of_reply("the judge", body))
    scores = [score for score in (case.score, verdict.score) if score is not None]
    case = replace(case, result=result, score=min(scores, default=None))
    notes = tuple(CheckNote(code="judge", message=reason, blocking=not verdict.accepted) for reason in verdict.reasons)
    if not verdict.accepted:
        notes = notes or (CheckNote(code="judge", message="the judge did not accept it and gave no reason"),)
        # Of its topics the judge alone knows: what it refuses may not stand then.
        may_stand = not case.policy.topics
        return _reach_verdict(state, key, replace(case, notes=(*case.notes, *notes)), False, stands=may_stand)
    shown_markers = judging.shown_markers(case)
    case = replace(
        case, checked=judging.confirm_sources(case.checked, verdict, shown_markers), notes=(*case.notes, *notes)
    )
    if len(case.rounds) > 1:
        return _request_judgement(state, key, replace(case, rounds=case.rounds[1:], seen=case.seen + 1, tries=0))
    return _accept_or_rewrite(state, key, case)


def _accept_or_rewrite(state: CheckerState, key: Key, case: CheckCase) -> Transition[CheckerState]:
    """Accept, since no judge objects, unless statements without a source are worth another attempt."""
    if case.checked.degraded_reason and _may_rewrite(case):
        return _reject_unverified(state, key, case)
    return _reach_verdict(state, key, case, True)


def _may_rewrite(case: CheckCase) -> bool:
    """True when another attempt is made for statements without a source."""
    assert case.proposed is not None
    return case.policy.unverified == "rewrite" and case.proposed.attempt <= MAX_REWRITES


def _reject_unverified(state: CheckerState, key: Key, case: CheckCase) -> Transition[CheckerState]:
    """Another attempt may mend what the plain checks found."""
    return _reach_verdict(
        state, key, replace(case, notes=(*case.checked.blocking_notes, *case.notes)), False, stands=True
    )


def _decide_unjudged(state: CheckerState, key: Key, case: CheckCase, why: str) -> Transition[CheckerState]:
    """Decide without a judge. Where nothing may leave before it is accepted, nothing does."""
    case = _mark_unjudged(case, why)
    if case.policy.delivery == "held" or case.policy.topics:
        return _reach_verdict(state, key, case, False)
    return _accept_or_rewrite(state, key, case)


def _mark_unjudged(case: CheckCase, why: str) -> CheckCase:
    """The plain checks passed and no judge can be had: it may pass, and says so up to the answer."""
    reason = f"not judged: {why}"[:500]
    before = case.result
    standing_reason = "; ".join(filter(None, (before.standing_reason, reason)))[: bounds.MAX_REASON_CHARS]
    lacks = before.completeness.with_omissions(Omission(reason="failed_part", what="judge", detail=reason))
    completeness = merge_completeness(before.completeness, lacks)
    changed = {
        "standing": worst_standing(before.standing, "degraded"),
        "standing_reason": standing_reason,
        "completeness": completeness,
    }
    result = before.model_copy(update=changed)
    note = CheckNote(code="not_judged", message=reason, blocking=False)
    return replace(case, result=result, notes=(*case.notes, note))


def _reach_verdict(
    state: CheckerState, key: Key, case: CheckCase, accepted: bool, *, stands: bool = False
) -> Transition[CheckerState]:
    proposed = case.proposed
    assert proposed is not None
    stands = stands and case.policy.delivery != "held"
    result, contents = _final_result(case) if accepted or stands else (case.result, ())
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
    return Transition(state.with_case(key, CheckCase(phase="over")), (Send("planner", reached, contents=contents),))


def _final_result(case: CheckCase) -> tuple[Result, tuple[str, ...]]:
    """The result as it may stand, each statement with its markers or marked; and its text, where that changed."""
    result, checked = case.result, case.checked
    before = result.content
    assert before is not None
    text = render_answer(checked.text, checked.rows, case.policy)
    if len(text) > bounds.MAX_ANSWER_CHARS:
        # Markers are long: what does not fit is left out, and said.
        text = text[: text.rfind("\n", 0, bounds.MAX_ANSWER_CHARS) + 1] or text[: bounds.MAX_ANSWER_CHARS]
        cut = Completeness.with_omissions(Omission(reason="truncated", what="the answer with its markers"))
        result = result.model_copy(update={"completeness": merge_completeness(result.completeness, cut)})
    contents: tuple[str, ...] = ()
    if hashlib.sha256(text.encode()).hexdigest() != before.sha256:
        content = reference("checker", text.encode(), before.media_type)
        result, contents = result.model_copy(update={"content": content, "summary": content.summary}), (text,)
    if reason := checked.degraded_reason:
        standing_reason = "; ".join(filter(None, (result.standing_reason, reason)))[: bounds.MAX_REASON_CHARS]
        result = result.model_copy(
            update={"standing": worst_standing(result.standing, "degraded"), "standing_reason": standing_reason}
        )
    if case.policy.delivery != "draft":
        # Details quote models, tools and providers; an operator reads them with `bulkhead why`.
        rows = tuple(row.model_copy(update={"detail": ""}) for row in result.completeness.omissions)
        completeness = result.completeness.model_copy(update={"omissions": rows})
        result = result.model_copy(update={"completeness": completeness})
    # Only those citations that its text makes.
    cited = set(MARKER.findall(text))
    citations = tuple(row for row in result.citations if row.marker in cited)
    return result.model_copy(update={"citations": citations}), contents


# Pauses


def _on_call_deferred(
    state: CheckerState, message: InboxMessage, key: Key, case: CheckCase, body: CallDeferred
) -> Transition[CheckerState]:
    """The judge's call was put off: it sleeps until its timer, or until it is resumed. No cap ends a pause."""
    # What a call has spent until it is put off is told once, here.
    case = replace(case, usage=case.usage + body.usage)
    after_ms = body.after_ms
    if not body.paused:
        if case.deferrals >= bounds.MAX_CALL_DEFERRALS:
            return _decide_unjudged(state, key, case, body.reason)
        case = replace(case, deferrals=case.deferrals + 1)
        after_ms *= min(case.deferrals, 8)
    case = replace(case, asleep=True, held=body.paused)
    return Transition(
        state.with_case(key, case), (SetTimer(f"{TIMER}{body.call_id}", message.time_unix_ms + after_ms),)
    )


def _repeat_judge_call(state: CheckerState, call_id: str, *, resumed: bool) -> Transition[CheckerState]:
    """Repeat the call once each time it was put off: while it is out, a late timer or resume repeats nothing."""
    row = state.judging_case(call_id)
    if row is None or not row[1].asleep:
        return Transition(state)
    key, case = row
    assert case.asked is not None and case.proposed is not None
    judge_call = case.asked
    if case.held:
        # The time for which a call was held back is not its own.
        until = max(judge_call.deadline_unix_ms, case.proposed.deadline_unix_ms)
        judge_call = judge_call.model_copy(update={"deadline_unix_ms": until})
    # A call that its timer repeats may be held back still; of one that is resumed it is known that it is not.
    case = replace(case, asked=judge_call, asleep=False, held=case.held and not resumed)
    return Transition(state.with_case(key, case), (Send("model_gateway", judge_call, grant=case.grant),))


def _on_step_extended(state: CheckerState, message: InboxMessage, body: StepExtended) -> CheckerState:
    """More time for a case, and a grant that lasts as long."""
    key = (body.plan_version, body.step_id, body.attempt)
    case = state.cases.get(key)
    if case is None or case.proposed is None or body.deadline_unix_ms <= case.proposed.deadline_unix_ms:
        return state
    proposed = case.proposed.model_copy(update={"deadline_unix_ms": body.deadline_unix_ms})
    return state.with_case(key, replace(case, proposed=proposed, grant=message.envelope.grant))


def _pause_messages(before: CheckerState, after: CheckerState, cause: Body) -> tuple[Send, ...]:
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
