"""Polling: repeated looks after a pause at something that may change are no loop.

In: rounds of steps, with their times and the states that their results tell of. Out: whether the repetition is
excused, and how many rounds of it are allowed otherwise. A slow model pauses, too: its pauses are neither even nor do
they grow evenly.
"""

from collections.abc import Sequence
from itertools import pairwise

from bulkhead.health.loops.steps import Window
from bulkhead.health.thresholds import LoopThresholds


def is_polling(rounds: Sequence[Window], thresholds: LoopThresholds) -> bool:
    """Check whether each round is a look after a deliberate pause at something that may change."""
    last = rounds[-1]
    states = {step.state for step in last}
    pending, failed = "pending" in states, all(step.error for step in last)
    if "over" in states and not any(step.state == "pending" for step in rounds[-2]):
        return False  # It has come to its end: a further wait is for nothing.
    if all(any(step.waited for step in steps) for steps in rounds[1:]):
        return True
    if "lasting" in states:
        return False
    gaps = [later[0].time_unix_ms - earlier[0].time_unix_ms for earlier, later in pairwise(rounds)]
    longest_result, watched = max(step.length for step in last), all(step.watches for step in last)
    if not any(gaps):
        # A transcript without times: the pauses are unknown.
        if failed:
            return "passing" in states and len(last) == 1 and len(rounds) < thresholds.retries_stop
        return pending or (watched and longest_result < thresholds.informative_chars)
    moving = watched or all(step.shown > 1 for step in last)
    if (pending and min(gaps) >= thresholds.poll_gap_ms) or (moving and min(gaps) >= thresholds.look_gap_ms):
        return True
    if longest_result >= thresholds.page_chars and not pending and not failed:
        return False  # However long one pauses, a page is read already.
    short = longest_result < thresholds.informative_chars and not failed
    if _is_backoff(gaps, thresholds, helps="passing" in states or pending, short=short):
        return True
    if failed and "passing" in states and min(gaps) >= thresholds.look_gap_ms:
        return len(last) == 1 and len(rounds) < thresholds.patient_stop
    even = min(gaps) >= thresholds.calm_gap_ms and max(gaps) <= thresholds.even_gaps * min(gaps)
    return (even or min(gaps) >= thresholds.rare_gap_ms) and all(
        step.reads or step.watches or step.length < thresholds.informative_chars for step in last
    )


def _is_backoff(gaps: Sequence[int], thresholds: LoopThresholds, *, helps: bool, short: bool) -> bool:
    """Pauses of a back-off, to a second or more: each longer than the one before, up to a plateau where the result says
    that waiting helps, or is short. Where it does not say so they grow evenly, which a slow model's do not."""
    if len(gaps) < 2 or min(gaps) <= 0 or gaps[-1] < max(thresholds.poll_gap_ms, thresholds.backoff_total * gaps[0]):
        return False
    factors = [later / earlier for earlier, later in pairwise(gaps)]
    flat = [earlier >= thresholds.backoff_total * gaps[0] and (helps or short) for earlier in gaps[:-1]]
    least = [thresholds.backoff_plateau if plateau else thresholds.backoff_growth for plateau in flat]
    if any(factor < most for factor, most in zip(factors, least, strict=True)):
        return False
    growing = [factor for factor in factors if factor >= thresholds.backoff_growth]
    even = thresholds.backoff_even_short if short else thresholds.backoff_even
    return helps or (len(growing) >= min(2, len(factors)) and max(growing) <= even * min(growing))


def allowed_rounds(round_: Window, thresholds: LoopThresholds) -> int:
    """Rounds after which a repetition is a loop.

    Steps whose effect shows elsewhere, and looks that have been seen to move, may stay as they are for longer. A piece
    of work that is handed in and reviewed has one round more: reviews end by themselves after three as a rule. What
    begins anew each time may be a program that a person runs again.
    """
    if any(step.begins for step in round_):
        return thresholds.patient_stop
    blind = any(step.blind for step in round_)
    if all(step.blind or step.shown >= thresholds.lively or (blind and step.watches) for step in round_):
        return thresholds.patient_stop
    single = len(round_) == 1 or blind
    reviewed = any(step.work for step in round_) and all(step.says for step in round_)
    return thresholds.repeat_stop if single or reviewed else thresholds.cycle_stop_rounds
