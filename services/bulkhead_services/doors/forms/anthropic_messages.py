"""Anthropic's messages, translated to OpenAI's chat form and back. Pure.

In: the body of a request. Out: what is asked in the chat form; then the answer as a message or as its events. Fields
without a counterpart in the chat form are refused by name; `cache_control` is a hint that changes no answer.
"""

from typing import Any

from bulkhead_contracts import bounds
from bulkhead_contracts.model import AnswerPart, ToolCall
from bulkhead_contracts.result import Usage
from bulkhead_services.doors.forms import errors, sse
from bulkhead_services.doors.forms.anthropic_blocks import messages_of
from bulkhead_services.doors.forms.block_order import BlockOrder
from bulkhead_services.doors.forms.chat_options import check_function, check_thinking, check_tool_count, session_name
from bulkhead_services.doors.forms.fields import Fields, unfit_field, unsupported_field
from bulkhead_services.doors.forms.openai_chat import degraded_field, model_of
from bulkhead_services.doors.forms.strict_json import read_object
from bulkhead_services.doors.port import AnswerPiece, DoorRefusal, ModelCallAnswer, ParsedModelCall

_Block = tuple[str, str]
"""Kind and id of a block of a message."""
_ENDS = {"length": "max_tokens", "tool_calls": "tool_use"}
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_NO_COUNTERPART = "OpenAI's chat form, in which calls are recorded, has no counterpart of this field"


class AnthropicMessageForm:
    """One request for a message, and its answer."""

    def __init__(self, value: object) -> None:
        body = Fields(value)
        model = model_of(body)
        most = body.require_present("max_tokens", body.get_integer("max_tokens", 1, bounds.MAX_ASKED_OUTPUT_TOKENS))
        messages = messages_of(body)
        options = _chat_options(body, most)
        stream = bool(body.get_flag("stream"))
        metadata = body.get_object("metadata")
        session = session_name((metadata.get_text("user_id") or "") if metadata else "")
        body.get_raw("cache_control")
        body.refuse_remaining(_NO_COUNTERPART)
        self.parsed_call = ParsedModelCall(model, messages, options, most, stream, True, session)
        self._blocks: list[_Block] = []
        self._order = BlockOrder()

    def render_answer(self, answer: ModelCallAnswer) -> dict[str, Any]:
        """A message."""
        content: list[dict[str, Any]] = [dict(block) for block in answer.signed_thoughts]
        content += [{"type": "text", "text": answer.text}] if answer.text else []
        content += [_tool_use(call, _tool_input(call)) for call in answer.tool_calls]
        return {
            "id": f"msg_{answer.call_id}",
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": content,
            "stop_reason": _stop_reason(answer),
            "stop_sequence": None,
            "usage": _render_usage(answer.usage),
            **degraded_field(answer),
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
            if piece.part.kind == "reasoning"
            else b"".join(map(self._render_part_piece, self._order.add_piece(piece)))
        )

    def _render_part_piece(self, piece: AnswerPiece) -> bytes:
        part, text = piece
        block: _Block = ("thinking" if part.kind == "signature" else part.kind, part.id)
        events = b""
        if self._blocks[-1:] != [block]:
            events = self._end_open_block() + _block_begins(len(self._blocks), _initial_block(part, text))
            self._blocks.append(block)
        index = len(self._blocks) - 1
        match part.kind:
            case "text":
                events += _delta_event(index, {"type": "text_delta", "text": text})
            case "thinking":
                events += _delta_event(index, {"type": "thinking_delta", "thinking": text})
            case "signature":
                events += _delta_event(index, {"type": "signature_delta", "signature": text})
            case "call":
                events += _delta_event(index, {"type": "input_json_delta", "partial_json": text})
            case _:
                pass  # A redacted block comes whole, with its beginning.
        return events

    def _end_open_block(self) -> bytes:
        return _block_ends(len(self._blocks) - 1) if self._blocks else b""

    def render_end(self, answer: ModelCallAnswer) -> bytes:
        """The last block ends, then the reason of the end and the usage."""
        events = [*map(self._render_part_piece, self._order.drain_waiting()), self._end_open_block()]
        delta = {"stop_reason": _stop_reason(answer), "stop_sequence": None}
        ended = {
            "type": "message_delta",
            "delta": delta,
            "usage": _render_usage(answer.usage),
            **degraded_field(answer),
        }
        return b"".join([*events, sse.named_event(ended), sse.named_event({"type": "message_stop"})])

    def render_failure(self, refusal: DoorRefusal) -> bytes:
        """An error event."""
        return sse.named_event(errors.anthropic_body(refusal, ""))


def _chat_options(body: Fields, most: int) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name in ("temperature", "top_p"):
        if (value := body.get_number(name, 0, 1)) is not None:
            options[name] = value
    if stop := body.get_texts("stop_sequences", 64):
        options["stop"] = stop
    if tools := _chat_tools(body):
        options["tools"] = tools
    options |= _tool_choice(body, {tool["function"]["name"] for tool in tools})
    thinking = check_thinking(body, most)
    if thinking.get("type", "disabled") != "disabled":
        options["thinking"] = thinking
    if body.get_choice("service_tier", ("auto", "standard_only")) == "standard_only":
        raise unsupported_field("service_tier", _NO_COUNTERPART, "leave it out")
    if output := body.get_object("output_config"):
        if form := output.get_object("format"):
            options["response_format"] = _response_format(form)
        if effort := output.get_choice("effort", _EFFORTS):
            options["reasoning_effort"] = effort
        output.refuse_remaining(_NO_COUNTERPART)
    return options


def _response_format(form: Fields) -> dict[str, Any]:
    if form.require_text("type") != "json_schema":
        raise unsupported_field(form.field_path("type"), "the one format is json_schema", "send type: json_schema")
    schema = form.require_object("schema")
    named = {"name": "answer", "strict": True, "schema": schema.as_dict()}
    return {"type": "json_schema", "json_schema": named}


def _chat_tools(body: Fields) -> list[dict[str, Any]]:
    named: set[str] = set()
    tools = []
    for tool in check_tool_count(body):
        kind = tool.get_text("type") or "custom"
        if kind != "custom":
            problem = f"{kind[: bounds.MAX_NAME_CHARS]} is a tool of the provider's own"
            raise unsupported_field(
                tool.field_path("type"), problem, "send tools with an input_schema, which the agent runs"
            )
        schema = tool.require_object("input_schema")
        function: dict[str, Any] = {"name": tool.get_raw("name"), "parameters": schema.as_dict()}
        for name in ("description", "strict"):
            if (value := tool.get_raw(name)) is not None:
                function[name] = value
        check_function(Fields(function, tool.at), named)
        for name in ("cache_control", "eager_input_streaming"):
            tool.get_raw(name)
        tool.refuse_remaining(_NO_COUNTERPART)
        tools.append({"type": "function", "function": function})
    return tools


def _tool_choice(body: Fields, named: set[str]) -> dict[str, Any]:
    choice = body.get_object("tool_choice")
    if choice is None:
        return {}
    options: dict[str, Any] = {}
    match choice.get_choice("type", ("auto", "any", "tool", "none")):
        case "auto" | "none" as mode:
            options["tool_choice"] = mode
        case "any":
            options["tool_choice"] = "required"
        case "tool":
            name = choice.require_text("name")
            if name not in named:
                raise unfit_field(choice.field_path("name"), "is not among the tools")
            options["tool_choice"] = {"type": "function", "function": {"name": name}}
        case _:
            raise unfit_field(choice.field_path("type"), "is missing")
    if (alone := choice.get_flag("disable_parallel_tool_use")) is not None:
        options["parallel_tool_calls"] = not alone
    choice.refuse_remaining(_NO_COUNTERPART)
    return options


def _stop_reason(answer: ModelCallAnswer) -> str:
    return _ENDS.get(answer.finish, "tool_use" if answer.tool_calls else "end_turn")


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
    match part.kind:
        case "call":
            return {"type": "tool_use", "id": part.id, "name": part.name, "input": {}}
        case "redacted":
            return {"type": "redacted_thinking", "data": text}
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
