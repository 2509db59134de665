"""Writes that undo each other: whatever is done, things stand as they stood a round ago.

In: the steps of a lineage, the newest last. Out: a `Finding`, or None. Two write the same thing in turns, and each
writes what it had written before; what is looked at or said in between may tremble, but brings nothing new. Who goes by
the clock (a thermostat at night and by day) does the same and is no loop, and neither is one alone who acts on what he
reads. What is written is compared to the letter, but for the number of a version.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from bulkhead.health.loops.call_identity import differing
from bulkhead.health.loops.counters import bare, unversioned
from bulkhead.health.loops.detectors import MAX_STEP_CHARS, Finding, Level, Step, Window, finding
from bulkhead.health.loops.value_flow import form
from bulkhead.health.text import result_status
from bulkhead.health.thresholds import LoopThresholds

CLOCK_MS = 3_600_000
EVEN = 1.1
"""Rounds of an hour or more that come so evenly go by the clock."""
MOST_CHANGED = 3
_SETS = re.compile(
    r"(?:^|[^a-z])(?:set|scale|resize|update|edit|patch|replace|write|save|assign|move|toggle|change|adjust|configure|"
    r"put|rename|switch|tune|revise|rewrite|override|label|mark)(?:$|[^a-z])"
)
_OPPOSED = (
    ("open", "close"),
    ("reopen", "close"),
    ("start", "stop"),
    ("add", "remove"),
    ("grant", "revoke"),
    ("up", "down"),
    ("raise", "lower"),
    ("pause", "resume"),
    ("on", "off"),
    ("increase", "decrease"),
    ("create", "delete"),
    ("enable", "disable"),
    ("merge", "revert"),
    ("apply", "revert"),
    ("archive", "restore"),
    ("hide", "show"),
    ("attach", "detach"),
    ("lock", "unlock"),
    ("assign", "unassign"),
    ("block", "unblock"),
    ("mount", "unmount"),
)
_WORD = re.compile(r"[a-z]+")


def undone(window: Window, named: LoopThresholds) -> Finding | None:
    """Two writes in turns, each of which puts the other's back."""
    last = window[-1]
    if not _writes(last):
        return None
    mine = [step for step in window if step.action == last.action and _same_write(step, last)]
    if len(mine) < named.counting_warn_rounds:
        return None
    other = next(
        (
            step
            for step in reversed(window)
            if mine[-2].index < step.index < last.index and _writes(step) and _opposed(step, last)
        ),
        None,
    )
    if other is None or (other.agent == last.agent and min(len(other.text), len(last.text)) < named.product_chars):
        return None
    turns = [step for step in window if _same_write(step, last) or _same_write(step, other)]
    part: list[Step] = []
    for step in reversed(turns):
        if part and _same_write(step, part[-1]):
            break
        part.append(step)
    part.reverse()
    rounds = len(part) // 2
    if rounds < named.counting_warn_rounds or _by_the_clock(part) or _news(window, part):
        return None
    level: Level = "stop" if rounds >= named.counting_stop_rounds else "warn"
    who = last.agent if last.agent == other.agent else f"{other.agent} and {last.agent}"
    return finding(
        "undone",
        level,
        2,
        rounds,
        part,
        f"{who} wrote the same two things over each other {rounds} times: after each round all is as it was",
    )


def _writes(step: Step) -> bool:
    return (
        not (
            step.says
            or step.error
            or step.blind
            or result_status.reads(step.action, step.text)
            or result_status.moves(step.action, step.text)
            or result_status.notes(step.action)
        )
        and len(step.text) < MAX_STEP_CHARS
    )


def _same_write(one: Step, other: Step) -> bool:
    if one.error or one.says or one.agent != other.agent or one.action != other.action:
        return False
    return one.call == other.call or unversioned(one.text) == unversioned(other.text)


def _opposed(one: Step, other: Step) -> bool:
    """Whether two writes put the same thing to something else."""
    if one.action != other.action:
        return one.text == other.text and _antonyms(one.action, other.action)
    if one.call == other.call:
        return False
    return _set_otherwise(unversioned(one.text), unversioned(other.text), _SETS.search(one.action.lower()) is not None)


@lru_cache(maxsize=256)
def _antonyms(one: str, other: str) -> bool:
    words, others = set(_WORD.findall(one.lower())), set(_WORD.findall(other.lower()))
    rest, of_other = words - others, others - words
    return len(rest) <= 1 and any(
        {a, b} == rest | of_other or (a in rest and b in of_other) or (b in rest and a in of_other) for a, b in _OPPOSED
    )


@lru_cache(maxsize=256)
def _set_otherwise(one: str, other: str, sets: bool) -> bool:
    """Whether two calls set the same to another value, or each takes away what the other puts in."""
    found = differing(one, other)
    if found is None:
        return False
    count, changed = found
    if not 0 < len(changed) <= MOST_CHANGED or len(changed) == count:
        return False
    if len(changed) > 1 and sorted(str(mine) for mine, _ in changed) == sorted(str(theirs) for _, theirs in changed):
        return True
    return sets and len(changed) == 1


def _by_the_clock(part: Sequence[Step]) -> bool:
    gaps = [later.time_unix_ms - earlier.time_unix_ms for earlier, later in pairwise(part[::2])]
    return bool(gaps) and min(gaps) >= CLOCK_MS and max(gaps) <= EVEN * min(gaps)


def _news(window: Window, part: Sequence[Step]) -> bool:
    """Whether the last round of two who undo each other brought anything that had not been there, but for numbers."""
    agents = {step.agent for step in part}
    since = part[-3].index
    seen = {_told(step) for step in window if step.index <= since}
    return any(
        _told(step) not in seen
        for step in window
        if step.index > since and (step.agent in agents or step.to in agents) and step.index != part[-1].index
    )


def _told(step: Step) -> tuple[str, str, str, str]:
    if step.says:
        return step.agent, step.to, step.text, ""
    return step.agent, step.action, form(unversioned(step.text)), bare(step)
