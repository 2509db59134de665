"""JSON Schema and texts of a tool's function, as models read them. Enters: a function, a schema of pydantic. Pure."""

import inspect
import re
from collections.abc import Callable
from typing import Any

_SECTION = re.compile(r"(?m)^(Args|Arguments|Parameters|Returns?|Yields|Raises|Examples?|Notes?):?\s*$|^:\w+")
_ARGUMENTS = re.compile(r"(?ms)^(?:Args|Arguments|Parameters):\s*\n(.*?)(?=^\S|\Z)")
_ONE = re.compile(r"(?ms)^(\s+)(\w+)(?:\s*\([^)\n]*\))?:\s*(.*?)(?=^\1\w+(?:\s*\([^)\n]*\))?:|\Z)")
_PARAM = re.compile(r"(?m)^:param (?:\w+ )?(\w+):\s*(.*(?:\n[ \t]+.*)*)")
_VALUES = frozenset({"default", "const", "enum", "examples", "required"})
_OF_NAMES = frozenset({"properties", "patternProperties"})


def description(function: Callable[..., Any]) -> str:
    """The docstring before its sections, on one line; "" without one."""
    text = inspect.getdoc(function) or ""
    found = _SECTION.search(text)
    return " ".join(text[: found.start() if found else None].split())


def argument_texts(function: Callable[..., Any]) -> dict[str, str]:
    """What the docstring says of each parameter: a section `Args:`, or lines `:param name:`."""
    text = inspect.getdoc(function) or ""
    found: dict[str, str] = dict(_PARAM.findall(text))
    if (section := _ARGUMENTS.search(text)) is not None:
        found |= {name: told for _, name, told in _ONE.findall(section[1])}
    return {name: " ".join(told.split()) for name, told in found.items()}


def plain(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without `$ref` (some providers follow none) and without titles. Raises ValueError where it holds
    itself."""
    found: dict[str, Any] = _plain(schema, schema.get("$defs", {}), ())
    return found


def _plain(node: Any, definitions: dict[str, Any], within: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_plain(one, definitions, within) for one in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name in within:
            raise ValueError(f"{name} holds itself; a tool's arguments and results have a depth that is known")
        whole = {**definitions[name], **{key: value for key, value in node.items() if key != "$ref"}}
        return _plain(whole, definitions, (*within, name))
    found = {}
    for key, value in node.items():
        if key in ("title", "$defs", "discriminator"):
            continue
        if key in _OF_NAMES:
            found[key] = {name: _plain(one, definitions, within) for name, one in value.items()}
        else:
            found[key] = value if key in _VALUES else _plain(value, definitions, within)
    return found
