"""Whether a call is the one before but for what it was given: a token that an answer has handed out since; a comment.

In: steps. Out: yes or no. Who renews a token and is refused, and renews it again, says something else each time and
does the same. A list that is gone through is none of it: its items were given at once. What a queue gives out is work,
and each piece of work is another one.
"""

import re
from collections.abc import Container, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bulkhead.health.loops.detectors import Step, Window

MIN_VALUE_CHARS = 8
"""What is shorter (a seat, a room, an hour) people choose from; unless it is a number that counts up."""
MIN_CODE_CHARS = 4
MIN_TOLD_CHARS = 16
"""So many letters tell what a thing is, besides its name."""
COUNTS_BY = (1, 2, 3)
_NUMBERED = re.compile(r"([\w-]*?)([1-9][0-9]{0,17})")
MADE = re.compile(r"(?<![\w-])(?=[\w-]*\d)[\w-]+|(?<![\w-])(?=[\w-]*[a-z][A-Z][\w-]*[a-z][A-Z])[\w-]{10,}|<id>")
"""Words that nobody would write: with a digit in them, or with capitals here and there."""
_LETTERS = re.compile(r"[\W\d_]+")
_KEY = re.compile(r'"[\w-]+":')
_MADE_UP = re.compile(r"#[#-]*")
_COMMENT = re.compile(r"\s(?://|#|--)\s[^\"]{0,100}?(?=\"|$)")
_MAKES = re.compile(
    r"(?:^|[^a-z])(?:re-?run|re-?build|re-?new|re-?start|re-?fresh|re-?issue|trigger|start|create|new|sign|issue|acquire|"
    r"log-?in|authenticate|make|generate|build|launch|deploy|begin|init|allocate|obtain|request|apply|propose|register)",
    re.IGNORECASE,
)
_STARTS = re.compile(r"(?:^|[^a-z])(?:re-?start|start|re-?run|trigger|launch|submit|deploy|redeploy|boot)(?:$|[^a-z])")
_GIVES_WORK = re.compile(r"(?:^|[^a-z])(?:pop|next|take|dequeue|receive|claim|pull|poll|draw|pick)(?:$|[^a-z])")


@lru_cache(maxsize=1_024)
def gives_work(action: str) -> bool:
    """Whether a call by its name is answered with the next piece of work."""
    return _GIVES_WORK.search(action) is not None


@lru_cache(maxsize=1_024)
def starts(action: str) -> bool:
    """Whether a call by its name sets something going: that it runs is no reason to do so again."""
    return _STARTS.search(action) is not None


@lru_cache(maxsize=1_024)
def makes(action: str) -> bool:
    """Whether a call by its name makes something new each time."""
    return _MAKES.search(action) is not None


def same_but_for_gifts(
    place: "Window", window: "Window", most_chars: int, *, spent: bool = False, spare: bool = False
) -> bool:
    """Whether calls are one call. place: one of each round, oldest first; window: what was done meanwhile, by anybody.

    A text of `most_chars` is the beginning of one, and what follows is not known. Another agent's answer hands out the
    same thing again only if it answers the same call. spent: what was handed out is said to be of no use. spare: a
    value that stands nowhere else makes no other call of one that is answered the same.
    """
    first = place[0]
    if all(step.call == first.call for step in place):
        return True
    if any(step.action != first.action or step.says or len(step.text) >= most_chars for step in place):
        return False
    texts = [_uncommented(step.text) for step in place]
    if any(form(text) != form(texts[0]) for text in texts):
        return False
    values = [_values(text) for text in texts]
    again = len(set(values)) < len(values)
    calls: set[int] | None = None
    for at in range(1, len(place)):
        since = [one for one in window if place[at - 1].index <= one.index < place[at].index and not one.says]
        for value in values[at] - values[at - 1]:
            givers = _givers(value, values[at - 1], since, window, spent)
            if any(one.agent == first.agent for one in givers):
                continue
            if spare and (again or _is_label(value, values[at - 1], texts[at])) and _alone(value, place[at], window):
                continue
            calls = {one.call for one in givers} & ({one.call for one in givers} if calls is None else calls)
            if not calls:
                return False
    return True


def _is_label(value: str, before: "Container[str]", text: str) -> bool:
    """Whether a value looks like an id that was made up for the call, or counts up in what else says the same."""
    if len(value) >= MIN_VALUE_CHARS and not value.isdigit():
        return True
    return _counts_up(value, before) and len(_LETTERS.sub("", _KEY.sub("", form(text)))) >= MIN_TOLD_CHARS


def _alone(value: str, step: "Step", window: "Window") -> bool:
    """Whether nothing else that is done or found has to do with a value."""
    return value not in step.answer and not any(
        value in MADE.findall(one.answer) or value in MADE.findall(one.text) or any(value in id_ for id_ in one.heard)
        for one in window
        if one.action != step.action
    )


# A text is compared in every round in which it stands.
@lru_cache(maxsize=256)
def _uncommented(text: str) -> str:
    return _COMMENT.sub("", text)


@lru_cache(maxsize=256)
def _values(text: str) -> frozenset[str]:
    return frozenset(MADE.findall(text))


@lru_cache(maxsize=256)
def form(text: str) -> str:
    """A text without what nobody would write."""
    return _MADE_UP.sub("#", MADE.sub("#", text))


def _givers(
    value: str, before: "Container[str]", since: "Sequence[Step]", window: "Window", spent: bool
) -> "list[Step]":
    """Those of these answers that handed it out; none when one of them is a queue's, or it is something to choose.

    What one has made oneself and what is said to be spent is handed out again, and so is another name of what is else
    the same; anything else is another thing.
    """
    counted = _counts_up(value, before)
    givers = [
        step
        for step in since
        if value in (MADE.findall(step.answer) if len(value) < MIN_VALUE_CHARS else step.answer)
        or (not counted and any(value in one for one in step.heard))
    ]
    if any(gives_work(one.action) for one in givers):
        return []
    long = counted or len(value) >= (MIN_CODE_CHARS if spent else MIN_VALUE_CHARS)
    if long and (spent or any(makes(one.action) for one in givers)):
        return givers
    return [one for one in givers if _told_of_before(one, window)]


def _told_of_before(giver: "Step", window: "Window") -> bool:
    """Whether the same call had told of the same thing under another name, and not of a name alone."""
    told = form(giver.answer)
    if len(_LETTERS.sub("", _KEY.sub("", told + giver.text))) < MIN_TOLD_CHARS:
        return False
    return any(one.index < giver.index and one.call == giver.call and form(one.answer) == told for one in window)


def _counts_up(value: str, before: "Container[str]") -> bool:
    """Whether it is the next number, or the next name by number."""
    found = _NUMBERED.fullmatch(value)
    return found is not None and any(f"{found[1]}{int(found[2]) - by}" in before for by in COUNTS_BY)
