"""Loops in which something counts up by itself: rounds that lead nowhere although no two results are the same.

In: windows of steps, as `loops` has them. Out: a `Finding`, or None. Numbers, ids and tokens of a result are left out
here, so it must show in another way that nothing comes of it: a result of each round says that it failed, or what was
looked at afterwards is the same to the letter while a counter rises. Numbers that fall are progress.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from bulkhead.health.loops.detectors import MAX_STEP_CHARS, Finding, Level, Step, Window, finding
from bulkhead.health.loops.polling import deliberate
from bulkhead.health.loops.value_flow import MADE, form, gives_work, makes, same_but_for_gifts
from bulkhead.health.text import result_status
from bulkhead.health.text.ignore_case import AnyCase
from bulkhead.health.text.normalize import phrases
from bulkhead.health.thresholds import LoopThresholds

MAX_PERIOD = 6
_VARYING = re.compile(
    r"(?<![\w-])[\w-]*<id>(?:<id>|[\w-])*|(?<![\w-])(?=[\w-]*\d)[\w-]{8,}"
    r"|(?<![\w-])(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{6,7}(?![\w-])"
    r"|(?<![\w-])(?=[\w-]*[a-z][A-Z][\w-]*[a-z][A-Z])[\w-]{10,}|\d+(?:[.,]\d+)*"
)
_NAMED = re.compile(r'("(?:ref|reference|receipt|incident|ticket|case|trace|\w*_?id|number)":)(?:"[^" ]{4,64}"|\d+)')
ROUNDS = re.compile(r'("(?:round|lap|loop|hop|turn|tour|cycle|runde|ronda|vuelta)s?":)"?\d+"?', re.IGNORECASE)
"""How often a ring was gone round, or how far: a counter of the ring, and not of what is done."""
_VERSION = re.compile(
    r"((?:^|[^a-z])(?:v|ver|version|rev|revision|draft|copy|final|attempt|try|backup|versuch|entwurf|fassung|versi[oó]n|"
    r"borrador)[-_ .(#\":=]{0,3})\d+|\(\d+\)(?=\.\w)",
    re.IGNORECASE,
)
_IS_VERSION = AnyCase(_VERSION.pattern)
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


def counting(window: Window, named: LoopThresholds, every: Window = ()) -> Finding | None:
    """The same calls, whose results differ in numbers and tokens alone, and in each round it shows that it is in vain.

    window: an agent's calls alone. What an answer has handed out since, and a call hands back, makes no other call.
    every: the acts of the whole lineage, in which such answers stand; those of the window when left out.
    """
    least = named.counting_warn_rounds
    periods = [
        period
        for period in range(1, min(MAX_PERIOD, len(window) // least) + 1)
        if window[-1].action == window[-1 - period].action
        and all(map(_same_but_for_numbers, zip(*_rounds(window, period, least), strict=True)))
    ]
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
        stays = [len({step.call for step in place}) == 1 and not place[0].error for place in places]
        if not all(
            same_but_for_gifts(place, every, MAX_STEP_CHARS, spent=spent, spare=any(stays) and all(map(fails, place)))
            for place in places
        ):
            continue
        varying = [place for place in places if len({step.result for step in place}) > 1]
        given = any(place[0].call != step.call for place in places for step in place)
        if not (varying or given) or any(step.quiet and not step.error for step in rounds[-1]):
            return None
        if any(result_status.takes_in(place[0].action, place[0].text) and not place[0].error for place in varying):
            return None  # It brought what others have made meanwhile.
        moves = [_moves(place) for place in varying]
        if "falls" in moves or (deliberate(rounds, named) and not _hurries(places, named)):
            return None
        seen = any(
            len({step.result for step in place}) == 1
            and place[0].length >= named.informative_chars
            and not place[0].error
            for place in places
        )
        failed = _failed(places)
        if not failed and not (seen and varying and all(one == "rises" for one in moves)):
            return None
        part = window[-number * period :]
        return finding(
            "counting",
            level,
            period,
            number,
            part,
            f"{part[-1].agent} did the same {period} times "
            f"{number} over; only what counts up or is given out differs, and nothing came of it",
        )
    return None


def _hurries(places: Sequence[Window], named: LoopThresholds) -> bool:
    """Whether in each round the same is done once more after a short wait, and fails as what no wait repairs."""
    if not any(
        all(
            fails(step) and not step.quiet and not step.blind and not result_status.passing(step.answer)
            for step in place
        )
        and not result_status.reads(place[0].action, place[0].text)
        for place in places
    ):
        return False
    gaps = [later.time_unix_ms - earlier.time_unix_ms for earlier, later in pairwise(places[0])]
    return min(gaps) > 0 and max(gaps) < named.calm_gap_ms


def _failed(places: Sequence[Window]) -> bool:
    """Whether something fails in each round, and does not go through in the same round after all."""
    failing = [place for place in places if all(fails(step) for step in place)]
    through = {(place[0].action, form(place[0].text)) for place in places if not fails(place[-1])}
    return any((place[0].action, form(place[0].text)) not in through for place in failing)


def acknowledged(window: Window, named: LoopThresholds) -> Finding | None:
    """The same calls, round after round, and what is new in their answers tells nothing: a token that each answer has,
    or one counter that goes through different calls. window: calls, of an agent or of the whole lineage.

    At least one of them does more than look. What makes or moves something, and what gives out work, is another one
    each time; a look whose answer is nothing but a token shows that something has changed.
    """
    least = named.counting_warn_rounds
    for period in range(2, min(MAX_PERIOD, len(window) // least) + 1):
        if window[-1].call != window[-1 - period].call:
            continue
        rounds = _rounds(window, period, least)
        places = list(zip(*rounds, strict=True))
        if any(step.call != place[0].call or step.error for place in places for step in place):
            continue
        varying = [place for place in places if len({step.result for step in place}) > 1]
        if not varying or any(_opaque(step) != _opaque(place[0]) for place in varying for step in place):
            continue
        if len({place[0].call for place in places}) == 1:
            continue
        if all(any(step.waited for step in one) for one in rounds[1:]) or any(step.quiet for step in rounds[-1]):
            continue
        if not (_one_counter(varying) or _only_tokens(varying, places, named)):
            continue
        longer = _rounds(window, period, named.counting_stop_rounds) if len(window) >= 4 * period else rounds
        whole = all(
            step.call == first.call and _opaque(step) == _opaque(first)
            for one in longer
            for step, first in zip(one, rounds[0], strict=True)
        )
        number = len(longer) if whole else least
        level: Level = "stop" if number >= named.counting_stop_rounds else "warn"
        part = window[-number * period :]
        return finding(
            "counting",
            level,
            period,
            number,
            part,
            f"the same {period} calls {number} over; all that is "
            "new in their answers is a token or a count of the calls themselves",
        )
    return None


def _opaque(step: Step) -> tuple[bool, str, tuple[str, ...]]:
    return step.error, *_without_numbers(step.answer)


@lru_cache(maxsize=256)
def _without_numbers(answer: str) -> tuple[str, tuple[str, ...]]:
    """And the digests in it: another one is of another content."""
    return _VARYING.sub("#", TOKEN.sub("#", answer)), tuple(_DIGEST.findall(answer))


def _one_counter(varying: Sequence[Window]) -> bool:
    """Whether the answers of different calls hold one number that each of them puts up by the same."""
    if len({place[0].call for place in varying}) < _SEVERAL or any(_another_each_time(place[0]) for place in varying):
        return False
    steps = sorted((step for place in varying for step in place), key=lambda step: step.index)
    numbers = [tuple(int(one) for one in _NUMBER.findall(step.answer)[:8] if len(one) < _LONGEST) for step in steps]
    if len({len(one) for one in numbers}) > 1:
        return False
    columns = [{b - a for a, b in pairwise(column)} for column in zip(*numbers, strict=True)]
    moving = [one for one in columns if one != {0}]
    return bool(moving) and all(len(one) == 1 and 0 < min(one) <= _SMALL_STEP for one in moving)


def _only_tokens(varying: Sequence[Window], places: Sequence[Window], named: LoopThresholds) -> bool:
    """Whether nothing but tokens is new, in answers that tell something besides, or of what does more than look."""
    if all(result_status.reads(place[0].action, place[0].text) for place in places):
        return False
    if any(result_status.moves(place[0].action, place[0].text) for place in places):
        return False
    for place in varying:
        if _another_each_time(place[0]) or len({TOKEN.sub("#", step.answer) for step in place}) > 1:
            return False
        told = len(TOKEN.sub("", place[0].answer))
        if told < named.informative_chars and result_status.reads(place[0].action, place[0].text):
            return False
    return True


def _another_each_time(step: Step) -> bool:
    return makes(step.action) or gives_work(step.action) or result_status.moves(step.action, step.text)


@lru_cache(maxsize=256)
def asked(text: str) -> frozenset[str]:
    """The words that a call asks with, without the names of its arguments and what is in every question."""
    return frozenset(
        one for one in _WORD.findall(_KEY.sub(" ", text).casefold()) if len(one) > _SHORT_WORD and not one.isdigit()
    )


def is_handed(window: Window, step: Step) -> bool:
    """Whether the answer to the same kind of call by somebody else, just before, named the agent of this one."""
    before = next((one for one in reversed(window[:-1]) if not one.says and one.agent != step.agent), None)
    return before is not None and before.action == step.action and step.agent in before.answer


def handed_down(window: Window, named: LoopThresholds) -> Finding | None:
    """A task handed from one to the next, in nearly the same words, and nobody does more than look. window: of the
    lineage; its newest hands on."""
    last = window[-1]
    wanted = phrases(last.text)
    chain, agents, between = [last], {last.agent}, list[frozenset[int]]()
    looked = set[int]()
    for step in reversed(window[:-1]):
        if step.says:
            continue
        if step.action != last.action:
            if step.agent != chain[-1].agent or not result_status.reads(step.action, step.text):
                break
            looked.add(step.what)
            continue
        found = phrases(step.text)
        near = named.near_answers if chain[-1].agent in step.answer else named.near
        if step.agent in agents or len(found & wanted) < near * min(len(found), len(wanted)):
            break
        chain.append(step)
        agents.add(step.agent)
        between.append(frozenset(looked))
        looked = set()
    if len(chain) < named.down_warn or len(last.text) < named.handed_chars or len(set(between[:-1])) > 1:
        return None
    level: Level = "stop" if len(chain) >= named.down_stop else "warn"
    return finding(
        "down",
        level,
        1,
        len(chain),
        chain[::-1],
        f"a task was handed down {len(chain)} times, and nobody did more than look",
    )


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
    return finding(
        "ring",
        level,
        agents,
        rounds,
        chain[::-1],
        f"{agents} agents handed the same words round and round, {rounds} times",
    )


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
    if gives_work(last.action) and len({ROUNDS.sub("", step.answer) for step in part}) == len(part):
        return None  # Each of them got something else.
    return finding(
        "ring",
        "stop",
        size,
        named.cycle_stop_rounds,
        part,
        f"{size} agents made the same call {last.action} in turns, {named.cycle_stop_rounds} times round",
    )


def versions(window: Window, named: LoopThresholds) -> Finding | None:
    """The same piece of work kept under one version after the other, and nothing new in between. window: calls."""
    last = window[-1]
    if last.error or not named.product_chars <= len(last.text) < MAX_STEP_CHARS:
        return None
    if sum(step.action == last.action for step in window) < named.repeat_warn or not is_version(last.text):
        return None
    asked, told = unversioned(last.text), unversioned(last.answer)
    kept = [
        at
        for at, step in enumerate(window)
        if step.action == last.action and step.agent == last.agent and not step.error
    ]
    count = 0
    for at in reversed(kept):
        if unversioned(window[at].answer) != told or unversioned(window[at].text) != asked:
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
    return finding(
        "versions",
        level,
        1,
        count,
        part,
        f"{last.agent} handed the same to {last.action} {count} times, each time as another version",
    )


def is_version(text: str) -> bool:
    """Whether a text names a version."""
    return _IS_VERSION.found_in(text)


@lru_cache(maxsize=256)
def unversioned(text: str) -> str:
    """Figures that are no version tell something: they stay."""
    return _VERSION.sub(r"\1#", _NAMED.sub(r"\1#", text))


def automatic(window: Window, named: LoopThresholds) -> Finding | None:
    """Two that answer each other by themselves: the same words but for a number. window: the lineage's, and its newest
    is said to somebody."""
    last = window[-1]
    if len(last.text) < named.informative_chars:
        return None
    lately = [
        one
        for at in range(1, min(len(window), MAX_PERIOD + 1))
        for one in (window[-1 - at],)
        if one.agent == last.agent and abs(len(one.text) - len(last.text)) <= _DIGITS
    ]
    if not any(one.text == last.text or _written(one) == _written(last) for one in lately):
        return None
    if not _answers_by_itself(last, named):
        return None
    part: list[Step] = []
    for step in reversed(window):
        if step.agent not in (last.agent, last.to):
            continue
        if step.says and step.to not in (last.agent, last.to):
            break
        part.append(step)
    part.reverse()
    for period in range(2, MAX_PERIOD + 1):
        rounds, size = 1, len(part)
        while (rounds + 1) * period <= size and all(
            _written(one) == _written(other)
            for one, other in zip(
                part[size - (rounds + 1) * period : size - rounds * period], part[size - period :], strict=True
            )
        ):
            rounds += 1
        found = part[size - rounds * period :]
        said = [step for step in found[-period:] if step.says]
        if rounds < named.repeat_warn or len(said) < _SEVERAL:
            continue
        if not all(_answers_by_itself(one, named) for one in said):
            continue
        if any(_asked_for(step, found) for step in found if not step.says):
            continue
        level: Level = "stop" if rounds >= named.counting_stop_rounds else "warn"
        return finding(
            "automatic",
            level,
            period,
            rounds,
            found,
            f"{last.agent} and {last.to} answered each other by "
            f"themselves {rounds} times, with other numbers in the same words",
        )
    return None


def _answers_by_itself(step: Step, named: LoopThresholds) -> bool:
    return len(step.text) >= named.informative_chars and _AUTOMATIC.search(step.text) is not None


def _asked_for(step: Step, window: Window) -> bool:
    """Whether a call is about a number that the other one has named: that is work."""
    numbers = MADE.findall(step.text)
    return any(
        number in MADE.findall(one.text)
        for number in numbers
        for one in window
        if one.says and one.agent != step.agent and one.index < step.index
    )


def _written(step: Step) -> tuple[str, str]:
    told = "" if step.says else step.action + bare(step)
    return step.agent, _SERIAL.sub(r"\1#", MADE.sub("#", step.text)) + told


def fails(step: Step) -> bool:
    """Whether a result is an error, or says that it came to nothing."""
    if step.vainly is None:
        step.vainly = step.error or result_status.tells_of_failure(step.answer)
    return step.vainly


_SEVERAL = 2
_SMALL_STEP = 2
_SHORT_WORD = 3
_WORD = re.compile(r"[^\W_]+")
_KEY = re.compile(r'"[\w-]+":')
_DIGEST = re.compile(r"\b(?:[0-9a-f]{40}|[0-9a-f]{64})\b")
TOKEN = re.compile(
    r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b|[\w:/.-]*<id>[\w./-]*"
    r"|\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{6,}\b|\b(?=\w*[A-Za-z])(?=(?:\w*\d){2})\w{8,}\b"
)
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
    return ROUNDS.sub(r"\1#", text), answer


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
    changes = [{(b > a) - (b < a) for a, b in zip(one, other, strict=False)} - {0} for one, other in pairwise(numbers)]
    if changes and all(one == {1} for one in changes):
        return "rises"
    return "falls" if changes and all(-1 in one for one in changes) else "varies"


_LONGEST = 16
