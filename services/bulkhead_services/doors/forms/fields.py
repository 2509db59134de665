"""Fields of a request's objects, taken one by one, each with its type and bound. Pure.

In: an object and its path. Out: values, or a Refusal (400) that names the field. null counts as absent.
"""

from collections.abc import Collection, Mapping
from typing import Any, NoReturn, TypeVar

from bulkhead_contracts import bounds
from bulkhead_services.doors.port import Refusal

T = TypeVar("T")
_KINDS: Mapping[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "an integer",
}


def unfit(field: str, what: str, hint: str = "") -> Refusal:
    """A field does not fit. what: goes on after the field's name."""
    field = field[: bounds.MAX_SUMMARY_CHARS]
    return Refusal(400, "invalid_request", f"{field} {what}", hint, field=field)


def not_taken(field: str, why: str, hint: str = "leave it out") -> Refusal:
    """A field that the API knows, and this door has no counterpart for."""
    field = field[: bounds.MAX_SUMMARY_CHARS]
    return Refusal(400, "unsupported_parameter", f"{field} is not supported: {why}", hint, field=field)


class Fields:
    """One object of a request. Fields that nobody took are the `rest`."""

    def __init__(self, value: object, at: str = "") -> None:
        if not isinstance(value, dict):
            raise unfit(at or "the body", f"must be an object, and is {_kind(value)}")
        self._value: dict[str, Any] = value
        self._taken: set[str] = set()
        self.at = at

    def path(self, name: str) -> str:
        """The path of one of its fields."""
        return f"{self.at}.{name}" if self.at else name

    def raw(self, name: str) -> Any:
        """A value of any kind; None when it is absent."""
        self._taken.add(name)
        return self._value.get(name)

    def rest(self) -> dict[str, Any]:
        """Fields that nobody took, without nulls."""
        return {name: value for name, value in self._value.items() if name not in self._taken and value is not None}

    def whole(self) -> dict[str, Any]:
        """The object as it came."""
        return self._value

    def text(self, name: str, most: int = 0) -> str | None:
        """A string, of at most so many characters."""
        value = self._of(name, str)
        if value is not None and most and len(value) > most:
            raise unfit(self.path(name), f"must have at most {most} characters, and has {len(value)}")
        return value

    def needed(self, name: str, most: int = 0) -> str:
        """A string that may be neither absent nor empty."""
        value = self.text(name, most)
        if not value:
            raise unfit(self.path(name), "is missing" if value is None else "is empty")
        return value

    def flag(self, name: str) -> bool | None:
        """true or false."""
        return self._of(name, bool)

    def integer(self, name: str, least: int, most: int) -> int | None:
        """An integer within bounds."""
        value = self.raw(name)
        if value is None:
            return None
        if type(value) is not int or not least <= value <= most:
            raise unfit(self.path(name), f"must be an integer from {least} to {most}, and is {_shown(value)}")
        return value

    def number(self, name: str, least: float, most: float) -> float | None:
        """A number within bounds."""
        value = self.raw(name)
        if value is None:
            return None
        if type(value) not in (int, float) or not least <= value <= most:
            raise unfit(self.path(name), f"must be a number from {least:g} to {most:g}, and is {_shown(value)}")
        return float(value) if type(value) is float else value

    def choice(self, name: str, allowed: Collection[str]) -> str | None:
        """One of a few words."""
        value = self.text(name)
        if value is not None and value not in allowed:
            raise unfit(self.path(name), f"must be one of {', '.join(allowed)}, and is {_shown(value)}")
        return value

    def object(self, name: str) -> "Fields | None":
        """An object."""
        value = self._of(name, dict)
        return None if value is None else Fields(value, self.path(name))

    def objects(self, name: str, most: int) -> "list[Fields] | None":
        """A list of objects."""
        value = self._of(name, list)
        if value is None:
            return None
        if len(value) > most:
            raise unfit(self.path(name), f"must have at most {most} entries, and has {len(value)}")
        return [Fields(row, f"{self.path(name)}[{index}]") for index, row in enumerate(value)]

    def texts(self, name: str, most: int) -> list[str] | None:
        """A list of strings."""
        value = self._of(name, list)
        if value is None:
            return None
        if len(value) > most:
            raise unfit(self.path(name), f"must have at most {most} entries, and has {len(value)}")
        for index, row in enumerate(value):
            if not isinstance(row, str):
                raise unfit(f"{self.path(name)}[{index}]", f"must be a string, and is {_kind(row)}")
        return value

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Refuse fields by name, unless they ask for nothing. reasons: by the field's name."""
        for name, why in reasons.items():
            if self.raw(name) not in (None, False, [], {}):
                raise not_taken(self.path(name), why)

    def refuse_rest(self, why: str) -> None:
        """Refuse what nobody took."""
        for name in self.rest():
            raise not_taken(self.path(name), why)

    def _of(self, name: str, kind: type[T]) -> T | None:
        value = self.raw(name)
        if value is None or type(value) is kind:
            return value
        raise unfit(self.path(name), f"must be {_KINDS[kind]}, and is {_kind(value)}")


def unknown_kind(fields: Fields, name: str, known: Collection[str]) -> NoReturn:
    """Refuse an object whose kind has no counterpart."""
    kind = _shown(fields.raw(name))
    raise not_taken(fields.path(name), f"{kind} has no counterpart here", f"send one of {', '.join(known)}")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return "a number" if type(value) is float else _KINDS.get(type(value), "something else")


def _shown(value: object) -> str:
    return repr(value)[:64] if isinstance(value, str | int | float | bool) else _kind(value)
