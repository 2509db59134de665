"""Standing of a result: degraded for a reason, or taken over from a model's reply that it rests on, though that is no
part of it (a judge's, a plan's).

In: the result; a reason or the reply. Out: the result with the worse standing of both, and with what either lacks.
"""

from collections.abc import Sequence

from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.result import (
    Completeness,
    Result,
    cut_completeness,
    merge_completeness,
    merge_labels,
    worst_standing,
)


def standing_of_reply(whose: str, reply: ModelCallReplied) -> Result:
    """Standing and completeness of a reply, as a result without content. whose: shown with each."""
    omissions = tuple(
        row.model_copy(update={"what": f"{whose}: {row.what}"[: bounds.MAX_SUMMARY_CHARS]})
        for row in reply.completeness.omissions
    )
    reason = f"{whose}: {reply.standing_reason}"[: bounds.MAX_REASON_CHARS] if reply.standing != "ok" else ""
    return Result(
        standing=reply.standing,
        standing_reason=reason,
        completeness=Completeness(complete=reply.completeness.complete, omissions=omissions),
    )


def merge_results(results: Sequence[Result], passed: Result | None = None, words: str = "") -> Result:
    """The result of a step that makes nothing: the one that it passes on, or else its own words, with all that the
    results it builds on lack and rest on."""
    labels = [result.provenance for result in results]
    base = passed if passed is not None else Result(summary=words[: bounds.MAX_SUMMARY_CHARS])
    changes = {
        "standing": worst_standing(*(result.standing for result in results)),
        "standing_reason": next((result.standing_reason for result in results if result.standing != "ok"), ""),
        "completeness": merge_completeness(*(result.completeness for result in results), cut_completeness(labels)),
        "provenance": merge_labels(*labels),
    }
    return base.model_copy(update=changes)


def resting_on(result: Result, other: Result) -> Result:
    """The result, no better and no more complete than what it rests on."""
    if other.standing == "ok" and other.completeness.complete:
        return result
    reasons = [row.standing_reason for row in (result, other) if row.standing_reason]
    return result.model_copy(
        update={
            "standing": worst_standing(result.standing, other.standing),
            "standing_reason": "; ".join(dict.fromkeys(reasons))[: bounds.MAX_REASON_CHARS],
            "completeness": merge_completeness(result.completeness, other.completeness),
        }
    )


def degrade_result(result: Result, *reasons: str) -> Result:
    """The result, degraded, with these reasons in their order ("" is left out)."""
    reason = "; ".join(filter(None, reasons))[: bounds.MAX_REASON_CHARS]
    changed = {"standing": worst_standing(result.standing, "degraded"), "standing_reason": reason}
    return result.model_copy(update=changed)
