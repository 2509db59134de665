"""OpenAI's responses, checked and passed on. Pure.

In: the body of a request. Out: what is asked, as it came; then the answer as a response or as its events.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bulkhead.model_apis.allowed import INCLUDED, NATIVE_OPTIONS, RESPONSES, left_out_tools
from bulkhead.model_apis.chat_view import flat_tool_name, objects_in
from bulkhead.model_apis.native_answers import native_blocks
from bulkhead.model_apis.responses_view import FREE_TEXT, named_tools
from bulkhead_contracts import bounds
from bulkhead_contracts.model import TEXT, AnswerPart
from bulkhead_contracts.result import Usage
from bulkhead_services.doors.forms import errors, sse
from bulkhead_services.doors.forms.block_order import BlockOrder
from bulkhead_services.doors.forms.chat_options import (
    CHOICES,
    EFFORTS,
    KEPT_HERE,
    check_function,
    check_tier,
    check_tool_count,
    refuse_unlisted,
    session_of,
)
from bulkhead_services.doors.forms.fields import Fields, unfit_field, unsupported_field
from bulkhead_services.doors.forms.openai_chat import marks_of, model_of
from bulkhead_services.doors.forms.strict_json import read_object
from bulkhead_services.doors.port import AnswerPiece, DoorRefusal, ModelCallAnswer, ParsedModelCall

_REFUSED = {
    "conversation": "conversations are not kept here; send previous_response_id, or the whole input each time",
    "prompt": "prompts are not kept here; send the whole input",
    "background": "a call is answered while its client waits",
    "max_tool_calls": "it bounds tools that the provider runs itself",
    "context_management": "nothing is cut from the input",
    "top_logprobs": "answers hold no log probabilities",
    "moderation": "answers hold no scores of the provider's moderation",
}
_WHOLE_TEXTS = {
    "custom_tool_call": ("custom_tool_call_input", "input"),
    "function_call": ("function_call_arguments", "arguments"),
}
"""Events that tell what an item says, and the field that holds it."""
_SUMMARIES = ("auto", "concise", "detailed")
_ECHOED = (
    "instructions",
    "temperature",
    "top_p",
    "max_output_tokens",
    "reasoning",
    "text",
    "user",
    "truncation",
    "previous_response_id",
)
_ROLES = ("user", "assistant", "system", "developer")
_NOT_KEPT = {"item_reference": "items are not kept here; send the item itself"}


class OpenAIResponseForm:
    """One request for a response, and its answer."""

    def __init__(self, value: object) -> None:
        body = Fields(value)
        model = model_of(body)
        body.refuse_fields(_REFUSED)
        _check_options(body)
        rows = items_of(body)
        stream = bool(body.get_flag("stream"))
        if of_stream := body.get_object("stream_options"):
            of_stream.refuse_fields({"include_obfuscation": "pieces are sent as they come"})
            of_stream.refuse_remaining("this option of a stream is not known here")
        most = body.get_integer("max_output_tokens", 1, bounds.MAX_ASKED_OUTPUT_TOKENS)
        previous = body.get_text("previous_response_id", bounds.MAX_SUMMARY_CHARS) or ""
        keep = body.get_flag("store") is not False
        body.get_raw("client_metadata")  # It tells a client's vendor of the client.
        passed = NATIVE_OPTIONS[RESPONSES]
        refuse_unlisted(body, (*passed, *KEPT_HERE))
        body_fields = body.as_dict()
        options = {name: body_fields[name] for name in body_fields if name in passed and body_fields[name] is not None}
        self.parsed_call = ParsedModelCall(
            model,
            rows,
            options,
            most,
            stream,
            True,
            session_of(body),
            previous=previous,
            keep=keep,
            api=RESPONSES,
            left_out=left_out_tools(RESPONSES, options),
        )
        self._echo = {name: body_fields[name] for name in _ECHOED if body_fields.get(name) is not None}
        self._tools, self._choice = body_fields.get("tools") or [], body_fields.get("tool_choice") or "auto"
        self._parallel, self._metadata = body_fields.get("parallel_tool_calls"), body_fields.get("metadata") or {}
        self._named_tools = _tools_by_flat_name(self._tools, rows)
        self._id, self._created, self._sequence = "", 0, 0
        self._items: list[_OutputItem] = []
        self._begun = Counter[str]()
        """Items of each kind."""
        self._order = BlockOrder()
        reasoning = body_fields.get("reasoning") or {}
        self._summarised = bool(reasoning.get("summary") or reasoning.get("generate_summary"))

    def render_answer(self, answer: ModelCallAnswer) -> dict[str, Any]:
        """A response."""
        output = native_blocks(answer.native)
        if not output:
            summed = self._summarised and answer.reasoning
            output = [_reasoning_item(answer.call_id, answer.reasoning)] if summed else []
            if answer.text or not answer.tool_calls:
                output.append(_message_item(f"msg_{answer.call_id}", answer.text))
            output += [self._call_item(call.id, call.name, call.arguments_json) for call in answer.tool_calls]
        return self._finished_response(
            answer, self._response_id(answer.call_id), answer.created_unix_ms // 1000, output
        )

    def _finished_response(
        self, answer: ModelCallAnswer, name: str, created: int, output: list[dict[str, Any]]
    ) -> dict[str, Any]:
        cut = answer.finish == "length"
        return self._response_body(
            name,
            created,
            "incomplete" if cut else "completed",
            model=answer.model,
            output=output,
            usage=_render_usage(answer.usage),
            incomplete_details={"reason": "max_output_tokens"} if cut else None,
            **marks_of(answer, self.parsed_call),
        )

    def render_start(self, call_id: str, now_unix_ms: int) -> bytes:
        """The response is begun."""
        self._id, self._created, self._sequence, self._items = call_id, now_unix_ms // 1000, 0, []
        self._order, self._begun = BlockOrder("text", "reasoning", "thinking"), Counter()
        begun = self._response_body(self._response_id(call_id), self._created, "in_progress")
        names = ("response.created", "response.in_progress")
        return b"".join(self._render_event(name, response=begun) for name in names)

    def render_piece(self, piece: AnswerPiece) -> bytes:
        """A piece of an item, which begins with its first one and ends where another begins."""
        part = piece.part
        if part.told_kind in ("signature", "redacted") or (
            part.told_kind in ("reasoning", "thinking") and not self._summarised
        ):
            return b""
        return b"".join(map(self._render_part_piece, self._order.add_piece(piece)))

    def _render_part_piece(self, piece: AnswerPiece) -> bytes:
        part, text = piece
        if self._items and self._items[-1].part == part:
            events, item = b"", self._items[-1]
        else:
            events, item = self._item_begins(part, text)
        item.pieces.append(text)
        if item.is_told_at_its_end:
            return events
        name = {"text": "output_text", "call": "function_call_arguments"}.get(part.told_kind, "reasoning_summary_text")
        extra_fields: dict[str, Any] = {"logprobs": []} if part == TEXT else {}
        return events + self._render_event(f"response.{name}.delta", **item.at, delta=text, **extra_fields)

    def render_end(self, answer: ModelCallAnswer) -> bytes:
        """The last item ends, then the whole response."""
        events = b"".join(map(self._render_part_piece, self._order.drain_waiting()))
        events += b"" if self._items else self._item_begins(TEXT, "")[0]
        events += self._item_ends(self._items[-1])
        output = [item.full_body() for item in self._items]
        response = self._finished_response(answer, self._response_id(self._id), self._created, output)
        return events + self._render_event(f"response.{response['status']}", response=response)

    def render_failure(self, refusal: DoorRefusal) -> bytes:
        """An error event. Its `error` is what SDKs raise; the fields beside it are the API's."""
        error = errors.openai_error(refusal)
        return self._render_event("error", code=error["code"], message=error["message"], param=None, error=error)

    def _response_id(self, call_id: str) -> str:
        """The response's id; one that is not kept goes by its call."""
        return self.parsed_call.kept_as or f"resp_{call_id}"

    def _response_body(self, name: str, created: int, status: str, **more: Any) -> dict[str, Any]:
        return {
            "id": name,
            "object": "response",
            "created_at": created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "model": self.parsed_call.model,
            "output": [],
            "parallel_tool_calls": True if self._parallel is None else self._parallel,
            "tool_choice": self._choice,
            "tools": self._tools,
            "metadata": self._metadata,
            "store": self.parsed_call.keep,
            "usage": None,
            **self._echo,
            **more,
        }

    def _render_event(self, kind: str, **more: Any) -> bytes:
        event = sse.named_event({"type": kind, **more, "sequence_number": self._sequence})
        self._sequence += 1
        return event

    def _item_begins(self, part: AnswerPart, text: str) -> tuple[bytes, "_OutputItem"]:
        """The last item ends, and another one begins. text: its first piece; of a block the whole."""
        events = self._item_ends(self._items[-1]) if self._items else b""
        begun = part.told_kind if part.told_kind in ("text", "call", "block") else "reasoning"
        before = self._begun[begun]
        self._begun[begun] += 1
        tool = self._named_tools.get(part.name) if part.told_kind == "call" else None
        item = _OutputItem(part, f"{self._id}_{before}" if before else self._id, len(self._items), text, tool)
        self._items.append(item)
        events += self._render_event("response.output_item.added", output_index=item.index, item=item.initial_body())
        if part.told_kind in ("call", "block"):
            return events, item
        kind = "content_part" if part == TEXT else "reasoning_summary_part"
        return events + self._render_event(f"response.{kind}.added", **item.at, part=item.content_part("")), item

    def _item_ends(self, item: "_OutputItem") -> bytes:
        text, item_body = item.joined_text, item.full_body()
        if item.is_told_at_its_end:
            done = self._tell_whole(item, item_body)
        elif item.part.told_kind == "call":
            done = self._render_event(
                "response.function_call_arguments.done", **item.at, name=item.part.name, arguments=text
            )
        elif item.part == TEXT:
            done = self._render_event("response.output_text.done", **item.at, text=text, logprobs=[])
            done += self._render_event("response.content_part.done", **item.at, part=item.content_part(text))
        else:
            done = self._tell_summary(item.at, text)
        return done + self._render_event("response.output_item.done", output_index=item.index, item=item_body)

    def _tell_summary(self, at: dict[str, Any], text: str) -> bytes:
        part = {"type": "summary_text", "text": text}
        done = self._render_event("response.reasoning_summary_text.done", **at, text=text)
        return done + self._render_event("response.reasoning_summary_part.done", **at, part=part)

    def _tell_whole(self, item: "_OutputItem", item_body: dict[str, Any]) -> bytes:
        """The events of an item that comes whole."""
        events = b""
        for name, (event, field) in _WHOLE_TEXTS.items():
            if item_body["type"] == name and isinstance(text := item_body.get(field), str):
                events += self._render_event(f"response.{event}.delta", **item.at, delta=text)
                events += self._render_event(f"response.{event}.done", **item.at, **{field: text})
        for place, part in enumerate(objects_in(item_body.get("summary"))):
            place_fields, text = item.at | {"summary_index": place}, str(part.get("text"))
            empty = {"type": "summary_text", "text": ""}
            events += self._render_event("response.reasoning_summary_part.added", **place_fields, part=empty)
            events += self._render_event("response.reasoning_summary_text.delta", **place_fields, delta=text)
            events += self._tell_summary(place_fields, text)
        return events

    def _call_item(self, call_id: str, name: str, arguments: str) -> dict[str, Any]:
        return _call_item(call_id, name, arguments, self._named_tools.get(name))


def _check_options(body: Fields) -> None:
    body.get_choice("truncation", ("disabled", "auto"))
    if body.get_raw("truncation") == "auto":
        raise unsupported_field("truncation", "nothing is cut from the input", "leave it out")
    for name in body.get_texts("include", bounds.MAX_PARTS) or ():
        if name not in INCLUDED:
            raise unsupported_field("include", f"answers hold no {name[: bounds.MAX_NAME_CHARS]}")
    body.get_text("instructions")
    body.get_number("temperature", 0, 2)
    body.get_number("top_p", 0, 1)
    body.get_flag("parallel_tool_calls")
    check_tier(body)
    named = _check_tools(check_tool_count(body))
    _check_choice(body, named)
    if text := body.get_object("text"):
        if (form := text.get_object("format")) and form.require_text("type") == "json_schema":
            form.require_text("name", bounds.MAX_NAME_CHARS)
            form.get_object("schema")
        text.get_choice("verbosity", ("low", "medium", "high"))
    if reasoning := body.get_object("reasoning"):
        reasoning.get_choice("effort", EFFORTS)
        for name in ("summary", "generate_summary"):
            reasoning.get_choice(name, _SUMMARIES)
        reasoning.get_text("context", bounds.MAX_NAME_CHARS)


def _check_tools(tools: list[Fields]) -> set[str]:
    """Names of the tools that can be chosen."""
    named: set[str] = set()
    for tool in tools:
        match tool.require_text("type"):
            case "function":
                function = {name: tool.get_raw(name) for name in ("name", "description", "strict", "parameters")}
                check_function(Fields(function, tool.at), named)
            case "custom":
                named.add(tool.require_text("name", bounds.MAX_NAME_CHARS))
            case "namespace":
                tool.require_text("name", bounds.MAX_NAME_CHARS)
                named |= _check_tools(tool.get_objects("tools", bounds.MAX_ASKED_TOOLS) or [])
            case kind:
                named.add(kind)
    return named


def _check_choice(body: Fields, named: set[str]) -> None:
    if not isinstance(body.get_raw("tool_choice"), dict):
        body.get_choice("tool_choice", CHOICES)
        return
    choice = body.require_object("tool_choice")
    if choice.require_text("type") in ("function", "custom") and choice.require_text("name") not in named:
        raise unfit_field(choice.field_path("name"), "is not among the tools")


def _tools_by_flat_name(tools: object, rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Tools that a provider of another API knows by a name of its own or as functions; each with its namespace."""
    lists = [tools, *(row.get("tools") for row in rows if row.get("type") == "additional_tools")]
    return {
        flat_tool_name(namespace, tool.get("name")): (namespace, tool)
        for named in lists
        for namespace, tool in named_tools(named)
        if namespace or tool.get("type") == "custom"
    }


class _OutputItem:
    """An item of the output of a stream.

    name: what its id is made of; a call has its own. at: where its pieces belong. is_told_at_its_end: it comes whole.
    first_text: of a block the whole. tool: of a call, its tool and namespace where its name is not the tool's.
    """

    def __init__(
        self, part: AnswerPart, name: str, index: int, first_text: str, tool: tuple[str, Mapping[str, Any]] | None
    ) -> None:
        self.part, self._name, self.index, self._tool = part, name, index, tool
        self.pieces: list[str] = []
        self._block: dict[str, Any] = dict(read_object(first_text.encode())) if part.told_kind == "block" else {}
        self.is_told_at_its_end = part.told_kind == "block" or tool is not None
        self.at: dict[str, Any] = {"item_id": self.full_body().get("id"), "output_index": index}
        if part.told_kind not in ("call", "block"):
            self.at["content_index" if part == TEXT else "summary_index"] = 0

    @property
    def joined_text(self) -> str:
        """Text that came of it."""
        return "".join(self.pieces)

    def content_part(self, text: str) -> dict[str, Any]:
        """Its part, with so much text."""
        return _text_part(text) if self.part == TEXT else {"type": "summary_text", "text": text}

    def initial_body(self) -> dict[str, Any]:
        """The item at its beginning."""
        body = self.full_body()
        empty = {"arguments": "", "input": "", "content": [], "summary": []}
        begun = {name: value for name, value in empty.items() if name in body and body[name] is not None}
        return body | begun | ({"status": "in_progress"} if "status" in body else {})

    def full_body(self) -> dict[str, Any]:
        """The item with all that came of it."""
        match self.part.told_kind:
            case "block":
                return self._block
            case "call":
                return _call_item(self.part.id, self.part.name, self.joined_text, self._tool)
            case "text":
                return _message_item(f"msg_{self._name}", self.joined_text)
            case _:
                return _reasoning_item(self._name, self.joined_text)


def _message_item(item_id: str, text: str) -> dict[str, Any]:
    item = {"id": item_id, "type": "message", "status": "completed", "role": "assistant"}
    return item | {"content": [_text_part(text)]}


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _reasoning_item(call_id: str, text: str) -> dict[str, Any]:
    return {"id": f"rs_{call_id}", "type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}


def _call_item(call_id: str, name: str, arguments: str, tool: tuple[str, Mapping[str, Any]] | None) -> dict[str, Any]:
    namespace, fields = tool or ("", {})
    item = {"status": "completed", "call_id": call_id, "name": fields.get("name", name)}
    item |= {"namespace": namespace} if namespace else {}
    if fields.get("type") != "custom":
        return {"id": f"fc_{call_id}", "type": "function_call", **item, "arguments": arguments}
    try:
        text = read_object(arguments.encode()).get(FREE_TEXT)
    except DoorRefusal:
        text = None  # The model has not kept to the schema, or is cut off.
    return {
        "id": f"ctc_{call_id}",
        "type": "custom_tool_call",
        **item,
        "input": text if isinstance(text, str) else arguments,
    }


def _render_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def items_of(body: Fields) -> tuple[dict[str, Any], ...]:
    """The input, item by item."""
    sent_input = body.get_raw("input")
    if isinstance(sent_input, str):
        return ({"type": "message", "role": "user", "content": sent_input},)
    rows = body.get_objects("input", bounds.MAX_CONVERSATION_ROWS)
    if not rows:
        raise unfit_field("input", "is missing" if rows is None else "is empty")
    for row in rows:
        _check_item(row)
    return tuple(row.as_dict() for row in rows)


def _check_item(row: Fields) -> None:
    match row.get_text("type", bounds.MAX_SUMMARY_CHARS) or "message":
        case kind if kind in _NOT_KEPT:
            raise unsupported_field(row.field_path("type"), _NOT_KEPT[kind])
        case "message":
            if row.get_choice("role", _ROLES) is None:
                raise unfit_field(row.field_path("role"), f"is missing; it is one of {', '.join(_ROLES)}")
            _check_content(row, "content")
        case "function_call":
            row.require_text("name", bounds.MAX_SUMMARY_CHARS)
            row.require_any_text("arguments")
            _require_call_id(row)
        case "custom_tool_call":
            row.require_text("name", bounds.MAX_SUMMARY_CHARS)
            row.require_any_text("input")
            _require_call_id(row)
        case "function_call_output" | "custom_tool_call_output":
            _require_call_id(row)
            _check_content(row, "output")
        case "additional_tools":
            _check_tools(row.get_objects("tools", bounds.MAX_ASKED_TOOLS) or [])
        case _:
            pass  # The model gateway knows which kinds are passed on, and names those that are not.


def _check_content(row: Fields, name: str) -> None:
    if not isinstance(row.get_raw(name), list):
        row.require_any_text(name)
        return
    for part in row.get_objects(name, bounds.MAX_PARTS) or ():
        if part.require_text("type") in ("input_text", "output_text", "text"):
            part.require_any_text("text")


def _require_call_id(row: Fields) -> None:
    row.require_text("call_id", bounds.MAX_SUMMARY_CHARS)
