"""Texts in frames: JSON indented, its parts in colours; all else as prose.

In: text from outside. Out: markup in which all of it is escaped.
"""

import json
import re
from typing import Any

from markupsafe import Markup, escape

from bulkhead.text.plain_text import escape_controls

MAX_COLOURED_CHARS = 100_000
"""A document that is longer, or would be once indented, is shown as it stands."""
TOKENS = re.compile(
    r'(?P<name>"(?:[^"\\]|\\.)*")(?=:)|(?P<string>"(?:[^"\\]|\\.)*")|(?P<value>-?\b\d[\d.eE+-]*|\b(?:true|false|null)\b)'
)
SPANS = {kind: Markup('<span class="{}">').format(kind) for kind in TOKENS.groupindex}
SPAN_END = Markup("</span>")


def indent_json(text: str) -> str:
    """JSON over lines, for eyes; as it stands where it is none, or would be too long: depth multiplies the indent."""
    pieces, size = list[str](), 0
    try:
        document: Any = json.loads(text)
        for piece in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(document):
            size += len(piece)
            if size >= MAX_COLOURED_CHARS:
                return text
            pieces.append(piece)
    except (ValueError, RecursionError):
        return text
    return "".join(pieces)


def render_block(text: str, label: str = "") -> Markup:
    """A text in its frame. label: its name for who does not see it, where no heading stands above it."""
    is_short = text.lstrip()[:1] in ("{", "[") and len(text) < MAX_COLOURED_CHARS
    indented = indent_json(text) if is_short else text
    is_json = indented is not text
    body = _colour_json(escape_controls(indented)) if is_json else escape(escape_controls(text))
    region = Markup(' role="region" aria-label="{}"').format(label) if label else Markup()
    return Markup('<pre class="{}" tabindex="0"{}>{}</pre>').format("json" if is_json else "prose", region, body)


def _colour_json(text: str) -> Markup:
    pieces, end = list[str](), 0
    for match in TOKENS.finditer(text):
        pieces += [escape(text[end : match.start()]), SPANS[match.lastgroup or ""], escape(match[0]), SPAN_END]
        end = match.end()
    return Markup().join([*pieces, escape(text[end:])])
