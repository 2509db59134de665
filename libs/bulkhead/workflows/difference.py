"""Two versions of a workflow compared by their structure: fields, parameters and steps. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from bulkhead_contracts.workflow import WorkflowContent

Change = Literal["added", "removed", "changed"]


class FieldChange(NamedTuple):
    """One change. place: `limits.tokens`, `parameters.topic.default`, `steps.search.instruction`; of an added or
    removed parameter or step without a field. before, after: None where there is none."""

    change: Change
    place: str
    before: Any
    after: Any


def compare_workflows(old: WorkflowContent, new: WorkflowContent) -> tuple[FieldChange, ...]:
    """The changes that lead from one content to the other; steps and parameters are the same where their name is."""
    before, after = old.to_document(), new.to_document()
    named = (("parameters", "name"), ("steps", "id"))
    rows = [
        row for field, key in named for row in _compare_named(field, before.pop(field, []), after.pop(field, []), key)
    ]
    return (*_compare_fields("", before, after), *rows)


def _compare_named(field: str, old: Sequence[Any], new: Sequence[Any], key: str) -> Iterator[FieldChange]:
    old_rows, new_rows = {row[key]: row for row in old}, {row[key]: row for row in new}
    for name in dict.fromkeys((*old_rows, *new_rows)):
        place = f"{field}.{name}"
        if name not in new_rows:
            yield FieldChange("removed", place, old_rows[name], None)
        elif name not in old_rows:
            yield FieldChange("added", place, None, new_rows[name])
        else:
            yield from _compare_fields(f"{place}.", old_rows[name], new_rows[name])
    order = [name for name in old_rows if name in new_rows], [name for name in new_rows if name in old_rows]
    if order[0] != order[1]:
        yield FieldChange("changed", f"{field} (order)", *order)


def _compare_fields(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[FieldChange]:
    for name in dict.fromkeys((*old, *new)):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _compare_fields(f"{prefix}{name}.", before, after)
            continue
        change: Change = "added" if before is None else "removed" if after is None else "changed"
        yield FieldChange(change, f"{prefix}{name}", before, after)
