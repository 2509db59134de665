"""Anthropic's messages, checked and passed on. Pure.

In: the body of a request. Out: what is asked, as it came; then the answer as a message or as its events.
"""

from typing import Any

from bulkhead.model_apis.allowed import ANTHROPIC, BETAS, INTERLEAVED, NATIVE_OPTIONS, left_out_tools
from bulkhead.model_apis.native_answers import native_blocks
from bulkhead_contracts import bounds
from bulkhead_contracts.model import AnswerPart, ToolCall
from bulkhead_contracts.result import Usage
from bulkhead_services.doors.forms import errors, sse
from bulkhead_services.doors.forms.anthropic_blocks import check_system, messages_of
from bulkhead_services.doors.forms.block_order import BlockOrder
from bulkhead_services.doors.forms.chat_options import (
    check_function,
    check_thinking,
    check_tool_count,
    refuse_unlisted,
    session_name,
)
from bulkhead_services.doors.forms.fields import Fields, unfit_field, unsupported_field
from bulkhead_services.doors.forms.openai_chat import marks_of, model_of
from bulkhead_services.doors.forms.strict_json import read_object
from bulkhead_services.doors.port import AnswerPiece, DoorRefusal, ModelCallAnswer, ParsedModelCall

_Block = tuple[str, str]
"""Kind and id of a block of a message."""
_ENDS = {"length": "max_tokens", "tool_calls": "tool_use"}
_EFFORTS = ("low", "medium", "high", "xhigh", "max")


class AnthropicMessageForm:
    """One request for a message, and its answer."""

    def __init__(self, value: object) -> None:
        body = Fields(value)
        model = model_of(body)
        most = body.require_present("max_tokens", body.get_integer("max_tokens", 1, bounds.MAX_ASKED_OUTPUT_TOKENS))
        messages = messages_of(body)
        _check_options(body, most)
        stream = bool(body.get_flag("stream"))
        metadata = body.get_object("metadata")
        session = session_name((metadata.get_text("user_id") or "") if metadata else "")
        refuse_unlisted(body, NATIVE_OPTIONS[ANTHROPIC])
        options = {name: value for name, value in body.as_dict().items() if name in NATIVE_OPTIONS[ANTHROPIC]}
        options = {name: value for name, value in options.items() if value is not None}
        left_out = left_out_tools(ANTHROPIC, options)
        self.parsed_call = ParsedModelCall(
            model, messages, options, most, stream, True, session, api=ANTHROPIC, left_out=left_out
        )
        self._blocks: list[_Block] = []
        self._order = BlockOrder()

    def render_answer(self, answer: ModelCallAnswer) -> dict[str, Any]:
        """A message."""
        content = native_blocks(answer.native)
        if not content:
            content = [dict(block) for block in answer.signed_thoughts]
            content += [{"type": "text", "text": answer.text}] if answer.text else []
            content += [_tool_use(call, _tool_input(call)) for call in answer.tool_calls]
        return {
            "id": f"msg_{answer.call_id}",
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": content,
            **_end_of(answer),
            "usage": _render_usage(answer.usage),
            **marks_of(answer, self.parsed_call),
        }

    def render_start(self, call_id: str, now_unix_ms: int) -> bytes:
        """The message is begun; its input is counted at its end."""
        self._blocks, self._order = [], BlockOrder("text")
        message: dict[str, Any] = {
            "id": f"msg_{call_id}",
            "type": "message",
            "role": "assistant",
            "model": self.parsed_call.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _render_usage(Usage()),
        }
        return sse.named_event({"type": "message_start", "message": message})

    def render_piece(self, piece: AnswerPiece) -> bytes:
        """A piece of a block, which begins with its first one and ends where another begins. Thoughts that nobody
        signed are no block of this API."""
        return (
            b""
            if piece.part.told_kind == "reasoning"
            else b"".join(map(self._render_part_piece, self._order.add_piece(piece)))
        )

    def _render_part_piece(self, piece: AnswerPiece) -> bytes:
        part, text = piece
        block: _Block = ("thinking" if part.told_kind == "signature" else part.told_kind, part.id)
        events = b""
        if self._blocks[-1:] != [block]:
            events = self._end_open_block() + _block_begins(len(self._blocks), _initial_block(part, text))
            self._blocks.append(block)
        index = len(self._blocks) - 1
        match part.told_kind:
            case "text":
                events += _delta_event(index, {"type": "text_delta", "text": text})
            case "thinking":
                events += _delta_event(index, {"type": "thinking_delta", "thinking": text})
            case "signature":
                events += _delta_event(index, {"type": "signature_delta", "signature": text})
            case "call":
                events += _delta_event(index, {"type": "input_json_delta", "partial_json": text})
            case _:
                pass  # Others come whole, with their beginning.
        return events

    def _end_open_block(self) -> bytes:
        return _block_ends(len(self._blocks) - 1) if self._blocks else b""

    def render_end(self, answer: ModelCallAnswer) -> bytes:
        """The last block ends, then the reason of the end and the usage."""
        events = [*map(self._render_part_piece, self._order.drain_waiting()), self._end_open_block()]
        delta = _end_of(answer)
        edits = {name: delta.pop(name) for name in ("context_management",) if name in delta}
        usage = _render_usage(answer.usage)
        ended = {"type": "message_delta", "delta": delta, "usage": usage, **edits, **marks_of(answer, self.parsed_call)}
        return b"".join([*events, sse.named_event(ended), sse.named_event({"type": "message_stop"})])

    def render_failure(self, refusal: DoorRefusal) -> bytes:
        """An error event."""
        return sse.named_event(errors.anthropic_body(refusal, ""))


def _check_options(body: Fields, most: int) -> None:
    check_system(body)
    for name in ("temperature", "top_p"):
        body.get_number(name, 0, 1)
    body.get_integer("top_k", 0, bounds.MAX_ASKED_OUTPUT_TOKENS)
    body.get_texts("stop_sequences", 64)
    _check_tool_choice(body, _check_tools(body))
    betas = body.get_texts(BETAS, bounds.MAX_PARTS) or []
    # Between calls of tools thoughts may go on in the next request, so that a budget spans several.
    check_thinking(body, None if any(beta.startswith(INTERLEAVED) for beta in betas) else most)
    if body.get_choice("service_tier", ("auto", "standard_only")) == "standard_only":
        raise unsupported_field("service_tier", "the provider's account says which tier is used", "leave it out")
    body.get_object("cache_control")
    if management := body.get_object("context_management"):
        management.get_objects("edits", bounds.MAX_PARTS)
    if output := body.get_object("output_config"):
        if form := output.get_object("format"):
            if form.require_text("type") != "json_schema":
                problem = "the one format is json_schema"
                raise unsupported_field(form.field_path("type"), problem, "send type: json_schema")
            form.require_object("schema")
        output.get_choice("effort", _EFFORTS)
        output.get_object("task_budget")


def _check_tools(body: Fields) -> set[str]:
    """Names of the tools that can be chosen."""
    named: set[str] = set()
    for tool in check_tool_count(body):
        kind = tool.get_text("type") or "custom"
        if kind == "custom":
            schema = tool.require_object("input_schema")
            function = {"name": tool.get_raw("name"), "parameters": schema.as_dict()}
            function |= {name: tool.get_raw(name) for name in ("description", "strict")}
            check_function(Fields(function, tool.at), named)
        else:
            named.add(tool.get_text("name", bounds.MAX_SUMMARY_CHARS) or kind)
    return named


def _check_tool_choice(body: Fields, named: set[str]) -> None:
    choice = body.get_object("tool_choice")
    if choice is None:
        return
    if (kind := choice.get_choice("type", ("auto", "any", "tool", "none"))) is None:
        raise unfit_field(choice.field_path("type"), "is missing")
    if kind == "tool" and choice.require_text("name") not in named:
        raise unfit_field(choice.field_path("name"), "is not among the tools")
    choice.get_flag("disable_parallel_tool_use")
    refuse_unlisted(choice)


def _end_of(answer: ModelCallAnswer) -> dict[str, Any]:
    """Fields of a message that has ended: as its provider told them, else in its API's words."""
    finish = _ENDS.get(answer.finish, "tool_use" if answer.tool_calls else "end_turn")
    end_fields = {name: value for name, value in answer.native.items() if name != "content"}
    return {"stop_reason": finish, "stop_sequence": None} | end_fields


def _tool_use(call: ToolCall, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def _tool_input(call: ToolCall) -> dict[str, Any]:
    try:
        return read_object(call.arguments_json.encode())
    except DoorRefusal:
        return {}  # Arguments that the bound of the output has cut.


def _render_usage(usage: Usage) -> dict[str, Any]:
    written, hour = usage.cache_write_tokens, usage.cache_write_1h_tokens
    details: dict[str, Any] = {}
    if written:
        details["cache_creation"] = {
            "ephemeral_5m_input_tokens": max(0, written - hour),
            "ephemeral_1h_input_tokens": hour,
        }
    if usage.reasoning_tokens:
        details["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return {
        "input_tokens": max(0, usage.input_tokens - usage.cached_input_tokens - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
        **details,
    }


def _initial_block(part: AnswerPart, text: str) -> dict[str, Any]:
    """A block at its beginning."""
    match part.told_kind:
        case "call":
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": {}}
        case "redacted":
            return {"type": "redacted_thinking", "data": text}
        case "block":
            return dict(read_object(text.encode()))
        case "text":
            return {"type": "text", "text": ""}
        case _:
            return {"type": "thinking", "thinking": "", "signature": ""}


def _block_begins(index: int, block: dict[str, Any]) -> bytes:
    return sse.named_event({"type": "content_block_start", "index": index, "content_block": block})


def _delta_event(index: int, delta: dict[str, Any]) -> bytes:
    return sse.named_event({"type": "content_block_delta", "index": index, "delta": delta})


def _block_ends(index: int) -> bytes:
    return sse.named_event({"type": "content_block_stop", "index": index})
