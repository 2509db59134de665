"""OpenAI's chat format without I/O. Enters: bytes from a provider. Leaves: text as it comes, an `Answer` or a `Fault`.

Nothing that a provider says is believed: every field is checked, bounded, or counted as missing.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bulkhead_contracts import bounds
from bulkhead_contracts.model import ToolCall
from bulkhead_contracts.result import Omission, Usage
from bulkhead_services.model_gateway.providers.port import Answer, Fault, Finish

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_OVERFLOW = re.compile(
    r"context.{0,3}length|context window|maximum context|(?:prompt|input) is too long|too many (?:input )?tokens", re.I
)


class EventTooLarge(ValueError):
    """One event of a stream exceeds MAX_PROVIDER_EVENT_BYTES."""


class SseDecoder:
    """Server-sent events out of bytes cut anywhere, also inside a character or a line end."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[str]:
        """Data of the events that this chunk completes. Raises EventTooLarge."""
        buffer = self._rest + chunk
        # A CR at the end may be half of a CRLF: it waits for the next chunk.
        held = buffer.endswith(b"\r")
        lines = re.split(rb"\r\n|\n|\r", buffer[:-1] if held else buffer)
        self._rest = lines.pop() + (b"\r" if held else b"")
        found = [event for line in lines if (event := self._line(line)) is not None]
        if self._size + len(self._rest) > bounds.MAX_PROVIDER_EVENT_BYTES:
            raise EventTooLarge(f"an event exceeds {bounds.MAX_PROVIDER_EVENT_BYTES} bytes")
        return found

    def flush(self) -> list[str]:
        """The last event when the stream ended without the blank line that should close it."""
        found = [self._line(self._rest.rstrip(b"\r")), self._line(b"")]
        self._rest = b""
        return [one for one in found if one is not None]

    def _line(self, line: bytes) -> str | None:
        if not line:
            if not self._data:
                return None
            data, self._data, self._size = b"\n".join(self._data), [], 0
            return data.decode("utf-8", "replace")
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value) + 1
        return None


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    size: int = 0
    cut: bool = False

    def add(self, piece: str) -> None:
        room = bounds.MAX_ARGUMENTS_BYTES - self.size
        kept = piece.encode("utf-8", "replace")[: max(0, room)].decode("utf-8", "ignore")
        self.cut = self.cut or len(kept) < len(piece)
        self.size += len(kept.encode())
        self.arguments.append(kept)


class Assembly:
    """Puts one answer together from a stream's events or from a whole body; readable at any moment.

    `fault` is set by what cannot be an answer, `over` when nothing more is wanted (end, or over the bound).
    """

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.over = False
        self.usage: Usage | None = None
        self.text_bytes = 0
        self._pieces: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._dropped_calls: set[int] = set()
        self._finish = ""
        self._model = ""
        self._fingerprint = ""
        self._held = ""
        self._overlong = False

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._pieces)

    def event(self, data: str) -> str:
        """Take one event of a stream; returns the text that it adds."""
        if data.strip() == "[DONE]":
            self.over = True
            return ""
        chunk = self._parse(data, "an event of the stream")
        if chunk is None:
            return ""
        choice = self._common(chunk)
        delta = choice.get("delta") if choice else None
        return self._message(delta) if isinstance(delta, dict) else ""

    def whole(self, body: bytes) -> str:
        """Take a body that is not a stream; returns its text."""
        found = self._parse(body.decode("utf-8", "replace"), "the body")
        self.over = True
        if found is None:
            return ""
        choice = self._common(found)
        message = choice.get("message") if choice else None
        if not isinstance(message, dict):
            if self.fault is None:
                self.fault = Fault("error_body", "status 200 and no choices in the body", retryable=True, outage=True)
            return ""
        return self._message(message)

    def result(self) -> Answer | Fault:
        """The answer; or why this is none, first of all because it never came to its end."""
        if self.fault is not None:
            return self.fault
        if not self._finish and not self._overlong:
            what = f"the provider stopped after {self.text_bytes} bytes of text without a finish reason"
            return Fault("truncated_stream", what, retryable=True, outage=True)
        omissions = [*self._text_omissions()]
        calls = self._tool_calls(omissions)
        finish: Finish = "stop" if self._finish in ("stop", "function_call") else ""
        if self._finish == "length" or self._overlong:
            finish = "length"
        elif calls:
            finish = "tool_calls"
        return Answer(self.text, calls, finish, self.usage, self._model, self._fingerprint, tuple(omissions))

    def _parse(self, text: str, what: str) -> dict[str, Any] | None:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            self.fault = Fault("malformed_json", f"{what} is not a JSON object", retryable=True, outage=True)
            return None
        if found.get("error"):
            self.fault = error_in_body(found["error"])
            return None
        return found

    def _common(self, found: Mapping[str, Any]) -> dict[str, Any] | None:
        self.usage = usage_of(found.get("usage")) or self.usage
        self._model = _short(found.get("model")) or self._model
        self._fingerprint = _short(found.get("system_fingerprint")) or self._fingerprint
        choices = found.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return None
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self._finish = reason
        return choice

    def _message(self, message: Mapping[str, Any]) -> str:
        for position, one in enumerate(_list(message.get("tool_calls"))):
            if isinstance(one, dict):
                self._call(position, one)
        # A refusal is what the model says in an answer's place.
        said = _plain(message.get("content")) + _plain(message.get("refusal"))
        return self._add(said) if said else ""

    def _add(self, piece: str) -> str:
        piece = self._held + piece
        self._held = ""
        if _SURROGATE.search(piece):
            if "\ud800" <= piece[-1] <= "\udbff":
                # Half of a pair: the other half comes with the next event.
                piece, self._held = piece[:-1], piece[-1]
            piece = piece.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        raw = piece.encode()
        room = bounds.MAX_MODEL_ANSWER_BYTES - self.text_bytes
        if len(raw) > room:
            self._overlong = self.over = True
            piece = raw[:room].decode("utf-8", "ignore")
            raw = piece.encode()
        self.text_bytes += len(raw)
        self._pieces.append(piece)
        return piece

    def _call(self, position: int, one: Mapping[str, Any]) -> None:
        index = one.get("index")
        index = index if isinstance(index, int) and index >= 0 else position
        if index not in self._calls and len(self._calls) >= bounds.MAX_CALLS_PER_TURN:
            if len(self._dropped_calls) < 1_000:
                self._dropped_calls.add(index)
            return
        call = self._calls.setdefault(index, _Call())
        call.id = call.id or _short(one.get("id"))
        function = one.get("function")
        if isinstance(function, dict):
            call.name = (call.name + _clean(_plain(function.get("name"))))[: bounds.MAX_NAME_CHARS]
            arguments = function.get("arguments")
            # Some servers send the arguments as an object in place of its text.
            call.add(json.dumps(arguments) if isinstance(arguments, dict) else _clean(_plain(arguments)))

    def _tool_calls(self, omissions: list[Omission]) -> tuple[ToolCall, ...]:
        made: list[ToolCall] = []
        taken: set[str] = set()
        for index, call in sorted(self._calls.items()):
            call_id = call.id
            if not _TOKEN.fullmatch(call_id) or call_id in taken:
                # An id that cannot stand on the bus gets one made of its place and itself.
                digest = hashlib.blake2b(call_id.encode("utf-8", "replace"), digest_size=4).hexdigest()
                call_id = f"call_{index}_{digest}"
            taken.add(call_id)
            if call.cut:
                what = f"arguments of the call of {call.name}"
                detail = f"over {bounds.MAX_ARGUMENTS_BYTES} bytes"
                omissions.append(Omission(reason="truncated", what=what, detail=detail))
            made.append(ToolCall(id=call_id, name=call.name, arguments_json="".join(call.arguments)))
        if self._dropped_calls:
            what = f"{len(self._dropped_calls)} tool calls of the model"
            detail = f"at most {bounds.MAX_CALLS_PER_TURN} are taken from one turn"
            omissions.append(Omission(reason="truncated", what=what, detail=detail))
        return tuple(made)

    def _text_omissions(self) -> list[Omission]:
        if self._overlong:
            detail = f"over {bounds.MAX_MODEL_ANSWER_BYTES} bytes; the stream was cut there"
            return [Omission(reason="truncated", what="the model's answer", detail=detail)]
        if self._finish == "length":
            detail = "the model reached its output limit (finish reason length)"
            return [Omission(reason="truncated", what="the model's answer", detail=detail)]
        if self._finish not in ("stop", "tool_calls", "function_call"):
            detail = f"the provider ended it with {_short(self._finish)}"
            return [Omission(reason="truncated", what="the model's answer", detail=detail)]
        return []


# Errors


def error_of_status(status: int, retry_after: str, body: bytes) -> Fault:
    """Fault for an HTTP error status; nothing was generated, so nothing is owed."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    error = found.get("error") if isinstance(found, dict) else None
    code, said = _error_text(error if error else found)
    said = said or f"status {status}"
    wait = _seconds(retry_after)
    if status in (400, 413) and (code == "context_length_exceeded" or _OVERFLOW.search(said)):
        return _overflow(said)
    if status == 429:
        spent = code == "insufficient_quota"
        hint = "the account has no credit left: top it up" if spent else "lower BULKHEAD_PROVIDER_CONCURRENCY"
        return Fault("rate_limited", said, hint, not spent, True, False, retry_after_s=wait)
    if status >= 500 or status in (408, 409, 425):
        return Fault("provider_error", f"status {status}: {said}", "", True, True, False, retry_after_s=wait)
    if status in (401, 403):
        hint = "check OPENAI_API_KEY and what it may use"
        return Fault("provider_error", f"the provider refused the key ({status}): {said}", hint, False, True, False)
    if status == 404:
        hint = "check the model's name and OPENAI_BASE_URL"
        return Fault("unknown_model", said, hint, False, True, False)
    hint = "the provider does not take this request: look at its message"
    return Fault("provider_error", f"status {status}: {said}", hint, False, False, False)


def error_in_body(error: object) -> Fault:
    """Fault for an error object behind a 200 or inside a stream; tokens may have been used by then."""
    code, said = _error_text(error)
    if code == "context_length_exceeded" or _OVERFLOW.search(said):
        return _overflow(said)
    return Fault("error_body", f"status 200 with an error: {said}", retryable=True, outage=True)


def _overflow(said: str) -> Fault:
    hint = "ask for less at once, or use a model with a longer context"
    return Fault("context_overflow", said, hint, consumed=False)


def _error_text(error: object) -> tuple[str, str]:
    if isinstance(error, dict):
        said = _plain(error.get("message")) or _plain(error.get("detail")) or _plain(error.get("type"))
        return _short(error.get("code")), " ".join(said.split())[: bounds.MAX_PROVIDER_ERROR_CHARS]
    return "", " ".join(_plain(error).split())[: bounds.MAX_PROVIDER_ERROR_CHARS]


def _seconds(text: str) -> float | None:
    """Retry-After in seconds; its form as a date is read as none: clocks differ."""
    try:
        value = float(text)
    except ValueError:
        return None
    return min(max(0.0, value), float(bounds.MAX_RETRY_AFTER_S)) if value == value else None


# Fields


def usage_of(found: object) -> Usage | None:
    """Token counts as a provider reports them; None when they are missing or make no sense."""
    if not isinstance(found, dict):
        return None
    details = found.get("prompt_tokens_details")
    given = details.get("cached_tokens") if isinstance(details, dict) else 0
    counts = (_count(found.get("prompt_tokens")), _count(found.get("completion_tokens")), _count(given or 0))
    prompt, completion, cached = counts
    if not prompt or completion is None or cached is None:
        return None
    return Usage(model_calls=1, input_tokens=prompt, output_tokens=completion, cached_input_tokens=min(cached, prompt))


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= bounds.MAX_TOKENS else None


def _list(value: object) -> list[Any]:
    return value[:1_000] if isinstance(value, list) else []


def _plain(value: object) -> str:
    """A string, or the text of a list of text parts; "" of anything else."""
    if isinstance(value, str):
        return value
    return "".join(_plain(one.get("text")) for one in _list(value) if isinstance(one, dict))


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode() if _SURROGATE.search(text) else text


def _short(value: object) -> str:
    return _clean(value)[: bounds.MAX_SUMMARY_CHARS] if isinstance(value, str) else ""
