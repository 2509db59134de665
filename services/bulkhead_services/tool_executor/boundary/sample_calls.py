"""A sample call of a tool, by which people see what policy says of it before there is a call. Pure.

In: a tool. Out: arguments that its schema requires, with plain values; policy is asked about them, nothing is called.
"""

import json
from collections.abc import Mapping
from typing import Any

from bulkhead.policy.sinks import sink_kind, sinks_of
from bulkhead_contracts.tool import ToolSpec

MAX_DEPTH = 4
_TEXT_OF_SINK = {
    "recipient": "person@example.org",
    "url": "https://example.org/",
    "path": "folder/file.txt",
    "account": "DE89370400440532013000",
    "amount": "12",
}
_TEXT_OF_FORMAT = {
    "email": "person@example.org",
    "uri": "https://example.org/",
    "date": "2026-01-31",
    "time": "09:00:00Z",
    "date-time": "2026-01-31T09:00:00Z",
}


def build_sample_arguments(tool: ToolSpec) -> dict[str, Any]:
    """The arguments that the tool requires, and those that choose where something goes."""
    parameters = json.loads(tool.parameters_json)
    return _sample_object(parameters if isinstance(parameters, dict) else {}, tool, "", 0)


def _sample_object(schema: Mapping[str, Any], tool: ToolSpec, pointer: str, depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    declared: Mapping[str, Any] = properties if isinstance(properties, dict) else {}
    required = schema.get("required", ())
    sinks = {sink.argument.split("/")[1] for sink in tool.sinks if sink.argument.count("/") == 1}
    chosen = (name for name in declared if name in required or (not depth and name in sinks))
    return {name: _sample_value(declared[name], tool, f"{pointer}/{name}", depth + 1) for name in chosen}


def _sample_value(schema: Any, tool: ToolSpec, pointer: str, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return "sample"
    for keyword in ("const", "default"):
        if keyword in schema:
            return schema[keyword]
    for keyword in ("enum", "examples"):
        if isinstance(schema.get(keyword), list) and schema[keyword]:
            return schema[keyword][0]
    match schema.get("type"):
        case "integer" | "number":
            return schema.get("minimum", 12)
        case "boolean":
            return False
        case "null":
            return None
        case "array":
            return [_sample_value(schema.get("items"), tool, f"{pointer}/0", depth + 1)]
        case "object":
            return _sample_object(schema, tool, pointer, depth)
    kind = sink_kind(pointer, sinks_of(tool)) or "other"
    return _TEXT_OF_FORMAT.get(str(schema.get("format"))) or _TEXT_OF_SINK.get(kind, "sample")
