"""Parts of a remote agent's answer as text, bounded while they come.

Enters: parts, one after another. Leaves: what they say, and what of them was left out. Each part is looked at once, and
no more is kept than an answer may hold: an agent may send hundreds of thousands.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from a2a.types import Part
from google.protobuf.json_format import MessageToDict

from bulkhead.tools.mcp_pins import clean_line
from bulkhead_contracts import bounds


@dataclass(slots=True)
class PartsText:
    """Text of the parts of one artifact or message. cut: not all of it was kept."""

    name: str = ""
    omitted: list[str] = field(default_factory=list)
    cut: bool = False
    _lines: list[list[str]] = field(default_factory=list)
    _chars: int = 0
    _parts: int = 0
    _adjoins: bool = False

    @classmethod
    def from_parts(cls, parts: Iterable[Part], name: str = "") -> "PartsText":
        """The words of these parts."""
        parts_text = cls(name)
        parts_text.append_parts(parts)
        return parts_text

    def append_parts(self, parts: Iterable[Part]) -> None:
        """More parts. Adjoining texts are one, as agents stream it and a whole task tells it."""
        for part in parts:
            if self._parts >= bounds.MAX_AGENT_PARTS or self._chars >= bounds.MAX_TOOL_OUTPUT_BYTES:
                self.cut = True
                return
            self._parts += 1
            kind = part.WhichOneof("content")
            if kind == "text":
                self._append_text(part.text, self._adjoins)
            elif kind == "data":
                self._append_text(json.dumps(MessageToDict(part.data), ensure_ascii=False))
            elif kind == "raw" and _is_text(part):
                self._append_text(part.raw.decode("utf-8", "replace"))
            elif kind == "raw":
                self._note_omission(f"a file {_file_label(part)}, {len(part.raw)} bytes")
            elif kind == "url":
                self._note_omission(
                    f"a link to the file {_file_label(part)}: {clean_line(part.url, bounds.MAX_PHRASE_CHARS)}"
                )
            self._adjoins = kind == "text"

    def render_text(self) -> str:
        """Text of all parts, one under another."""
        return "\n".join(filter(None, map("".join, self._lines))).strip()

    def _append_text(self, text: str, adjoins: bool = False) -> None:
        room = bounds.MAX_TOOL_OUTPUT_BYTES - self._chars
        self.cut = self.cut or len(text) > room
        self._chars += len(text)
        if not adjoins:
            self._lines.append([])
        self._lines[-1].append(text[:room])

    def _note_omission(self, what: str) -> None:
        if len(self.omitted) < bounds.MAX_OMISSIONS:
            self.omitted.append(what)


def _is_text(part: Part) -> bool:
    media = part.media_type.partition(";")[0].strip().lower()
    return media.startswith("text/") or media == "application/json"


def _file_label(part: Part) -> str:
    return f"{clean_line(part.filename, 64) or 'without a name'} ({clean_line(part.media_type, 64) or 'unknown'})"
