"""JSON as language models write it: one value from a place on, with the slips that leave no doubt put right. Pure.

Taken: trailing and doubled commas, single and typographic quotes, bare keys, Python's literals, `//` comments, raw line
breaks in strings, brackets that are missing at the end or between others. Each character is read once.
"""

import json
import math
import re
from json.decoder import scanstring  # type: ignore[attr-defined]

from bulkhead_contracts import bounds

_BLANK = re.compile(r"(?:\s|//[^\n]*)*")
_NUMBER = re.compile(r"[-+]?\d{1,18}(?:\.\d{0,32})?(?:[eE][-+]?\d{1,3})?")
_WORD = re.compile(r"[A-Za-z_$][\w$-]{0,63}")
_BODY = {
    '"': re.compile(r'[^"\\]*(?:\\.[^"\\]*)*', re.S),
    "'": re.compile(r"[^'\\]*(?:\\.[^'\\]*)*", re.S),
    "“": re.compile(r"[^”\\]*(?:\\.[^”\\]*)*", re.S),
}
_CLOSING = {'"': '"', "'": "'", "“": "”"}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)|\"", re.S)
_LITERALS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}


class Broken(ValueError):
    """No JSON. at: where that was seen, and where the search may go on."""

    def __init__(self, at: int) -> None:
        super().__init__(f"no JSON at {at}")
        self.at = at


class Cut(ValueError):
    """The text ended inside a value."""


class Reader:
    """Reads one object or list. stopped: the model ended the text itself, so that only brackets can be missing.

    changes: what was put right. whole: no bracket was missing at the text's end. closed_array: a list was closed there.
    root: the outermost object, with the members that are whole.
    """

    def __init__(self, text: str, at: int, *, stopped: bool) -> None:
        self.at, self.whole, self.closed_array = at, True, False
        self.root: object = None
        self._text, self._stopped, self._changes = text, stopped, dict[str, None]()
        self._open: list[str] = []

    @property
    def changes(self) -> tuple[str, ...]:
        """What was put right, each once."""
        return tuple(self._changes)

    def read(self) -> object:
        """The value. Raises Broken, Cut."""
        return self._value()

    def _value(self) -> object:
        char = self._peek()
        if char in "{[":
            if len(self._open) >= bounds.MAX_JSON_DEPTH:
                raise Broken(self.at + 1)
            return self._object() if char == "{" else self._array()
        if char in _BODY:
            return self._string()
        return self._number() if char.isdigit() or char in "-+" else self._literal()

    def _peek(self) -> str:
        """The next character that is no blank. Raises Cut at the end."""
        found = _BLANK.match(self._text, self.at)
        assert found is not None
        if "//" in found.group():
            self._changes["comments left out"] = None
        self.at = found.end()
        if self.at >= len(self._text):
            raise Cut
        return self._text[self.at]

    # Objects and lists

    def _object(self) -> dict[str, object]:
        made: dict[str, object] = {}
        if not self._open:
            self.root = made
        self._enter("{")
        while not self._left("}", bool(made)):
            key = self._key()
            if self._peek() != ":":
                raise Broken(self.at)
            self.at += 1
            made[key] = self._value()
        return made

    def _array(self) -> list[object]:
        made: list[object] = []
        if not self._open:
            self.root = made
        self._enter("[")
        while not self._left("]", bool(made)):
            made.append(self._value())
        return made

    def _enter(self, bracket: str) -> None:
        self._open.append(bracket)
        self.at += 1

    def _left(self, closing: str, after_value: bool) -> bool:
        """Whether the innermost bracket is closed here; else what follows is its next member."""
        commas = 0
        while True:
            try:
                char = self._peek()
            except Cut:
                return self._closed_by_the_end(after_value and not commas)
            if char != ",":
                break
            commas, self.at = commas + 1, self.at + 1
        if char in "}]":
            return self._closed_by(char, closing, commas)
        if commas != after_value:
            self._changes["commas put right"] = None
        return False

    def _closed_by(self, char: str, closing: str, commas: int) -> bool:
        if commas:
            self._changes["commas put right"] = None
        if char == closing:
            self.at += 1
        elif ("{" if char == "}" else "[") in self._open[:-1]:
            # The bracket belongs to a value around this one, whose own is missing.
            self._changes["missing brackets put in"] = None
        else:
            raise Broken(self.at)
        self._open.pop()
        return True

    def _closed_by_the_end(self, may_be: bool) -> bool:
        if not may_be:
            raise Cut
        self.whole = False
        self.closed_array = self.closed_array or self._open[-1] == "["
        self._changes["missing brackets put in"] = None
        self._open.pop()
        return True

    # Plain values

    def _key(self) -> str:
        if self._peek() in _BODY:
            return self._string()
        found = _WORD.match(self._text, self.at)
        if found is None:
            raise Broken(self.at)
        self._take(found.end())
        self._changes["bare keys quoted"] = None
        return found.group()

    def _string(self) -> str:
        quote, start = self._text[self.at], self.at + 1
        if quote == '"':
            try:
                made, self.at = scanstring(self._text, start, True)
                return str(made)
            except json.JSONDecodeError:
                pass
        found = _BODY[quote].match(self._text, start)
        assert found is not None
        end = found.end()
        if self._text[end : end + 1] != _CLOSING[quote]:
            raise Cut
        self.at = end + 1
        self._changes["quotes and escapes put right"] = None
        try:
            return str(scanstring(_ESCAPE.sub(_escaped, found.group()) + '"', 0, False)[0])
        except json.JSONDecodeError:
            raise Broken(end + 1) from None

    def _number(self) -> int | float:
        found = _NUMBER.match(self._text, self.at)
        if found is None:
            raise Broken(self.at + 1)
        self._take(found.end())
        number = found.group()
        value = int(number) if number.lstrip("+-").isdigit() else float(number)
        if not math.isfinite(value):
            raise Broken(self.at)
        if number[0] == "+" or number[-1] == ".":
            self._changes["numbers put right"] = None
        return value

    def _literal(self) -> bool | None:
        found = _WORD.match(self._text, self.at)
        if found is None or found.group() not in _LITERALS:
            raise Broken(self.at + 1)
        self._take(found.end())
        if found.group()[0].isupper():
            self._changes["literals put right"] = None
        return _LITERALS[found.group()]

    def _take(self, end: int) -> None:
        """Go on behind a word or a number, of which more may have come when the text was cut there."""
        if end >= len(self._text) and not self._stopped:
            raise Cut
        self.at = end


def _escaped(found: re.Match[str]) -> str:
    """An escape as JSON has it: what JSON does not know stands for itself."""
    said = found.group(1)
    if said is None:
        return '\\"'
    if said[0] in '"\\/bfnrt' or len(said) == 5:
        return found.group()
    return said if said == "'" else "\\\\" + said
