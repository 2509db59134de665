"""A structured reply (a plan, a verdict) as models write it, read tolerantly; and text without its thinking. Pure.

In: an answer's text and the form that was asked for. Out: the one JSON object of that form with what was put right,
or the text as it is where that is not plain. Nothing is invented: what is cut off stays cut off, and is said.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from bulkhead.flow import bounded
from bulkhead_contracts.result import Omission
from bulkhead_services.model_gateway.providers.port import Finish
from bulkhead_services.model_gateway.replies import thinking
from bulkhead_services.model_gateway.replies.lenient_json import BrokenJson, CutJson, LenientReader

MAX_CHARS = 256 * 1024
"""A longer text is left as it is: no plan of that size is taken."""
MAX_UNWRAPPED = 3
"""Objects around the one that is looked for, as in `{"name": "plan", "arguments": {"steps": ...}}`."""
MAX_OPENINGS = 1_000
"""Brackets at which an object is looked for."""
_OPENING = re.compile(r"[{\[]")
REQUIRED_KEYS: Mapping[str, str] = {"plan": "steps", "verdict": "verdict"}
STEP_TEXT = frozenset({"instruction", "instructions", "description", "task", "action"})
_VERDICTS = {"accept": "accept", "accepted": "accept", "reject": "reject", "rejected": "reject"}


@dataclass(frozen=True, slots=True)
class ReplyText:
    """A reply's text as it goes on. changes: what was done to it; none when it is as the model wrote it."""

    text: str
    changes: tuple[str, ...] = ()
    omissions: tuple[Omission, ...] = ()


def read_reply(text: str, form: str, finish: Finish) -> ReplyText:
    """The text of a reply in the form that was asked for: text, plan or verdict."""
    if form == "text":
        bare = thinking.strip_thinking(text)
        return ReplyText(text) if bare == text else ReplyText(bare, ("thinking and special tokens left out",))
    if len(text) > MAX_CHARS or _has_form(form, text):
        return ReplyText(text)
    bare = thinking.strip_thinking(text)
    changes = () if bare == text else ("thinking and special tokens left out",)
    reading = _find_object(bare, form, model_stopped=finish == "stop")
    if reading is None:
        return ReplyText(bare, changes)
    return ReplyText(reading.text, (*changes, *reading.changes), reading.omissions)


def find_schema_misfit(text: str, schema: Mapping[str, Any]) -> str:
    """Why a text is no JSON of a version's output schema; "" when it is."""
    try:
        document = bounded.load_json(text)
    except ValueError:
        return "the model answered in text that is no JSON, and the prompt's output schema asks for it"
    try:
        error = next(iter(jsonschema_rs.validator_for(dict(schema)).iter_errors(document)), None)
    except (ValueError, jsonschema_rs.ReferencingError) as schema_error:
        return f"the prompt's output schema cannot be used: {str(schema_error)[:200]}"
    return f"the answer does not fit the prompt's output schema: {error.message[:200]}" if error is not None else ""


def _has_form(form: str, text: str) -> bool:
    try:
        document = bounded.load_json(text)
    except ValueError:
        return False
    return isinstance(document, dict) and _as_form(document, form) == document


def _find_object(text: str, form: str, *, model_stopped: bool) -> ReplyText | None:
    """The one object of the form in the text; None when there is none, or several that differ."""
    readings: dict[str, ReplyText] = {}
    position = 0
    for _ in range(MAX_OPENINGS):
        opening = _OPENING.search(text, position)
        if opening is None:
            break
        start, reader = opening.start(), LenientReader(text, opening.start(), model_stopped=model_stopped)
        is_cut = False
        try:
            value = reader.read_value()
            is_cut = not (reader.is_whole or model_stopped)
        except BrokenJson as broken:
            position = max(start + 1, broken.position)
            continue
        except CutJson:
            value, reader.position, is_cut = reader.root, len(text), True
        position = reader.position
        form_object = _as_form(value, form)
        if (
            form_object is None
            or (is_cut and not _is_complete_enough(value, reader, form))
            or not _is_own_verdict(text, start, position, form, form_object)
        ):
            continue
        readings[json.dumps(form_object, sort_keys=True)] = _reading_of(
            text, start, form_object, value, reader, is_cut=is_cut
        )
    return next(iter(readings.values())) if len(readings) == 1 else None


def _is_complete_enough(value: object, reader: LenientReader, form: str) -> bool:
    """True when what came before the cut is all that the form needs: a list of steps that was cut is not."""
    return isinstance(value, dict) and REQUIRED_KEYS[form] in value and (form == "verdict" or not reader.ended_in_array)


def _is_own_verdict(text: str, start: int, end: int, form: str, form_object: Mapping[str, Any]) -> bool:
    """An acceptance has to be the judge's own: one that stands amid a sentence is quoted from what it judges."""
    if form != "verdict" or form_object["verdict"] != "accept":
        return True
    line = text[:start].rpartition("\n")[2].strip()
    after = text[end:].partition("\n")[0].strip()
    return line.strip("`*_ ").lower() in ("", "json", "```json") and after.strip("`*_ ") == ""


def _reading_of(
    text: str, start: int, form_object: dict[str, Any], value: object, reader: LenientReader, *, is_cut: bool
) -> ReplyText:
    changes = list(reader.changes)
    if form_object != value:
        changes.append("taken out of what was around it")
    object_text = text[start : reader.position]
    if changes or is_cut:
        # A half of a pair cannot be stored.
        object_text = json.dumps(form_object, ensure_ascii=False).encode("utf-8", "replace").decode()
    if reader.position - start < len(text.strip()):
        changes.insert(0, "text around the JSON object left out")
    if not is_cut:
        return ReplyText(object_text, tuple(changes))
    detail = "it was cut off; what came before the cut is whole and was taken"
    omission = Omission(reason="truncated", what="the end of the model's answer", detail=detail)
    return ReplyText(object_text, (*changes, "the cut end left out"), (omission,))


# Forms


def _as_form(value: object, form: str) -> dict[str, Any] | None:
    """The object of the form that a value is or holds; None when it holds none, or several."""
    return _as_plan(value, 0) if form == "plan" else _as_verdict(value, 0)


def _as_plan(value: object, depth: int) -> dict[str, Any] | None:
    if isinstance(value, list) and value and all(_is_step(row) for row in value):
        return {"steps": value}
    if isinstance(value, list):
        # Calls of tools come in lists.
        return _find_inner({str(place): row for place, row in enumerate(value)}, depth, _as_plan)
    if not isinstance(value, dict):
        return None
    steps = value.get("steps")
    if isinstance(steps, list):
        return value
    if isinstance(steps, dict) and steps and all(_is_step(row) for row in steps.values()):
        return {"steps": [{"id": name, **row} for name, row in steps.items()]}
    if _is_step(value) and "id" in value:
        return {"steps": [value]}
    return _find_inner(value, depth, _as_plan)


def _is_step(value: object) -> bool:
    return isinstance(value, dict) and not STEP_TEXT.isdisjoint(value)


def _as_verdict(value: object, depth: int) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    verdict_text = value.get("verdict")
    if not isinstance(verdict_text, str):
        return _find_inner(value, depth, _as_verdict)
    verdict = _VERDICTS.get(verdict_text.strip().lower())
    if verdict is None:
        return None
    changed = {"verdict": verdict}
    if isinstance(value.get("reasons"), str):
        changed["reasons"] = [value["reasons"]]  # type: ignore[assignment]
    return {**value, **changed}


def _find_inner(value: Mapping[str, Any], depth: int, find_form: Any) -> dict[str, Any] | None:
    """The one object of the form among the values, where models wrap it: as an object, or as its text."""
    if depth >= MAX_UNWRAPPED:
        return None
    candidates = []
    for row in value.values():
        if isinstance(row, str) and row.lstrip()[:1] in ("{", "["):
            try:
                row = bounded.load_json(row)
            except ValueError:
                continue
        if isinstance(row, dict | list) and (candidate := find_form(row, depth + 1)) is not None:
            candidates.append(candidate)
    return candidates[0] if len(candidates) == 1 else None
