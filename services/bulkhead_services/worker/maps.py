"""Maps: a list is read and counted, an item of it takes its place among a step's inputs, results become a list. A leaf,
pure.

In: `StepAssigned`, with the texts that it needs. Out: the count, the item, or the list; or why there is none. An item
is a content of its own, by this service, and nobody's word: what the list rests on stays the result's.
"""

import itertools
import json
from collections import Counter
from functools import lru_cache
from typing import NamedTuple

from bulkhead.flow import InboxMessage, bounded
from bulkhead.flow.content import reference
from bulkhead.flow.step_calls import UnresolvedReference, find_field, read_result, readable_references
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import MapOver
from bulkhead_contracts.result import Completeness, ContentRef, Failure, Omission, Result, digest_of
from bulkhead_contracts.step import Gathering, MapItem, StepAssigned

MAX_TOLD_CUTS = 16


def contents_to_read(body: StepAssigned) -> tuple[ContentRef, ...]:
    """Contents that the step's map needs: its list, or so many of the results to gather as one list may hold."""
    if body.gathering is not None:
        contents = [row.result.content for row in body.inputs if row.result.content is not None]
        sizes = itertools.accumulate(content.size_bytes for content in contents)
        return tuple(content for content, size in zip(contents, sizes, strict=True) if size <= bounds.MAX_MAP_BYTES)
    source = body.step.over or body.item
    content = _source_of(body, source.of).content if source is not None else None
    return (content,) if content is not None and content.size_bytes <= bounds.MAX_MAP_BYTES else ()


def _source_of(body: StepAssigned, step_id: str) -> Result:
    return next((row.result for row in body.inputs if row.step_id == step_id), Result())


def count_items(message: InboxMessage, body: StepAssigned, over: MapOver) -> int | Failure:
    """Number of items of a map's list, or why it cannot be run."""
    items = _read_items(message, body, over)
    if isinstance(items, Failure) or len(items) <= over.max_items:
        return items if isinstance(items, Failure) else len(items)
    reason = f"the list of step {body.step.id} has {len(items)} items; it is to have {over.max_items} at most"
    return Failure.from_text("too_many_items", reason, f"raise its max_items ({bounds.MAX_MAP_ITEMS} at most)")


class Item(NamedTuple):
    """An item of a map: its value; the step with it in the list's place; its text, "" where the step carries it.
    name: of the item in every list that has it, wherever it stands there."""

    value: object
    assigned: StepAssigned
    text: str
    name: str


def read_item(message: InboxMessage, body: StepAssigned, item: MapItem) -> Item | Failure:
    """The item that a step is run for."""
    items = _read_items(message, body, item)
    if isinstance(items, Failure):
        return items
    if item.index >= len(items):
        return Failure.from_text("no_such_item", f"the list of {item.of} has {len(items)} items, and no {item.index}")
    value = items[item.index]
    text = value.encode("utf-8", "replace").decode() if isinstance(value, str) else _to_json(value)
    content = reference("worker", text.encode())
    if content.carried_text is None and len(text) <= bounds.MAX_CARRIED_CHARS:
        content = content.model_copy(update={"text": text})
    inputs = tuple(
        row.model_copy(
            update={
                "title": f"item {item.index} of {len(items)}",
                "result": row.result.model_copy(update={"content": content, "summary": content.summary}),
            }
        )
        if row.step_id == item.of
        else row
        for row in body.inputs
    )
    # Its kind is noop for workers that know no items.
    step = body.step if body.step.call is not None else body.step.model_copy(update={"kind": "agent"})
    assigned = body.model_copy(update={"inputs": inputs, "step": step})
    call, listed = body.step.call, _list_text(message, body, item.of)
    fields = tuple(row.field for row in readable_references(call) if not row.step_id) if call is not None else ("",)
    name = _name_items(listed or "", item.field, fields)[item.index]
    return Item(value, assigned, "" if content.carried_text is not None else text, name)


@lru_cache(maxsize=4)
def _name_items(text: str, field: str, item_fields: tuple[str, ...]) -> tuple[str, ...]:
    """A name for each item of a list: the digest of what a call takes from it, and which of those that are equal it
    is. Items have their names when others come before them."""
    counts, names = Counter[str](), []
    items = _parse_items(text, field)
    for item in items if isinstance(items, list) else ():
        digest = digest_of(json.dumps([_field_or_none(item, name) for name in item_fields], sort_keys=True))
        names.append(f"{digest}.{counts[digest]}")
        counts[digest] += 1
    return tuple(names)


def _field_or_none(item: object, field: str) -> object:
    try:
        return find_field(item, field)
    except UnresolvedReference:
        return None


def _list_text(message: InboxMessage, body: StepAssigned, step_id: str) -> str | None:
    """The text of the result that has the list; None where it was too long to be read."""
    result = _source_of(body, step_id)
    return message.contents.get(result.content.sha256) if result.content is not None else result.summary


def _read_items(message: InboxMessage, body: StepAssigned, source: MapOver | MapItem) -> list[object] | Failure:
    text = _list_text(message, body, source.of)
    if text is None:
        reason = f"the list of {source.of} takes more than {bounds.MAX_MAP_BYTES} bytes"
        return Failure.from_text("list_too_long", reason, "have it made shorter, or split")
    items = _parse_items(text, source.field)
    if isinstance(items, str):
        hint = "a map runs over a JSON list: name the field that is one"
        return Failure.from_text("no_list", f"the result of {source.of}: {items}", hint)
    return items


@lru_cache(maxsize=4)
def _parse_items(text: str, field: str) -> list[object] | str:
    """The list there, or why there is none; kept, for each item is read from it."""
    try:
        value = read_result(text, field)
    except UnresolvedReference as error:
        return str(error)
    return value if isinstance(value, list) else f"{field or 'the whole'} is no list"


def gather_results(message: InboxMessage, body: StepAssigned, gathering: Gathering) -> tuple[Result, str]:
    """The list of a step's inputs as a result, and its text. A failed input is null in it, as is one that was cut."""
    rows, cuts, room = [], list[str](), gathering.max_bytes
    for number, row in enumerate(body.inputs):
        text = message.contents.get(row.result.content.sha256) if row.result.content else row.result.summary
        value = "null" if row.result.standing == "failed" or text is None else _as_json(text)
        if gathering.joins:
            value = value[1:-1]
        if text is None or len(value.encode()) > room:
            cuts.append(f"items of {row.step_id}" if gathering.joins else f"item {gathering.first + number}")
            value = "" if gathering.joins else "null"
        room -= len(value.encode()) + 1
        if value or not gathering.joins:
            rows.append(value)
    listed = f"[{','.join(rows)}]"
    content = reference("worker", listed.encode())
    if not cuts:
        return Result(content=content, summary=content.summary), listed
    details = [*cuts[:MAX_TOLD_CUTS], *([f"{len(cuts) - MAX_TOLD_CUTS} more"] if len(cuts) > MAX_TOLD_CUTS else [])]
    omission = Omission(
        reason="truncated", what=f"results beyond {gathering.max_bytes} bytes", detail=", ".join(details)
    )
    completeness = Completeness.with_omissions(omission)
    return Result(content=content, summary=content.summary, completeness=completeness), listed


def _as_json(text: str) -> str:
    """A result in a list: itself where it is JSON, else as a text."""
    try:
        values = bounded.load_json(f"[{text}]")  # As deep as it is then.
    except ValueError:
        values = []
    return _to_json(values[0] if isinstance(values, list) and len(values) == 1 else text)


def _to_json(value: object) -> str:
    # What is no text, half of a pair, could not be stored.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace").decode()
