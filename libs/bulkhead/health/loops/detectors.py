"""Loop detectors: each a pure function over a window of steps, with named thresholds.

In: the last steps of one view (an agent, a group of agents that talk to each other, or a whole lineage), the newest
last. Out: a `Finding`, or None. What a step says was normalised before (`normal`), so that a fresh request id or a
timestamp makes no new call and no new result. Output counts as much as the call: the same call with another result is a
question well asked.

Stop comes with the third repetition of a period at the latest; near-duplicate text alone never stops. Looking again
after a pause is polling (see `deliberate`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from bulkhead.health.loops.polling import comes_up, deliberate
from bulkhead.health.text import result_status
from bulkhead.health.text.normalize import phrases
from bulkhead.health.text.similarity import alike, next_of_a_list, words_of
from bulkhead.health.thresholds import LoopThresholds

Level = Literal["warn", "stop"]
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_OWN_PART = 0.6
"""So great a part of the words of a list's entries are of one entry alone."""
MAX_STEP_CHARS = 800
"""So much is kept of what an act says."""


@dataclass(slots=True)
class Step:
    """One act of a view. same: digest of call and result; call, result: of each. length: of the result's text.

    what: the digest without the agent. kin: with numbered names as one. page: digest, without the number, of a call for
    a page on which there was nothing, else 0. quiet: the result says that something is pending, or the error that it
    will pass; lasting: or that it will not; over: what was asked for by its name has come to its
    end. vain: it is said, and says that nothing came of it. waited: a deliberate pause lies before it. look: how much
    what it shows changes by itself (`looks`); shown: how many different things it has shown. blind: it moves on from
    where it stands, and its answer does not show what came of it. work: a text that is said to be work. text: what it
    asks or says; answer: the beginning of its result; heard: what changes by itself in it, to the letter. Made when
    they are needed: fresh, phrases of its text, and told, of its answer; bare, its answer without numbers and tokens;
    vainly, whether its answer says that it came to nothing.
    """

    id: str
    agent: str
    action: str
    same: int
    call: int
    result: int
    index: int
    time_unix_ms: int = 0
    error: bool = False
    says: bool = False
    to: str = ""
    quiet: bool = False
    lasting: bool = False
    over: bool = False
    vain: bool = False
    waited: bool = False
    length: int = 0
    text: str = ""
    answer: str = ""
    what: int = 0
    kin: int = 0
    page: int = 0
    look: int = result_status.NO
    shown: int = 0
    blind: bool = False
    work: bool = False
    heard: frozenset[str] = frozenset()
    fresh: frozenset[str] | None = field(default=None, repr=False)
    told: frozenset[str] | None = field(default=None, repr=False)
    bare: str | None = field(default=None, repr=False)
    vainly: bool | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a detector saw. period: acts per round; rounds: how many were seen; evidence: ids of acts, oldest first."""

    family: str
    level: Level
    period: int
    rounds: int
    evidence: tuple[str, ...]
    agents: tuple[str, ...]
    what: str


Window = Sequence[Step]


def repeat(window: Window, named: LoopThresholds) -> Finding | None:
    """The same call with the same arguments and the same result, again and again."""
    last = window[-1]
    count = 0
    for step in reversed(window):
        if step.same != last.same:
            break
        count += 1
    if count < named.repeat_warn:
        return None
    rounds = [[step] for step in window[-count:]]
    level: Level = "stop" if count >= (named.blind_stop if last.blind else named.repeat_stop) else "warn"
    if deliberate(rounds, named) or (last.error and comes_up(window, count, named)):
        if count < named.poll_warn_rounds:
            return None
        level = "warn"
    verb = "said the same" if last.says else f"called {last.action} with the same arguments and got the same result"
    family = "error" if last.error else "repeat"
    return finding(family, level, 1, count, window[-count:], f"{last.agent} {verb} {count} times in a row")


def cycle(window: Window, named: LoopThresholds) -> Finding | None:
    """The same 2 to `max_period` acts with the same results, round after round, by one agent or by several."""
    sames = [step.same for step in window]
    size = len(sames)
    for period in range(2, min(named.max_period, size // named.cycle_warn_rounds) + 1):
        if sames[-1] != sames[-1 - period] or sames[-period:] != sames[-2 * period : -period]:
            continue
        rounds = 2
        while (rounds + 1) * period <= size and sames[-(rounds + 1) * period : -rounds * period] == sames[-period:]:
            rounds += 1
        part = window[-rounds * period :]
        if len(set(sames[-period:])) == 1:
            continue  # A repetition of period 1, which `repeat` tells.
        level: Level = "stop" if rounds >= _patience(part[-period:], named) else "warn"
        if deliberate([part[at : at + period] for at in range(0, len(part), period)], named):
            if rounds < named.poll_warn_rounds:
                return None
            level = "warn"
        if rounds >= named.cycle_warn_rounds:
            agents = list(dict.fromkeys(step.agent for step in part))
            who = agents[0] if len(agents) == 1 else " -> ".join((*agents[:8], agents[0]))
            acts = ", ".join(dict.fromkeys(step.action for step in part[:period]))
            family = "ring" if len(agents) > 2 else "alternation" if period == 2 else "cycle"
            return finding(
                family,
                level,
                period,
                rounds,
                part,
                f"{who} went through the same {period} acts ({acts}) with the same results {rounds} times",
            )
    return None


def _patience(round_: Window, named: LoopThresholds) -> int:
    """After how many rounds it is a loop. Steps whose effect shows elsewhere, and looks that have shown under the same
    steps that there is one, may stay as they are for longer; so may a piece of work that is handed in and approved: a
    review has its fixed number of rounds, three as a rule, and ends by itself."""
    if not any(step.blind for step in round_):
        return named.cycle_stop_rounds + (any(step.work for step in round_) and all(step.says for step in round_))
    if all(step.blind or step.shown >= named.lively or step.look >= result_status.WATCHES for step in round_):
        return named.blind_stop
    return named.cycle_stop_rounds + 1


def failing(window: Window, named: LoopThresholds) -> Finding | None:
    """The very same call fails again and again, in whatever words, and whatever was said to its agent in between."""
    window = [step for step in window if not step.says]
    last = window[-1]
    count = 0
    for step in reversed(window):
        if not step.error or step.call != last.call:
            break
        count += 1
    if count < named.repeat_warn or deliberate([[step] for step in window[-count:]], named):
        return None
    if comes_up(window, count, named):
        return None
    level: Level = "stop" if count >= named.repeat_stop else "warn"
    return finding(
        "error",
        level,
        1,
        count,
        window[-count:],
        f"{last.agent} called {last.action} with the same arguments, and it failed, {count} times in a row",
    )


def beyond(window: Window, named: LoopThresholds) -> Finding | None:
    """One page after the other, and nothing on any of them."""
    last = window[-1]
    count = 0
    for step in reversed(window):
        if not step.page or step.page != last.page:
            break
        count += 1
    if count < named.beyond_warn:
        return None
    level: Level = "stop" if count >= named.beyond_stop else "warn"
    return finding(
        "beyond",
        level,
        1,
        count,
        window[-count:],
        f"{last.agent} asked {last.action} for {count} pages in a row, with nothing on any of them",
    )


def product(window: Window, named: LoopThresholds) -> Finding | None:
    """The same piece of work handed in again, unchanged, whatever others said of it in between. window: calls alone."""
    if len(window[-1].text) < named.product_chars:
        return None
    count = 0
    for step in reversed(window):
        if step.same != window[-1].same:
            break
        count += 1
    part = window[-count:]
    # Work that is handed in is no look at anything: pauses excuse nothing, but for such as it takes on purpose.
    if count < named.repeat_warn or all(step.waited or step.quiet for step in part[1:]):
        return None
    level: Level = "stop" if count >= (named.blind_stop if part[-1].blind else named.repeat_stop) else "warn"
    return finding(
        "repeat",
        level,
        1,
        count,
        part,
        f"{part[-1].agent} called {part[-1].action} with the same "
        f"arguments and got the same result {count} times, whatever was said in between",
    )


def passed(window: Window, named: LoopThresholds) -> Finding | None:
    """The same call with the same result by one agent after the other, each told to by the last."""
    last = window[-1]
    part, told = [last], set[str]()
    for step in reversed(window[:-1]):
        if step.says:
            if step.to == part[-1].agent:
                told.add(step.agent)
        elif step.what != last.what or (step.agent != part[-1].agent and step.agent not in told):
            break
        else:
            part.append(step)
            told.clear()
    part.reverse()
    if len(part) < named.repeat_warn or deliberate([[step] for step in part], named):
        return None
    agents = tuple(dict.fromkeys(step.agent for step in part))
    level: Level = "stop" if len(part) >= named.repeat_stop else "warn"
    return finding(
        "ring",
        level,
        1,
        len(part),
        part,
        f"{' -> '.join(agents[:8])} passed {last.action} on: the same call and result {len(part)} times",
    )


def respawned(window: Window, named: LoopThresholds) -> Finding | None:
    """A fresh agent is asked for the same thing, comes to nothing as the last one did, and another one is asked."""
    kins = [step.kin for step in window]
    for period in range(2, min(named.max_period, len(kins) // named.cycle_warn_rounds) + 1):
        if kins[-period:] != kins[-2 * period : -period]:
            continue
        round_ = window[-period:]
        rounds = 2
        while (rounds + 1) * period <= len(kins) and kins[-(rounds + 1) * period : -rounds * period] == kins[-period:]:
            rounds += 1
        part = window[-rounds * period :]
        each = [part[at : at + period] for at in range(0, len(part), period)]
        if not _others_each_time(each) or deliberate(each, named):
            return None
        # To ask one after the other, and hear no, may be an inquiry: let it go on for one more.
        least = named.cycle_stop_rounds + all(step.says for step in round_)
        level: Level = "stop" if rounds >= least else "warn"
        return finding(
            "respawn",
            level,
            period,
            rounds,
            part,
            f"{round_[0].agent} and a fresh agent each time came to nothing in the same way {rounds} times",
        )
    return None


def _others_each_time(rounds: Sequence[Window]) -> bool:
    """Whether somebody is in every round, with him each time somebody who is in no other, and that one gets nowhere."""
    casts = [{step.agent for step in one} for one in rounds]
    core = set.intersection(*casts)
    others = [cast - core for cast in casts]
    if not core or not all(others) or sum(map(len, others)) != len(set.union(*others)):
        return False
    return any((step.error or step.vain) and step.agent in others[-1] for step in rounds[-1])


def stuffing(window: Window, named: LoopThresholds) -> Finding | None:
    """The same thing is handed in again and again, with the same answer, longer, and with nothing new in it."""
    last, longer = window[-1], ""
    count, later = 0, frozenset[str]()
    if len(last.text) >= MAX_STEP_CHARS:
        return None
    for step in reversed(window):
        if step.action != last.action or step.result != last.result or len(step.text) < named.product_chars:
            break
        if longer and len(step.text) >= len(longer):
            break
        found = phrases(step.text)
        if longer and len(later - found) > named.stuffing_phrases:
            break
        count, later, longer = count + 1, found, step.text
    part = window[-count:]
    if count < named.stuffing_stop:
        return None
    return finding(
        "stuffing",
        "stop",
        1,
        count,
        part,
        f"{last.agent} handed the same in to {last.action} {count} "
        "times, longer each time, and with nothing in it that is new",
    )


def stagnation(window: Window, named: LoopThresholds) -> Finding | None:
    """Nothing new for long, in whatever order: every act, with its result, was seen before."""
    seen: set[int] = set()
    start = 0
    for at, step in enumerate(window):
        if step.same not in seen:
            seen.add(step.same)
            start = at + 1
    part = window[start:]
    kinds = len({step.same for step in part})
    rounds = max(named.stagnation_rounds, _patience(part, named) if len(part) > kinds else 0)
    if kinds < 2 or len(part) < max(named.stagnation_acts, rounds * kinds):
        return None
    if any(step.look == result_status.RETURNS for step in part) or deliberate(
        [part[at : at + kinds] for at in range(len(part) % kinds, len(part), kinds)], named
    ):
        return None  # What moves to and fro by itself may do so.
    what = f"{len(part)} acts in a row said and found nothing new; they are {kinds} different ones again and again"
    return finding("stagnation", "stop", kinds, len(part) // kinds, part, what)


def errors(window: Window, named: LoopThresholds) -> Finding | None:
    """The same error of the same action, however its arguments were changed."""
    last = window[-1]
    if not last.error:
        return None
    count = 0
    for step in reversed(window):
        if not step.error or step.action != last.action:
            break
        if step.result != last.result and _form(step) != _form(last):
            break
        count += 1
    least = named.error_warn_passing if last.quiet else named.error_warn
    if count < least or deliberate([[step] for step in window[-count:]], named) or comes_up(window, count, named):
        return None
    most = named.error_stop
    numbers = len({step.result for step in window[-count:]}) > 1
    if count >= most and (numbers or result_status.absent(last.answer)) and is_list(window[-most:]):
        most = named.list_error_stop
    level: Level = "stop" if count >= most else "warn"
    return finding(
        "error",
        level,
        1,
        count,
        window[-count:],
        f"{last.agent} got the same error of {last.action} {count} times in a row",
    )


def _form(step: Step) -> str:
    return _NUMBER.sub("#", step.answer)


def is_list(part: Window) -> bool:
    """Whether calls are for the entries of a list: most differ from the last in one place, and none comes again."""
    pairs = [next_of_a_list(one.text, other.text) for one, other in pairwise(part)]
    if 2 * sum(pairs) <= len(pairs) or len({step.text for step in part}) < len(part):
        return False
    texts = [words_of(step.text) for step in part]
    common = frozenset.intersection(*texts)
    own = [one for text in texts for one in text - common]
    return len(set(own)) >= _OWN_PART * len(own)


def monologue(window: Window, named: LoopThresholds) -> Finding | None:
    """Text after text to nobody, or into a list of plans, and no other call; it stops only what also says the same
    over and over."""
    count = 0
    for step in reversed(window):
        if step.fresh is None or (not step.says and step.result != window[-1].result):
            break
        count += 1
    if count < named.monologue_warn_stale + 1:
        return None
    part = window[-count:]
    known: set[str] = set(part[0].fresh or ())
    stale = 0
    for step in part[1:]:
        found = step.fresh or frozenset()
        stale = stale + 1 if len(found - known) < named.stale_below * len(found) or not found else 0
        known |= found
    if count >= named.monologue_stop and stale >= named.monologue_stop_stale:
        level: Level = "stop"
    elif stale >= named.monologue_warn_stale or count >= named.monologue_warn:
        level = "warn"
    else:
        return None
    return finding(
        "monologue",
        level,
        1,
        count,
        part,
        f"{part[-1].agent} wrote {count} texts in a row without "
        f"acting, the last {stale} of them with little that is new",
    )


def paraphrase(window: Window, named: LoopThresholds) -> Finding | None:
    """The same was asked lately in nearly the same words, and answered nearly the same; never more than a warning.

    A list that is gone through is none of it (see `alike`).
    """
    last = window[-1]
    near = [
        step
        for step in window[-1 - named.paraphrase_window : -1]
        if step.action == last.action
        and step.agent == last.agent
        and step.to == last.to
        and step.call != last.call
        and alike(step.text, last.text, named.near)
        and (step.result == last.result or alike(step.answer, last.answer, named.near_answers, lists=True))
    ]
    part = [*near, last]
    if len(part) < named.paraphrase_warn or deliberate([[step] for step in part], named):
        return None
    return finding(
        "paraphrase",
        "warn",
        1,
        len(part),
        part,
        f"{last.agent} does nearly the same again and again: {last.action}, {len(part)} times lately",
    )


def finding(family: str, level: Level, period: int, rounds: int, part: Window, what: str) -> Finding:
    """A finding in a part of a window."""
    return Finding(
        family,
        level,
        period,
        rounds,
        tuple(step.id for step in part),
        tuple(dict.fromkeys(step.agent for step in part)),
        what,
    )
