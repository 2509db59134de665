"""A call as people read it before they let it be made. Pure.

Every value stands on a line of its own behind its place, quoted where it could be taken for something else: line ends,
control characters and characters that turn the direction of writing are shown, not obeyed.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from bulkhead_contracts import bounds

MAX_VALUE_CHARS = 1_000
LONG_CHARS = 200
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters, marks and symbols that nobody sees."""


def render_preview(tool: str, arguments: Mapping[str, Any]) -> str:
    """One line per value; what is cut says so."""
    lines = [tool]
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
    return f'"{escaped}"{suffix}'


def escape_invisible(text: str) -> str:
    """The text with everything that is no visible character written as its code, and so are the second and further
    blanks of a row, quotes and backslashes: no value can look like two, or like another line."""
    return "".join(map(_escape_character, text, " " + text))


def _escape_character(character: str, previous: str) -> str:
    plain = unicodedata.category(character)[0] in "LMNPS" and not _UNSEEN.match(character) and character not in '"\\'
    return character if plain or (character == " " and previous != " ") else f"\\u{{{ord(character):x}}}"
