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

from bulkhead.flow.schema_places import list_places
from bulkhead.tools.mcp_file import McpToolPin, PinnedServer
from bulkhead_contracts import bounds

WORD_KEYS = ("description", "title")
DROPPED_KEYS = ("$schema", "$id", "$comment", "examples")
VERBATIM_KEYS = ("const", "enum", "default", "required", "pattern", "$ref")
KEYED_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
TIGHT_BYTES = bounds.MAX_SCHEMA_BYTES // 2
"""A schema above this loses the descriptions of its arguments, so that many tools fit into one message."""


@dataclass(frozen=True, slots=True)
class AdvertisedTool:
    """One tool as its server told it."""

    name: str
    title: str
    description: str
    parameters: Mapping[str, Any]
    output: Mapping[str, Any] | None


class UnfitTool(ValueError):
    """A tool that cannot be offered; the message says why."""


def digest_of(tool: AdvertisedTool) -> str:
    """SHA-256 over the canonical form (RFC 8785) of its name, words and schemas. Raises UnfitTool."""
    advertised = {
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "input": dict(tool.parameters),
        "output": dict(tool.output) if tool.output is not None else None,
    }
    try:
        return hashlib.sha256(rfc8785.dumps(advertised)).hexdigest()
    except (rfc8785.CanonicalizationError, RecursionError, UnicodeEncodeError) as error:
        raise UnfitTool(f"its schema has no canonical form: {error}") from error


def pin_tools(server: str, tools: Iterable[AdvertisedTool]) -> PinnedServer:
    """The pins of a server's tools."""
    pins: dict[str, McpToolPin] = {}
    left_out: dict[str, str] = {}
    for tool in tools:
        try:
            if len(pins) == bounds.MAX_MCP_TOOLS:
                raise UnfitTool(f"the server has more than {bounds.MAX_MCP_TOOLS} tools")
            if any(pinned.tool == tool.name for pinned in pins.values()):
                raise UnfitTool("the server names it twice")
            name = mesh_name_of(server, tool.name)
            if name in pins:
                name = _with_digest(name, tool.name)
            schema = fit_schema(tool.parameters)
            pins[name] = McpToolPin(
                tool=tool.name,
                digest=digest_of(tool),
                description=_describe_tool(server, tool),
                parameters=schema,
                result_fields=tuple(place for place, _ in list_places(tool.output) if clean_line(place, 200) == place),
            )
        except UnfitTool as unfit:
            left_out[clean_line(tool.name, bounds.MAX_NAME_CHARS)] = str(unfit)[:300]
    return PinnedServer(tools=pins, left_out=left_out)


def mesh_name_of(server: str, tool: str) -> str:
    """The tool's name in the mesh; all providers take it."""
    if not 0 < len(tool) <= 256:
        raise UnfitTool("its name is empty or longer than 256 characters")
    name = f"{server}_{re.sub(r'[^A-Za-z0-9_]', '_', tool)}"
    return name if len(name) <= bounds.MAX_NAME_CHARS else _with_digest(name, tool)


def _with_digest(name: str, tool: str) -> str:
    end = "_" + hashlib.sha256(tool.encode("utf-8", "replace")).hexdigest()[:8]
    return name[: bounds.MAX_NAME_CHARS - len(end)] + end


def clean_line(text: str, most: int) -> str:
    """One line of at most so many characters, without control, format and private characters."""
    cleaned = "".join(char if unicodedata.category(char)[0] != "C" else " " for char in text[: most * 4])
    cleaned = " ".join(cleaned.split())
    return cleaned if len(cleaned) <= most and len(text) <= most * 4 else cleaned[: most - 2].rstrip() + " …"


def _describe_tool(server: str, tool: AdvertisedTool) -> str:
    words = clean_line(tool.description or tool.title, bounds.MAX_MCP_DESCRIPTION_CHARS) or "(says nothing of itself)"
    return f"[the MCP server {server} says of its tool, unchecked] {words}"


def fit_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of the arguments as models see it. Raises UnfitTool."""
    for spoken in (bounds.MAX_MCP_ARGUMENT_DESCRIPTION_CHARS, 0):
        shown_schema = _walk_schema(schema, spoken, 0)
        assert isinstance(shown_schema, dict)
        if shown_schema.setdefault("type", "object") != "object":
            raise UnfitTool("its arguments are no JSON object")
        size = len(json.dumps(shown_schema, sort_keys=True))
        if size <= (TIGHT_BYTES if spoken else bounds.MAX_SCHEMA_BYTES):
            return shown_schema
    raise UnfitTool(f"its schema takes {size} bytes; at most {bounds.MAX_SCHEMA_BYTES} are offered")


def _walk_schema(value: Any, spoken: int, depth: int, names: bool = False) -> Any:
    """names: the keys are names of arguments or definitions, and no keywords."""
    if depth > bounds.MAX_JSON_DEPTH:
        raise UnfitTool(f"its schema is nested deeper than {bounds.MAX_JSON_DEPTH}")
    if isinstance(value, list):
        return [_walk_schema(item, spoken, depth + 1) for item in value]
    if not isinstance(value, Mapping):
        return value
    walked: dict[str, Any] = {}
    for key, inner in value.items():
        if clean_line(key, bounds.MAX_PHRASE_CHARS) != key:
            raise UnfitTool("an argument's name is too long or has invisible characters")
        if key == "$ref" and not names and not (isinstance(inner, str) and inner.startswith("#")):
            raise UnfitTool("its schema refers to another document")
        if not names and key in (*DROPPED_KEYS, *WORD_KEYS):
            if key == "description" and spoken and isinstance(inner, str):
                walked[key] = clean_line(inner, spoken)
            continue
        as_it_is = not names and key in VERBATIM_KEYS
        walked[key] = inner if as_it_is else _walk_schema(inner, spoken, depth + 1, not names and key in KEYED_BY_NAME)
    return walked
