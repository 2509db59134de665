"""OpenAI's chat completions, read and written. Pure.

In: the body of a request. Out: what is asked, in the same form; then the answer as a completion or as its chunks.
Fields that are on no list are refused by name.
"""

from collections.abc import Mapping
from typing import Any

from bulkhead_contracts import bounds
from bulkhead_contracts.model import AnswerPart
from bulkhead_contracts.result import Usage
from bulkhead_services.doors.forms import errors, sse
from bulkhead_services.doors.forms.block_order import BlockOrder
from bulkhead_services.doors.forms.chat_options import NOT_ANSWERED, options_of, session_of
from bulkhead_services.doors.forms.fields import Fields, unfit_field, unsupported_field
from bulkhead_services.doors.port import AnswerPiece, DoorRefusal, ModelCallAnswer, ParsedModelCall

ROLES = ("system", "developer", "user", "assistant", "tool")
_TEXT_ROLES = ("system", "user", "assistant")
_OLD = {"functions": "send `tools`", "function_call": "send `tool_choice`"}


def model_of(body: Fields) -> str:
    """The name of a model."""
    return body.require_text("model", bounds.MAX_NAME_CHARS)


class ChatCompletion:
    """One request for a chat completion, and its answer."""

    def __init__(self, value: object) -> None:
        body = Fields(value)
        model = model_of(body)
        messages = tuple(_read_message(row) for row in _message_rows(body))
        stream = bool(body.get_flag("stream"))
        include_usage = _stream_options(body, stream)
        if body.get_integer("n", 1, 128) not in (None, 1):
            raise unsupported_field("n", "each call has one answer", "send n requests")
        body.refuse_fields(_OLD | NOT_ANSWERED)
        session = session_of(body)
        most = _output_tokens(body)
        self.parsed_call = ParsedModelCall(
            model, messages, options_of(body, most), most, stream, include_usage, session
        )
        self._id, self._created, self._model = "", 0, model
        self._calls: list[AnswerPart] = []
        self._thought: AnswerPart | None = None
        self._order = BlockOrder()

    def render_answer(self, answer: ModelCallAnswer) -> dict[str, Any]:
        """A chat completion."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": answer.text if answer.text or not answer.tool_calls else None,
            "refusal": None,
        }
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if answer.tool_calls:
            message["tool_calls"] = tool_calls(answer)
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(answer)}
        return {
            "id": f"chatcmpl-{answer.call_id}",
            "object": "chat.completion",
            "created": answer.created_unix_ms // 1000,
            "model": answer.model,
            "choices": [choice],
            "usage": _render_usage(answer.usage),
            **marks_of(answer, self.parsed_call),
        }

    def render_start(self, call_id: str, now_unix_ms: int) -> bytes:
        """The chunk that names the role."""
        self._id, self._created = f"chatcmpl-{call_id}", now_unix_ms // 1000
        self._calls, self._thought, self._order = [], None, BlockOrder("text", "reasoning", "thinking")
        return self._render_chunk({"role": "assistant", "content": ""})

    def render_piece(self, piece: AnswerPiece) -> bytes:
        """A chunk of text, of thoughts or of a tool call; a signature is of no use here."""
        return b"".join(map(self._render_part_piece, self._order.add_piece(piece)))

    def _render_part_piece(self, piece: AnswerPiece) -> bytes:
        part, text = piece
        match part.told_kind:
            case "text":
                return self._render_chunk({"content": text})
            case "reasoning" | "thinking":
                text = text if self._thought in (None, part) else f"\n\n{text}"
                self._thought = part
                return self._render_chunk({"reasoning_content": text})
            case "call":
                return self._render_chunk({"tool_calls": [self._call_piece(part, text)]})
            case _:
                return b""

    def _call_piece(self, part: AnswerPart, arguments: str) -> dict[str, Any]:
        """A piece of a call, which its first one names."""
        if part in self._calls:
            return {"index": self._calls.index(part), "function": {"arguments": arguments}}
        self._calls.append(part)
        call = {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": arguments}}
        return {"index": len(self._calls) - 1, **call}

    def render_end(self, answer: ModelCallAnswer) -> bytes:
        """The last pieces, the reason of the end, usage."""
        events = [
            *map(self._render_part_piece, self._order.drain_waiting()),
            self._render_chunk({}, _finish_reason(answer), marks_of(answer, self.parsed_call)),
        ]
        if self.parsed_call.include_usage:
            events.append(sse.data_event({**self._chunk_head(), "choices": [], "usage": _render_usage(answer.usage)}))
        return b"".join([*events, sse.DONE])

    def render_failure(self, refusal: DoorRefusal) -> bytes:
        """An error in place of the next chunk; without [DONE], so that nobody takes the text for whole."""
        return sse.data_event(errors.openai_body(refusal, ""))

    def _chunk_head(self) -> dict[str, Any]:
        return {"id": self._id, "object": "chat.completion.chunk", "created": self._created, "model": self._model}

    def _render_chunk(
        self, delta: dict[str, Any], finish: str | None = None, more: Mapping[str, Any] | None = None
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = {**self._chunk_head(), "choices": [choice]}
        if self.parsed_call.include_usage:
            chunk["usage"] = None
        return sse.data_event(chunk | dict(more or {}))


def marks_of(answer: ModelCallAnswer, parsed_call: ParsedModelCall) -> dict[str, Any]:
    """A field beside the API's own, in an answer that is not all that it could be."""
    marks: dict[str, Any] = {"degraded": answer.degraded} if answer.degraded else {}
    left_out = list(dict.fromkeys((*parsed_call.left_out, *answer.left_out)))
    marks |= {"left_out": left_out} if left_out else {}
    return {"bulkhead": marks} if marks else {}


def tool_calls(answer: ModelCallAnswer) -> list[dict[str, Any]]:
    """Tool calls of an answer."""
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}
        for call in answer.tool_calls
    ]


def _finish_reason(answer: ModelCallAnswer) -> str:
    return answer.finish or ("tool_calls" if answer.tool_calls else "stop")


def _render_usage(usage: Usage) -> dict[str, Any]:
    sent = {
        "cache_write_tokens": usage.cache_write_tokens,
        "audio_tokens": usage.input_audio_tokens,
        "image_tokens": usage.input_image_tokens,
    }
    output_classes = {"audio_tokens": usage.output_audio_tokens, "image_tokens": usage.output_image_tokens}
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens, **_nonzero_counts(sent)},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens, **_nonzero_counts(output_classes)},
    }


def _nonzero_counts(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def _message_rows(body: Fields) -> list[Fields]:
    rows = body.get_objects("messages", bounds.MAX_CONVERSATION_ROWS)
    if not rows:
        raise unfit_field("messages", "is missing" if rows is None else "is empty", "send at least one message")
    return rows


def _stream_options(body: Fields, stream: bool) -> bool:
    options = body.get_object("stream_options")
    if options is None:
        return False
    if not stream:
        raise unfit_field("stream_options", "is of use only with stream: true")
    include_usage = bool(options.get_flag("include_usage"))
    options.refuse_fields({"include_obfuscation": "pieces are sent as they come"})
    options.refuse_remaining("this option of a stream is not known here")
    return include_usage


def _output_tokens(body: Fields) -> int | None:
    new, old = (
        body.get_integer(name, 1, bounds.MAX_ASKED_OUTPUT_TOKENS) for name in ("max_completion_tokens", "max_tokens")
    )
    if new is not None and old is not None and new != old:
        raise unfit_field("max_tokens", "differs from max_completion_tokens", "send one of them")
    return new if new is not None else old


def _read_message(row: Fields) -> dict[str, Any]:
    message = row.as_dict()
    if message.keys() == {"role", "content"} and type(message["content"]) is str and message["role"] in _TEXT_ROLES:
        return dict(message)  # As nearly all are; a conversation comes whole with each call.
    role = row.get_choice("role", ROLES)
    if role is None:
        raise unfit_field(row.field_path("role"), f"is missing; it is one of {', '.join(ROLES)}")
    content = row.get_raw("content")
    if isinstance(content, list):
        for part in row.get_objects("content", bounds.MAX_PARTS) or ():
            _check_part(part)
    elif content is not None:
        row.get_text("content")
    elif role != "assistant":
        raise unfit_field(row.field_path("content"), "is missing")
    row.refuse_fields({"function_call": "send `tool_calls`", "audio": "the answer has no sound"})
    if role == "tool":
        row.require_text("tool_call_id", bounds.MAX_SUMMARY_CHARS)
    if role == "assistant":
        calls = row.get_objects("tool_calls", bounds.MAX_CONVERSATION)
        for call in calls or ():
            _check_call(call)
        if content is None and not calls and not row.get_text("refusal"):
            raise unfit_field(row.field_path("content"), "is missing, and so are tool_calls")
    present = {name: value for name, value in row.as_dict().items() if value is not None}
    # The role `system` says the same, and providers other than OpenAI know it.
    return present | {"role": "system" if role == "developer" else role}


def _check_part(part: Fields) -> None:
    match part.require_text("type"):
        case "text":
            part.require_any_text("text")
        case "image_url":
            image = part.require_object("image_url")
            image.require_text("url")
        case _:
            pass  # A provider may know it.


def _check_call(call: Fields) -> None:
    call.require_text("id", bounds.MAX_SUMMARY_CHARS)
    if call.get_raw("type") not in (None, "function"):
        raise unsupported_field(call.field_path("type"), "tool calls here are functions")
    function = call.require_object("function")
    function.require_text("name", bounds.MAX_SUMMARY_CHARS)
    function.require_any_text("arguments")
