"""JSON of a request, read strictly: one reading for every program on the way. Pure.

In: the bytes of a body. Out: its object, or a DoorRefusal (400) that names the field.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from bulkhead_contracts import bounds
from bulkhead_services.doors.port import DoorRefusal

MAX_INTEGER = 2**63
_SURROGATE = b"\\ud"
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A string, or what is left of one that does not end: it is not looked through again from each quote in it."""
_BEYOND_FIRST_PLANE = re.compile(rb"[\xf0-\xf4]|\\u[dD][89abAB]")
MALFORMED = "malformed_json"
VALUE_BYTES = 200
"""Memory that a value takes until its call is stored: in the parsed body, its parts and messages."""
FEW_VALUES = 10_000
HINT = "send one JSON object in UTF-8"


class _InvalidValue:
    """Stands in the parsed value for something that JSON has not, until its place is found."""

    def __init__(self, what: str) -> None:
        self.what = what


def read_object(raw: bytes) -> dict[str, Any]:
    """The object that a body holds. Raises DoorRefusal."""
    _check_values(raw)
    invalid_values: list[_InvalidValue] = []

    def note_invalid(what: str) -> _InvalidValue:
        invalid_values.append(_InvalidValue(what))
        return invalid_values[-1]

    def build_object(rows: list[tuple[str, Any]]) -> object:
        fields = dict(rows)
        if len(fields) != len(rows):
            twice = next(name for name, count in Counter(name for name, _ in rows).items() if count > 1)
            return note_invalid(f"holds the key {twice[:64]!r} twice")
        return fields

    def parse_number(text: str) -> object:
        value = float(text)
        return value if math.isfinite(value) else note_invalid("is a number beyond what a double holds")

    def parse_integer(text: str) -> object:
        value = int(text) if len(text) <= 20 else MAX_INTEGER * 2
        return value if -MAX_INTEGER <= value < MAX_INTEGER else note_invalid("is an integer of more than 64 bits")

    try:
        body = json.loads(
            raw.decode(),
            object_pairs_hook=build_object,
            parse_constant=lambda name: note_invalid(f"is {name}, which JSON has not"),
            parse_float=parse_number,
            parse_int=parse_integer,
        )
    except UnicodeDecodeError as error:
        raise _malformed_json(f"the body is not UTF-8: byte {error.start} does not belong to any character") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise _malformed_json(f"the body is not JSON: {error}") from error
    _check_depth(body)
    if invalid_values:
        raise next(
            _invalid_field(path, value.what) for path, value in _walk_values(body) if isinstance(value, _InvalidValue)
        )
    if _SURROGATE in raw.lower():
        _check_surrogates(body)
    if not isinstance(body, dict):
        raise _malformed_json("the body is not a JSON object")
    return body


def read_message(raw: bytes) -> dict[str, Any]:
    """The object that a body of another protocol holds; {} where it is none, which that protocol's library refuses in
    its own words. Raises DoorRefusal for what two programs may read differently."""
    try:
        return read_object(raw)
    except DoorRefusal as refusal:
        if refusal.code == MALFORMED:
            return {}
        raise


def weigh_values(raw: bytes) -> int:
    """Bytes that the values of a body take when it is parsed, about; none of one that is refused for their number.
    One character beyond the first plane makes each of its text take four bytes."""
    count, is_wide = _count_values(raw), _BEYOND_FIRST_PLANE.search(raw) is not None
    width = 0 if raw.isascii() else len(raw) * (4 if is_wide else 2)
    return VALUE_BYTES * count + width if count <= bounds.MAX_ASKED_VALUES else 0


def _check_values(raw: bytes) -> None:
    """Before it is parsed: a list of empty objects takes forty times the memory of its text."""
    if _count_values(raw) > bounds.MAX_ASKED_VALUES:
        message = f"the body holds more than {bounds.MAX_ASKED_VALUES:,} values"
        raise DoorRefusal(413, "too_large", message, "send large tables as text")


def _count_values(raw: bytes) -> int:
    """Values and strings of a body, counted no further than beyond the bound; at most so many of a small one."""
    if (most := _count_marks(raw)) <= FEW_VALUES:
        return most
    count = offset = 0
    for string in _STRING.finditer(raw):
        count += 1 + _count_marks(raw[offset : string.start()])
        offset = string.end()
        if count > bounds.MAX_ASKED_VALUES:
            return count
    return count + _count_marks(raw[offset:])


def _count_marks(raw: bytes) -> int:
    return raw.count(b",") + raw.count(b"{") + raw.count(b"[")


def _check_depth(body: object) -> None:
    level = [body]
    for _ in range(bounds.MAX_JSON_DEPTH + 1):
        inner: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inner.extend(value.values())
            elif isinstance(value, list):
                inner.extend(value)
        level = [value for value in inner if type(value) in (dict, list)]
        if not level:
            return
    raise _too_deep()


def _check_surrogates(body: object) -> None:
    for path, value in _walk_values(body):
        if isinstance(value, str) and not _is_encodable(value):
            raise _invalid_field(path, "holds half a character (a lone surrogate)")


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _walk_values(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Each value with its path, keys too. A path is cut where it is shown: with a long key, paths of all values at
    once would fill the memory."""
    yield path, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield path, name
            short_name = name[: bounds.MAX_SUMMARY_CHARS]
            yield from _walk_values(inner, _cut_path(f"{path}.{short_name}" if path else short_name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _walk_values(inner, _cut_path(f"{path}[{index}]"))


def _cut_path(path: str) -> str:
    return path[: bounds.MAX_SUMMARY_CHARS]


def _invalid_field(path: str, what: str) -> DoorRefusal:
    field = path.encode("utf-8", "replace").decode()
    return DoorRefusal(
        400, "invalid_request", f"{field or 'the body'} {what}".encode("utf-8", "replace").decode(), HINT, field=field
    )


def _malformed_json(what: str) -> DoorRefusal:
    return DoorRefusal(400, MALFORMED, what, HINT)


def _too_deep() -> DoorRefusal:
    message = f"the body nests deeper than {bounds.MAX_JSON_DEPTH} objects and lists"
    return DoorRefusal(400, "too_deep", message, "flatten it: a schema can name its parts in $defs")
