"""What the scripted provider says, in the words of three APIs, whole or as the events of a stream.

In: a turn of the script. Out: a body, or the bytes of a stream. Texts and arguments come in pieces, as from a model.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.e2e.clients.conversation import Api

PIECES = 3


@dataclass(frozen=True)
class Call:
    """One call of a tool. arguments: an object, or the text of a freeform tool."""

    name: str
    arguments: Mapping[str, Any] | str

    @property
    def text(self) -> str:
        """Arguments as they are sent."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class Turn:
    """What the model says once it is asked."""

    text: str = ""
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A turn with its number (ids are made of it) and its tokens."""

    turn: Turn
    number: int
    model: str
    input_tokens: int
    output_tokens: int


def render_whole(api: Api, answer: Answer) -> dict[str, Any]:
    """The body of an answer that is not streamed."""
    match api:
        case "openai-chat":
            return _chat_whole(answer)
        case "anthropic":
            return _message_whole(answer)
        case "openai-responses":
            return _response(answer, "completed", [_response_item(answer, row) for row in _response_rows(answer)])


def render_stream(api: Api, answer: Answer, *, with_usage: bool) -> Iterator[bytes]:
    """Events of a stream. with_usage: of a chat completion."""
    match api:
        case "openai-chat":
            yield from _chat_stream(answer, with_usage)
        case "anthropic":
            yield from map(_named, _message_events(answer))
        case "openai-responses":
            numbered = enumerate(_response_events(answer))
            yield from (_named({**event, "sequence_number": number}) for number, event in numbered)


def _pieces(text: str) -> Iterator[str]:
    size = max(1, -(-len(text) // PIECES))
    yield from (text[start : start + size] for start in range(0, len(text), size))


def _named(event: Mapping[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def _call_id(answer: Answer, index: int, prefix: str = "call") -> str:
    return f"{prefix}_{answer.number}_{index}"


# OpenAI's chat completions


def _chat_usage(answer: Answer) -> dict[str, int]:
    total = answer.input_tokens + answer.output_tokens
    return {"prompt_tokens": answer.input_tokens, "completion_tokens": answer.output_tokens, "total_tokens": total}


def _chat_head(answer: Answer, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{answer.number}", "object": kind, "created": 1_700_000_000, "model": answer.model}


def _chat_calls(answer: Answer) -> list[dict[str, Any]]:
    return [
        {"id": _call_id(answer, index), "type": "function", "function": {"name": call.name, "arguments": call.text}}
        for index, call in enumerate(answer.turn.calls)
    ]


def _chat_end(answer: Answer) -> str:
    return "tool_calls" if answer.turn.calls else "stop"


def _chat_whole(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.turn.text or None}
    if answer.turn.calls:
        message["tool_calls"] = _chat_calls(answer)
    choice = {"index": 0, "message": message, "finish_reason": _chat_end(answer)}
    return {**_chat_head(answer, "chat.completion"), "choices": [choice], "usage": _chat_usage(answer)}


def _chat_stream(answer: Answer, with_usage: bool) -> Iterator[bytes]:
    head = _chat_head(answer, "chat.completion.chunk")
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in _pieces(answer.turn.text)]
    for index, call in enumerate(_chat_calls(answer)):
        function = call["function"]
        deltas.append({"tool_calls": [{**call, "index": index, "function": {**function, "arguments": ""}}]})
        pieces = _pieces(function["arguments"])
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces]
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": _chat_end(answer)})
    chunks: list[dict[str, Any]] = [{**head, "choices": [choice]} for choice in choices]
    if with_usage:
        chunks.append({**head, "choices": [], "usage": _chat_usage(answer)})
    yield from (f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks)
    yield b"data: [DONE]\n\n"


# Anthropic's messages


def _message_whole(answer: Answer) -> dict[str, Any]:
    turn = answer.turn
    content: list[dict[str, Any]] = [{"type": "text", "text": turn.text}] if turn.text else []
    for index, call in enumerate(turn.calls):
        row = {"type": "tool_use", "id": _call_id(answer, index, "toolu"), "name": call.name, "input": call.arguments}
        content.append(row)
    return {
        "id": f"msg_{answer.number}",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": content,
        "stop_reason": "tool_use" if turn.calls else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens},
    }


def _message_events(answer: Answer) -> Iterator[dict[str, Any]]:
    whole = _message_whole(answer)
    yield {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}}
    for index, block in enumerate(whole["content"]):
        is_text = block["type"] == "text"
        initial: dict[str, Any] = {"type": "text", "text": ""} if is_text else {**block, "input": {}}
        yield {"type": "content_block_start", "index": index, "content_block": initial}
        for piece in _pieces(block["text"] if is_text else json.dumps(block["input"])):
            delta = (
                {"type": "text_delta", "text": piece}
                if is_text
                else {"type": "input_json_delta", "partial_json": piece}
            )
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ended: dict[str, Any] = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": {"output_tokens": answer.output_tokens}}
    yield {"type": "message_stop"}


# OpenAI's responses


def _response_rows(answer: Answer) -> list[tuple[int, str | Call]]:
    turn = answer.turn
    rows: list[str | Call] = [*([turn.text] if turn.text else []), *turn.calls]
    return list(enumerate(rows))


def _response_item(answer: Answer, row: tuple[int, str | Call], *, is_done: bool = True) -> dict[str, Any]:
    index, said = row
    status = "completed" if is_done else "in_progress"
    if isinstance(said, str):
        part = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
        content = [part] if is_done else []
        message = {"id": f"msg_{answer.number}_{index}", "type": "message", "role": "assistant", "status": status}
        return {**message, "content": content}
    is_freeform = isinstance(said.arguments, str)
    return {
        "id": _call_id(answer, index, "fc"),
        "type": "custom_tool_call" if is_freeform else "function_call",
        "status": status,
        "call_id": _call_id(answer, index),
        "name": said.name,
        "input" if is_freeform else "arguments": said.text if is_done else "",
    }


def _response(answer: Answer, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    usage = {
        "input_tokens": answer.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": answer.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.input_tokens + answer.output_tokens,
    }
    return {
        "id": f"resp_{answer.number}",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": status,
        "model": answer.model,
        "output": output,
        "error": None,
        "incomplete_details": None,
        "usage": usage if status == "completed" else None,
    }


def _response_events(answer: Answer) -> Iterator[dict[str, Any]]:
    yield {"type": "response.created", "response": _response(answer, "in_progress", [])}
    output = []
    for row in _response_rows(answer):
        index, said = row
        item = _response_item(answer, row)
        at = {"item_id": item["id"], "output_index": index}
        begun = _response_item(answer, row, is_done=False)
        yield {"type": "response.output_item.added", "output_index": index, "item": begun}
        if isinstance(said, str):
            part = item["content"][0]
            text = {**at, "content_index": 0}
            yield {"type": "response.content_part.added", **text, "part": {**part, "text": ""}}
            for piece in _pieces(said):
                yield {"type": "response.output_text.delta", **text, "delta": piece, "logprobs": []}
            yield {"type": "response.output_text.done", **text, "text": said, "logprobs": []}
            yield {"type": "response.content_part.done", **text, "part": part}
        else:
            kind, name = (
                ("custom_tool_call_input", "input")
                if isinstance(said.arguments, str)
                else ("function_call_arguments", "arguments")
            )
            for piece in _pieces(said.text):
                yield {"type": f"response.{kind}.delta", **at, "delta": piece}
            yield {"type": f"response.{kind}.done", **at, name: said.text}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
        output.append(item)
    yield {"type": "response.completed", "response": _response(answer, "completed", output)}
