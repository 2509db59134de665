"""What all the talk comes to: the same outcome, round after round, and nobody says anything new.

In: the steps of a lineage, the newest last. Out: a `Finding`, or None. Neither a text that resembles another nor an
outcome that stays would do: votes may stay as they are while new reasons are heard, and a chorus may sing while work is
done. Numbers count on both sides, but for the number of the round.
"""

import re
from functools import lru_cache
from itertools import pairwise

from bulkhead.health.alike import alike
from bulkhead.health.asked import differing
from bulkhead.health.futile import ROUNDS, TOKEN
from bulkhead.health.loops import Finding, Level, Step, Window, finding
from bulkhead.health.normal import phrases
from bulkhead.health.pauses import deliberate
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
    return finding("unmoved", level, len(part) // count, count, part, f"{last.agent} called {last.action} {count} "
                   "times with the same outcome; in between all said what they had said before")


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
    return finding("again", level, 1, len(part), part, f"{last.agent} asked {last.action} the same {len(part)} times, "
                   f"in {len(texts)} wordings that come back, and got the same answer")


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
        one.says and one.agent == step.agent and one.index < step.index and _figures(one.text) == figures
        and len(phrases(one.text) & mine) >= named.near * len(mine)
        for one in window
    )


@lru_cache(maxsize=256)
def _figures(text: str) -> frozenset[str]:
    return frozenset(_FIGURE.findall(text))
