"""Proposed results: the plain checks first, then a judge model, asked by message. Pure.

In: `StepProposed` (with the text of the result and its evidence), the judge's `ModelCallReplied`. Out: the judge's
call, or the verdict, with reasons.
"""

import hashlib

from bulkhead.flow import InboxMessage, Transition, replace, standing
from bulkhead.flow.answered import AnswerFinding
from bulkhead.grounding.sentences import MARKER
from bulkhead.grounding.sources import GroundingSource, GroundingSources
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.output import DRAFT
from bulkhead_contracts.result import Completeness, Omission, merge_completeness
from bulkhead_contracts.step import StepProposed
from bulkhead_contracts.verdict import CheckNote
from bulkhead_services.checker import checks, judging
from bulkhead_services.checker.state import CheckCase, CheckerState
from bulkhead_services.checker.verdicts import (
    accept_or_rewrite,
    decide_unjudged,
    may_rewrite,
    reach_verdict,
    reject_unverified,
)

MAX_JUDGE_TRIES = 2
SEARCH = "search_documents"
"""The tool that rag serves: a step that was given it is expected to look something up."""


def on_step_proposed(state: CheckerState, message: InboxMessage, body: StepProposed) -> Transition[CheckerState]:
    """Check a result: what the plain checks refuse costs no judge."""
    key = (body.plan_version, body.step.id, body.attempt)
    if key in state.cases:
        return Transition(state)
    text = message.contents.get(body.result.content.sha256, "") if body.result.content else ""
    case = CheckCase(key, proposed=body, grant=message.envelope.grant, result=body.result)
    if body.result.standing == "failed":
        note = CheckNote(code="failed", message=body.result.standing_reason or "the result stands as failed")
        return reach_verdict(state, replace(case, notes=(note, *checks.refusal_notes(text))), False)
    if notes := checks.refusal_notes(text):
        return reach_verdict(state, replace(case, notes=notes), False)
    sources = _grounding_sources(body, message)
    looked_up = bool(body.evidence or body.inputs or SEARCH not in body.step.tools)
    checked = checks.check_text(text, sources, body.step.instruction, body.output or DRAFT, looked_up=looked_up)
    if sources.cut:
        lacks = Omission(reason="pruned", what="evidence beyond what the plain checks read")
        case = _with_omissions(case, Completeness.with_omissions(lacks))
    case = replace(case, checked=checked, notes=checked.correction_notes)
    if checked.has_wrong_values and may_rewrite(case):
        # What values and arithmetic show needs no judge.
        return reject_unverified(state, case)
    rounds = judging.evidence_rounds(body, frozenset(marker for row in checked.rows for marker in row.markers))
    case = _with_omissions(case, judging.unshown_evidence(body, rounds))
    return judging.request_judgement(state, replace(case, rounds=rounds))


def _with_omissions(case: CheckCase, lacks: Completeness) -> CheckCase:
    completeness = merge_completeness(case.result.completeness, lacks)
    return replace(case, result=case.result.model_copy(update={"completeness": completeness}))


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


def on_model_call_replied(
    state: CheckerState, message: InboxMessage, body: ModelCallReplied
) -> Transition[CheckerState]:
    """The judge has answered: asked again, about more evidence, or the verdict."""
    case = state.judging_case(body.call_id)
    if case is None:
        return Transition(state)
    case = replace(case, usage=case.usage + body.usage)
    if body.failure is not None and body.failure.code in ("refused_by_budget", "halted"):
        note = CheckNote(code=body.failure.code, message=body.failure.message)
        return reach_verdict(state, replace(case, notes=(*case.notes, note)), False)
    text = message.contents.get(body.content.sha256, "") if body.content else ""
    verdict = judging.read_verdict(text)
    if verdict is None:
        if case.tries < MAX_JUDGE_TRIES:
            return judging.request_judgement(state, case)
        unjudged_reason = body.failure.message if body.failure else "the judge's answer could not be read"
        if body.failure and case.policy.delivery != "draft":
            unjudged_reason = body.failure.code
        return decide_unjudged(state, case, unjudged_reason)
    if smaller := judging.split_round(case, body):
        return judging.request_judgement(state, replace(case, rounds=smaller, tries=0))
    result = standing.resting_on(case.result, standing.standing_of_reply("the judge", body))
    scores = [score for score in (case.score, verdict.score) if score is not None]
    case = replace(case, result=result, score=min(scores, default=None))
    if case.judged_answer is None and verdict.answered is not None:
        case = replace(case, judged_answer=AnswerFinding(verdict.answered, "; ".join(verdict.reasons[:1])))
    notes = tuple(CheckNote(code="judge", message=reason, blocking=not verdict.accepted) for reason in verdict.reasons)
    if not verdict.accepted:
        notes = notes or (CheckNote(code="judge", message="the judge did not accept it and gave no reason"),)
        # Of its topics the judge alone knows: what it refuses may not stand then.
        may_stand = not case.policy.topics
        return reach_verdict(state, replace(case, notes=(*case.notes, *notes)), False, stands=may_stand)
    shown_markers = judging.shown_markers(case)
    case = replace(
        case, checked=judging.confirm_sources(case.checked, verdict, shown_markers), notes=(*case.notes, *notes)
    )
    if len(case.rounds) > 1:
        return judging.request_judgement(state, replace(case, rounds=case.rounds[1:], seen=case.seen + 1, tries=0))
    return accept_or_rewrite(state, case)
