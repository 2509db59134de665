"""Calls that a doer puts off: how often, and until when. Pure.

In: `CallDeferred`, and how often the call was put off before. Out: the count from then on, and when it is made again.
"""

from bulkhead_contracts import bounds
from bulkhead_contracts.control import CallDeferred

MAX_DELAY_FACTOR = 8


def next_deferral(body: CallDeferred, deferrals: int) -> tuple[int, int] | None:
    """Deferrals from then on, and the delay in ms until the call is made again; None for one that was put off too
    often. A pause (by a halt, a breaker, a person) has no cap and is not counted.
    """
    if body.paused:
        return deferrals, body.after_ms
    if deferrals >= bounds.MAX_CALL_DEFERRALS:
        return None
    return deferrals + 1, body.after_ms * min(deferrals + 1, MAX_DELAY_FACTOR)
