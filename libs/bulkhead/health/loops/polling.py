"""Whether pauses are patience: somebody who looks again after a while at what may have changed is polling.

In: rounds of steps, with their times and what their results say. Out: yes or no. A model that thinks slowly pauses,
too; its pauses are neither even nor do they grow evenly, and what it looks at has nothing to wait for.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from bulkhead.health.loops.value_flow import makes, starts
from bulkhead.health.text import result_status
from bulkhead.health.thresholds import LoopThresholds

if TYPE_CHECKING:
    from bulkhead.health.loops.detectors import Step, Window

_FLAT, _TWICE = 1.1, 2
_NAMES = re.compile(r":\"([^\"]{3,60})\"|:(\d{2,})")


def deliberate(rounds: "Sequence[Window]", named: LoopThresholds) -> bool:
    """Whether the rounds are polling: a pause before each look, as long as it takes, at something that may change.

    Polling is: an explicit wait in every round, wherever one takes it to begin; or growing pauses (back-off), or a
    look at something that says it is pending, not too often; or very long pauses. What answers with a long text has
    nothing to wait for.
    """
    firsts, last = [one[0] for one in rounds], rounds[-1]
    if any(step.over for step in last) and not any(step.quiet for one in rounds[-2:] for step in one):
        return False  # It has come to its end: whoever waits on, waits for nothing.
    if all(any(step.waited for step in one) for one in rounds[1:]):
        # Who presses the same button again, and sees the same page, does not wait for it.
        return not any(result_status.presses(step.action, step.text) for step in last) or all(
            step.length < named.informative_chars or step.quiet for step in last
        )
    times = [step.time_unix_ms for step in firsts]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    look = min((step.look for step in last if not step.blind), default=result_status.NO)
    passing = any(step.quiet for step in last)
    waiting = passing and not any(step.error for step in last)
    failed = all(step.error for step in last)
    told = 0 if waiting or failed or look else max(step.length for step in last)
    if told >= named.page_chars or any(step.lasting for step in last):
        return False
    if failed and passing and len(last) == 1 and len(rounds) < named.retries_stop and not any(gaps):
        return True  # Nobody knows how patient it was.
    if _steady(gaps, named.backoff_steady if passing else named.backoff_exact, named):
        return True
    if told >= named.informative_chars:
        # Half a minute again and again before what only looks is a watch, in whatever words it says that all is as it
        # was: nobody outside can tell what has not come yet from what never will.
        return any(gaps) and _calm(gaps, named) and not any(_acts(step) for step in last)
    if not any(gaps):
        # No times were recorded: what says that it is pending is believed, and what was seen to change after all.
        # A look at what moves by itself is taken for a watch.
        return waiting or look >= result_status.WATCHES
    if (waiting or look == result_status.RETURNS) and min(gaps) >= named.poll_gap_ms:
        return True
    if _calm(gaps, named) or (look and min(gaps) >= named.look_gap_ms):
        return True
    return _backs_off(gaps, named) and (passing or (not failed and _even(gaps, named.backoff_even)))


def _calm(gaps: Sequence[int], named: LoopThresholds) -> bool:
    """Pauses that are even and not short, or all of them long."""
    even = min(gaps) >= named.calm_gap_ms and max(gaps) <= named.even_gaps * min(gaps)
    return even or min(gaps) >= named.rare_gap_ms


def _acts(step: "Step") -> bool:
    """Whether it may have done more than look: by its name, or it is said."""
    if step.says or step.error or result_status.presses(step.action, step.text) or result_status.mutates(step.action):
        return True
    return starts(step.action) or (makes(step.action) and not result_status.reads(step.action, step.text))


def comes_up(window: "Window", count: int, named: LoopThresholds) -> bool:
    """Whether the last `count` calls wait for what their agent has set going just before: each fails as what is not up
    yet does, some seconds after the other, and the act before them was about the same thing."""
    part = window[-count:]
    if not part[-1].quiet or not count < min(named.comes_up_stop, len(window)):
        return False
    gaps = [later.time_unix_ms - earlier.time_unix_ms for earlier, later in pairwise(part)]
    before = window[-count - 1]
    if min(gaps) < named.look_gap_ms or before.says or before.error or before.agent != part[0].agent:
        return False
    named_then, asked = {one or other for one, other in _NAMES.findall(before.text)}, part[0].text
    return not result_status.reads(before.action, before.text) and any(one in asked for one in named_then)


def _steady(gaps: Sequence[int], within: float, named: LoopThresholds) -> bool:
    """Pauses that grow, each by about the same factor, to a second or more: sooner nobody waits."""
    if len(gaps) < 2 or min(gaps) <= 0 or gaps[-1] < max(named.poll_gap_ms, named.backoff_total * gaps[0]):
        return False
    factors = [later / earlier for earlier, later in pairwise(gaps)]
    return min(factors) >= named.backoff_growth and max(factors) <= within * min(factors)


def _backs_off(gaps: Sequence[int], named: LoopThresholds) -> bool:
    """Pauses that grow, up to a plateau."""
    if len(gaps) < 2 or gaps[0] <= 0 or gaps[-1] < max(named.poll_gap_ms, named.backoff_total * gaps[0]):
        return False
    return all(
        later >= named.backoff_growth * earlier
        or (earlier >= named.backoff_total * gaps[0] and later >= named.backoff_plateau * earlier)
        for earlier, later in pairwise(gaps)
    )


def _even(gaps: Sequence[int], within: float) -> bool:
    """Whether pauses grow twice at least, by about the same factor."""
    growing = [later / earlier for earlier, later in pairwise(gaps) if later > _FLAT * earlier]
    return len(growing) >= _TWICE and max(growing) <= within * min(growing)
