"""Verdicts on a proposed result: accepted, refused, or decided without a judge. A leaf, pure.

In: a case after the plain checks, or after the judge. Out: `VerdictReached` for the planner, with the result as it may
stand. What is missing or degraded in it is never dropped.
"""

import hashlib

from bulkhead.flow import Send, Transition, replace, standing
from bulkhead.flow.answered import AnswerFinding, judge_search, lower_answer
from bulkhead.flow.content import reference
from bulkhead.grounding.rules import render_answer
from bulkhead.grounding.sentences import MARKER
from bulkhead_contracts import bounds
from bulkhead_contracts.result import Completeness, Omission, Result, merge_completeness
from bulkhead_contracts.verdict import CheckNote, VerdictReached
from bulkhead_services.checker.state import CheckCase, CheckerState

MAX_REWRITES = 1
"""Attempts that are refused for statements without a source; a later one stands, with them marked."""


def accept_or_rewrite(state: CheckerState, case: CheckCase) -> Transition[CheckerState]:
    """Accept, since no judge objects, unless statements without a source are worth another attempt."""
    if case.checked.degraded_reason and may_rewrite(case):
        return reject_unverified(state, case)
    return reach_verdict(state, case, True)


def may_rewrite(case: CheckCase) -> bool:
    """True when another attempt is made for statements without a source."""
    assert case.proposed is not None
    return case.policy.unverified == "rewrite" and case.proposed.attempt <= MAX_REWRITES


def reject_unverified(state: CheckerState, case: CheckCase) -> Transition[CheckerState]:
    """Another attempt may mend what the plain checks found."""
    return reach_verdict(state, replace(case, notes=(*case.checked.blocking_notes, *case.notes)), False, stands=True)


def decide_unjudged(state: CheckerState, case: CheckCase, cause: str) -> Transition[CheckerState]:
    """Decide without a judge, and say so up to the answer. Where nothing may leave before it is accepted, nothing does.
    cause: of why no judge could be had."""
    reason = f"not judged: {cause}"[:500]
    result = standing.degrade_result(case.result, case.result.standing_reason, reason)
    lacks = result.completeness.with_omissions(Omission(reason="failed_part", what="judge", detail=reason))
    completeness = merge_completeness(result.completeness, lacks)
    note = CheckNote(code="not_judged", message=reason, blocking=False)
    unjudged = result.model_copy(update={"completeness": completeness})
    case = replace(case, result=unjudged, notes=(*case.notes, note))
    if case.policy.delivery == "held" or case.policy.topics:
        return reach_verdict(state, case, False)
    return accept_or_rewrite(state, case)


def reach_verdict(
    state: CheckerState, case: CheckCase, accepted: bool, *, stands: bool = False
) -> Transition[CheckerState]:
    """The case is over. stands: though it is not accepted, the result may stand when no better one comes."""
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
        judged_by=case.judge_call.tier if case.judge_call else None,
        score=case.score,
        stands=stands,
        result=result,
        usage=proposed.usage + case.usage,
    )
    after = state.with_case(CheckCase(case.key, phase="over"))
    return Transition(after, (Send("planner", reached, contents=contents),))


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
        result = standing.degrade_result(result, result.standing_reason, reason)
    if case.policy.delivery != "draft":
        # Details quote models, tools and providers; an operator reads them with `bulkhead why`.
        rows = tuple(row.model_copy(update={"detail": ""}) for row in result.completeness.omissions)
        completeness = result.completeness.model_copy(update={"omissions": rows})
        result = result.model_copy(update={"completeness": completeness})
    result = lower_answer(result, _answer_finding(case))
    # Only those citations that its text makes.
    cited = set(MARKER.findall(text))
    citations = tuple(row for row in result.citations if row.marker in cited)
    return result.model_copy(update={"citations": citations}), contents


def _answer_finding(case: CheckCase) -> AnswerFinding | None:
    """Finding by the judge's word; without one by the text, and by what was looked up."""
    proposed = case.proposed
    assert proposed is not None
    finding = case.judged_answer or case.checked.answer_finding
    finding = finding or judge_search(proposed.usage.retrievals, len(proposed.evidence) + len(proposed.inputs))
    if finding is None or case.policy.delivery == "draft":
        return finding
    return finding._replace(reason="the sources hold no whole answer")  # Other words quote models.
