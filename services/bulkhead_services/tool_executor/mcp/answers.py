"""Answers of MCP servers as outcomes of tools.

Enters: a CallToolResult, or the error in its place. Leaves: Done, Failed, or ReplicaLost (another replica may
answer).
"""

import json
from dataclasses import dataclass

import mcp_types
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, EmbeddedResource, ResourceLink, TextContent, TextResourceContents
from pydantic import ValidationError

from bulkhead.tools.api import Done, Failed
from bulkhead.tools.mcp_file import McpTool
from bulkhead.tools.mcp_pins import clean_line
from bulkhead_contracts import bounds
from bulkhead_services.tool_executor.mcp.http_transport import BROKEN, LOST_CODE, NOT_SENT_CODE, TOO_LONG

MAX_REASON_CHARS = 600
NOT_BEGUN_CODES = (mcp_types.INVALID_PARAMS, mcp_types.METHOD_NOT_FOUND, mcp_types.INVALID_REQUEST)
"""The server did not begin."""
NO_ANSWER_CODES = (LOST_CODE, mcp_types.CONNECTION_CLOSED, mcp_types.REQUEST_TIMEOUT)
SessionErrors = MCPError | ValidationError | RuntimeError


@dataclass(frozen=True, slots=True)
class ReplicaLost:
    """Lack of an answer. sent: the call may have reached the replica."""

    reason: str
    sent: bool


def outcome_of(tool: McpTool, result: CallToolResult) -> Done | Failed:
    """Text joined, structured content as JSON, the rest named as left out; `isError` is a failure."""
    texts: list[str] = []
    omitted: list[str] = []
    for item in result.content:
        if isinstance(item, TextContent):
            texts.append(item.text)
        elif isinstance(item, EmbeddedResource) and isinstance(item.resource, TextResourceContents):
            texts.append(item.resource.text)
        elif isinstance(item, ResourceLink):
            omitted.append(f"a link to the resource {clean_line(item.uri, bounds.MAX_PHRASE_CHARS)}")
        else:
            media = getattr(item, "mime_type", None) or getattr(getattr(item, "resource", None), "mime_type", None)
            omitted.append(f"content of type {item.type} ({clean_line(media or 'unknown', 64)})")
    if result.structured_content is not None and not _repeats_structured(texts, result.structured_content):
        texts.append(json.dumps(result.structured_content, ensure_ascii=False))
    text = "\n".join(texts)
    if result.is_error:
        reason = clean_line(text, MAX_REASON_CHARS) or "it gave no reason"
        hint = "change the arguments as it says, or go another way"
        # It does not say at which point it failed: a write may be half done.
        undone = tool.is_repeatable or tool.terms.on_error == "undone"
        return Failed(
            "tool_error", f"{tool.row.spec.name} failed: {reason}", hint, effect="none" if undone else "unknown"
        )
    return Done(text, omitted=tuple(omitted[: bounds.MAX_OMISSIONS - 1]))


def _repeats_structured(texts: list[str], structured: object) -> bool:
    """True when a text is the structured content written out, as the protocol asks of servers."""
    for text in texts:
        if structured == {"result": text}:  # The SDKs wrap what is no object so.
            return True
        try:
            if json.loads(text) == structured:
                return True
        except (ValueError, RecursionError):
            continue
    return False


def failure_of(tool: str, error: SessionErrors) -> Failed | ReplicaLost:
    """The failure behind an exception of the SDK."""
    if not isinstance(error, MCPError):
        reason = clean_line(str(error), MAX_REASON_CHARS)
        message = f"{tool} answered what its own schema or the protocol does not allow: {reason}"
        return Failed("malformed_output", message, "whoever runs the MCP server must mend it", effect="unknown")
    code, reason = error.error.code, clean_line(error.error.message, MAX_REASON_CHARS)
    if TOO_LONG in reason or "SSE stream failed" in reason:
        message = f"{tool} answered more than {bounds.MAX_MCP_ANSWER_BYTES} bytes, of which nothing is kept"
        return Failed("output_too_large", message, "ask for less", effect="unknown")
    if code == NOT_SENT_CODE:
        return ReplicaLost(reason, sent=False)
    if code in NO_ANSWER_CODES or BROKEN in reason:
        return ReplicaLost(reason, sent=True)
    if code == mcp_types.PARSE_ERROR:
        message = f"{tool} answered no message of the protocol: {reason}"
        return Failed("malformed_output", message, "whoever runs the MCP server must mend it", effect="unknown")
    if code in NOT_BEGUN_CODES:
        return Failed("refused_by_server", f"{tool} was not begun: {reason}", "change the arguments as it says")
    message = f"{tool} failed in its server (error {code}): {reason}"
    return Failed("server_error", message, "try again later, or go another way", transient=True, effect="unknown")
