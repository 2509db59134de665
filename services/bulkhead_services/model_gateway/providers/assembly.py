"""The assembly of one answer, for every wire form. Enters: events or a body. Leaves: pieces, then an answer.

A wire form derives from `Assembly` and says what its events add; bounds, names and omissions are the same
for all.
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bulkhead_contracts import bounds
from bulkhead_contracts.model import REASONING, TEXT, AdoptedToolCall, AnswerPart, ToolCall
from bulkhead_contracts.result import Omission, Usage
from bulkhead_services.model_gateway.providers import errors
from bulkhead_services.model_gateway.providers.fields import (
    SURROGATE,
    generated_bytes,
    larger_usage,
    mapping_of,
    read_object,
    replace_surrogates,
    short_text,
)
from bulkhead_services.model_gateway.providers.port import Finish, ModelAnswer, ProviderFault, ProviderRequest

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ENDS = ("stop", "tool_calls", "length")
"""Ends of an answer that nobody cut short but its length."""
FILTERED, MALFORMED = "filtered", "malformed"
"""How a wire form names other ends: `filtered: SAFETY` was withheld, `malformed: X` was no call that can be read."""


_THOUGHTS: Mapping[str, Mapping[str, Literal["thinking", "signature", "redacted"]]] = {
    "thinking": {"thinking": "thinking", "signature": "signature"},
    "redacted_thinking": {"data": "redacted"},
}
"""Fields of each block of thoughts, and the parts of an answer that they are."""
FRAME_BYTES = 512
"""Of an event around one token: OpenAI's has some 330."""
_MAX_PARSES = 1_000
"""So often it is looked whether a call is whole: each look reads all its arguments."""


@dataclass(slots=True)
class _PartialCall:
    """Call of a tool that is still coming. live_part: as which it is published live; None where it is not."""

    max_bytes: int
    live_part: AnswerPart | None = None
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    size: int = 0
    is_truncated: bool = False
    ends_with_brace: bool = False
    parse_count: int = 0

    def is_whole(self) -> bool:
        """True when its arguments are whole already."""
        if not self.ends_with_brace or self.parse_count >= _MAX_PARSES:
            return False
        self.parse_count += 1
        return read_object("".join(self.arguments)) is not None

    def add_piece(self, piece: str) -> str:
        """Keep what there is room for, and return that."""
        room = self.max_bytes - self.size
        fitting = piece.encode("utf-8", "replace")[: max(0, room)].decode("utf-8", "ignore")
        self.is_truncated = self.is_truncated or len(fitting) < len(piece)
        self.size += len(fitting.encode())
        if fitting:
            self.arguments.append(fitting)
        if trimmed := fitting.rstrip():
            self.ends_with_brace = trimmed.endswith("}")
        return fitting


@dataclass(slots=True)
class _ThoughtBlock:
    """A block of thoughts. place: among those of the answer."""

    kind: str
    place: int
    fields: dict[str, list[str]] = field(default_factory=dict)

    def as_block(self) -> dict[str, str]:
        """The block as it is handed back."""
        return {"type": self.kind, **{name: "".join(pieces) for name, pieces in self.fields.items()}}


class Assembly(ABC):
    """Puts one answer together from a stream's events or from a whole body; readable at any moment.

    `fault` is set by what cannot be an answer, `over` when nothing more is wanted (end, or over the bound).
    outgoing: the request that is answered; the ids of its calls are not given again.
    """

    def __init__(self, outgoing: ProviderRequest | None = None) -> None:
        self._outgoing = outgoing or ProviderRequest("", b"")
        adopted = self._outgoing.adopted
        self._max_calls = bounds.MAX_ADOPTED_CALLS if adopted else bounds.MAX_CALLS_PER_TURN
        self._max_bytes = bounds.MAX_ADOPTED_ARGUMENTS_BYTES if adopted else bounds.MAX_ARGUMENTS_BYTES
        self.fault: ProviderFault | None = None
        self.over = False
        self.told_usage: Usage | None = None
        """The largest figures that its provider told until now."""
        self._told_bytes = 0
        """So much was generated when usage was told last."""
        self._tells_usage = self._counts_input_alone = False
        self.text_bytes = 0
        self._other_bytes = 0
        """Of what was generated, the part that is no text: arguments of tools, reasoning."""
        self._pieces: list[str] = []
        self._unpublished: list[tuple[AnswerPart, str]] = []
        self._calls: dict[int, _PartialCall] = {}
        self._dropped_calls: set[int] = set()
        self._thoughts: dict[int, _ThoughtBlock] = {}
        self._thought_bytes = 0
        self._finish = ""
        self._model = ""
        self._fingerprint = ""
        self._service_tier = ""
        self._held = ""
        self._overlong = False
        self._refusal = ""
        self._omitted_kinds: set[str] = set()

    # A wire form's part

    @abstractmethod
    def _apply_event(self, event: dict[str, Any]) -> None:
        """Take one event."""

    @abstractmethod
    def _apply_body(self, body: dict[str, Any]) -> None:
        """Take a body that is not a stream."""

    @abstractmethod
    def _read_usage(self, body: dict[str, Any]) -> Usage | None:
        """The usage in a body, whatever else stands there."""

    def _native_answer(self) -> dict[str, Any]:
        """The answer in this form, for an agent that asked in it."""
        return {}

    # For everybody

    @property
    def text_so_far(self) -> str:
        """The text so far."""
        return "".join(self._pieces)

    @property
    def has_begun(self) -> bool:
        """True when the model has said anything: text, or a tool call."""
        return bool(self._pieces or self._calls)

    def drain_pieces(self) -> list[tuple[AnswerPart, str]]:
        """Pieces that came since this was asked last; of the mesh's own calls the text alone."""
        pieces, self._unpublished = self._unpublished, []
        return pieces

    @property
    def most_bytes(self) -> int:
        """Size that a stream may have."""
        return bounds.MAX_PROVIDER_RESPONSE_BYTES + FRAME_BYTES * self._outgoing.output_tokens

    @property
    def generated_bytes(self) -> int:
        """Size of all that the model wrote so far, also of what is no text."""
        return self.text_bytes + self._other_bytes

    @property
    def has_ended(self) -> bool:
        """True when the answer came to its end, even if something was still to follow it."""
        return bool(self._finish) and self.fault is None

    @property
    def is_told_at_end(self) -> bool:
        """True when usage was told, and nothing of the answer came after that."""
        return (
            bool(self._finish or self.over) and self.told_usage is not None and self.generated_bytes <= self._told_bytes
        )

    @property
    def usage(self) -> Usage | None:
        """The usage of the whole answer; None where it was not told, or not all of it. What is generated has tokens."""
        usage = self.told_usage if self.is_told_at_end else None
        if usage is None or not usage.input_tokens:
            return None
        is_missing = not (usage.output_tokens or self._counts_input_alone or not self.generated_bytes)
        return None if is_missing else usage

    def feed_event(self, data: str) -> None:
        """Take the data of one event of a stream. Behind the answer's end only figures count."""
        if self.over:
            self._read_late_figures(read_object(data) or {})
            return
        if data.strip() in ("", "[DONE]"):
            self.over = self.over or bool(data.strip())
            return
        if self._finish and read_object(data) is None:
            # The answer is whole: what breaks behind its end takes nothing away from it.
            self.over = True
            return
        self._tells_usage = False
        parsed, bytes_before = self._parse_object(data, "an event of the stream"), self.text_bytes
        if parsed is not None:
            self._apply_event(parsed)
        if self.text_bytes == bytes_before:
            self._other_bytes += self._written_size(parsed, len(data))
        if self._tells_usage:
            self._told_bytes = self.generated_bytes

    def _read_late_figures(self, event: dict[str, Any]) -> None:
        for body in (event, *(mapping_of(event.get(name)) for name in ("response", "message"))):
            if (usage := self._read_usage(body)) is not None:
                self._tell_usage(usage)
                self._told_bytes = self.generated_bytes

    def feed_body(self, body: bytes) -> None:
        """Take a body that is not a stream."""
        parsed = self._parse_object(body.decode("utf-8", "replace"), "the body")
        self.over = True
        if parsed is not None:
            self._apply_body(parsed)
            self._tell_usage(self._read_usage(parsed))  # Also beside what is no answer.
        self._other_bytes = max(0, self._written_size(parsed, len(body)) - self.text_bytes)
        self._told_bytes = self.generated_bytes

    def feed_refusal(self, body: bytes) -> None:
        """Take the usage that stands in the body of another status than 200."""
        self.over, self._told_bytes = True, self.generated_bytes
        self._tell_usage(self._read_usage(read_object(body) or {}))

    def result(self) -> ModelAnswer | ProviderFault:
        """The answer; or why this is none, first of all because it never came to its end."""
        if self.fault is not None:
            return self.fault
        if not self._finish and not self._overlong:
            message = f"the provider stopped after {self.text_bytes} bytes of text without a finish reason"
            return ProviderFault("truncated_stream", message, retryable=True, outage=True)
        if self._refusal:
            return errors.refusal_fault(self._refusal)
        omissions = [*self._text_omissions()]
        text_omission_count = len(omissions)
        calls = self._tool_calls(omissions)
        if self._thought_bytes > bounds.MAX_MODEL_ANSWER_BYTES:
            detail = f"over {bounds.MAX_MODEL_ANSWER_BYTES} bytes"
            omissions.append(Omission(reason="truncated", what="the model's thoughts", detail=detail))
        incomplete_calls = "; ".join(
            f"{omission.what}: {omission.detail}" for omission in omissions[text_omission_count:]
        )
        if not calls and not self.text_so_far.strip() and self._finish not in _ENDS:
            return self._empty_answer_fault()
        finish: Finish = "stop" if self._finish == "stop" else ""
        if self._finish == "length" or self._overlong:
            finish = "length"
        elif calls:
            finish = "tool_calls"
        return ModelAnswer(
            self.text_so_far,
            calls,
            finish,
            self.usage,
            self._model,
            self._fingerprint,
            tuple(omissions),
            incomplete_calls=incomplete_calls,
            thoughts=tuple(thought.as_block() for thought in self._thoughts.values()),
            service_tier=self._service_tier,
            native=self._native_answer() if self._outgoing.native else {},
        )

    def note_body_size(self, size_bytes: int) -> None:
        """Note the size of a body that is not a stream so far: what it holds is not known yet."""
        self._other_bytes = size_bytes

    def _written_size(self, parsed: dict[str, Any] | None, size_bytes: int) -> int:
        """Bytes that the model wrote of an event or a body; all of one that cannot be read, none of an error."""
        if parsed is not None:
            return generated_bytes(parsed)
        return size_bytes if self.fault is not None and self.fault.code == "malformed_json" else 0

    def _tell_usage(self, usage: Usage | None) -> None:
        """Note usage. Told twice, the larger counts: figures grow while an answer comes."""
        if usage is not None:
            self.told_usage = larger_usage(self.told_usage or usage, usage)
            self._tells_usage = True

    def _empty_answer_fault(self) -> ProviderFault:
        """The fault of an answer that holds nothing, by the end that the provider gave it."""
        kind, _, reason = self._finish.partition(": ")
        if kind == FILTERED:
            return errors.filter_fault(short_text(reason))
        if kind == MALFORMED:
            message = f"the model's call of a tool cannot be read ({short_text(reason)})"
            return ProviderFault("malformed_arguments", message, "use a model that calls tools well", retryable=True)
        message = f"the provider ended it with {short_text(self._finish)} and without an answer"
        return ProviderFault("error_body", message, retryable=True, outage=True)

    def _add_refusal(self, piece: str) -> None:
        """Take a piece of a refusal: it is what the model says in an answer's place, and no answer."""
        self._refusal = replace_surrogates(self._refusal + piece)[: bounds.MAX_PROVIDER_ERROR_CHARS]

    def _note_non_text(self, kind: str) -> None:
        """Note something in the answer that is no text, and so is no part of it."""
        self._omitted_kinds.add(short_text(kind))

    def _set_no_answer_fault(self, field_name: str) -> None:
        if self.fault is None:
            self.fault = ProviderFault(
                "error_body", f"status 200 and no {field_name} in the body", retryable=True, outage=True
            )

    def _parse_object(self, text: str, label: str) -> dict[str, Any] | None:
        parsed = read_object(text)
        if parsed is None:
            self.fault = ProviderFault("malformed_json", f"{label} is not a JSON object", retryable=True, outage=True)
            return None
        tier = short_text(parsed.get("service_tier") or mapping_of(parsed.get("response")).get("service_tier"))
        self._service_tier = self._service_tier if tier in ("", "auto") else tier
        if parsed.get("error"):
            self.over = self._finish in _ENDS
            self.fault = None if self.over else errors.fault_in_body(parsed["error"])
            self._tell_usage(self._read_usage(parsed))
            return None
        return parsed

    def _add_text(self, piece: str) -> None:
        piece = self._held + piece
        self._held = ""
        if not piece:
            return
        if SURROGATE.search(piece):
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
        self._queue_piece(TEXT, piece)

    def _queue_piece(self, part: AnswerPart, piece: str) -> None:
        if not piece:
            return
        if self._unpublished and self._unpublished[-1][0] == part:
            piece = self._unpublished.pop()[1] + piece
        self._unpublished.append((part, piece))

    def _add_thought(self, index: int, block: Mapping[str, str]) -> None:
        """A piece of a block of thoughts, which an outside agent hands back; the mesh's own calls keep none. Its first
        piece has its type."""
        if not (block and self._outgoing.adopted):
            return
        self._thought_bytes += sum(len(piece.encode("utf-8", "replace")) for piece in block.values())
        thought = self._thoughts.get(index)
        if self._thought_bytes > bounds.MAX_MODEL_ANSWER_BYTES or (thought is None and "type" not in block):
            return
        thought = thought or self._thoughts.setdefault(index, _ThoughtBlock(block["type"], len(self._thoughts)))
        for name, kind in _THOUGHTS.get(thought.kind, {}).items():
            if name in block:
                piece = replace_surrogates(block[name])
                thought.fields.setdefault(name, []).append(piece)
                self._queue_piece(AnswerPart(kind=kind, id=str(thought.place)), piece)

    def _add_reasoning(self, piece: str) -> None:
        """A piece of visible reasoning that nobody signed; what is over the bound is cut off, and told."""
        if not (piece and self._outgoing.adopted):
            return
        raw = piece.encode("utf-8", "replace")
        room = max(0, bounds.MAX_MODEL_ANSWER_BYTES - self._thought_bytes)
        self._thought_bytes += len(raw)
        if fitting := raw[:room].decode("utf-8", "ignore"):
            thought = self._thoughts.setdefault(0, _ThoughtBlock("reasoning", 0))
            thought.fields.setdefault("text", []).append(fitting)
            self._queue_piece(REASONING, fitting)

    def _add_call(self, index: int, call_id: object, name: str, arguments: object) -> None:
        """A piece of one tool call, by its place in the answer. Some servers send arguments as an object."""
        if index not in self._calls and len(self._calls) >= self._max_calls:
            if len(self._dropped_calls) < 1_000:
                self._dropped_calls.add(index)
            return
        call = self._calls.setdefault(index, _PartialCall(self._max_bytes))
        call.id = call.id or short_text(call_id)
        if name != call.name:  # Some servers tell the whole name with every piece.
            call.name = (call.name + replace_surrogates(name))[: bounds.MAX_NAME_CHARS]
        piece = json.dumps(arguments) if isinstance(arguments, dict) else arguments
        if not isinstance(piece, str):
            return
        if not call.size:
            call.live_part = self._live_part_of(call)
        fitting = call.add_piece(replace_surrogates(piece))
        if call.live_part is not None:
            self._queue_piece(call.live_part, fitting)

    def _live_part_of(self, call: _PartialCall) -> AnswerPart | None:
        """The part as which a call is told live; None where it may get another id in the end."""
        live_ids = {earlier.live_part.id for earlier in self._calls.values() if earlier.live_part is not None}
        if not (self._outgoing.adopted and call.name and _TOKEN.fullmatch(call.id)):
            return None
        if call.id in live_ids or call.id in self._outgoing.call_ids:
            return None
        return AnswerPart(kind="call", id=call.id, name=call.name)

    def _tool_calls(self, omissions: list[Omission]) -> tuple[ToolCall, ...]:
        tool_calls: list[ToolCall] = []
        used_ids = set(self._outgoing.call_ids)
        for index, (_, call) in enumerate(sorted(self._calls.items())):
            call_id = call.id
            if not _TOKEN.fullmatch(call_id) or call_id in used_ids:
                # Vendors refuse an id that stands twice in a conversation. One that is missing, that cannot stand on
                # the bus or that was given before gets one of the request (no two turns have the same) and its place.
                seed = call_id.encode("utf-8", "replace") + self._outgoing.body
                digest = hashlib.blake2b(seed, digest_size=8).hexdigest()
                call_id = f"call_{index}_{digest}"
            used_ids.add(call_id)
            if call.is_truncated:
                omitted = f"arguments of the call of {call.name}"
                detail = f"over {self._max_bytes} bytes"
                omissions.append(Omission(reason="truncated", what=omitted, detail=detail))
            arguments = "".join(call.arguments)
            kind = ToolCall if len(arguments) <= bounds.MAX_ARGUMENTS_BYTES else AdoptedToolCall
            tool_calls.append(kind(id=call_id, name=call.name, arguments_json=arguments))
        if self._dropped_calls:
            omitted = f"{len(self._dropped_calls)} tool calls of the model"
            detail = f"at most {self._max_calls} are taken from one turn"
            omissions.append(Omission(reason="truncated", what=omitted, detail=detail))
        return tuple(tool_calls)

    def _text_omissions(self) -> list[Omission]:
        detail = "only text is taken from an answer"
        omissions = [Omission(reason="truncated", what=kind, detail=detail) for kind in sorted(self._omitted_kinds)[:8]]
        if self._overlong:
            detail = f"over {bounds.MAX_MODEL_ANSWER_BYTES} bytes; the stream was cut there"
        elif self._finish == "length":
            detail = "the model reached its output limit (finish reason length)"
        elif self._finish not in _ENDS:
            detail = f"the provider ended it with {short_text(self._finish)}"
        else:
            return omissions
        return [*omissions, Omission(reason="truncated", what="the model's answer", detail=detail)]
