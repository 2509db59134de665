"""What a step's result is: its content, and all that its inputs and its tools lacked, rested on and said of themselves.

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
    worst,
)
from bulkhead_contracts.step import StepAssigned
from bulkhead_services.worker import calls
from bulkhead_services.worker.state import Attempt, FailedCall

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


def noted(body: StepAssigned) -> Result:
    """A noop's result is its instruction; what its inputs lack and rest on goes on to whatever is built on it."""
    inputs = [given.result for given in body.inputs]
    return Result(
        summary=body.step.instruction[: bounds.MAX_SUMMARY_CHARS],
        standing=worst(*(one.standing for one in inputs)),
        standing_reason=next((one.standing_reason for one in inputs if one.standing != "ok"), ""),
        completeness=merge_completeness(*(one.completeness for one in inputs)),
        provenance=merge_labels(*(one.provenance for one in inputs)),
    )


def missed(attempt: Attempt, call: ToolCall | None, failure: Failure, *, slip: bool) -> Attempt:
    """A call has failed, and the result says so unless the same call works later."""
    if call is None:
        return attempt
    failed = FailedCall(call.name, failure.message, len(attempt.turns), slip, failure.code in NOT_TO_BE_MADE)
    return replace(attempt, failed_calls={**attempt.failed_calls, calls.identity(call): failed})


def worked(attempt: Attempt, call: ToolCall | None) -> Attempt:
    """A call has worked: it failed no more, and calls of its tool that the model made wrongly before are mended."""
    if call is None or not attempt.failed_calls:
        return attempt
    this, turn = calls.identity(call), len(attempt.turns)
    left = {
        name: failed
        for name, failed in attempt.failed_calls.items()
        if name != this and not (failed.slip and failed.tool == call.name and failed.turn < turn)
    }
    return replace(attempt, failed_calls=left)


def made(attempt: Attempt, content: ContentRef) -> Result:
    """The result of an agent's attempt; what a call that failed would have brought is missing from it."""
    before = tuple(one.result for one in attempt.assigned.inputs)
    lost = tuple(
        Omission(reason="failed_part", what=f"call of {call.tool}", detail=call.why, refused=True)
        if call.refused
        else Omission(reason="failed_part", what=f"tool {call.tool}"[: bounds.MAX_SUMMARY_CHARS], detail=call.why)
        for call in attempt.failed_calls.values()
    )
    missing = Completeness.missing(*lost) if lost else Completeness()
    completeness = merge_completeness(*(row.completeness for row in before), attempt.completeness, missing)
    standing = worst(*(one.standing for one in before), "degraded" if attempt.degraded or lost else "ok")
    reasons = [
        *(one.standing_reason for one in before if one.standing != "ok"),
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
        provenance=merge_labels(attempt.labels, *(one.provenance for one in before)),
        citations=merge_citations(cited, *(row.citations for row in before)),
    )
