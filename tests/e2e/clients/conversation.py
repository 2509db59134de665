"""What a client of the mesh made a provider see, whichever of three APIs it came by.

In: the body of a request of Anthropic's messages, OpenAI's chat completions or OpenAI's responses. Out: one
`SeenRequest`, the same for all three. Raises Malformed: a real provider would refuse it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

Api = Literal["anthropic", "openai-chat", "openai-responses"]
Kind = Literal["system", "user", "assistant", "call", "result"]


class Malformed(Exception):
    """A request that a real provider would refuse, with its reason."""


@dataclass(frozen=True)
class Item:
    """One thing that was said. id: of a call, and of the call that a result answers. images: as they were sent."""

    kind: Kind
    text: str = ""
    id: str = ""
    name: str = ""
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class SeenRequest:
    """One request that reached the provider. tools: names that were offered."""

    api: Api
    body: Mapping[str, Any] = field(repr=False)
    items: tuple[Item, ...]
    tools: tuple[str, ...]

    @property
    def results(self) -> list[str]:
        """Texts of all results of tools, oldest first."""
        return [item.text for item in self.items if item.kind == "result"]

    @property
    def images(self) -> list[str]:
        """All images, of people and of tools, oldest first."""
        return [image for item in self.items for image in item.images]

    def turns_since(self, marker: str) -> int | None:
        """How often the model has spoken since a person last wrote the marker; None: nobody did."""
        asked = [index for index, item in enumerate(self.items) if item.kind == "user" and marker in item.text]
        if not asked:
            return None
        spoken = [item.kind in ("assistant", "call") for item in self.items[asked[-1] :]]
        return sum(now and not before for before, now in pairwise(spoken))


def read_request(api: Api, body: Mapping[str, Any]) -> SeenRequest:
    """See the module."""
    items = tuple({"anthropic": _messages, "openai-chat": _chat, "openai-responses": _responses}[api](body))
    if not items:
        raise Malformed("there is nothing to answer")
    calls = [item.id for item in items if item.kind == "call"]
    results = [item.id for item in items if item.kind == "result"]
    if sorted(calls) != sorted(results):
        raise Malformed(f"calls {calls} are answered by results {results}")
    return SeenRequest(api, body, items, tuple(_tool_names(body.get("tools") or ())))


def _tool_names(tools: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for tool in tools:
        yield str(tool.get("name") or tool.get("function", {}).get("name") or tool.get("type"))
        yield from _tool_names(tool.get("tools", ()))


def _chat(body: Mapping[str, Any]) -> Iterator[Item]:
    for message in body["messages"]:
        role, (text, images) = message["role"], _content(message.get("content"))
        match role:
            case "system" | "developer":
                yield Item("system", text)
            case "user":
                yield Item("user", text, images=images)
            case "tool":
                yield Item("result", text, message["tool_call_id"], images=images)
            case "assistant":
                if text:
                    yield Item("assistant", text)
                for call in message.get("tool_calls") or ():
                    yield Item("call", call["function"]["arguments"], call["id"], call["function"]["name"])
            case _:
                raise Malformed(f"there is no role {role!r}")


def _messages(body: Mapping[str, Any]) -> Iterator[Item]:
    if "max_tokens" not in body:
        raise Malformed("max_tokens is missing")
    if system := _content(body.get("system"))[0]:
        yield Item("system", system)
    for message in body["messages"]:
        content = message["content"]
        rows = [{"type": "text", "text": content}] if isinstance(content, str) else content
        words: list[Mapping[str, Any]] = []
        for block in rows:
            match block["type"]:
                case "tool_use":
                    yield Item("call", str(block["input"]), block["id"], block["name"])
                case "tool_result":
                    text, images = _content(block.get("content"))
                    yield Item("result", text, block["tool_use_id"], images=images)
                case _:
                    words.append(block)
        text, images = _content(words)
        if text or images:
            kind: Kind = message["role"]
            yield Item(kind, text, images=images)


def _responses(body: Mapping[str, Any]) -> Iterator[Item]:
    if body.get("instructions"):
        yield Item("system", body["instructions"])
    given = body["input"]
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
        match item.get("type", "message"):
            case "message":
                text, images = _content(item["content"])
                said_by: dict[str, Kind] = {"developer": "system", "system": "system", "assistant": "assistant"}
                yield Item(said_by.get(item["role"], "user"), text, images=images)
            case "function_call" | "custom_tool_call":
                yield Item("call", str(item.get("arguments", item.get("input"))), item["call_id"], item["name"])
            case "function_call_output" | "custom_tool_call_output":
                text, images = _content(item["output"])
                yield Item("result", text, item["call_id"], images=images)
            case _:
                pass  # Reasoning, and what a provider runs itself: no words of anybody.


def _content(value: Any) -> tuple[str, tuple[str, ...]]:
    """Text and images of a content: a text, or parts as one of the APIs has them."""
    if value is None or isinstance(value, str):
        return value or "", ()
    texts, images = [], []
    for part in value:
        match part["type"]:
            case "text" | "input_text" | "output_text":
                texts.append(part["text"])
            case "image_url":
                images.append(part["image_url"]["url"])
            case "input_image":
                images.append(part["image_url"])
            case "image":
                source = part["source"]
                images.append(source.get("url") or f"data:{source['media_type']};base64,{source['data']}")
            case _:
                pass  # Thoughts, documents: the test that sends them looks into the body.
    return "\n".join(texts), tuple(images)
