"""OpenAI's responses, translated to the chat form and back. Pure.

In: the body of a request. Out: what is asked in the chat form; then the answer as a response or as its events.
"""

from collections import Counter
from typing import Any

from bulkhead_contracts import bounds
from bulkhead_contracts.model import TEXT, AnswerPart
from bulkhead_contracts.result import Usage
from bulkhead_services.doors.forms import errors, sse
from bulkhead_services.doors.forms.block_order import BlockOrder
from bulkhead_services.doors.forms.chat_options import KEPT_HERE, options_of, refuse_unlisted, session_of
from bulkhead_services.doors.forms.fields import Fields, refuse_unknown_kind, unfit_field, unsupported_field
from bulkhead_services.doors.forms.openai_chat import degraded_field, model_of
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
_NOTHING_TO_ADD = ("reasoning.encrypted_content",)
_OTHER_NAMES = {
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    ".function": "",
}
"""Names of the chat form, by which options are checked, and those of this API."""
_LISTED = (*KEPT_HERE, "temperature", "top_p", "parallel_tool_calls", "service_tier")
"""Fields that both forms have under the same name."""
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
_ITEMS = ("message", "function_call", "function_call_output", "reasoning")
_NOT_KEPT = {"item_reference": "items are not kept here; send the item itself"}


class OpenAIResponseForm:
    """One request for a response, and its answer."""

    def __init__(self, value: object) -> None:
        body = Fields(value)
        model = model_of(body)
        body.refuse_fields(_REFUSED)
        _check_kept(body)
        chat = _chat_options(body)
        messages = messages_of(body)
        stream = bool(body.get_flag("stream"))
        if of_stream := body.get_object("stream_options"):
            of_stream.refuse_fields({"include_obfuscation": "pieces are sent as they come"})
            of_stream.refuse_remaining("this option of a stream is not known here")
        most = body.get_integer("max_output_tokens", 1, bounds.MAX_ASKED_OUTPUT_TOKENS)
        previous = body.get_text("previous_response_id", bounds.MAX_SUMMARY_CHARS) or ""
        keep = body.get_flag("store") is not False
        # `tools` and the like are translated; of the rest, names are the same in both forms.
        body.get_raw("client_metadata")  # It tells a client's vendor of the client.
        refuse_unlisted(body, _LISTED)
        try:
            options = options_of(Fields(body.remaining_fields() | chat), most)
        except DoorRefusal as refusal:
            raise _with_api_names(refusal) from refusal
        self.parsed_call = ParsedModelCall(
            model,
            messages,
            options,
            most,
            stream,
            True,
            session_of(body),
            previous=previous,
            keep=keep,
            instructed=bool(body.get_raw("instructions")),
        )
        self._echo = {name: body.as_dict()[name] for name in _ECHOED if body.as_dict().get(name) is not None}
        self._tools, self._choice = body.as_dict().get("tools") or [], body.as_dict().get("tool_choice") or "auto"
        self._parallel = body.as_dict().get("parallel_tool_calls")
        self._metadata = body.as_dict().get("metadata") or {}
        self._id, self._created, self._sequence = "", 0, 0
        self._items: list[_OutputItem] = []
        self._begun = Counter[str]()
        """Items of each kind."""
        self._order = BlockOrder()
        self._summarised = "reasoning_summary" in chat

    def render_answer(self, answer: ModelCallAnswer) -> dict[str, Any]:
        """A response."""
        summed = self._summarised and answer.reasoning
        output = [_reasoning_item(answer.call_id, answer.reasoning)] if summed else []
        if answer.text or not answer.tool_calls:
            output.append(_message_item(f"msg_{answer.call_id}", answer.text))
        output += [_function_call(call.id, call.name, call.arguments_json) for call in answer.tool_calls]
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
            **degraded_field(answer),
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
        if part.kind in ("signature", "redacted") or (part.kind in ("reasoning", "thinking") and not self._summarised):
            return b""
        return b"".join(map(self._render_part_piece, self._order.add_piece(piece)))

    def _render_part_piece(self, piece: AnswerPiece) -> bytes:
        part, text = piece
        if self._items and self._items[-1].part == part:
            events, item = b"", self._items[-1]
        else:
            events, item = self._item_begins(part)
        item.pieces.append(text)
        name = {"text": "output_text", "call": "function_call_arguments"}.get(part.kind, "reasoning_summary_text")
        extra_fields: dict[str, Any] = {"logprobs": []} if part == TEXT else {}
        return events + self._render_event(f"response.{name}.delta", **item.at, delta=text, **extra_fields)

    def render_end(self, answer: ModelCallAnswer) -> bytes:
        """The last item ends, then the whole response."""
        events = b"".join(map(self._render_part_piece, self._order.drain_waiting()))
        events += b"" if self._items else self._item_begins(TEXT)[0]
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

    def _item_begins(self, part: AnswerPart) -> tuple[bytes, "_OutputItem"]:
        """The last item ends, and another one begins."""
        events = self._item_ends(self._items[-1]) if self._items else b""
        begun = part.kind if part.kind in ("text", "call") else "reasoning"
        before = self._begun[begun]
        self._begun[begun] += 1
        item = _OutputItem(part, f"{self._id}_{before}" if before else self._id, len(self._items))
        self._items.append(item)
        events += self._render_event("response.output_item.added", output_index=item.index, item=item.initial_body())
        if part.kind == "call":
            return events, item
        kind = "content_part" if part == TEXT else "reasoning_summary_part"
        return events + self._render_event(f"response.{kind}.added", **item.at, part=item.content_part("")), item

    def _item_ends(self, item: "_OutputItem") -> bytes:
        text, item_body = item.joined_text, item.full_body()
        if item.part.kind == "call":
            done = self._render_event(
                "response.function_call_arguments.done", **item.at, name=item.part.name, arguments=text
            )
        elif item.part == TEXT:
            done = self._render_event("response.output_text.done", **item.at, text=text, logprobs=[])
            done += self._render_event("response.content_part.done", **item.at, part=item.content_part(text))
        else:
            done = self._render_event("response.reasoning_summary_text.done", **item.at, text=text)
            done += self._render_event("response.reasoning_summary_part.done", **item.at, part=item.content_part(text))
        return done + self._render_event("response.output_item.done", output_index=item.index, item=item_body)


def _with_api_names(refusal: DoorRefusal) -> DoorRefusal:
    """The same refusal, with the name that the field has in this API."""
    field = refusal.field
    for chat_name, api_name in _OTHER_NAMES.items():
        field = field.replace(chat_name, api_name)
    message = refusal.message.replace(refusal.field, field, 1)
    return DoorRefusal(refusal.status, refusal.code, message, refusal.hint, field=field)


def _check_kept(body: Fields) -> None:
    """Fields that ask for nothing which is not so anyway."""
    body.get_choice("truncation", ("disabled", "auto"))
    if body.get_raw("truncation") == "auto":
        raise unsupported_field("truncation", "nothing is cut from the input", "leave it out")
    for name in body.get_texts("include", bounds.MAX_PARTS) or ():
        if name not in _NOTHING_TO_ADD:
            raise unsupported_field("include", f"answers hold no {name[: bounds.MAX_NAME_CHARS]}")


def _chat_options(body: Fields) -> dict[str, Any]:
    """Options whose form differs."""
    chat: dict[str, Any] = {}
    if tools := _chat_tools(body):
        chat["tools"] = tools
    choice = body.get_raw("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "function":
        chat["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    elif choice is not None:
        chat["tool_choice"] = choice
    if text := body.get_object("text"):
        if form := text.get_object("format"):
            chat["response_format"] = _response_format(form)
        if verbosity := text.get_choice("verbosity", ("low", "medium", "high")):
            chat["verbosity"] = verbosity
        text.refuse_remaining("this field has no counterpart in a chat completion")
    if reasoning := body.get_object("reasoning"):
        if effort := reasoning.get_text("effort"):
            chat["reasoning_effort"] = effort
        for name in ("summary", "generate_summary"):
            if summary := reasoning.get_choice(name, _SUMMARIES):
                chat["reasoning_summary"] = summary
        reasoning.refuse_remaining("this field has no counterpart in a chat completion")
    return chat


def _chat_tools(body: Fields) -> list[dict[str, Any]]:
    tools = []
    for tool in body.get_objects("tools", bounds.MAX_ASKED_TOOLS) or ():
        kind = tool.require_text("type")
        if kind != "function":
            problem = f"{kind[: bounds.MAX_NAME_CHARS]} is a tool that the provider runs itself"
            raise unsupported_field(tool.field_path("type"), problem, "send functions, which the agent runs")
        function = tool.remaining_fields()
        tools.append({"type": "function", "function": function})
    return tools


def _response_format(form: Fields) -> dict[str, Any]:
    kind = form.require_text("type")
    return {"type": kind, "json_schema": form.remaining_fields()} if kind == "json_schema" else form.as_dict()


class _OutputItem:
    """An item of the output of a stream.

    name: what its id is made of; a call has its own. at: where its pieces belong.
    """

    def __init__(self, part: AnswerPart, name: str, index: int) -> None:
        self.part, self._name, self.index = part, name, index
        self.pieces: list[str] = []
        self.at: dict[str, Any] = {"item_id": self.full_body()["id"], "output_index": index}
        if part.kind != "call":
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
        match self.part.kind:
            case "call":
                return self.full_body() | {"status": "in_progress", "arguments": ""}
            case "text":
                return self.full_body() | {"status": "in_progress", "content": []}
            case _:
                return self.full_body() | {"summary": []}

    def full_body(self) -> dict[str, Any]:
        """The item with all that came of it."""
        match self.part.kind:
            case "call":
                return _function_call(self.part.id, self.part.name, self.joined_text)
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


def _function_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    item = {"id": f"fc_{call_id}", "type": "function_call", "status": "completed", "call_id": call_id}
    return item | {"name": name, "arguments": arguments}


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


def messages_of(body: Fields) -> tuple[dict[str, Any], ...]:
    """Instructions and input."""
    messages: list[dict[str, Any]] = []
    if instructions := body.get_text("instructions"):
        messages.append({"role": "system", "content": instructions})
    sent_input = body.get_raw("input")
    if isinstance(sent_input, str):
        messages.append({"role": "user", "content": sent_input})
    else:
        rows = body.get_objects("input", bounds.MAX_CONVERSATION)
        if not rows:
            raise unfit_field("input", "is missing" if rows is None else "is empty")
        for row in rows:
            _add_item(messages, row)
    if len(messages) > bounds.MAX_CONVERSATION:
        raise unfit_field("input", f"must have at most {bounds.MAX_CONVERSATION} items, instructions counted")
    return tuple(messages)


def _add_item(messages: list[dict[str, Any]], row: Fields) -> None:
    kind = row.get_text("type") or "message"
    if kind in _NOT_KEPT:
        raise unsupported_field(row.field_path("type"), _NOT_KEPT[kind])
    match kind:
        case "message":
            messages.append(_read_message(row))
        case "reasoning":
            pass  # An echo of an earlier answer, which clients send back with it: no model is told its summary again.
        case "function_call":
            function = {
                "name": row.require_text("name", bounds.MAX_SUMMARY_CHARS),
                "arguments": row.require_any_text("arguments"),
            }
            call = {"id": _call_id(row), "type": "function", "function": function}
            # Text and calls of one turn are one message there, and items of their own here.
            if messages and messages[-1]["role"] == "assistant":
                messages[-1].setdefault("tool_calls", []).append(call)
            else:
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        case "function_call_output":
            output = row.get_raw("output")
            content = _content_parts(row, "output") if isinstance(output, list) else row.require_any_text("output")
            messages.append({"role": "tool", "tool_call_id": _call_id(row), "content": content})
        case _:
            refuse_unknown_kind(row, "type", _ITEMS)


def _read_message(row: Fields) -> dict[str, Any]:
    role = row.get_choice("role", _ROLES)
    if role is None:
        raise unfit_field(row.field_path("role"), f"is missing; it is one of {', '.join(_ROLES)}")
    content = row.get_raw("content")
    if isinstance(content, list):
        parts = _content_parts(row, "content")
        joined = "".join(part["text"] for part in parts) if all(part["type"] == "text" for part in parts) else None
        is_text = joined is not None and (role == "assistant" or len(parts) == 1)
        return {"role": "system" if role == "developer" else role, "content": joined if is_text else parts}
    return {"role": "system" if role == "developer" else role, "content": row.require_any_text("content")}


def _content_parts(row: Fields, name: str) -> list[dict[str, Any]]:
    return [_content_part(part) for part in row.get_objects(name, bounds.MAX_PARTS) or ()]


def _content_part(part: Fields) -> dict[str, Any]:
    match part.require_text("type"):
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": part.require_any_text("text")}
        case "refusal":
            return {"type": "text", "text": part.require_any_text("refusal")}
        case "input_image":
            part.refuse_fields({"file_id": "files are not kept here; send the image as a data URL"})
            image: dict[str, Any] = {"url": part.require_text("image_url")}
            if detail := part.get_text("detail"):
                image["detail"] = detail
            return {"type": "image_url", "image_url": image}
        case "input_file":
            part.refuse_fields({"file_id": "files are not kept here", "file_url": "files are not fetched here"})
            file = {"file_data": part.require_text("file_data"), "filename": part.get_text("filename") or "file"}
            return {"type": "file", "file": file}
        case _:
            refuse_unknown_kind(part, "type", ("input_text", "input_image", "input_file"))


def _call_id(row: Fields) -> str:
    return row.require_text("call_id", bounds.MAX_SUMMARY_CHARS)
