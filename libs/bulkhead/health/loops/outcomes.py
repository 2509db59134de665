"""What all the talk, and all the looking, comes to: the same outcome, round after round, and nothing new.

In: the steps of a lineage, the newest last. Out: a `Finding`, or None. Neither a text that resembles another nor an
outcome that stays would do: votes may stay as they are while new reasons are heard, and a chorus may sing while work is
done. Numbers count on both sides, but for the number of the round.
"""

import re
from collections.abc import Container
from functools import lru_cache
from itertools import pairwise

from bulkhead.health.loops.call_identity import differing
from bulkhead.health.loops.counters import ROUNDS, TOKEN, asked
from bulkhead.health.loops.detectors import Finding, Level, Step, Window, finding, is_list
from bulkhead.health.loops.polling import deliberate
from bulkhead.health.loops.value_flow import gives_work
from bulkhead.health.text import result_status
from bulkhead.health.text.normalize import nothing, phrases
from bulkhead.health.text.similarity import alike, words_of
from bulkhead.health.thresholds import LoopThresholds

_DONE = re.compile(
    r"\b(?:true|false|null|ok|okay|done|saved|stored|sent|accepted|success|created|updated)\b", re.IGNORECASE
)
_LETTERS = re.compile(r"[^\W\d_]{3,}")
_KEY = re.compile(r'"[\w-]+":')
_OF_ITSELF = re.compile(
    r'("(?:n|no|nr|ms|index|count|seq|number|revision|version|rev|\w*_(?:ms|s|sec|seconds|at|id|no|count|number|index))":)'
    r'(?:"[^" ]{1,40}"|-?\d+(?:\.\d+)?)'
)
_FIGURE = re.compile(r"\d+(?:[.,]\d+)*")
_PHRASE_WORDS = 3.5
LEAST_SAID = 2
"""From so many texts a round on it is talk."""


def unmoved(window: Window, named: LoopThresholds) -> Finding | None:
    """The same call with the same outcome after each round of talk in which everybody says what he had said before."""
    last = window[-1]
    marks = [at for at, step in enumerate(window) if outcome(step) == outcome(last)]
    rounds = [window[one + 1 : other + 1] for one, other in pairwise(marks)]
    count = 1
    for one in reversed(rounds):
        said = [step for step in one if step.says]
        if len(said) < LEAST_SAID or any(not step.says for step in one[:-1]):
            break
        count += 1
    rounds = rounds[len(rounds) - count + 1 :]
    if count < named.counting_warn_rounds or last.quiet or deliberate(rounds, named):
        return None
    part = window[marks[-count] :]
    later = [step for one in rounds[1:] for step in one if step.says]
    if not all(_said_before(step, window, named) for step in later):
        return None
    level: Level = "stop" if count >= named.counting_stop_rounds else "warn"
    return finding(
        "unmoved",
        level,
        len(part) // count,
        count,
        part,
        f"{last.agent} called {last.action} {count} "
        "times with the same outcome; in between all said what they had said before",
    )


def outcome(step: Step) -> tuple[str, str, str, str]:
    """What a call comes to, whatever the number of the round; an error, or what is said, is none."""
    if step.says or step.error:
        return "", "", "", step.id
    return step.agent, step.action, ROUNDS.sub("", step.text), ROUNDS.sub("", step.answer)


def asked_again(window: Window, named: LoopThresholds) -> Finding | None:
    """What was answered is asked again, in one of a few wordings that come back, and answered the same. window: calls.

    What else is asked with is the same to the letter, and so is the answer but for what it tells of itself.
    """
    last = window[-1]
    part: list[Step] = []
    for step in reversed(window):
        if (step.agent, step.action) != (last.agent, last.action) or step.error:
            break
        if _answer(step.answer) != _answer(last.answer):
            break
        part.append(step)
    texts = {step.text for step in part}
    if len(part) < named.counting_warn_rounds or not 1 < len(texts) <= len(part) / 2 or last.quiet:
        return None
    if not all(_worded_otherwise(text, last.text, named) for text in texts) or not _tells(last):
        return None
    part.reverse()
    if deliberate([[step] for step in part], named):
        return None
    level: Level = "stop" if len(part) >= named.counting_stop_rounds else "warn"
    return finding(
        "again",
        level,
        1,
        len(part),
        part,
        f"{last.agent} asked {last.action} the same {len(part)} times, "
        f"in {len(texts)} wordings that come back, and got the same answer",
    )


@lru_cache(maxsize=256)
def _answer(answer: str) -> str:
    """An answer without what tells of the answer itself: its id, its number, how long it took. Other figures count."""
    return TOKEN.sub("#", _OF_ITSELF.sub(r"\1#", answer))


@lru_cache(maxsize=256)
def _worded_otherwise(one: str, other: str, named: LoopThresholds) -> bool:
    """Whether two calls are the same but for the words of one of their arguments."""
    if one == other:
        return True
    match differing(one, other):
        case count, [(str(mine), str(theirs))]:
            return alike(mine, theirs, named.near if count == 1 else named.near_answers, lists=True)
    return False


def _tells(step: Step) -> bool:
    """Whether an answer tells more than that something was done."""
    return _LETTERS.search(_DONE.sub("", _KEY.sub("", _answer(step.answer)))) is not None


def _said_before(step: Step, window: Window, named: LoopThresholds) -> bool:
    """Whether its agent had said most of it before, and no other figures."""
    mine, figures = phrases(step.text), _figures(step.text)
    return any(
        one.says
        and one.agent == step.agent
        and one.index < step.index
        and _figures(one.text) == figures
        and len(phrases(one.text) & mine) >= named.near * len(mine)
        for one in window
    )


@lru_cache(maxsize=256)
def _figures(text: str) -> frozenset[str]:
    return frozenset(_FIGURE.findall(text))


def fruitless(window: Window, named: LoopThresholds, every: Window = ()) -> Finding | None:
    """Act after act that brings nothing: it was done twice before with the same result; or it looks for one thing, in
    ever other words or in the same, most of its answer was known by then, and nobody does anything with the rest.

    window: an agent's acts. What others say to it in between is another question. every: the acts of the whole lineage,
    which may use what was found; those of the window when left out.
    """
    last, lately = window[-1], [step for step in window if not step.says or step.agent != window[-1].agent]
    lately = lately[-named.barren_window :]
    part, used, after = list[Step](), set[str](), list(every or window)
    for at in range(len(lately) - 1, 0, -1):
        step = lately[at]
        while after and after[-1].index > step.index:
            used.update(words_of(after.pop().text))
        times = sum(one.same == step.same for one in lately[:at])
        if times == 1 and not step.says:
            continue  # Who has forgotten something may read it once more.
        if step.says or not (times or _brings_nothing(step, lately[:at], used, named)):
            break
        if not times and _did_something_new(lately[:at]):
            break  # It shows what came of that: another room, and not the same one again.
        part.append(step)
    part.reverse()
    looked = [step for step in part if step.action == last.action]
    count = len(part) + 1  # The first of them was news.
    if count < named.barren_warn or len(looked) < named.cycle_warn_rounds:
        return None
    kinds = {step.action: [one for one in part if one.action == step.action] for step in part}
    if not all(len({one.same for one in kind}) == 1 or _one_thing(kind, named) for kind in kinds.values()):
        return None
    if deliberate([[step] for step in looked], named) or any(step.quiet or step.look for step in part[-2:]):
        return None
    # Who asks in other words tries something.
    worded = any(len({one.call for one in kind}) > 1 for kind in kinds.values())
    if worded and count < named.fruitless_warn:
        return None
    level: Level = "stop" if count >= (named.fruitless_stop if worded else named.barren_stop) else "warn"
    return finding(
        "fruitless",
        level,
        1,
        count,
        part,
        f"{count} acts in a row, the last of them {last.action}, brought nothing that was new and that anybody used",
    )


def _did_something_new(before: Window) -> bool:
    """Whether the newest act does more than look, went through, and had not been done before."""
    last = before[-1]
    return not (last.says or last.error or result_status.reads(last.action, last.text)) and all(
        one.call != last.call for one in before[:-1]
    )


def _brings_nothing(step: Step, before: Window, used: Container[str], named: LoopThresholds) -> bool:
    """Whether most of what a look found was known, and the rest is of no use."""
    if step.error or not result_status.reads(step.action, step.text):
        return False
    answers = [one for one in before if one.action == step.action and not one.error]
    found = _told(step)
    known = frozenset[str]().union(*map(_told, answers))
    if not answers or len(found - known) > named.stale_below * len(found):
        return False
    mine = words_of(step.text)
    return not any(
        word in used and word not in mine
        for word in words_of(step.answer)
        if not any(word in words_of(one.answer) for one in answers)
    )


def _told(step: Step) -> frozenset[str]:
    """What an answer says, in runs of three words."""
    if step.told is None:
        step.told = phrases(step.answer)
    return step.told


def _one_thing(part: Window, named: LoopThresholds) -> bool:
    """Whether calls ask for one thing: the same to the letter, or in ever other words."""
    last = part[-1]
    if last.length < named.informative_chars and not nothing(last.answer):
        return False
    if len({step.call for step in part}) == 1:
        return not result_status.watches(last.action, last.answer) and not gives_work(last.action)
    texts = [asked(step.text) for step in part]
    if len({step.text for step in part}) * 2 < len(part) or not frozenset.intersection(*texts):
        return False
    # What is asked for by a name or two is no phrase that could be put in other words.
    return sum(map(len, texts)) >= _PHRASE_WORDS * len(part) and not is_list(part)
