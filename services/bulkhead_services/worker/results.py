"""A step's result: its content, and all that its inputs and its tools lacked, rested on and said of themselves.

In: an attempt, or the assignment of a noop. Out: a Result. Pure.
"""

from bulkhead.flow import replace
from bulkhead_contracts import bounds
from bulkhead_contracts.model import ToolCall
from bulkhead_contracts.result import (
    Completeness,
    ContentRef,
    Failure,
    Omission,
    Result,
    merge_citations,
    merge_completeness,
    merge_labels,
    worst_standing,
)
from bulkhead_contracts.step import StepAssigned
from bulkhead_services.worker import calls
from bulkhead_services.worker.state import FailedCall, StepAttempt

NOT_TO_BE_MADE = frozenset(
    {
        "approval_denied",
        "approval_expired",
        "too_many_approvals",
        "too_many_calls",
        "policy",
        "forbidden",
        "tainted_code",
        "constraint",
    }
)
"""Codes of calls that a person or policy did not let be made."""


def result_of_noop(body: StepAssigned) -> Result:
    """A noop's result is its instruction; what its inputs lack and rest on goes on to whatever is built on it."""
    inputs = [step_input.result for step_input in body.inputs]
    return Result(
        summary=body.step.instruction[: bounds.MAX_SUMMARY_CHARS],
        standing=worst_standing(*(result.standing for result in inputs)),
        standing_reason=next((result.standing_reason for result in inputs if result.standing != "ok"), ""),
        completeness=merge_completeness(*(result.completeness for result in inputs)),
        provenance=merge_labels(*(result.provenance for result in inputs)),
    )


def record_failed_call(attempt: StepAttempt, call: ToolCall | None, failure: Failure, *, slip: bool) -> StepAttempt:
    """A call has failed, and the result says so unless the same call works later."""
    if call is None:
        return attempt
    failed = FailedCall(call.name, failure.message, len(attempt.turns), slip, failure.code in NOT_TO_BE_MADE)
    return replace(attempt, failed_calls={**attempt.failed_calls, calls.call_identity(call): failed})


def record_working_call(attempt: StepAttempt, call: ToolCall | None) -> StepAttempt:
    """A call has worked: it failed no more, and calls of its tool that the model made wrongly before are mended."""
    if call is None or not attempt.failed_calls:
        return attempt
    this, turn = calls.call_identity(call), len(attempt.turns)
    still_failed = {
        name: failed
        for name, failed in attempt.failed_calls.items()
        if name != this and not (failed.slip and failed.tool == call.name and failed.turn < turn)
    }
    return replace(attempt, failed_calls=still_failed)


def result_of_attempt(attempt: StepAttempt, content: ContentRef) -> Result:
    """The result of an agent's attempt; what a call that failed would have brought is missing from it."""
    before = tuple(step_input.result for step_input in attempt.assigned.inputs)
    lost = tuple(
        Omission(reason="failed_part", what=f"call of {call.tool}", detail=call.why, refused=True)
        if call.refused
        else Omission(reason="failed_part", what=f"tool {call.tool}"[: bounds.MAX_SUMMARY_CHARS], detail=call.why)
        for call in attempt.failed_calls.values()
    )
    missing = Completeness.with_omissions(*lost) if lost else Completeness()
    completeness = merge_completeness(*(row.completeness for row in before), attempt.completeness, missing)
    standing = worst_standing(*(result.standing for result in before), "degraded" if attempt.degraded or lost else "ok")
    reasons = [
        *(result.standing_reason for result in before if result.standing != "ok"),
        *attempt.degraded,
        *dict.fromkeys(call.why if call.refused else f"{call.tool} failed" for call in attempt.failed_calls.values()),
    ]
    cited = tuple(row.citation for row in attempt.evidence if row.citation)
    return Result(
        content=content,
        summary=content.summary,
        standing=standing,
        standing_reason="; ".join(reasons)[: bounds.MAX_REASON_CHARS] if standing != "ok" else "",
        completeness=completeness,
        provenance=merge_labels(attempt.labels, *(result.provenance for result in before)),
        citations=merge_citations(cited, *(row.citations for row in before)),
    )
