"""A call in OpenAI's chat form, as it is shown to a provider of another API and to the watcher. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bulkhead.model_apis.gaps import Gap

NO_WORD = "the API of the provider that answers has no word for it"


@dataclass(slots=True)
class ChatView:
    """Messages and options; gaps: what they do not say; tools: by name, until `close` writes them into the options. It
    never fails: what is malformed reads as empty."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    tools: dict[str, dict[str, Any]] = field(default_factory=dict)

    def gap(self, what: str, why: str = NO_WORD) -> str:
        """Note a gap, and return the words for its place."""
        self.gaps.append(Gap(what[:64], why))
        return self.gaps[-1].text

    def add_call(self, call_id: object, name: object, arguments: str, namespace: object = None) -> None:
        """Add a tool call to the assistant's message, which is begun where none is the last one."""
        function = {"name": flat_tool_name(namespace, name), "arguments": arguments}
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": None})
        row = {"id": str(call_id), "type": "function", "function": function}
        self.messages[-1].setdefault("tool_calls", []).append(row)

    def add_tool(self, name: str, tool: Mapping[str, Any], schema: object) -> None:
        """Add a function, once. tool: its description, and whether it is strict."""
        if name not in self.tools:
            function: dict[str, Any] = {"name": name, "parameters": schema if isinstance(schema, dict) else {}}
            function |= {key: tool[key] for key in ("description", "strict") if tool.get(key) is not None}
            self.tools[name] = {"type": "function", "function": function}

    def remove_tool(self, name: str) -> None:
        """Take a function away, unless it is the last one: providers refuse calls in a history without tools."""
        if len(self.tools) > 1:
            self.tools.pop(name, None)

    def close(self) -> "ChatView":
        """The same view, with its tools among the options."""
        if self.tools:
            self.options = {"tools": list(self.tools.values()), **self.options}
        return self


def flat_tool_name(namespace: object, name: object) -> str:
    """The name of a tool of a namespace where there are none."""
    return f"{namespace}__{name}" if namespace else str(name)


def content_of(parts: Sequence[dict[str, Any]]) -> Any:
    """One text alone is a message's content by itself."""
    if len(parts) == 1 and parts[0].get("type") == "text":
        return parts[0]["text"]
    return list(parts)


def objects_in(value: object) -> list[dict[str, Any]]:
    """The objects of a list."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def fields_of(value: object) -> Mapping[str, Any]:
    """An object, or an empty one."""
    return value if isinstance(value, dict) else {}


def text_in(value: object) -> str:
    """A string; "" of anything else."""
    return value if isinstance(value, str) else ""


def add_tool_result(view: ChatView, call_id: object, text: str, media: list[dict[str, Any]]) -> None:
    """Add a tool's result. Its images go into the user's message that follows: there a result is text alone."""
    if media:
        text = f"{text}\n[its images and documents stand in the next message]".strip()
    view.messages.append({"role": "tool", "tool_call_id": str(call_id), "content": text})


def file_part(data: str, media_type: str, name: object) -> dict[str, Any]:
    """A document in the chat form. data: Base64, or a data URL."""
    url = data if data.startswith("data:") else f"data:{media_type};base64,{data}"
    return {"type": "file", "file": {"file_data": url, "filename": text_in(name) or "document.pdf"}}
