"""Our own words for values that do not fit: they get into messages that replay byte for byte.

In: one problem as the validating library reports it (type and context, which it keeps stable; its text it does not).
Out: a sentence. A decider may say it: another version of the library must not change what was said. Never change a
word here: recorded tasks have them.
"""

from collections.abc import Mapping
from typing import Any

TEMPLATES: Mapping[str, str] = {
    "missing": "Field required",
    "extra_forbidden": "Extra inputs are not permitted",
    "json_invalid": "Invalid JSON",
    "model_type": "Input should be an object",
    "model_attributes_type": "Input should be an object",
    "dataclass_type": "Input should be an object",
    "dict_type": "Input should be an object",
    "list_type": "Input should be a valid array",
    "tuple_type": "Input should be a valid array",
    "set_type": "Input should be a valid array",
    "frozen_set_type": "Input should be a valid array",
    "none_required": "Input should be null",
    "string_type": "Input should be a valid string",
    "string_unicode": "Input should be a valid string, unable to parse raw data as a unicode string",
    "string_too_short": "String should have at least {min_length} character{s}",
    "string_too_long": "String should have at most {max_length} character{s}",
    "string_pattern_mismatch": "String should match pattern '{pattern}'",
    "too_short": "{field_type} should have at least {min_length} item{s} after validation, not {actual_length}",
    "too_long": "{field_type} should have at most {max_length} item{s} after validation, not {actual_length}",
    "literal_error": "Input should be {expected}",
    "enum": "Input should be {expected}",
    "bool_type": "Input should be a valid boolean",
    "bool_parsing": "Input should be a valid boolean, unable to interpret input",
    "int_type": "Input should be a valid integer",
    "int_parsing": "Input should be a valid integer, unable to parse string as an integer",
    "int_parsing_size": "Unable to parse input string as an integer, exceeded maximum size",
    "int_from_float": "Input should be a valid integer, got a number with a fractional part",
    "float_type": "Input should be a valid number",
    "float_parsing": "Input should be a valid number, unable to parse string as a number",
    "finite_number": "Input should be a finite number",
    "greater_than": "Input should be greater than {gt}",
    "greater_than_equal": "Input should be greater than or equal to {ge}",
    "less_than": "Input should be less than {lt}",
    "less_than_equal": "Input should be less than or equal to {le}",
    "multiple_of": "Input should be a multiple of {multiple_of}",
    "recursion_loop": "Recursion error - cyclic reference detected",
    "recursion_depth_exceeded": "Recursion error - maximum validation depth exceeded",
    "value_error": "Value error, {error}",
}
"""By the library's type of a problem. `{s}` is there unless the bound is one."""
UNNAMED = "Input does not fit ({type})"


def describe_error(problem: Mapping[str, Any]) -> str:
    """One row of `ValidationError.errors()` as a sentence."""
    kind = str(problem["type"])
    context: Mapping[str, Any] = problem.get("ctx") or {}
    bound = context.get("min_length", context.get("max_length"))
    template = TEMPLATES.get(kind)
    if template is None:
        return UNNAMED.format(type=kind)
    try:
        return template.format(s="" if bound == 1 else "s", **{key: str(value) for key, value in context.items()})
    except KeyError:
        return UNNAMED.format(type=kind)
