"""From a request to messages in OpenAI's format, cut to a model's context. Pure; contents come in by digest.

Content stands in `[[part ...]]` blocks whose id is the digest by which answers cite it. Passages and tool results that
do not fit are cut in a fixed order, the lowest-ranked and the oldest first, and never silently.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallRequested, Part, ToolAnswer, Turn
from bulkhead_contracts.result import Omission
from bulkhead_services.model_gateway.providers.port import encode

BYTES_PER_TOKEN = 3
"""An estimate, and on the safe side for most text: providers' own counts are the truth, and they settle."""
TRUST = {"objective": "user", "step": "user", "acceptance": "user", "tools": "system", "context": "system"}
"""Trust of a part by its kind; every other kind holds what came from outside or out of a model."""
CUTTABLE = frozenset({"passage", "tool_result"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]+")
_BRACKETS = str.maketrans({"[": "(", "]": ")", "\\": "\\\\", '"': '\\"'})

Texts = Mapping[str, str]
Place = tuple[int, int, int]
"""Position of a part: (turn, answer, part); turn -1 is the user's message."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A request's body and what was left out of it. input_tokens_estimate: not a count, see BYTES_PER_TOKEN."""

    payload: Mapping[str, Any]
    input_tokens_estimate: int
    omissions: tuple[Omission, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """Input of a rendering."""

    system: str
    request: ModelCallRequested
    texts: Texts
    schema: Mapping[str, Any] | None = None
    missing: frozenset[str] = frozenset()
    """Digests whose content could not be had."""


def estimate_tokens(size_bytes: int) -> int:
    """Estimated tokens of a text, rounded up."""
    return -(-size_bytes // BYTES_PER_TOKEN)


def missing_parts(request: ModelCallRequested, absent: frozenset[str]) -> tuple[Part, ...]:
    """Parts that cannot be left out and whose content cannot be had."""
    return tuple(
        one for one in request.parts if one.content and one.content.sha256 in absent and one.kind not in CUTTABLE
    )


def fit(source: Source, budget_tokens: int) -> Rendered | None:
    """The request cut to a budget of estimated tokens; None when not even the least of it fits."""
    cut: set[Place] = set()
    while True:
        payload = _payload(source, cut)
        estimate = estimate_tokens(len(encode(payload)))
        over = estimate - budget_tokens
        if over <= 0:
            return Rendered(payload, estimate, (*_said(source, cut), *_unread(source)))
        left = [place for place in _order(source) if place not in cut]
        if not left:
            return None
        for place in left:
            if over <= 0:
                break
            cut.add(place)
            over -= estimate_tokens(_size(_part(source.request, place), source.texts))


# Order of cutting


def _order(source: Source) -> list[Place]:
    """Passages of the user's message from the lowest rank up; then tools' results from the oldest on."""
    request, found = source.request, []
    for index in reversed(range(len(request.parts))):
        if request.parts[index].kind in CUTTABLE:
            found.append((-1, 0, index))
    for turn_index, turn in enumerate(request.turns):
        for answer_index, answer in enumerate(turn.answers):
            found.extend((turn_index, answer_index, index) for index in reversed(range(len(answer.parts))))
    return found


def _part(request: ModelCallRequested, place: Place) -> Part:
    turn, answer, index = place
    return request.parts[index] if turn < 0 else request.turns[turn].answers[answer].parts[index]


def _size(part: Part, texts: Texts) -> int:
    return len(json.dumps(_text(part, texts), ensure_ascii=False).encode("utf-8", "replace"))


def _said(source: Source, cut: set[Place]) -> list[Omission]:
    """One omission for the passages that were cut and one for the tools' results."""
    parts = [_part(source.request, place) for place in sorted(cut)]
    omissions = []
    for kind, name in (("passage", "passages"), ("tool_result", "tool results")):
        those = [one for one in parts if (one.kind == "passage") == (kind == "passage")]
        if those:
            listed = ", ".join(dict.fromkeys(f"{one.source or one.title} #{marker(one)}".strip() for one in those))
            what = f"{len(those)} {name}, which the model did not see"
            detail = f"they do not fit its context: {listed}"[: bounds.MAX_REASON_CHARS]
            omissions.append(Omission(reason="pruned", what=what, detail=detail))
    return omissions


def _unread(source: Source) -> list[Omission]:
    answers = (answer for turn in source.request.turns for answer in turn.answers)
    parts = [*source.request.parts, *(part for answer in answers for part in answer.parts)]
    gone = {marker(one): one for one in parts if one.content and one.content.sha256 in source.missing}
    names = [f"{part.kind} #{name}"[: bounds.MAX_SUMMARY_CHARS] for name, part in list(gone.items())[:8]]
    detail = "its content could not be read: it has expired or does not match its digest"
    return [Omission(reason="failed_part", what=name, detail=detail) for name in names]


# Messages


def _payload(source: Source, cut: set[Place]) -> dict[str, Any]:
    request = source.request
    messages: list[dict[str, Any]] = [{"role": "system", "content": source.system}]
    kept = [one for index, one in enumerate(request.parts) if (-1, 0, index) not in cut]
    messages.append({"role": "user", "content": "\n".join(_blocks(kept, source))})
    for index, turn in enumerate(request.turns):
        messages.extend(_turn(turn, index, source, cut))
    if markers := _markers(request, source, cut):
        messages.append({"role": "user", "content": markers})
    payload: dict[str, Any] = {"messages": messages}
    if request.tools:
        functions = (
            {"name": tool.name, "description": tool.description, "parameters": _schema(tool.parameters_json)}
            for tool in request.tools
        )
        payload["tools"] = [{"type": "function", "function": function} for function in functions]
    if source.schema is not None:
        form = {"name": request.response, "strict": True, "schema": source.schema}
        payload["response_format"] = {"type": "json_schema", "json_schema": form}
    return payload


def _schema(text: str) -> dict[str, Any]:
    """A tool's parameters; a schema that cannot be read offers an object of anything, which the tool checks."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"type": "object"}


def _turn(turn: Turn, index: int, source: Source, cut: set[Place]) -> list[dict[str, Any]]:
    said = source.texts.get(turn.content.sha256) if turn.content else None
    assistant: dict[str, Any] = {"role": "assistant", "content": said}
    if not turn.tool_calls:
        return [{**assistant, "content": said or ""}]
    assistant["tool_calls"] = [
        {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments_json}}
        for one in turn.tool_calls
    ]
    answers = {one.tool_call_id: (place, one) for place, one in enumerate(turn.answers)}
    messages = [assistant]
    # Providers refuse a call without an answer, so each gets one, whatever the request brings.
    for call in turn.tool_calls:
        place, answer = answers.get(call.id, (-1, None))
        content = _error("no_answer", "this call was not answered")
        if answer is not None:
            kept = [one for part, one in enumerate(answer.parts) if (index, place, part) not in cut]
            content = _tool_text(answer, kept, source)
        messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    return messages


def _tool_text(answer: ToolAnswer, kept: list[Part], source: Source) -> str:
    if answer.error is not None:
        said = f"{answer.error.message} {answer.error.hint}".strip()
        return _error(answer.error.code, said)
    kept = [one for one in kept if _readable(one, source)]
    if answer.parts and not kept:
        return _error("left_out", "this result was left out; call again if you need it")
    if len(answer.parts) == 1 and kept[0].kind == "tool_result":
        return _text(kept[0], source.texts)
    return "\n".join(_blocks(kept, source)) or "Nothing was found."


def _error(code: str, message: str) -> str:
    return json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False)


def _markers(request: ModelCallRequested, source: Source, cut: set[Place]) -> str:
    """A tool's text comes without a block around it, so its marker is told here."""
    lines = []
    for index, turn in enumerate(request.turns):
        names = {one.id: one.name for one in turn.tool_calls}
        for place, answer in enumerate(turn.answers):
            one = answer.parts[0] if len(answer.parts) == 1 and answer.error is None else None
            if one and one.kind == "tool_result" and (index, place, 0) not in cut and _readable(one, source):
                name = names.get(answer.tool_call_id, "")
                lines.append(f"Cite the result of {name} ({answer.tool_call_id}) as [#{marker(one)}].")
    return block(Part(kind="context", text="\n".join(lines)), {}) if lines else ""


# Parts


def marker(part: Part) -> str:
    """The first 12 hex digits of the content's sha256."""
    if part.content:
        return part.content.marker
    return hashlib.sha256(part.text.encode("utf-8", "replace")).hexdigest()[:12]


def block(part: Part, texts: Texts) -> str:
    """One part as the model sees it."""
    attributes = [f"kind={part.kind}", f"id={marker(part)}"]
    for name, value in (("source", part.source), ("title", part.title), ("step_id", part.step_id)):
        if value:
            attributes.append(f'{name}="{attribute(value)}"')
    attributes.append(f"trust={TRUST.get(part.kind, 'untrusted')}")
    return f"[[part {' '.join(attributes)}]]\n{_text(part, texts)}\n[[/part {marker(part)}]]"


def attribute(value: str) -> str:
    """A value that can neither end its quotes nor the line that it stands in."""
    return _CONTROL.sub(" ", value).translate(_BRACKETS)


def _blocks(parts: list[Part], source: Source) -> list[str]:
    return [block(one, source.texts) for one in parts if _readable(one, source)]


def _readable(part: Part, source: Source) -> bool:
    return part.content is None or part.content.sha256 not in source.missing


def _text(part: Part, texts: Texts) -> str:
    return texts.get(part.content.sha256, "") if part.content else part.text
