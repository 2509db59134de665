"""A call as people read it before they let it be made. Pure.

Every value stands on a line of its own behind its place, quoted where it could be taken for something else: line ends,
control characters and characters that turn the direction of writing are shown, not obeyed, and letters that may be
taken for others are named.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from bulkhead_contracts import bounds

MAX_VALUE_CHARS = 1_000
LONG_CHARS = 200
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters, marks and symbols that nobody sees."""


MAX_NAMED_LETTERS = 5
"""Of one value; that there are more is said."""
_ALIKE_SCRIPTS = frozenset(
    ("LATIN", "CYRILLIC", "GREEK", "COPTIC", "ARMENIAN", "CHEROKEE", "LISU", "DESERET", "GEORGIAN")
)
"""Scripts with letters that look like those of another one of them."""
_LATIN_LIKE = frozenset("АВЕЅІЈКМНОРСТУХаеѕіјорсухһԁԛԝΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρϲϳ")
"""Letters of Cyrillic and Greek that are read as Latin ones (Unicode Technical Standard 39, confusables)."""
_ADDRESS_SIGNS = re.compile(r"[@/\\]|\.\w|^[\d.,+-]+$")
_LAST_USUAL_LATIN = 0x17F


def render_preview(tool: str, arguments: Mapping[str, Any], note: str = "") -> str:
    """One line per value; what is cut says so. note: what people are to know of the arguments, of this house."""
    lines = [tool, f"  ({note})"] if note else [tool]
    value_lines = [f"  {place}: {_render_value(value)}" for place, value in _iterate_leaves(arguments)]
    # Long values last: a text that fills the page must not push the recipient out of it.
    lines += [
        *(line for line in value_lines if len(line) <= LONG_CHARS),
        *(line for line in value_lines if len(line) > LONG_CHARS),
    ]
    text = "\n".join(lines)
    if len(text) <= bounds.MAX_PREVIEW_CHARS:
        return text
    cut = "\n... cut: read the whole arguments before you decide"
    return text[: bounds.MAX_PREVIEW_CHARS - len(cut)] + cut


def _iterate_leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _iterate_leaves(
                inner, f"{place}.{escape_invisible(str(name))}" if place else escape_invisible(str(name))
            )
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _iterate_leaves(inner, f"{place}[{number}]")
    else:
        yield place or "(no arguments)", value


def _render_value(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    escaped = escape_invisible(value[:MAX_VALUE_CHARS])
    suffix = f" ... and {len(value) - MAX_VALUE_CHARS} characters more" if len(value) > MAX_VALUE_CHARS else ""
    warning = describe_lookalikes(value)
    return f'"{escaped}"{suffix}' + (f"  <- {warning}" if warning else "")


def describe_lookalikes(text: str) -> str:
    """Names of the letters that may be taken for others: of another script than the rest of their word, of forms that
    are no usual letters, any that is not ASCII in an address, a path or a number, and all that are not Latin where each
    of them reads as a Latin one. "" where there are none."""
    if text.isascii():
        return ""
    letters = dict.fromkeys(letter for token in text.split() for letter in _lookalikes_of(token))
    foreign = dict.fromkeys(letter for letter in text if not letter.isascii() and letter.isalpha())
    if _LATIN_LIKE.issuperset(foreign):
        letters |= foreign
    if not letters:
        return ""
    named = [f"{escape_invisible(letter)} is {unicodedata.name(letter, f'U+{ord(letter):04X}')}" for letter in letters]
    suffix = f" and {len(named) - MAX_NAMED_LETTERS} more" if len(named) > MAX_NAMED_LETTERS else ""
    return f"look twice: {', '.join(named[:MAX_NAMED_LETTERS])}{suffix}"


def _lookalikes_of(text: str) -> list[str]:
    token = unicodedata.normalize("NFC", text)
    if token.isascii():
        return []
    if _ADDRESS_SIGNS.search(unicodedata.normalize("NFKC", token)):
        return [letter for letter in token if not letter.isascii()]
    scripts = Counter(script for letter in token if (script := _script_of(letter)) in _ALIKE_SCRIPTS)
    usual = max(scripts, key=lambda script: (scripts[script], script == "LATIN"), default="")
    other_scripts = scripts.keys() - {usual}
    return [
        letter for letter in token if _script_of(letter) in other_scripts or (not letter.isascii() and _is_odd(letter))
    ]


def _is_odd(letter: str) -> bool:
    """True for letters, digits and marks in forms that may be taken for usual ones."""
    folded = unicodedata.normalize("NFKC", letter)
    if folded != letter:
        return folded.isalnum() and ord(folded[0]) <= _LAST_USUAL_LATIN
    unusual = _script_of(letter) == "LATIN" and ord(letter) > _LAST_USUAL_LATIN
    return unusual or unicodedata.category(letter) == "Nd" or 0x300 <= ord(letter) <= 0x36F


def _script_of(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0] if letter.isalpha() else ""


def escape_invisible(text: str) -> str:
    """The text with everything that is no visible character written as its code, and so are the second and further
    blanks of a row, quotes and backslashes: no value can look like two, or like another line."""
    return "".join(map(_escape_character, text, " " + text))


def _escape_character(character: str, previous: str) -> str:
    plain = unicodedata.category(character)[0] in "LMNPS" and not _UNSEEN.match(character) and character not in '"\\'
    return character if plain or (character == " " and previous != " ") else f"\\u{{{ord(character):x}}}"
