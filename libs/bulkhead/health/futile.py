"""Loops in which something counts up by itself: rounds that lead nowhere although no two results are the same.

In: windows of steps, as `loops` has them. Out: a `Finding`, or None. Numbers, ids and tokens of a result are left out
here, so it must show in another way that nothing comes of it: a result of each round says that it failed, or what was
looked at afterwards is the same to the letter while a counter rises. Numbers that fall are progress.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

from bulkhead.health.loops import Finding, Level, Step, Window, finding
from bulkhead.health.pauses import deliberate
from bulkhead.health.thresholds import LoopThresholds

MAX_PERIOD = 6
_VARYING = re.compile(r"\b[0-9a-f]{32,}\b|\b(?=\w*\d)[\w-]{24,}|\d+(?:[.,]\d+)*")
_NUMBER = re.compile(r"(?<![\w.])\d+(?![\w.])")
_FAILS = re.compile(
    r":\s?false\b|\b(?:fail(?:ed|s|ure)?|panic|crash\w*|denied|invalid|error|exception|traceback|unavailable|refused|"
    r"unable|cannot|not (?:valid|found|allowed|possible)|wrong|rejected)\b",
    re.IGNORECASE,
)


def counting(window: Window, named: LoopThresholds) -> Finding | None:
    """The same calls, whose results differ in numbers and tokens alone, and in each round it shows that it is in vain.

    window: calls alone.
    """
    for period in range(1, min(MAX_PERIOD, len(window) // named.counting_stop_rounds) + 1):
        rounds = [window[len(window) - at : len(window) - at + period]
                  for at in range(named.counting_stop_rounds * period, 0, -period)]  # fmt: skip
        if window[-1].call != window[-1 - period].call:
            continue
        places = list(zip(*rounds, strict=True))
        if not all(_same_but_for_numbers(place) for place in places):
            continue
        varying = [place for place in places if len({step.result for step in place}) > 1]
        if not varying or any(step.quiet and not step.error for step in rounds[-1]) or deliberate(rounds, named):
            return None
        moves = [_moves(place) for place in varying]
        if "falls" in moves:
            return None
        seen = any(len({step.result for step in place}) == 1 and place[0].length >= named.informative_chars
                   and not place[0].error for place in places)  # fmt: skip
        failed = any(all(step.error or _FAILS.search(step.answer) for step in place) for place in places)
        if not failed and not (seen and all(one == "rises" for one in moves)):
            return None
        part = window[-named.counting_stop_rounds * period :]
        return finding("counting", "stop", period, named.counting_stop_rounds, part,
                       f"{part[-1].agent} did the same {period} times {named.counting_stop_rounds} over; only what "
                       "counts up by itself differs, and nothing came of it")
    return None


def handed_round(window: Window, named: LoopThresholds) -> Finding | None:
    """The same words go round from one to the next, and come to who had said them; what each does between is the same
    but for its numbers. window: of the whole lineage, the newest is said to somebody."""
    last = window[-1]
    if len(last.text) < named.handed_chars:
        return None
    chain, doings, doing = [last], list[frozenset[tuple[str, str, str]]](), set[tuple[str, str, str]]()
    for step in reversed(window[:-1]):
        if not step.says:
            if step.agent == chain[-1].agent:
                doing.add(_form(step))
        elif step.to == chain[-1].agent and step.text == last.text:
            chain.append(step)
            doings.append(frozenset(doing))
            doing = set()
    agents = len({step.agent for step in chain})
    rounds = len(chain) // agents
    if agents < _SEVERAL or rounds < named.cycle_warn_rounds:
        return None
    # The oldest turn may begin before the window does.
    if len(set(doings[:-1])) > 1 or deliberate([[step] for step in chain[::-1] if step.agent == last.agent], named):
        return None
    level: Level = "stop" if rounds >= named.cycle_stop_rounds else "warn"
    return finding("ring", level, agents, rounds, chain[::-1],
                   f"{agents} agents handed the same words round and round, {rounds} times")


def claimed_round(window: Window, named: LoopThresholds) -> Finding | None:
    """Three agents or more make one call in turns, round and round; only its numbers differ. window: the lineage's."""
    calls = [step for step in window if not step.says]
    last = calls[-1]
    size = next((at for at, step in enumerate(reversed(calls[:-1]), 1) if step.agent == last.agent), 0)
    part = calls[-named.cycle_stop_rounds * size :] if size else []
    if size <= _SEVERAL or len(part) < named.cycle_stop_rounds * size:
        return None
    if any(one.agent != other.agent for one, other in zip(part, part[size:], strict=False)):
        return None
    if len({_form(step) for step in part}) > 1 or deliberate([part[at : at + size] for at in range(0, len(part), size)],
                                                             named):  # fmt: skip
        return None
    return finding("ring", "stop", size, named.cycle_stop_rounds, part,
                   f"{size} agents made the same call {last.action} in turns, {named.cycle_stop_rounds} times round")


_SEVERAL = 2


def _form(step: Step) -> tuple[str, str, str]:
    """What an agent does, and what comes of it without its name, numbers and tokens."""
    return step.action, step.text, _VARYING.sub("#", step.answer.replace(step.agent, "@"))


def _same_but_for_numbers(place: Sequence[Step]) -> bool:
    first = place[0]
    if any(step.call != first.call or step.error != first.error for step in place):
        return False
    return len({step.result for step in place}) == 1 or all(_bare(step) == _bare(first) for step in place)


def _bare(step: Step) -> str:
    if step.bare is None:
        step.bare = _VARYING.sub("#", step.answer)
    return step.bare


def _moves(place: Sequence[Step]) -> str:
    """Whether the numbers of one place rise from round to round, fall, or neither."""
    numbers = [[int(one) for one in _NUMBER.findall(step.answer)[:8] if len(one) < _LONGEST] for step in place]
    changes = [
        {(b > a) - (b < a) for a, b in zip(one, other, strict=False)} - {0} for one, other in pairwise(numbers)
    ]
    if changes and all(one == {1} for one in changes):
        return "rises"
    return "falls" if changes and all(-1 in one for one in changes) else "varies"


_LONGEST = 16
