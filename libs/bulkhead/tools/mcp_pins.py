"""Pins of MCP tools: from what a server says of its tools to what the mesh shows of them, and a digest of the whole.

Enters: a server's name and its tools as they came. Leaves: pins, and the tools that are left out with the reason. A
server's words are untrusted text: bounded, without invisible characters, marked as its own.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import rfc8785

from bulkhead.tools.mcp_file import Pin, PinnedServer
from bulkhead_contracts import bounds

SPOKEN = ("description", "title")
DROPPED = ("$schema", "$id", "$comment", "examples")
AS_THEY_ARE = ("const", "enum", "default", "required", "pattern", "$ref")
NAMING = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
TIGHT_BYTES = bounds.MAX_SCHEMA_BYTES // 2
"""A schema above this loses the descriptions of its arguments, so that many tools fit into one message."""


@dataclass(frozen=True, slots=True)
class ToolSaid:
    """One tool as its server told it."""

    name: str
    title: str
    description: str
    parameters: Mapping[str, Any]
    output: Mapping[str, Any] | None


class Unfit(ValueError):
    """A tool that cannot be offered; the message says why."""


def digest_of(tool: ToolSaid) -> str:
    """SHA-256 over the canonical form (RFC 8785) of its name, words and schemas. Raises Unfit."""
    said = {
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "input": dict(tool.parameters),
        "output": dict(tool.output) if tool.output is not None else None,
    }
    try:
        return hashlib.sha256(rfc8785.dumps(said)).hexdigest()
    except (rfc8785.CanonicalizationError, RecursionError, UnicodeEncodeError) as error:
        raise Unfit(f"its schema has no canonical form: {error}") from error


def pin(server: str, tools: Iterable[ToolSaid]) -> PinnedServer:
    """The pins of a server's tools."""
    pins: dict[str, Pin] = {}
    left_out: dict[str, str] = {}
    for tool in tools:
        try:
            if len(pins) == bounds.MAX_MCP_TOOLS:
                raise Unfit(f"the server has more than {bounds.MAX_MCP_TOOLS} tools")
            if any(one.tool == tool.name for one in pins.values()):
                raise Unfit("the server names it twice")
            name = name_of(server, tool.name)
            if name in pins:
                name = _with_digest(name, tool.name)
            schema = fitted(tool.parameters)
            pins[name] = Pin(
                tool=tool.name, digest=digest_of(tool), description=_described(server, tool), parameters=schema
            )
        except Unfit as unfit:
            left_out[clean(tool.name, bounds.MAX_NAME_CHARS)] = str(unfit)[:300]
    return PinnedServer(tools=pins, left_out=left_out)


def name_of(server: str, tool: str) -> str:
    """The tool's name in the mesh; all providers take it."""
    if not 0 < len(tool) <= 256:
        raise Unfit("its name is empty or longer than 256 characters")
    name = f"{server}_{re.sub(r'[^A-Za-z0-9_]', '_', tool)}"
    return name if len(name) <= bounds.MAX_NAME_CHARS else _with_digest(name, tool)


def _with_digest(name: str, tool: str) -> str:
    end = "_" + hashlib.sha256(tool.encode("utf-8", "replace")).hexdigest()[:8]
    return name[: bounds.MAX_NAME_CHARS - len(end)] + end


def clean(text: str, most: int) -> str:
    """One line of at most so many characters, without control, format and private characters."""
    shown = "".join(one if unicodedata.category(one)[0] != "C" else " " for one in text[: most * 4])
    shown = " ".join(shown.split())
    return shown if len(shown) <= most and len(text) <= most * 4 else shown[: most - 2].rstrip() + " …"


def _described(server: str, tool: ToolSaid) -> str:
    words = clean(tool.description or tool.title, bounds.MAX_MCP_DESCRIPTION_CHARS) or "(says nothing of itself)"
    return f"[the MCP server {server} says of its tool, unchecked] {words}"


def fitted(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of the arguments as models see it. Raises Unfit."""
    for spoken in (bounds.MAX_MCP_ARGUMENT_DESCRIPTION_CHARS, 0):
        found = _walk(schema, spoken, 0)
        assert isinstance(found, dict)
        if found.setdefault("type", "object") != "object":
            raise Unfit("its arguments are no JSON object")
        size = len(json.dumps(found, sort_keys=True))
        if size <= (TIGHT_BYTES if spoken else bounds.MAX_SCHEMA_BYTES):
            return found
    raise Unfit(f"its schema takes {size} bytes; at most {bounds.MAX_SCHEMA_BYTES} are offered")


def _walk(value: Any, spoken: int, depth: int, names: bool = False) -> Any:
    """names: the keys are names of arguments or definitions, and no keywords."""
    if depth > bounds.MAX_JSON_DEPTH:
        raise Unfit(f"its schema is nested deeper than {bounds.MAX_JSON_DEPTH}")
    if isinstance(value, list):
        return [_walk(one, spoken, depth + 1) for one in value]
    if not isinstance(value, Mapping):
        return value
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if clean(key, bounds.MAX_PHRASE_CHARS) != key:
            raise Unfit("an argument's name is too long or has invisible characters")
        if key == "$ref" and not names and not (isinstance(inner, str) and inner.startswith("#")):
            raise Unfit("its schema refers to another document")
        if not names and key in (*DROPPED, *SPOKEN):
            if key == "description" and spoken and isinstance(inner, str):
                found[key] = clean(inner, spoken)
            continue
        as_it_is = not names and key in AS_THEY_ARE
        found[key] = inner if as_it_is else _walk(inner, spoken, depth + 1, not names and key in NAMING)
    return found
