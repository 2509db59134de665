"""Validation errors in the words of the text's author: which field, what is wrong, what was probably meant.

In: a ValidationError and its model, or a name and the known names. Out: one sentence. A list with a wrong item is not
called empty.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

Loc = tuple[int | str, ...]
MAX_MISFITS = 100
WORDS = {
    "missing": "is missing",
    "too_short": "must hold at least {min_length}",
    "too_long": "must hold at most {max_length}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "model_type": "must be an object with the fields {fields}",
    "model_attributes_type": "must be an object with the fields {fields}",
    "dict_type": "must be an object",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "value_error": "{error}",
    "json_invalid": "is no JSON: {error}",
}
"""By pydantic's type of error; any other keeps pydantic's message."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """where: path of the field, "" for the whole. known: the fields of the object in which an unknown one stands."""

    where: str
    what: str
    known: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


def find_misfits(error: ValidationError, model: type[BaseModel]) -> list[Misfit]:
    """At least one, and MAX_MISFITS at most: whoever sends an object of 50,000 unknown fields is told of the first."""
    problems = error.errors(include_url=False, include_input=False)[:MAX_MISFITS]
    locs = [tuple(problem["loc"]) for problem in problems]
    above: set[Loc] = {loc[:length] for loc in locs for length in range(len(loc))}
    return [
        _misfit_of(loc, problem["type"], problem["msg"], problem.get("ctx") or {}, model)
        for loc, problem in zip(locs, problems, strict=True)
        if loc not in above
    ]


def _misfit_of(loc: Loc, kind: str, message: str, context: Mapping[str, Any], model: type[BaseModel]) -> Misfit:
    where = ".".join(map(str, loc))
    if kind == "extra_forbidden":
        known_fields = fields_at(model, loc[:-1])
        return Misfit(where, f"unknown field{suggest_name(str(loc[-1]), known_fields)}", known_fields)
    words = WORDS.get(kind)
    if words is None:
        return Misfit(where, message)
    fields = ", ".join(fields_at(model, loc))
    if kind.startswith("model_") and not fields:
        words = "must be an object"
    return Misfit(where, words.format_map({**context, "fields": fields}))


def suggest_name(name: str, known: Iterable[str]) -> str:
    """`; did you mean NAME?` of the known name that comes nearest; "" where none is near."""
    near = difflib.get_close_matches(name, sorted(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


def fields_at(model: type[BaseModel], loc: Sequence[int | str]) -> tuple[str, ...]:
    """The fields of the object at a place; () where there is none of fixed fields."""
    current: type[BaseModel] | None = model
    for part in loc:
        # An index of a list and a mapping's key lead to the model that is in it already; so does a name to its field.
        field = current.model_fields.get(str(part)) if current is not None else None
        if field is not None:
            current = _model_in(field.annotation)
    return tuple(current.model_fields) if current is not None else ()


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation: itself, in a list, a mapping's values, or beside None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for argument in get_args(annotation)[::-1] if (model := _model_in(argument)) is not None), None)
