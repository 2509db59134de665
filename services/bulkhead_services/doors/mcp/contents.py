"""Tools and outcomes as MCP tells them. Pure. In: specs, answers, refusals. Out: tools with annotations, results."""

import json
from typing import Any

from mcp_types import CallToolResult, TextContent, Tool, ToolAnnotations

from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.doors.mcp import output_schemas
from bulkhead_services.doors.mcp.port import ToolCallAnswer
from bulkhead_services.doors.port import DoorRefusal

META = "io.bulkhead/"


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
    output = output_schemas.declared_schema(spec)
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
    unfit = answered.outcome == "succeeded" and not output_schemas.fits_schema(spec, structured)
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
