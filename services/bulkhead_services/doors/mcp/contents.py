"""Tools and outcomes as MCP tells them. Pure. In: specs, answers, refusals. Out: tools with annotations, results.

Official clients refuse a success whose structured content is missing or unfit, so that an output schema is declared
only where every success can be held to it.
"""

import json
from functools import lru_cache
from typing import Any

import jsonschema_rs
from mcp_types import CallToolResult, TextContent, Tool, ToolAnnotations

from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.doors.mcp.port import ToolCallAnswer
from bulkhead_services.doors.port import DoorRefusal

META = "io.bulkhead/"
DRAFT = "https://json-schema.org/draft/2020-12/schema"
MAX_KEPT = 256


def tool_of(spec: ToolSpec) -> Tool:
    """A tool with its schema, and hints that come from its effect."""
    reads = spec.effect == "read"
    hints = ToolAnnotations(
        read_only_hint=reads,
        destructive_hint=not reads,
        idempotent_hint=reads or spec.idempotent,
        open_world_hint=spec.egress or bool(spec.sinks),
    )
    schema = {"type": "object", **json.loads(spec.parameters_json)}
    output = declared_schema(spec)
    return Tool(
        name=spec.name, description=spec.description, input_schema=schema, output_schema=output, annotations=hints
    )


def result_of(answered: ToolCallAnswer, spec: ToolSpec) -> CallToolResult:
    """The outcome of a call. What a tool brought is untrusted content, whatever it says of itself."""
    failure, text = answered.failure, answered.text
    if answered.outcome != "succeeded" and failure is not None:
        text = _error_line(failure.code, failure.message, failure.hint)
    if answered.left_out:
        text = f"{text}\n[left out: {'; '.join(answered.left_out)}]"
    facts = {
        "task": answered.task,
        "call": answered.call_id,
        "outcome": answered.outcome,
        "standing": answered.standing,
        "trust": "untrusted",
    }
    structured = _parse_object(answered.text) if spec.output_json and answered.outcome == "succeeded" else None
    if spec.served_by == "rag" and answered.outcome == "succeeded":
        structured = {"passages": list(answered.passages)}
    unfit = answered.outcome == "succeeded" and not fits_schema(spec, structured)
    if unfit:
        # Clients take no success that is not what the tool's output schema says.
        structured = None
        text = f"unfit_output: the call was made, and its result does not fit the tool's output schema\n{text}"
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content=structured,
        is_error=unfit or answered.outcome != "succeeded",
        _meta={META + name: value for name, value in facts.items()},
    )


def refusal_of(refusal: DoorRefusal) -> CallToolResult:
    """A call that was not made, or has no outcome yet: its model is told what to do."""
    text = _error_line(refusal.code, refusal.message, refusal.hint)
    meta: dict[str, Any] = {META + "code": refusal.code, META + "retry": refusal.retry}
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True, _meta=meta)


def _error_line(code: str, message: str, hint: str) -> str:
    return f"{code}: {message}" + (f"; {hint}" if hint else "")


def _parse_object(text: str) -> dict[str, Any] | None:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def declared_schema(spec: ToolSpec) -> dict[str, Any] | None:
    """The schema that a tool is listed with; None for none. A write has none: one that was made must never be told as
    an error, though its result is cut or unfit."""
    compiled = _compile_schema(spec.output_json) if spec.effect == "read" and spec.output_json else None
    return compiled[0] if compiled is not None else None


def fits_schema(spec: ToolSpec, structured: dict[str, Any] | None) -> bool:
    """True when a result may be told as a success of this tool."""
    if declared_schema(spec) is None:
        return True
    compiled = _compile_schema(spec.output_json)
    return structured is not None and compiled is not None and compiled[1].is_valid(structured)


@lru_cache(maxsize=MAX_KEPT)
def _compile_schema(text: str) -> tuple[dict[str, Any], jsonschema_rs.Draft202012Validator] | None:
    schema = json.loads(text)
    if not isinstance(schema, dict) or schema.get("type") != "object" or not _is_plain(schema):
        return None
    try:
        return schema, jsonschema_rs.Draft202012Validator(schema)
    except ValueError:
        return None


def _is_plain(part: Any) -> bool:
    """True when all clients read it alike: regular expressions have dialects, drafts differ, and what a schema
    refers to outside is nowhere.
    """
    if isinstance(part, list):
        return all(map(_is_plain, part))
    if not isinstance(part, dict):
        return True
    foreign = isinstance(part.get("pattern"), str) or "patternProperties" in part or isinstance(part.get("$id"), str)
    draft = part.get("$schema", DRAFT)
    refers = [part[name] for name in ("$ref", "$dynamicRef") if isinstance(part.get(name), str)]
    inside = all(reference.startswith("#") for reference in refers)
    return not foreign and draft == DRAFT and inside and all(map(_is_plain, part.values()))
