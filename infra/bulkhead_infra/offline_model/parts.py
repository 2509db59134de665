"""The prompt format agreed with the model gateway. Enters: chat messages. Leaves: parts and tool history.

A part is `[[part kind=K id=H name="value" ...]]`, its text, `[[/part H]]`; H is the first 12 hex of sha256 of
the text, so a text cannot close its own part: a nested opening line is content and nothing else.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

OPENING = re.compile(r"^\[\[part ([^\]\n]*)\]\][ \t]*\r?\n", re.M)
ATTRIBUTE = re.compile(r'([a-z_]+)=(?:"((?:[^"\\]|\\.)*)"|(\S+))')


def short_digest(text: str) -> str:
    """First 12 hex digits of sha256: the id of a part and of a tool result."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


@dataclass(frozen=True)
class Part:
    """One labelled piece of a prompt."""

    kind: str
    id: str
    text: str
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def source(self) -> str:
        return self.attributes.get("source") or self.attributes.get("title") or ""


def parse_parts(text: str) -> list[Part]:
    """Parts of one text, in order; text outside every part is left out."""
    parts: list[Part] = []
    at = 0
    while opening := OPENING.search(text, at):
        named = {key: quoted or bare for key, quoted, bare in ATTRIBUTE.findall(opening.group(1))}
        content, at = _content_of(text, opening.end(), named.get("id", ""))
        parts.append(Part(named.pop("kind", "context"), named.pop("id", short_digest(content)), content, named))
    return parts


def _content_of(text: str, start: int, part_id: str) -> tuple[str, int]:
    """The text of a part and where it ends: at the closing line whose digest fits, else at the first one."""
    closing = f"[[/part {part_id}]]"
    first = end = text.find(closing, start)
    if first < 0:
        return text[start:].rstrip("\n"), len(text)
    while end >= 0:
        content = text[start:end].removesuffix("\n")
        if short_digest(content) == part_id:
            return content, end + len(closing)
        end = text.find(closing, end + 1)
    return text[start:first].removesuffix("\n"), first + len(closing)


@dataclass(frozen=True)
class ToolUse:
    """One tool call of this conversation with its result; `id` is what an answer cites."""

    name: str
    arguments: Mapping[str, Any]
    result: str
    answered: bool
    id: str

    @property
    def error_code(self) -> str:
        """The `code` of a structured error result, or an empty string."""
        try:
            body = json.loads(self.result) if self.result.lstrip().startswith("{") else None
        except ValueError:
            return ""
        error = body.get("error") if isinstance(body, dict) else None
        return str(error.get("code", "error")) if isinstance(error, dict) else ""


@dataclass(frozen=True)
class Prompt:
    """A whole request, split by the role of its pieces; `loose` is the user's text when it holds no parts.
    `instruction` is the text of its system messages outside every part."""

    parts: tuple[Part, ...]
    tool_uses: tuple[ToolUse, ...]
    loose: str
    instruction: str = ""

    def of(self, *kinds: str) -> list[Part]:
        return [part for part in self.parts if part.kind in kinds]

    def text(self, *kinds: str) -> str:
        return "\n".join(part.text for part in self.of(*kinds))

    @property
    def objective(self) -> str:
        return self.text("objective") or self.loose or self.text("context")


def message_text(message: Mapping[str, Any]) -> str:
    """Text of a message whose content is a string, a list of text parts, or null."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(item.get("text", "")) for item in content if isinstance(item, dict))
    return content if isinstance(content, str) else ""


def read_prompt(messages: Sequence[Mapping[str, Any]]) -> Prompt:
    """The prompt of a request."""
    parts: list[Part] = []
    loose: list[str] = []
    instructions: list[str] = []
    for message in messages:
        if message.get("role") not in ("system", "developer", "user"):
            continue
        inner = parse_parts(message_text(message))
        parts.extend(inner)
        if not inner:
            (loose if message.get("role") == "user" else instructions).append(message_text(message))
    return Prompt(tuple(parts), tuple(_tool_uses(messages)), "\n".join(loose), "\n".join(instructions))


def _tool_uses(messages: Sequence[Mapping[str, Any]]) -> Iterable[ToolUse]:
    results = {str(m.get("tool_call_id")): message_text(m) for m in messages if m.get("role") == "tool"}
    for message in messages:
        for call in message.get("tool_calls") or () if message.get("role") == "assistant" else ():
            function = call.get("function") or {}
            try:
                arguments = json.loads(function.get("arguments") or "{}")
            except ValueError:
                arguments = {}
            result = results.get(str(call.get("id")), "")
            held = [part for part in parse_parts(result) if part.kind != "passage"]
            yield ToolUse(
                str(function.get("name", "")),
                arguments if isinstance(arguments, dict) else {},
                "\n".join(part.text for part in held) or result,
                str(call.get("id")) in results,
                held[0].id if held else short_digest(result),
            )
