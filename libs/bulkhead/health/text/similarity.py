"""Near-duplicates: the same in nearly the same words, and no list that is gone through.

In: two texts. Out: yes or no. Two lines of one form that differ in one place (a name, a path, a number) are two entries
of a list; a page that has grown is the next state of it. The same words in another order, or with others in between,
are the same again. In a long text a name does not matter: it is a letter in a form.
"""

import re
from functools import lru_cache

from bulkhead.health.text import normalize

SLOT_WORDS = 3
"""At most so many words in the one place where two entries of a list differ."""
FORM_WORDS = 24
"""From this length on a text says the same whatever name stands in it."""
MOST_CHARS = 800
_WORD = re.compile(r"\w+")
_FIGURE = re.compile(r"\d+")


def alike(one: str, other: str, near: float, *, lists: bool = False) -> bool:
    """Whether two texts are near-duplicates. lists: entries of a list count, too, as they do among answers."""
    if not one or not other or min(len(one), len(other)) * 2 < max(len(one), len(other)):
        return False
    # Entries of a list are told apart by a glance; runs of letters take a while, and nobody keeps those of many texts.
    if not lists and (one == other or next_of_a_list(one, other)):
        return False
    return (
        normalize.similarity(normalize.shingles(one, most=MOST_CHARS), normalize.shingles(other, most=MOST_CHARS))
        >= near
    )


def next_of_a_list(one: str, other: str) -> bool:
    """Whether two lines of one form differ in one place, or in numbers alone."""
    if _form(one) == _form(other):
        return True
    words, others = _words(one), _words(other)
    shorter = min(len(words), len(others))
    head = next((at for at in range(shorter) if words[at] != others[at]), shorter)
    tail = next((at for at in range(shorter - head) if words[-1 - at] != others[-1 - at]), shorter - head)
    slot, slot_of_other = words[head : len(words) - tail], others[head : len(others) - tail]
    if not slot or not slot_of_other:
        # One is the other with something put in: a page that has grown, or a question with a word more.
        return shorter >= FORM_WORDS
    few = max(len(slot), len(slot_of_other)) <= SLOT_WORDS
    return shorter < FORM_WORDS and few and not set(slot) & set(slot_of_other)


# A text is compared with every other one of its window.
@lru_cache(maxsize=64)
def _form(text: str) -> str:
    return _FIGURE.sub("#", text)


@lru_cache(maxsize=64)
def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


@lru_cache(maxsize=64)
def words_of(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(_words(text))
