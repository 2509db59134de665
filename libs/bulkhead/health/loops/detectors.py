"""Loop detectors: each a pure function over a window of steps and its thresholds.

In: the last steps of one view (an agent, or a whole lineage), the newest last. Out: a `Loop`, or None. Texts of steps
were normalised before (health/text/normalize), so that a fresh request id or a timestamp makes no new call and no new
result. The result counts as much as the call: the same call with another result is no repetition.
"""

from itertools import pairwise

from bulkhead.health.findings import Level
from bulkhead.health.loops.polling import allowed_rounds, is_polling
from bulkhead.health.loops.steps import Loop, Window
from bulkhead.health.text import result_status
from bulkhead.health.text.normalize import phrases_of
from bulkhead.health.thresholds import LoopThresholds

SLOT_WORDS = 3
"""Words in the one place in which two entries of a list differ, at most."""


def find_cycle(window: Window, thresholds: LoopThresholds) -> Loop | None:
    """The same call with the same result, or a period of up to `max_period` of them, round after round."""
    sames = [step.same for step in window]
    for period in range(1, min(thresholds.max_period, len(sames) // 2) + 1):
        if sames[-period:] != sames[-2 * period : -period] or (period > 1 and len(set(sames[-period:])) == 1):
            continue
        rounds = 2
        while sames[-(rounds + 1) * period : -rounds * period] == sames[-period:]:
            rounds += 1
        part = window[-rounds * period :]
        if rounds < _warn_rounds(part[-period:], thresholds):
            continue
        level: Level = "stop" if rounds >= allowed_rounds(part[-period:], thresholds) else "warn"
        if is_polling([part[start : start + period] for start in range(0, len(part), period)], thresholds):
            if rounds < thresholds.poll_warn_rounds:
                return None
            level = "warn"
        return _describe_cycle(part, period, rounds, level)
    return None


def _warn_rounds(round_: Window, thresholds: LoopThresholds) -> int:
    """Rounds after which a repetition is warned of."""
    if any(step.begins for step in round_):
        return thresholds.begun_warn
    return thresholds.repeat_warn if len(round_) == 1 else thresholds.cycle_warn_rounds


def _describe_cycle(part: Window, period: int, rounds: int, level: Level) -> Loop:
    last, agents = part[-1], list(dict.fromkeys(step.agent for step in part))
    if period == 1:
        verb = "said the same" if last.says else f"called {last.action} with the same arguments and got the same result"
        family = "error" if last.error else "repeat"
        return Loop(family, level, 1, rounds, part, f"{last.agent} {verb} {rounds} times in a row")
    who = agents[0] if len(agents) == 1 else " -> ".join((*agents[:8], agents[0]))
    acts = ", ".join(dict.fromkeys(step.action for step in part[:period]))
    family = "ring" if len(agents) > 2 else "alternation" if period == 2 else "cycle"
    description = f"{who} went through the same {period} acts ({acts}) with the same results {rounds} times"
    return Loop(family, level, period, rounds, part, description)


def find_stagnation(window: Window, thresholds: LoopThresholds) -> Loop | None:
    """Stagnation: every act of the window's end was seen before with its result, in whatever order."""
    known_acts: set[int] = set()
    start = 0
    for index, step in enumerate(window):
        if step.same not in known_acts:
            known_acts.add(step.same)
            start = index + 1
    part = window[start:]
    kinds = len({step.same for step in part})
    one_round = part if any(step.begins for step in part) else part[-kinds:]
    if kinds < 2 or len(part) < max(thresholds.stagnation_acts, max(3, allowed_rounds(one_round, thresholds)) * kinds):
        return None
    if is_polling([part[offset : offset + kinds] for offset in range(len(part) % kinds, len(part), kinds)], thresholds):
        return None
    description = (
        f"{len(part)} acts in a row said and found nothing new; they are {kinds} different ones again and again"
    )
    return Loop("stagnation", "stop", kinds, len(part) // kinds, part, description)


def find_repeated_error(window: Window, thresholds: LoopThresholds) -> Loop | None:
    """The same call fails again and again, in whatever words; or an action with the same error, whatever is asked."""
    last = window[-1]
    if not last.error:
        return None
    count = calls = 0
    for step in reversed(window):
        if not step.error or step.action != last.action:
            break
        same = step.call == last.call
        calls += same and calls == count
        if not same and step.result != last.result:
            break
        count += 1
    if calls >= thresholds.repeat_warn and not is_polling([[step] for step in window[-calls:]], thresholds):
        level: Level = "stop" if calls >= thresholds.repeat_stop else "warn"
        description = (
            f"{last.agent} called {last.action} with the same arguments, and it failed, {calls} times in a row"
        )
        if level == "stop" or count < thresholds.error_stop:
            return Loop("error", level, 1, calls, window[-calls:], description)
    part = window[-count:]
    if count < (thresholds.error_warn_passing if last.state == "passing" else thresholds.error_warn):
        return None
    if is_polling([[step] for step in part], thresholds):
        return None
    listed = last.state != "lasting" and result_status.reports_absence(last.answer) and _covers_list(part)
    level = "stop" if count >= (thresholds.list_error_stop if listed else thresholds.error_stop) else "warn"
    description = f"{last.agent} got the same error of {last.action} {count} times in a row"
    return Loop("error", level, 1, count, part, description)


def _covers_list(part: Window) -> bool:
    """Check whether calls are for the entries of a list: most differ from the one before in one place, none
    comes again.
    """
    entries = sum(_is_next_entry(step.text.split(), later.text.split()) for step, later in pairwise(part))
    return 2 * entries > len(part) - 1 and len({step.text for step in part}) == len(part)


def _is_next_entry(words: list[str], others: list[str]) -> bool:
    head = _first_difference(words, others)
    words, others = words[head:][::-1], others[head:][::-1]
    return max(len(words), len(others)) - _first_difference(words, others) <= SLOT_WORDS


def _first_difference(words: list[str], others: list[str]) -> int:
    """Index of the first word that differs; 0 where one text begins with the other."""
    pairs = enumerate(zip(words, others, strict=False))
    return next((index for index, (first_word, second_word) in pairs if first_word != second_word), 0)


def find_monologue(window: Window, thresholds: LoopThresholds) -> Loop | None:
    """Text after text to no agent and without a call; it stops when the texts also repeat themselves."""
    count = next((index for index, step in enumerate(reversed(window)) if not step.says or step.to), len(window))
    part = window[len(window) - count :]
    known_phrases: set[str] = set()
    stale = 0
    for step in part:
        new = phrases_of(step.text) - known_phrases
        stale = stale + 1 if known_phrases and len(new) < thresholds.stale_below * len(phrases_of(step.text)) else 0
        known_phrases |= new
    if count >= thresholds.monologue_stop and stale >= thresholds.monologue_stop_stale:
        level: Level = "stop"
    elif stale >= thresholds.monologue_warn_stale or count >= thresholds.monologue_warn:
        level = "warn"
    else:
        return None
    description = (
        f"{part[-1].agent} wrote {count} texts in a row without acting, the last {stale} with little that is new"
    )
    return Loop("monologue", level, 1, count, part, description)
