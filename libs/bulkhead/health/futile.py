"""Loops in which something counts up by itself: rounds that lead nowhere although no two results are the same.

In: windows of steps, as `loops` has them. Out: a `Finding`, or None. Numbers, ids and tokens of a result are left out
here, so it must show in another way that nothing comes of it: a result of each round says that it failed, or what was
looked at afterwards is the same to the letter while a counter rises. Numbers that fall are progress.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from bulkhead.health.flows import MADE, form, same_but_for_gifts
from bulkhead.health.loops import MAX_STEP_CHARS, Finding, Level, Step, Window, finding
from bulkhead.health.pauses import deliberate
from bulkhead.health.thresholds import LoopThresholds

MAX_PERIOD = 6
_VARYING = re.compile(
    r"(?<![\w-])[\w-]*<id>(?:<id>|[\w-])*|(?<![\w-])(?=[\w-]*\d)[\w-]{8,}"
    r"|(?<![\w-])(?=[\w-]*[a-z][A-Z][\w-]*[a-z][A-Z])[\w-]{10,}|\d+(?:[.,]\d+)*"
)
_NAMED = re.compile(r'("(?:ref|reference|receipt|incident|ticket|case|trace|\w*_?id|number)":)(?:"[^" ]{4,64}"|\d+)')
_ROUNDS = re.compile(r'("(?:round|lap|loop|hop|turn|tour|cycle|runde|ronda|vuelta)s?":)"?\d+"?', re.IGNORECASE)
"""How often a ring was gone round, or how far: a counter of the ring, and not of what is done."""
_VERSION = re.compile(
    r"((?:^|[^a-z])(?:v|ver|version|rev|revision|draft|copy|final|attempt|try|backup|versuch|entwurf|fassung|versi[oó]n|"
    r"borrador)[-_ .(#\":=]{0,3})\d+|\(\d+\)(?=\.\w)",
    re.IGNORECASE,
)
_AUTOMATIC = re.compile(
    r"automat|auto-?repl|out of (?:the )?office|do not reply|no-?reply|not monitored|unattended|closed until|"
    r"(?:will|shall) (?:answer|reply|respond|get back|be back)|thank(?:s| you) for your|(?:has been|was) received|"
    r"(?:case|ticket|reference|request) (?:has the )?(?:number|no\b|id\b)|abwesen|nicht im (?:haus|büro)|"
    r"vielen dank für ihre|melden uns|fuera de la oficina|respuesta autom|gracias por su|hemos recibido",
    re.IGNORECASE,
)
_SERIAL = re.compile(
    r"\b((?:reference|ref|case|ticket|number|no|nr|id|vorgang)[\s:.#]{1,3})[A-Z#]{4,}\b", re.IGNORECASE
)
_SPENT = re.compile(
    r"expired|run out|unauthori[sz]ed|\b4(?:01|03|10|19)\b|forbidden|stale|reload|abgelaufen|caducad[oa]|"
    r"invalid[ _](?:token|session|signature|code)|(?:token|session|signature|code|link|lease|lock|upload|csrf)\b.{0,40}"
    r"\b(?:invalid|lost|unknown|not found|wrong|gone)",
    re.IGNORECASE,
)
"""Said of what was handed out: it is of no use, and not what was done with it."""
_NUMBER = re.compile(r"(?<![\w.])\d+(?![\w.])")
_FAILS = re.compile(
    r":\s?false\b|\bfail(?:ed|s|ure)?\b(?!\"?\s?[:=]\s?(?:\d|null|false|\"\"|\[\]|none))|\b(?:panic|crash\w*|denied|declined|insufficient|expired|forbidden|unauthori[sz]ed|"
    r"invalid|error|exception|traceback|unavailable|refused|aborted|unable|cannot|not (?:valid|found|allowed|possible)|"
    r"wrong|rejected|fehlgeschlagen|abgelehnt|verweigert|ungültig|rechazad[oa]|denegad[oa])\b"
    r"(?!\"?\s?[:=]\s?(?:0\b|null|false|\"\"|\[\]|none))",
    re.IGNORECASE,
)


def counting(window: Window, named: LoopThresholds, every: Window = ()) -> Finding | None:
    """The same calls, whose results differ in numbers and tokens alone, and in each round it shows that it is in vain.

    window: an agent's calls alone. What an answer has handed out since, and a call hands back, makes no other call.
    every: the acts of the whole lineage, in which such answers stand; those of the window when left out.
    """
    least = named.counting_warn_rounds
    periods = [period for period in range(1, min(MAX_PERIOD, len(window) // least) + 1)
               if window[-1].action == window[-1 - period].action
               and all(map(_same_but_for_numbers, zip(*_rounds(window, period, least), strict=True)))]  # fmt: skip
    for number, level in ((named.counting_stop_rounds, _STOP), (least, _WARN)):
        if periods and (found := _counting(window, every or window, periods, number, level, named)) is not None:
            return found
    return None


def _rounds(window: Window, period: int, number: int) -> list[Window]:
    return [window[len(window) - at : len(window) - at + period] for at in range(number * period, 0, -period)]


def _counting(
    window: Window, every: Window, periods: Sequence[int], number: int, level: Level, named: LoopThresholds
) -> Finding | None:
    for period in periods:
        if number * period > len(window):
            break
        rounds = _rounds(window, period, number)
        places = list(zip(*rounds, strict=True))
        if not all(_same_but_for_numbers(place) for place in places):
            continue
        spent = any(all(_SPENT.search(step.answer) for step in place) for place in places)
        if not all(same_but_for_gifts(place, every, MAX_STEP_CHARS, spent=spent) for place in places):
            continue
        varying = [place for place in places if len({step.result for step in place}) > 1]
        given = any(place[0].call != step.call for place in places for step in place)
        if not (varying or given) or any(step.quiet and not step.error for step in rounds[-1]):
            return None
        moves = [_moves(place) for place in varying]
        if "falls" in moves or deliberate(rounds, named):
            return None
        seen = any(len({step.result for step in place}) == 1 and place[0].length >= named.informative_chars
                   and not place[0].error for place in places)  # fmt: skip
        failed = _failed(places)
        if not failed and not (seen and varying and all(one == "rises" for one in moves)):
            return None
        part = window[-number * period :]
        return finding("counting", level, period, number, part, f"{part[-1].agent} did the same {period} times "
                       f"{number} over; only what counts up or is given out differs, and nothing came of it")
    return None


def _failed(places: Sequence[Window]) -> bool:
    """Whether something fails in each round, and does not go through in the same round after all."""
    failing = [place for place in places if all(fails(step) for step in place)]
    through = {(place[0].action, form(place[0].text)) for place in places if not fails(place[-1])}
    return any((place[0].action, form(place[0].text)) not in through for place in failing)


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
    if len({_form(step) for step in part}) > 1 or deliberate([[step] for step in part], named):
        return None
    return finding("ring", "stop", size, named.cycle_stop_rounds, part,
                   f"{size} agents made the same call {last.action} in turns, {named.cycle_stop_rounds} times round")


def versions(window: Window, named: LoopThresholds) -> Finding | None:
    """The same piece of work kept under one version after the other, and nothing new in between. window: calls."""
    last = window[-1]
    if last.error or not named.product_chars <= len(last.text) < MAX_STEP_CHARS:
        return None
    if sum(step.action == last.action for step in window) < named.repeat_warn or _VERSION.search(last.text) is None:
        return None
    asked, told = _unversioned(last.text), _unversioned(last.answer)
    kept = [at for at, step in enumerate(window)
            if step.action == last.action and step.agent == last.agent and not step.error]  # fmt: skip
    count = 0
    for at in reversed(kept):
        if _unversioned(window[at].answer) != told or _unversioned(window[at].text) != asked:
            break
        count += 1
    kept = kept[-count:]
    if count < named.repeat_warn or len({window[at].call for at in kept}) < count:
        return None
    # The first round is news.
    seen = {step.same for step in window[: kept[1]]}
    if any(step.same not in seen for at, step in enumerate(window) if at > kept[1] and at not in kept):
        return None
    part = [window[at] for at in kept]
    gaps = [later.time_unix_ms - earlier.time_unix_ms for earlier, later in pairwise(part)]
    if min(gaps) >= named.rare_gap_ms or all(step.waited for step in part[1:]):
        return None
    level: Level = "stop" if count >= named.repeat_stop else "warn"
    return finding("versions", level, 1, count, part, f"{last.agent} handed the same to {last.action} {count} times, "
                   "each time as another version")


def _unversioned(text: str) -> str:
    """Figures that are no version tell something: they stay."""
    return _VERSION.sub(r"\1#", _NAMED.sub(r"\1#", text))


def automatic(window: Window, named: LoopThresholds) -> Finding | None:
    """Two that answer each other by themselves: the same words but for a number. window: the lineage's, and its newest
    is said to somebody."""
    last = window[-1]
    if len(last.text) < named.informative_chars:
        return None
    lately = [one for at in range(1, min(len(window), MAX_PERIOD + 1)) for one in (window[-1 - at],)
              if one.agent == last.agent and abs(len(one.text) - len(last.text)) <= _DIGITS]  # fmt: skip
    if not any(one.text == last.text or _written(one) == _written(last) for one in lately):
        return None
    if not _answers_by_itself(last, named):
        return None
    part: list[Step] = []
    for step in reversed(window):
        if step.agent not in (last.agent, last.to):
            continue
        if not step.to or not step.says or step.to not in (last.agent, last.to):
            break
        part.append(step)
    part.reverse()
    for period in range(2, MAX_PERIOD + 1, 2):
        rounds, size = 1, len(part)
        while (rounds + 1) * period <= size and all(
            _written(one) == _written(other) for one, other in
            zip(part[size - (rounds + 1) * period : size - rounds * period], part[size - period :], strict=True)
        ):
            rounds += 1
        found = part[size - rounds * period :]
        if rounds < named.repeat_warn or not all(_answers_by_itself(step, named) for step in found[-period:]):
            continue
        level: Level = "stop" if rounds >= named.counting_stop_rounds else "warn"
        return finding("automatic", level, period, rounds, found, f"{last.agent} and {last.to} answered each other by "
                       f"themselves {rounds} times, with other numbers in the same words")
    return None


def _answers_by_itself(step: Step, named: LoopThresholds) -> bool:
    return len(step.text) >= named.informative_chars and _AUTOMATIC.search(step.text) is not None


def _written(step: Step) -> tuple[str, str]:
    return step.agent, _SERIAL.sub(r"\1#", MADE.sub("#", step.text))


def fails(step: Step) -> bool:
    """Whether a result is an error, or says that it came to nothing."""
    return step.error or _tells_of_failure(step.answer)


@lru_cache(maxsize=256)
def _tells_of_failure(answer: str) -> bool:
    return _FAILS.search(answer) is not None


_SEVERAL = 2
_DIGITS = 2
"""A number may have grown by so many."""
_STOP: Level = "stop"
_WARN: Level = "warn"


def _form(step: Step) -> tuple[str, str, str]:
    """What an agent does, and what comes of it without its name, numbers and tokens."""
    return step.action, *_without_counters(step.agent, step.text, step.answer)


@lru_cache(maxsize=256)
def _without_counters(agent: str, text: str, answer: str) -> tuple[str, str]:
    answer = _VARYING.sub("#", _NAMED.sub(r"\1#", answer.replace(agent, "@")))
    return _ROUNDS.sub(r"\1#", text), answer


def _same_but_for_numbers(place: Sequence[Step]) -> bool:
    first = place[0]
    if any(step.action != first.action or step.error != first.error for step in place):
        return False
    return len({step.result for step in place}) == 1 or all(bare(step) == bare(first) for step in place)


def bare(step: Step) -> str:
    """The beginning of a result without its numbers and tokens."""
    if step.bare is None:
        step.bare = _VARYING.sub("#", _NAMED.sub(r"\1#", step.answer))
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
