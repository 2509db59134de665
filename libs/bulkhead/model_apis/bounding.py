"""A conversation whose cost has a bound: what has none is replaced by words that name it, and told. Pure.

A part of a history cannot be taken back by its agent: one that is refused would refuse all later requests, too.
"""

from collections.abc import Callable, Mapping
from typing import Any

from bulkhead.model_apis.allowed import (
    ANTHROPIC,
    BETAS,
    CHAT,
    PASSED_BETAS,
    PASSED_EDITS,
    RESPONSES,
    gap_of_tool,
    is_passed_tool,
    tool_name,
)
from bulkhead.model_apis.chat_view import fields_of, objects_in
from bulkhead.model_apis.gaps import Gap
from bulkhead.model_apis.media import ELSEWHERE, NOT_LISTED, PdfSizes, part_lists, rewrite_media
from bulkhead_contracts.model import ModelApi

UNKNOWN_KIND = "its kind is not among those whose tokens have a bound"
UNPRICED = "it may cost more than the tokens of the request, and has no price here"
_PARTS: Mapping[str, frozenset[str]] = {
    CHAT: frozenset(("text", "refusal", "image_url", "input_audio", "file")),
    ANTHROPIC: frozenset(
        (
            *("text", "image", "document", "search_result", "thinking", "redacted_thinking", "compaction"),
            *("tool_use", "tool_result", "tool_reference", "tool_addition", "tool_removal"),
            *("server_tool_use", "tool_search_tool_result", "web_search_tool_result", "web_fetch_tool_result"),
            *("code_execution_tool_result", "bash_code_execution_tool_result", "mcp_tool_use", "mcp_tool_result"),
            *("text_editor_code_execution_tool_result", "advisor_tool_result", "connector_text"),
        )
    ),
    RESPONSES: frozenset(
        ("input_text", "output_text", "text", "refusal", "input_image", "input_file", "summary_text", "reasoning_text")
    ),
}
"""Kinds of parts: all of one stands in the request. Sound has fewer tokens than bytes."""
_ITEMS = frozenset(
    (
        *("message", "reasoning", "compaction", "additional_tools", "web_search_call"),
        *("function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"),
        *("tool_search_call", "tool_search_output", "local_shell_call", "local_shell_call_output"),
        *("shell_call", "shell_call_output", "apply_patch_call", "apply_patch_call_output"),
    )
)
_MESSAGE_FIELDS = ("role", "content", "cache_control", "output_config", "clear_at")
_Reader = Callable[[object], object]
"""What is passed on of a field's value; None where that is nothing."""


def _keep_listed(row: Mapping[str, Any], readers: Mapping[str, _Reader], where: str, gaps: list[Gap]) -> dict[str, Any]:
    """The fields of a row that are on the list, as they are read; others are left out, and told if they hold
    anything: servers that speak OpenAI's chat read fields that it does not have.
    """
    kept = dict[str, Any]()
    for name, value in row.items():
        passed = readers[name](value) if name in readers else None
        if passed is not None or (value is None and name in readers):
            kept[name] = passed
        elif value:
            gaps.append(Gap(f"the field {name[:32]} of {where}", NOT_LISTED))
    return kept


def _string(value: object) -> object:
    return value if isinstance(value, str) else None


def _flag(value: object) -> object:
    return value if isinstance(value, bool) else None


def _string_or_parts(value: object) -> object:
    return value if isinstance(value, str | list) else None


def _object(value: object) -> object:
    return value if isinstance(value, dict) else None


def _cache_mark(value: object) -> object:
    """A mark whose price is known: what is written stays for minutes, or for an hour."""
    fields = fields_of(value)
    is_priced = fields.get("type") == "ephemeral" and fields.get("ttl", "5m") in ("5m", "1h") and len(fields) <= 2
    return value if is_priced else None


def _tool_calls(value: object) -> object:
    return [_keep_listed(row, _CHAT_CALL, "a call", []) for row in objects_in(value)] or None


def _thoughts(value: object) -> object:
    names = ("type", "thinking", "signature", "data")
    return [_keep_listed(row, dict.fromkeys(names, _string), "a thought", []) for row in objects_in(value)] or None


def _function(value: object) -> object:
    return _keep_listed(fields_of(value), _CHAT_FUNCTION, "a function", []) or None


_MARKED: Mapping[str, _Reader] = {"type": _string, "cache_control": _cache_mark}
_CHAT_TEXTS: Mapping[str, Mapping[str, _Reader]] = {
    "text": {**_MARKED, "text": _string},
    "refusal": {**_MARKED, "refusal": _string},
}
_CHAT_FUNCTION: Mapping[str, _Reader] = {
    **dict.fromkeys(("name", "description", "arguments"), _string),
    **{"parameters": _object, "strict": _flag},
}
_CHAT_CALL: Mapping[str, _Reader] = {"id": _string, "type": _string, "function": _function}
_CHAT_TOOL: Mapping[str, _Reader] = {**_MARKED, "function": _function}
_CHAT_MESSAGE: Mapping[str, _Reader] = {
    **dict.fromkeys(("role", "name", "refusal", "reasoning_content", "reasoning", "tool_call_id"), _string),
    **dict.fromkeys(("prefix", "partial"), _flag),
    **{"content": _string_or_parts, "tool_calls": _tool_calls, "thinking_blocks": _thoughts},
    "cache_control": _cache_mark,
}
"""Fields of what stands in OpenAI's chat form, each with the form of its values."""


def text_type_of(api: ModelApi) -> str:
    """The kind of a part of text."""
    return "input_text" if api == RESPONSES else "text"


def bound_payload(api: ModelApi, payload: dict[str, Any], pdfs: PdfSizes) -> list[Gap]:
    """Leave out what has no bound. payload: messages and options, changed in place."""
    text_type, gaps = text_type_of(api), list[Gap]()
    for parts in part_lists(payload):
        for place, part in enumerate(parts):
            if isinstance(part, dict) and fields_of(part.get("citations")).get("enabled"):
                gaps.append(Gap("the citations of a document", "answers that are streamed here hold none"))
                del part["citations"]
            if (gap := _gap_of_part(api, part)) is not None:
                gaps.append(gap)
                parts[place] = {"type": text_type, "text": gap.text}
            elif api == CHAT and (readers := _CHAT_TEXTS.get(part.get("type", "text"))) is not None:
                parts[place] = _keep_listed(part, readers, "a part", gaps)
    gaps += rewrite_media(payload, pdfs, text_type)
    if api == RESPONSES:
        payload["messages"] = [_bound_item(row, gaps) for row in payload["messages"]]
    elif api == ANTHROPIC:
        payload["messages"] = [_bound_message(row, gaps) for row in payload["messages"]]
    else:
        payload["messages"] = [_keep_listed(row, _CHAT_MESSAGE, "a message", gaps) for row in payload["messages"]]
    _bound_tools(api, payload, gaps)
    for name in ("system", "instructions"):
        words = payload.get(name, "")
        if isinstance(words, list) and all(block.get("type") == "text" for block in objects_in(words)):
            payload[name] = objects_in(words)
        elif not isinstance(words, str):
            gaps.append(Gap(f"the option {name}", UNKNOWN_KIND))
            del payload[name]
    if api == ANTHROPIC:
        _bound_anthropic_options(payload, gaps)
    return gaps


def _gap_of_part(api: ModelApi, part: object) -> Gap | None:
    kind = part.get("type", "text") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in _PARTS[api]:
        return Gap(f"a part of the type {str(kind)[:32]}", UNKNOWN_KIND)
    definition = fields_of(fields_of(fields_of(part).get("tool")).get("definition"))
    if kind == "tool_addition" and definition and not is_passed_tool(api, definition):
        return gap_of_tool(definition)
    fetched = fields_of(fields_of(fields_of(fields_of(part).get("content")).get("content")).get("source"))
    if kind == "web_fetch_tool_result" and fetched.get("type", "text") != "text":
        return Gap("a fetched document", ELSEWHERE if "data" not in fetched else UNKNOWN_KIND)
    return None


def _bound_message(row: dict[str, Any], gaps: list[Gap]) -> dict[str, Any]:
    gaps += [Gap(f"the field {name[:48]} of a message", UNKNOWN_KIND) for name in row if name not in _MESSAGE_FIELDS]
    return {name: value for name, value in row.items() if name in _MESSAGE_FIELDS}


def _bound_item(row: dict[str, Any], gaps: list[Gap]) -> dict[str, Any]:
    kind = row.get("type") or "message"
    if not isinstance(kind, str) or kind not in _ITEMS:
        gaps.append(Gap(f"an item of the type {str(kind)[:32]}", UNKNOWN_KIND))
        return {"type": "message", "role": "developer", "content": gaps[-1].text}
    if "tools" not in row:
        return row
    return row | {"tools": _passed_rows(row.get("tools"), lambda tool: is_passed_tool(RESPONSES, tool), gaps)}


def _bound_tools(api: ModelApi, payload: dict[str, Any], gaps: list[Gap]) -> None:
    if "tools" not in payload:
        return
    dropped = {tool_name(tool) for tool in objects_in(payload["tools"]) if not is_passed_tool(api, tool)}
    tools = _passed_rows(payload["tools"], lambda tool: is_passed_tool(api, tool), gaps)
    if not tools:
        del payload["tools"]
        payload.pop("tool_choice", None)
        return
    payload["tools"] = [_keep_listed(tool, _CHAT_TOOL, "a tool", gaps) for tool in tools] if api == CHAT else tools
    if tool_name(payload.get("tool_choice")) in dropped:
        del payload["tool_choice"]


def _passed_rows(value: object, is_passed: Callable[[object], bool], gaps: list[Gap]) -> list[dict[str, Any]]:
    rows = objects_in(value)
    gaps += [gap_of_tool(row) for row in rows if not is_passed(row)]
    return [row for row in rows if is_passed(row)]


def _bound_anthropic_options(payload: dict[str, Any], gaps: list[Gap]) -> None:
    betas = payload.get(BETAS)
    if isinstance(betas, list):
        gaps += [Gap(f"the beta {str(beta)[:48]}", UNPRICED) for beta in betas if str(beta) not in PASSED_BETAS]
        payload[BETAS] = [beta for beta in betas if str(beta) in PASSED_BETAS]
    if edits := objects_in(fields_of(payload.get("context_management")).get("edits")):
        kinds = [str(edit.get("type")) for edit in edits]
        passed = [edit for edit, kind in zip(edits, kinds, strict=True) if kind.startswith(PASSED_EDITS)]
        gaps += [Gap(f"the edit {kind[:48]}", UNPRICED) for kind in kinds if not kind.startswith(PASSED_EDITS)]
        payload["context_management"] = {**payload["context_management"], "edits": passed}
        if not passed:
            del payload["context_management"]
