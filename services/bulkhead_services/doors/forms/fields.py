"""Fields of a request's objects, taken one by one, each with its type and bound. Pure.

In: an object and its path. Out: values, or a DoorRefusal (400) that names the field. null counts as
absent.
"""

from collections.abc import Collection, Mapping
from typing import Any, NoReturn, TypeVar

from bulkhead_contracts import bounds
from bulkhead_services.doors.port import DoorRefusal

T = TypeVar("T")
_KINDS: Mapping[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "an integer",
}


def unfit_field(field: str, what: str, hint: str = "") -> DoorRefusal:
    """A field does not fit. what: goes on after the field's name."""
    field = field[: bounds.MAX_SUMMARY_CHARS]
    return DoorRefusal(400, "invalid_request", f"{field} {what}", hint, field=field)


def unsupported_field(field: str, why: str, hint: str = "leave it out") -> DoorRefusal:
    """A field that the API knows, and this door has no counterpart for."""
    field = field[: bounds.MAX_SUMMARY_CHARS]
    return DoorRefusal(400, "unsupported_parameter", f"{field} is not supported: {why}", hint, field=field)


class Fields:
    """One object of a request. Fields that nobody took are the `remaining_fields`."""

    def __init__(self, value: object, at: str = "") -> None:
        if not isinstance(value, dict):
            raise unfit_field(at or "the body", f"must be an object, and is {_kind_name(value)}")
        self._value: dict[str, Any] = value
        self._taken: set[str] = set()
        self.at = at

    def field_path(self, name: str) -> str:
        """The path of one of its fields."""
        return f"{self.at}.{name}" if self.at else name

    def get_raw(self, name: str) -> Any:
        """A value of any kind; None when it is absent."""
        self._taken.add(name)
        return self._value.get(name)

    def remaining_fields(self) -> dict[str, Any]:
        """Fields that nobody took, without nulls."""
        return {name: value for name, value in self._value.items() if name not in self._taken and value is not None}

    def as_dict(self) -> dict[str, Any]:
        """The object as it came."""
        return self._value

    def get_text(self, name: str, most: int = 0) -> str | None:
        """A string, of at most so many characters."""
        value = self._get_typed(name, str)
        if value is not None and most and len(value) > most:
            raise unfit_field(self.field_path(name), f"must have at most {most} characters, and has {len(value)}")
        return value

    def require_text(self, name: str, most: int = 0) -> str:
        """A string that may be neither absent nor empty."""
        value = self.get_text(name, most)
        if not value:
            raise unfit_field(self.field_path(name), "is missing" if value is None else "is empty")
        return value

    def require_any_text(self, name: str) -> str:
        """A string that may be empty, and not absent."""
        return self.require_present(name, self.get_text(name))

    def require_object(self, name: str) -> "Fields":
        """An object that may not be absent."""
        return self.require_present(name, self.get_object(name))

    def require_present(self, name: str, value: T | None) -> T:
        """The value of a field that may not be absent."""
        if value is None:
            raise unfit_field(self.field_path(name), "is missing")
        return value

    def get_flag(self, name: str) -> bool | None:
        """true or false."""
        return self._get_typed(name, bool)

    def get_integer(self, name: str, least: int, most: int) -> int | None:
        """An integer within bounds."""
        value = self.get_raw(name)
        if value is None:
            return None
        if type(value) is not int or not least <= value <= most:
            raise unfit_field(
                self.field_path(name), f"must be an integer from {least} to {most}, and is {_short_repr(value)}"
            )
        return value

    def get_number(self, name: str, least: float, most: float) -> float | None:
        """A number within bounds."""
        value = self.get_raw(name)
        if value is None:
            return None
        if type(value) not in (int, float) or not least <= value <= most:
            raise unfit_field(
                self.field_path(name), f"must be a number from {least:g} to {most:g}, and is {_short_repr(value)}"
            )
        return float(value) if type(value) is float else value

    def get_choice(self, name: str, allowed: Collection[str]) -> str | None:
        """One of a few words."""
        value = self.get_text(name)
        if value is not None and value not in allowed:
            raise unfit_field(
                self.field_path(name), f"must be one of {', '.join(allowed)}, and is {_short_repr(value)}"
            )
        return value

    def get_object(self, name: str) -> "Fields | None":
        """An object."""
        value = self._get_typed(name, dict)
        return None if value is None else Fields(value, self.field_path(name))

    def get_objects(self, name: str, most: int) -> "list[Fields] | None":
        """A list of objects."""
        value = self._get_list(name, most)
        if value is None:
            return None
        return [Fields(row, f"{self.field_path(name)}[{index}]") for index, row in enumerate(value)]

    def get_texts(self, name: str, most: int) -> list[str] | None:
        """A list of strings."""
        value = self._get_list(name, most)
        for index, row in enumerate(value or ()):
            if not isinstance(row, str):
                raise unfit_field(f"{self.field_path(name)}[{index}]", f"must be a string, and is {_kind_name(row)}")
        return value

    def refuse_fields(self, reasons: Mapping[str, str]) -> None:
        """Refuse fields by name, unless they ask for nothing. An empty object asks for the defaults."""
        for name, reason in reasons.items():
            if self.get_raw(name) not in (None, False, []):
                raise unsupported_field(self.field_path(name), reason)

    def refuse_remaining(self, why: str) -> None:
        """Refuse what nobody took."""
        for name in self.remaining_fields():
            raise unsupported_field(self.field_path(name), why)

    def _get_list(self, name: str, most: int) -> list[Any] | None:
        value = self._get_typed(name, list)
        if value is not None and len(value) > most:
            raise unfit_field(self.field_path(name), f"must have at most {most} entries, and has {len(value)}")
        return value

    def _get_typed(self, name: str, kind: type[T]) -> T | None:
        value = self.get_raw(name)
        if value is None or type(value) is kind:
            return value
        raise unfit_field(self.field_path(name), f"must be {_KINDS[kind]}, and is {_kind_name(value)}")


def refuse_unknown_kind(fields: Fields, name: str, kinds: Collection[str]) -> NoReturn:
    """Refuse an object whose kind has no counterpart."""
    kind = _short_repr(fields.get_raw(name))
    raise unsupported_field(
        fields.field_path(name), f"{kind} has no counterpart here", f"send one of {', '.join(kinds)}"
    )


def _kind_name(value: object) -> str:
    if value is None:
        return "null"
    return "a number" if type(value) is float else _KINDS.get(type(value), "something else")


def _short_repr(value: object) -> str:
    return repr(value)[:64] if isinstance(value, str | int | float | bool) else _kind_name(value)
