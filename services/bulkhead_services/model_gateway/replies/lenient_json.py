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


class BrokenJson(ValueError):
    """Text that is no JSON. position: where that was seen, and where the search may go on."""

    def __init__(self, position: int) -> None:
        super().__init__(f"no JSON at {position}")
        self.position = position


class CutJson(ValueError):
    """The text ended inside a value."""


class LenientReader:
    """Reads one object or list. stopped: the model ended the text itself, so that only brackets can be missing.

    changes: what was put right. is_whole: no bracket was missing at the text's end. ended_in_array: a list was closed
    there. root: the outermost object, with the members that are whole.
    """

    def __init__(self, text: str, position: int, *, model_stopped: bool) -> None:
        self.position, self.is_whole, self.ended_in_array = position, True, False
        self.root: object = None
        self._text, self._stopped, self._changes = text, model_stopped, dict[str, None]()
        self._open: list[str] = []

    @property
    def changes(self) -> tuple[str, ...]:
        """Slips that were put right, each once."""
        return tuple(self._changes)

    def read_value(self) -> object:
        """The value. Raises BrokenJson, CutJson."""
        char = self._peek_char()
        if char in "{[":
            if len(self._open) >= bounds.MAX_JSON_DEPTH:
                raise BrokenJson(self.position + 1)
            return self._read_object() if char == "{" else self._read_array()
        if char in _BODY:
            return self._read_string()
        return self._read_number() if char.isdigit() or char in "-+" else self._read_literal()

    def _peek_char(self) -> str:
        """The next character that is no blank. Raises CutJson at the end."""
        blank = _BLANK.match(self._text, self.position)
        assert blank is not None
        if "//" in blank.group():
            self._changes["comments left out"] = None
        self.position = blank.end()
        if self.position >= len(self._text):
            raise CutJson
        return self._text[self.position]

    # Objects and lists

    def _read_object(self) -> dict[str, object]:
        members: dict[str, object] = {}
        if not self._open:
            self.root = members
        self._open_bracket("{")
        while not self._consume_closing("}", bool(members)):
            key = self._read_key()
            if self._peek_char() != ":":
                raise BrokenJson(self.position)
            self.position += 1
            members[key] = self.read_value()
        return members

    def _read_array(self) -> list[object]:
        items: list[object] = []
        if not self._open:
            self.root = items
        self._open_bracket("[")
        while not self._consume_closing("]", bool(items)):
            items.append(self.read_value())
        return items

    def _open_bracket(self, bracket: str) -> None:
        self._open.append(bracket)
        self.position += 1

    def _consume_closing(self, closing: str, after_value: bool) -> bool:
        """True when the innermost bracket is closed here; else what follows is its next member."""
        commas = 0
        while True:
            try:
                char = self._peek_char()
            except CutJson:
                return self._close_by_text_end(after_value and not commas)
            if char != ",":
                break
            commas, self.position = commas + 1, self.position + 1
        if char in "}]":
            return self._close_by_bracket(char, closing, commas)
        if commas != after_value:
            self._changes["commas put right"] = None
        return False

    def _close_by_bracket(self, char: str, closing: str, commas: int) -> bool:
        if commas:
            self._changes["commas put right"] = None
        if char == closing:
            self.position += 1
        elif ("{" if char == "}" else "[") in self._open[:-1]:
            # The bracket belongs to a value around this one, whose own is missing.
            self._changes["missing brackets put in"] = None
        else:
            raise BrokenJson(self.position)
        self._open.pop()
        return True

    def _close_by_text_end(self, is_allowed: bool) -> bool:
        if not is_allowed:
            raise CutJson
        self.is_whole = False
        self.ended_in_array = self.ended_in_array or self._open[-1] == "["
        self._changes["missing brackets put in"] = None
        self._open.pop()
        return True

    # Plain values

    def _read_key(self) -> str:
        if self._peek_char() in _BODY:
            return self._read_string()
        match = _WORD.match(self._text, self.position)
        if match is None:
            raise BrokenJson(self.position)
        self._advance_to(match.end())
        self._changes["bare keys quoted"] = None
        return match.group()

    def _read_string(self) -> str:
        quote, start = self._text[self.position], self.position + 1
        if quote == '"':
            try:
                text, self.position = scanstring(self._text, start, True)
                return str(text)
            except json.JSONDecodeError:
                pass
        match = _BODY[quote].match(self._text, start)
        assert match is not None
        end = match.end()
        if self._text[end : end + 1] != _CLOSING[quote]:
            raise CutJson
        self.position = end + 1
        self._changes["quotes and escapes put right"] = None
        try:
            return str(scanstring(_ESCAPE.sub(_normalize_escape, match.group()) + '"', 0, False)[0])
        except json.JSONDecodeError:
            raise BrokenJson(end + 1) from None

    def _read_number(self) -> int | float:
        match = _NUMBER.match(self._text, self.position)
        if match is None:
            raise BrokenJson(self.position + 1)
        self._advance_to(match.end())
        number = match.group()
        value = int(number) if number.lstrip("+-").isdigit() else float(number)
        if not math.isfinite(value):
            raise BrokenJson(self.position)
        if number[0] == "+" or number[-1] == ".":
            self._changes["numbers put right"] = None
        return value

    def _read_literal(self) -> bool | None:
        match = _WORD.match(self._text, self.position)
        if match is None or match.group() not in _LITERALS:
            raise BrokenJson(self.position + 1)
        self._advance_to(match.end())
        if match.group()[0].isupper():
            self._changes["literals put right"] = None
        return _LITERALS[match.group()]

    def _advance_to(self, end: int) -> None:
        """Go on behind a word or a number, of which more may have come when the text was cut there."""
        if end >= len(self._text) and not self._stopped:
            raise CutJson
        self.position = end


def _normalize_escape(match: re.Match[str]) -> str:
    """An escape as JSON has it: what JSON does not know stands for itself."""
    escaped = match.group(1)
    if escaped is None:
        return '\\"'
    if escaped[0] in '"\\/bfnrt' or len(escaped) == 5:
        return match.group()
    return escaped if escaped == "'" else "\\\\" + escaped
