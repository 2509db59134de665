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


def function_description(function: Callable[..., Any]) -> str:
    """The docstring before its sections, on one line; "" without one."""
    text = inspect.getdoc(function) or ""
    section = _SECTION.search(text)
    return " ".join(text[: section.start() if section else None].split())


def argument_texts(function: Callable[..., Any]) -> dict[str, str]:
    """Texts of the docstring on each parameter: a section `Args:`, or lines `:param name:`."""
    text = inspect.getdoc(function) or ""
    texts: dict[str, str] = dict(_PARAM.findall(text))
    if (section := _ARGUMENTS.search(text)) is not None:
        texts |= {name: words for _, name, words in _ONE.findall(section[1])}
    return {name: " ".join(words.split()) for name, words in texts.items()}


def inline_references(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without `$ref` (some providers follow none) and without titles. Raises ValueError where it holds
    itself."""
    inlined: dict[str, Any] = _inline_node(schema, schema.get("$defs", {}), ())
    return inlined


def _inline_node(node: Any, definitions: dict[str, Any], within: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_inline_node(item, definitions, within) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name in within:
            raise ValueError(f"{name} holds itself; a tool's arguments and results have a depth that is known")
        referred = {**definitions[name], **{key: value for key, value in node.items() if key != "$ref"}}
        return _inline_node(referred, definitions, (*within, name))
    inlined = {}
    for key, value in node.items():
        if key in ("title", "$defs", "discriminator"):
            continue
        if key in _OF_NAMES:
            inlined[key] = {name: _inline_node(inner, definitions, within) for name, inner in value.items()}
        else:
            inlined[key] = value if key in _VALUES else _inline_node(value, definitions, within)
    return inlined
