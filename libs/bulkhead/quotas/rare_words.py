"""Rarity of a text's words: tokenizers cut letters in no order of any language into far more tokens. Pure.

Enters: bytes of a text. Leaves: 0 where its pairs of letters are those of languages and code, 1 where they are no more
frequent than by chance. Long texts are looked at in windows whose places follow from all of the text, so that nobody
writes around them.
"""

import hashlib
import re
from collections.abc import Iterator

_PAIRS = (
    "acdgiklnprstvxyz be caehiort daeino eacdefijlmnprstx faiou geo haeit icdekmnorstvz jo kaei laeilo "
    "maeimopsu nacdeginost obdfiklmnprstuw paeilort qu radeiorstuz saceiost taehiloruy umnrsz veiu whin "
    "xit yaemps zuy"
)
"""First letters, each with those that often follow it: the 160 most frequent pairs of the samples in
tests/unit/bulkhead/token_counts.json, each language and form counting alike."""
_FREQUENT = re.compile("|".join(f"{row[0]}[{row[1:]}]" for row in _PAIRS.split()).encode())
_LETTERS = bytes(range(ord("a"), ord("z") + 1))
WINDOWS, WINDOW_BYTES = 32, 512
NATURAL, BY_CHANCE = 0.7, 0.45
"""Shares of letters in frequent pairs: of what people and programs write, at least; of random letters, about."""
LEAST_LETTERS = 40


def rarity_of(data: bytes) -> float:
    """How far the words of a text are from any language, from 0 to 1; 0 where it has few letters."""
    windows = [window for window in map(_rarity_of_window, _windows_of(data)) if window is not None]
    return sum(windows) / len(windows) if windows else 0.0


def _rarity_of_window(window: bytes) -> float | None:
    text = window.lower()
    letters = len(text) - len(text.translate(None, _LETTERS))
    if letters < LEAST_LETTERS:
        return None
    share = 2 * len(_FREQUENT.findall(text)) / letters
    return min(1.0, max(0.0, (NATURAL - share) / (NATURAL - BY_CHANCE)))


def _windows_of(data: bytes) -> Iterator[bytes]:
    if len(data) <= WINDOWS * WINDOW_BYTES:
        yield from (data[start : start + WINDOW_BYTES] for start in range(0, len(data), WINDOW_BYTES))
        return
    last = len(data) - WINDOW_BYTES
    places = hashlib.blake2b(data, digest_size=2 * WINDOWS).digest()
    for number in range(WINDOWS):
        start = int.from_bytes(places[2 * number : 2 * number + 2], "big") * last >> 16
        yield data[start : start + WINDOW_BYTES]
