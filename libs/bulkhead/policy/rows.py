"""Rows of a call: values that flow together come from one record, and each row has a record of its own.

In: the values of a call, each with the records in which the plan lets it stand. Out: the values of the rows that no
record serves. Pure, and bounded: of very many ways to serve a row only some are tried.
"""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bulkhead.policy.values import ArgumentValue, covers_pointer, is_same_value
from bulkhead_contracts.provenance import Flow, Origin, PlannedCall

MAX_WAYS = 256
"""To serve one row."""
Binding = frozenset[tuple[Hashable, Hashable]]
"""A record: what each of its `*` stands for, and of which result it is."""


@dataclass(frozen=True, slots=True)
class RowValue:
    """A value of a row. bindings: the records in which it may stand; None where it needs none."""

    value: ArgumentValue
    bindings: tuple[Binding, ...] | None

    @property
    def is_free(self) -> bool:
        return self.bindings is None


def find_row(pointer: str, patterns: Iterable[str] = ()) -> tuple[str, str]:
    """The innermost place of a list in which a value lies, or of an object where a pattern has `*`, and the same with
    `*` for each such place; "" for none."""
    segments = pointer.split("/")
    starred = {
        depth
        for pattern in patterns
        if covers_pointer(pattern, pointer)
        for depth, segment in enumerate(pattern.split("/"))
        if segment == "*"
    }
    ends = [depth for depth, segment in enumerate(segments) if segment.isdigit() or depth in starred]
    row = segments[: ends[-1] + 1] if ends else []
    return "/".join(row), "/".join("*" if depth in ends else segment for depth, segment in enumerate(row))


def flow_binding(flow: Flow, origin: Origin, flows: Collection[Flow]) -> Binding:
    """The record of a value that a flow lets in. flows: all into the tool. Flows of one earlier call are of one record,
    but where the plan selects several, or one field goes to several arguments."""
    alike = [sibling for sibling in flows if (sibling.step_id, sibling.from_tool) == (flow.step_id, flow.from_tool)]
    scope: tuple[Hashable, ...] = (flow.step_id, flow.from_tool)
    if len({sibling.where for sibling in alike if sibling.where}) > 1:
        alike = [sibling for sibling in alike if sibling.where == flow.where]
        scope = (*scope, flow.where)
    if any(sibling.field == flow.field and sibling.argument != flow.argument for sibling in alike):
        scope = (*scope, flow.argument)
    pattern, places = flow.field.split("/"), origin.field.split("/")
    wildcards = [depth for depth, segment in enumerate(pattern, 1) if segment == "*"]
    return frozenset(((*scope, *pattern[:depth]), (origin.sha256, *places[:depth])) for depth in (0, *wildcards))


def literal_bindings(planned: PlannedCall, value: ArgumentValue) -> tuple[Binding, ...] | None:
    """The rows of a planned call in which it writes a value of a list; None where any may hold it. The first account
    belongs to the first amount; a list that is shorter than another goes with each row."""
    columns: dict[str, list[str]] = {}
    for literal in planned.values:
        if literal.is_literal:
            columns.setdefault(_as_pattern(literal.argument, value.pointer), []).append(literal.text)
    bindings: list[Binding] = []
    for argument, texts in columns.items():
        if not covers_pointer(argument, value.pointer):
            continue
        group = argument.rpartition("*")[0]
        rows = max(len(column) for name, column in columns.items() if name.rpartition("*")[0] == group)
        matching = [row for row, text in enumerate(texts) if is_same_value(value, text)]
        is_column = "*" in argument and _covers_leaf(argument, value.pointer)
        if not is_column or (matching and len(texts) < rows):
            return None
        bindings.extend(frozenset(((("plan", group), row),)) for row in matching)
    return tuple(bindings)


def _as_pattern(argument: str, pointer: str) -> str:
    """`/guests/*`, where a plan writes `/guests` for it."""
    names_list = f"{argument}/*"
    return names_list if pointer.rpartition("/")[2].isdigit() and _covers_leaf(names_list, pointer) else argument


def _covers_leaf(argument: str, pointer: str) -> bool:
    return argument.count("/") == pointer.count("/") and covers_pointer(argument, pointer)


def find_unserved(values: Iterable[RowValue], patterns: Collection[str]) -> Iterator[ArgumentValue]:
    """The values of rows for which there is no record, or none that another row has not taken."""
    families: dict[str, dict[str, list[RowValue]]] = {}
    for row_value in values:
        row, family = find_row(row_value.value.pointer, patterns)
        families.setdefault(family, {}).setdefault(row, []).append(row_value)
    for rows in families.values():
        for row in _unserved_rows(rows):
            yield from (row_value.value for row_value in rows[row] if row_value.bindings is not None)


def _unserved_rows(rows: Mapping[str, Sequence[RowValue]]) -> Iterator[str]:
    """Rows that are left when as many as possible have a record of their own."""
    free_forms = {
        row: {row_value.value.pointer[len(row) :]: row_value.value.form for row_value in values if row_value.is_free}
        for row, values in rows.items()
    }
    # One record may serve rows that differ in what needs none: the same fee, for each account that the asker named.
    common = sorted(set.intersection(*map(set, free_forms.values())))
    ways: dict[str, list[Hashable]] = {}
    row_of: dict[Hashable, str] = {}

    def has_record(row: str, tried: set[Hashable]) -> bool:
        for way in ways[row]:
            if way not in tried:
                tried.add(way)
                if way not in row_of or has_record(row_of[way], tried):
                    row_of[way] = row
                    return True
        return False

    for row, values in rows.items():
        if not all(row_value.is_free for row_value in values):
            own_forms = tuple(free_forms[row][place] for place in common)
            ways[row] = [(record, own_forms) for record in _join_bindings(values)]
            if not has_record(row, set()):
                yield row


def _join_bindings(values: Iterable[RowValue]) -> list[Binding]:
    """Each way in which all values of a row stand in records that agree."""
    bound = [row_value.bindings for row_value in values if row_value.bindings is not None]
    ways: list[Binding] = [frozenset()]
    for bindings in sorted(bound, key=len):
        joined: dict[Binding, None] = {}
        for way in ways:
            agreeing = [way | binding for binding in bindings if _agrees(way | binding)]
            joined |= dict.fromkeys([way] if way in agreeing else agreeing)
        ways = list(joined)[:MAX_WAYS]
    return ways


def _agrees(way: Binding) -> bool:
    return len({name for name, _ in way}) == len(way)
