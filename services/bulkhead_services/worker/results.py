"""What a step's result is: its content, and all that its inputs and its tools lacked, rested on and said of themselves.

In: an attempt, or the assignment of a noop. Out: a Result. Pure.
"""

from bulkhead_contracts import bounds
from bulkhead_contracts.result import (
    Completeness,
    ContentRef,
    Omission,
    Result,
    merge_citations,
    merge_completeness,
    merge_labels,
    worst,
)
from bulkhead_contracts.step import StepAssigned
from bulkhead_services.worker.state import Attempt


def noted(body: StepAssigned) -> Result:
    """A noop's result is its instruction; what its inputs lack and rest on goes on to whatever is built on it."""
    inputs = [one.result for one in body.inputs]
    return Result(
        summary=body.step.instruction[: bounds.MAX_SUMMARY_CHARS],
        standing=worst(*(one.standing for one in inputs)),
        standing_reason=next((one.standing_reason for one in inputs if one.standing != "ok"), ""),
        completeness=merge_completeness(*(one.completeness for one in inputs)),
        provenance=merge_labels(*(one.provenance for one in inputs)),
    )


def made(attempt: Attempt, content: ContentRef) -> Result:
    """The result of an agent's attempt; a tool that failed and never worked is missing from it."""
    before = tuple(one.result for one in attempt.assigned.inputs)
    lost = tuple(
        Omission(reason="failed_part", what=f"tool {name}"[: bounds.MAX_SUMMARY_CHARS], detail=why)
        for name, why in attempt.failed_tools.items()
    )
    completeness = merge_completeness(
        *(one.completeness for one in before),
        attempt.completeness,
        Completeness.missing(*lost) if lost else Completeness(),
    )
    standing = worst(*(one.standing for one in before), "degraded" if attempt.degraded or lost else "ok")
    reasons = [
        *(one.standing_reason for one in before if one.standing != "ok"),
        *attempt.degraded,
        *(f"{name} failed" for name in attempt.failed_tools),
    ]
    return Result(
        content=content,
        summary=content.summary,
        standing=standing,
        standing_reason="; ".join(reasons)[: bounds.MAX_REASON_CHARS] if standing != "ok" else "",
        completeness=completeness,
        provenance=merge_labels(attempt.labels, *(one.provenance for one in before)),
        citations=merge_citations(
            tuple(one.citation for one in attempt.evidence if one.citation), *(one.citations for one in before)
        ),
    )
