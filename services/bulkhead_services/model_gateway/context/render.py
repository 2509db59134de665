"""From a request to messages in OpenAI's format. Pure; contents come in by digest, cuts from `fitting`.

Content stands in `[[part ...]]` blocks whose id is the digest by which answers cite it. What stays the same in the next
turn of a step comes first, byte for byte, so that providers read it from their caches; `latest` parts come last.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bulkhead.model_apis.gaps import Gap
from bulkhead.model_apis.media import PdfSizes
from bulkhead_contracts.model import ModelApi, ModelCallRequested, Part, ToolAnswer, Turn
from bulkhead_contracts.result import Omission

CONTEXT_MARGIN_TOKENS = 64
TRUST_BY_KIND = {"objective": "user", "step": "user", "acceptance": "user", "tools": "system", "context": "system"}
"""Trust of a part by its kind; every other kind holds what came from outside or out of a model."""
CUTTABLE = frozenset({"passage", "tool_result"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]+")
_BRACKETS = str.maketrans({"[": "(", "]": ")", "\\": "\\\\", '"': '\\"'})

Texts = Mapping[str, str]
PartPosition = tuple[int, int, int]
"""Position of a part: (turn, answer, part); turn -1 is the user's message, answer -1 what the model said."""
OPENING, ASSISTANT_TEXT = -1, -1
Cuts = Mapping[PartPosition, str | None]
"""What is shown in place of a part: an excerpt, or nothing."""


@dataclass(frozen=True, slots=True)
class RenderedRequest:
    """A request's body and what was left out of it. input_tokens_estimate: not a count, see `tokens`.

    stable_messages: so many from the start stand in the next turn's call too, byte for byte. adopted: it was rendered
    by an outside agent, in the form of `api`.
    """

    payload: Mapping[str, Any]
    input_tokens_estimate: int
    omissions: tuple[Omission, ...] = ()
    stable_messages: int = 0
    adopted: bool = False
    api: ModelApi = ""
    pdfs: PdfSizes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RenderSource:
    """Input of a rendering."""

    system: str
    request: ModelCallRequested
    texts: Texts
    schema: Mapping[str, Any] | None = None
    prompt_digest: str = ""
    missing: frozenset[str] = frozenset()
    """Digests whose content could not be had."""
    payload: Mapping[str, Any] | None = None
    """Of an outside agent, which stands in place of all else."""
    gaps: tuple[Gap, ...] = ()
    """Parts that were left out of this payload."""
    pdfs: PdfSizes = field(default_factory=dict)


def missing_required_parts(request: ModelCallRequested, missing_digests: frozenset[str]) -> tuple[Part, ...]:
    """Parts that cannot be left out and whose content cannot be had."""
    parts = (*request.parts, *request.latest)
    return tuple(
        row for row in parts if row.content and row.content.sha256 in missing_digests and row.kind not in CUTTABLE
    )


def all_parts(request: ModelCallRequested) -> tuple[Part, ...]:
    """Every part of a request, those of its turns too."""
    answers = (answer for turn in request.turns for answer in turn.answers)
    return (*request.parts, *(part for answer in answers for part in answer.parts), *request.latest)


# Messages


def render_payload(source: RenderSource, cuts: Cuts) -> tuple[dict[str, Any], int]:
    """The body, and how many of its messages the next turn's has too. Keys of what does not change stand first."""
    request = source.request
    opening = _render_blocks(request.parts, (OPENING, 0), source, cuts)
    latest = [render_block(row, source.texts) for row in request.latest if is_readable(row, source)]
    if not request.turns:
        # One message of the user: some models' templates take no two in a row.
        opening, latest = [*opening, *latest], []
    messages: list[dict[str, Any]] = [{"role": "system", "content": source.system}]
    messages.append({"role": "user", "content": "\n".join(opening)})
    for index, turn in enumerate(request.turns):
        messages.extend(turn_messages(turn, index, source, cuts))
    stable_messages = len(messages)
    if latest:
        messages.append({"role": "user", "content": "\n".join(latest)})
    payload: dict[str, Any] = {"messages": messages}
    if request.tools:
        functions = (
            {"name": tool.name, "description": tool.description, "parameters": _parameters_schema(tool.parameters_json)}
            for tool in request.tools
        )
        payload["tools"] = [{"type": "function", "function": function} for function in functions]
    if source.schema is not None:
        # Strict mode takes few schemas: one of a version is held here, too.
        form = {"name": request.response, "strict": request.response != "text", "schema": source.schema}
        payload["response_format"] = {"type": "json_schema", "json_schema": form}
    return payload, stable_messages


def _parameters_schema(text: str) -> dict[str, Any]:
    """A tool's parameters; a schema that cannot be read offers an object of anything, which the tool checks."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        schema = None
    return schema if isinstance(schema, dict) else {"type": "object"}


def turn_messages(turn: Turn, index: int, source: RenderSource, cuts: Cuts) -> list[dict[str, Any]]:
    """One earlier turn: what the model said, and an answer to each of its calls."""
    assistant_text = source.texts.get(turn.content.sha256) if turn.content else None
    assistant_text = cuts.get((index, ASSISTANT_TEXT, 0), assistant_text)
    assistant: dict[str, Any] = {"role": "assistant", "content": assistant_text}
    if not turn.tool_calls:
        return [{**assistant, "content": assistant_text or ""}]
    assistant["tool_calls"] = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}
        for call in turn.tool_calls
    ]
    answers = {answer.tool_call_id: (place, answer) for place, answer in enumerate(turn.answers)}
    messages, markers = [assistant], []
    # Providers refuse a call without an answer, so each gets one, whatever the request brings.
    for call in turn.tool_calls:
        place, answer = answers.get(call.id, (-1, None))
        content, unmarked_part = _error_json("no_answer", "this call was not answered"), None
        if answer is not None:
            content, unmarked_part = _tool_text(answer, (index, place), source, cuts)
        messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
        if unmarked_part is not None:
            markers.append(f"Cite the result of {call.name} ({call.id}) as [#{marker_of(unmarked_part)}].")
    if markers:
        # A tool's text comes without a block around it, so its marker is told here, in its own turn.
        messages.append({"role": "user", "content": render_block(Part(kind="context", text="\n".join(markers)), {})})
    return messages


def _tool_text(
    answer: ToolAnswer, answer_place: tuple[int, int], source: RenderSource, cuts: Cuts
) -> tuple[str, Part | None]:
    """The text of a tool's message, and the part that it consists of where no block names it."""
    if answer.error is not None:
        return _error_json(answer.error.code, f"{answer.error.message} {answer.error.hint}".strip()), None
    blocks = _render_blocks(answer.parts, answer_place, source, cuts)
    if answer.parts and not blocks:
        return _error_json("left_out", "this result was left out; call again if you need it"), None
    first = answer.parts[0] if len(answer.parts) == 1 else None
    if first is not None and first.kind == "tool_result":
        return shown_part_text(first, (*answer_place, 0), source, cuts) or "", first
    return "\n".join(blocks) or "Nothing was found.", None


def _error_json(code: str, message: str) -> str:
    return json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False)


# Parts


def marker_of(part: Part) -> str:
    """The first 12 hex digits of the content's sha256."""
    if part.content:
        return part.content.marker
    return hashlib.sha256(part.text.encode("utf-8", "replace")).hexdigest()[:12]


def render_block(part: Part, texts: Texts, excerpt: str | None = None) -> str:
    """One part as the model sees it: whole, or an excerpt of it."""
    attributes = [f"kind={part.kind}", f"id={marker_of(part)}"]
    for name, value in (("source", part.source), ("title", part.title), ("step_id", part.step_id)):
        if value:
            attributes.append(f'{name}="{escape_attribute(value)}"')
    if excerpt is not None:
        attributes.append("excerpt=yes")
    attributes.append(f"trust={TRUST_BY_KIND.get(part.kind, 'untrusted')}")
    shown_text = text_of(part, texts) if excerpt is None else excerpt
    return f"[[part {' '.join(attributes)}]]\n{shown_text}\n[[/part {marker_of(part)}]]"


def escape_attribute(value: str) -> str:
    """A value that can neither end its quotes nor the line that it stands in."""
    return _CONTROL.sub(" ", value).translate(_BRACKETS)


def shown_part_text(part: Part, place: PartPosition, source: RenderSource, cuts: Cuts) -> str | None:
    """The text that stands there; None for a part that is left out or cannot be read."""
    if not is_readable(part, source):
        return None
    return cuts[place] if place in cuts else text_of(part, source.texts)


def _render_blocks(parts: Sequence[Part], answer_place: tuple[int, int], source: RenderSource, cuts: Cuts) -> list[str]:
    blocks = []
    for index, part in enumerate(parts):
        place = (*answer_place, index)
        if shown_part_text(part, place, source, cuts) is not None:
            blocks.append(render_block(part, source.texts, cuts.get(place)))
    return blocks


def is_readable(part: Part, source: RenderSource) -> bool:
    """True when its content could be had."""
    return part.content is None or part.content.sha256 not in source.missing


def text_of(part: Part, texts: Texts) -> str:
    """The whole text of a part."""
    return texts.get(part.content.sha256, "") if part.content else part.text
