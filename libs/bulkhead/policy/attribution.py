"""Attribution of the values of a call's arguments to the texts that the model was shown. Pure.

In: the arguments, and the texts with who is behind each. Out: one ValueOrigin for each value, with the
contents in which it stands; none where it stands nowhere. A value matches a whole token of a text and never a
part of one: the account `123` does not stand in `1234`, the address `a@b.example` not in `a@b.example.org`.

A number `exact`ly stands beside a currency, or in a text that has no amounts of money: `75` in `invoice 200,
75 EUR`. A text that is no JSON has the fields `/url`, `/email`, `/account`, `/contact`, `/amount`, `/date` and `/time`,
each where exactly one stands in it; so has each text within JSON, behind its pointer.
"""

import itertools
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from bulkhead.flow.json_pointer import escape_segment, unescape_segment
from bulkhead.policy.dates import days_and_times
from bulkhead.policy.planned_values import (
    PlannedRules,
    RecordedField,
    RecordedResult,
    calculate_value,
    calculation_digest,
    select_fields,
    selected_value,
    selection_digest,
)
from bulkhead.policy.rows import find_row
from bulkhead.policy.values import (
    ArgumentValue,
    ValueKind,
    bound_text,
    covers_pointer,
    fold_unicode,
    form_of,
    typed_values,
    values_of,
    word_form,
)
from bulkhead_contracts import bounds
from bulkhead_contracts.bounds import MAX_POINTER_CHARS
from bulkhead_contracts.provenance import Origin, Source, ValueOrigin
from bulkhead_contracts.result import digest_of

MAX_SOURCE_CHARS = 128 * 1024
"""Of one text; what lies behind is not looked at, and the attribution is not complete."""
MAX_SOURCES = 512
MAX_FIELDS = 20_000
UNKNOWN_SOURCE = "unknown"
_BETWEEN_LEAVES = " \x00 "
"""No value spans two leaves of JSON."""
TRUST: tuple[Source, ...] = ("user", "operator", "retrieved", "tool", "model")
"""From the most trusted to the least."""


@dataclass(frozen=True, slots=True)
class SourceText:
    """A text that stood in the context. name: of the document or tool. call_id: of the call that gave it. carries:
    sources that were shown to whoever wrote it. is_partial: there was more of it."""

    text: str
    source: Source
    sha256: str
    name: str = ""
    call_id: str = ""
    carries: tuple[str, ...] = ()
    is_partial: bool = False


@dataclass(slots=True)
class _TextIndex:
    """One text, ready for look-ups. text: of JSON, its keys and values as they read, without escapes. fields: of a JSON
    text, the pointers of each scalar by its form."""

    text: str
    words: str
    typed: frozenset[tuple[ValueKind, str]]
    amounts: frozenset[str]
    fields: dict[tuple[ValueKind, str], list[tuple[str, object]]]
    is_json: bool
    is_whole: bool
    """False where fields are lacking."""


def attribute_values(
    arguments: Mapping[str, object],
    sources: Sequence[SourceText],
    rules: PlannedRules | None = None,
    *,
    is_complete: bool = True,
) -> tuple[tuple[ValueOrigin, ...], bool]:
    """The values of the arguments with their origins, and whether all values and all texts were looked at whole.
    rules: by which the plan states values. is_complete: False where sources are lacking: then it states none."""
    complete = len(sources) <= MAX_SOURCES and all(len(source.text) <= MAX_SOURCE_CHARS for source in sources)
    texts = [(source, _build_index(source.text[:MAX_SOURCE_CHARS])) for source in sources[:MAX_SOURCES]]
    planned = _planned_outcomes(rules, texts) if rules is not None and complete and is_complete else {}
    value_origins: list[ValueOrigin] = []
    attributed: set[tuple[str, str]] = set()
    likely_places = _likely_places(arguments, texts)
    for value in values_of(arguments):
        if (value.pointer, value.text) in attributed:
            continue
        if len(value_origins) == bounds.MAX_ATTRIBUTED_VALUES:
            return tuple(value_origins), False
        if len(value.pointer) > MAX_POINTER_CHARS:
            complete = False
            continue
        attributed.add((value.pointer, value.text))
        likely = likely_places.get((value.pointer, value.text), ())
        outcomes = [outcome.origin for outcome in planned.get((value.kind, value.form), ()) if outcome.is_of(value)]
        origins = (*_likely_first(outcomes, likely), *_find_origins(value, texts, likely))[: bounds.MAX_ORIGINS]
        expected = "" if outcomes or value.role != "leaf" else _expected_text(value.pointer, planned)
        value_origins.append(ValueOrigin(pointer=value.pointer, text=value.text, expected=expected, origins=origins))
    return tuple(value_origins), complete


@dataclass(frozen=True, slots=True)
class _PlannedOutcome:
    """A value that the plan states by a rule, for an argument. raw: of a text, which stands as it is written."""

    argument: str
    raw: object
    origin: Origin

    def is_of(self, value: ArgumentValue) -> bool:
        is_written_alike = value.kind != "text" or self.raw == value.text
        return value.role != "key" and is_written_alike and covers_pointer(self.argument, value.pointer)


PlannedOutcomes = Mapping[tuple[ValueKind, str], Sequence[_PlannedOutcome]]


def _expected_text(pointer: str, planned: PlannedOutcomes) -> str:
    """The one value that the plan's rules find for an argument; "" where they find none or several."""
    texts = {
        outcome.raw if isinstance(outcome.raw, str) else form
        for (_, form), outcomes in planned.items()
        for outcome in outcomes
        if covers_pointer(outcome.argument, pointer)
    }
    return bound_text(texts.pop().strip()) if len(texts) == 1 else ""


def _planned_outcomes(
    rules: PlannedRules, texts: Sequence[tuple[SourceText, _TextIndex]]
) -> dict[tuple[ValueKind, str], list[_PlannedOutcome]]:
    """By kind and form."""
    selecting, calculated = list(rules.selecting_flows()), list(rules.calculated_values())
    outcomes: dict[tuple[ValueKind, str], list[_PlannedOutcome]] = {}
    if not selecting and not calculated:
        return outcomes
    # The same result under two labels is one.
    tool_texts = {
        (source.name, source.call_id, source.sha256): (source, index)
        for source, index in texts
        if source.source == "tool"
    }
    named = frozenset(segment for flow in rules.flows for segment in flow.field.split("/"))
    results = [_recorded_result(*text, named) for text in tool_texts.values()]
    for flow in selecting:
        for result, field in selected_value(flow, select_fields(flow, results)):
            origin = Origin(
                source="tool",
                sha256=result.sha256,
                name=result.tool,
                match="field",
                field=field.pointer,
                call_id=result.step_id,
                planned=selection_digest(flow),
            )
            outcome = _PlannedOutcome(flow.argument, field.raw, origin)
            outcomes.setdefault((field.kind, field.form), []).append(outcome)
    for planned in calculated:
        if (figure := calculate_value(planned, rules, results)) is not None:
            tools = ", ".join(dict.fromkeys(flow.from_tool for flow in rules.operand_flows(planned)))
            origin = Origin(
                source="tool" if tools else "model",
                sha256=digest_of(planned.calculate),
                name=(tools or "the plan")[: bounds.MAX_SUMMARY_CHARS],
                match="field",
                planned=calculation_digest(planned, rules),
            )
            outcomes.setdefault(figure, []).append(_PlannedOutcome(planned.argument, None, origin))
    return outcomes


def _recorded_result(source: SourceText, index: _TextIndex, named: Collection[str]) -> RecordedResult:
    """The fields of a result. named: segments of pointers that flows have, of which some are made of texts."""
    fields = {
        pointer: RecordedField(pointer, kind, form, raw)
        for (kind, form), places in index.fields.items()
        for pointer, raw in places
    }
    texts = [(field.pointer, field.raw) for field in fields.values() if field.kind == "text"]
    text_fields = (
        text_field
        for pointer, raw in (texts if index.is_json else [("", index.text)])
        if isinstance(raw, str)
        for text_field in _fields_within(pointer, raw, named)
    )
    fields |= {field.pointer: field for field in itertools.islice(text_fields, MAX_FIELDS)}
    is_whole = index.is_whole and not source.is_partial and next(text_fields, None) is None
    return RecordedResult(source.name, source.call_id, source.sha256, fields, is_whole)


def _fields_within(pointer: str, text: str, named: Collection[str]) -> Iterator[RecordedField]:
    """The lines of a text, and all values of a kind in it, in their order."""
    if "lines" in named:
        lines = (line for raw in text.splitlines() if (line := raw.strip()))
        for number, line in enumerate(lines):
            yield RecordedField(f"{pointer}/lines/{number}", *form_of(line), line)
    kinds = {kind: f"{name}s" for kind, name in _ONLY if f"{name[1:]}s" in named}
    if not kinds:
        return
    folded = fold_unicode(text)
    typed = {(kind, form): raw for kind, raw, form in (*typed_values(text), *days_and_times(folded)) if kind in kinds}
    ordered = sorted(typed.items(), key=lambda item: folded.find(item[1]))
    counts = dict.fromkeys(kinds, 0)
    for (kind, form), raw in ordered:
        place = f"{pointer}{kinds[kind]}/{counts[kind]}"
        counts[kind] += 1
        yield RecordedField(place, kind, form, raw)


def shown_sources(sources: Sequence[SourceText], *, is_complete: bool = True) -> tuple[str, ...]:
    """The sources in a context by name (`user`, `retrieved:pay.md`, `tool:read_mail`); `unknown` besides where there
    are more."""
    named = {f"{row.source}:{row.name}" if row.source in ("retrieved", "tool") else row.source for row in sources}
    named |= {name for row in sources for name in row.carries}
    is_complete = is_complete and UNKNOWN_SOURCE not in named
    listed = sorted(name[: bounds.MAX_SUMMARY_CHARS] for name in named - {UNKNOWN_SOURCE})
    if is_complete and len(listed) < bounds.MAX_SHOWN_SOURCES:
        return tuple(listed)
    return (UNKNOWN_SOURCE, *listed[: bounds.MAX_SHOWN_SOURCES - 1])


def least_trusted_source(sources: Sequence[SourceText]) -> Source:
    """The least trusted source of a context; `user` where there is none."""
    return TRUST[max((TRUST.index(source.source) for source in sources), default=0)]


Place = tuple[str, str]
"""Digest of a text, and a pointer in it."""


def _list_fields(value: ArgumentValue, index: _TextIndex) -> list[str]:
    """The fields of a text that a value is the whole of."""
    fields = index.fields.get((value.kind, value.form), ())
    return [pointer for pointer, raw in fields if value.kind != "text" or raw == value.text]  # `../a` is not `/a`.


def _likely_places(
    arguments: Mapping[str, object], texts: Sequence[tuple[SourceText, _TextIndex]]
) -> Mapping[tuple[str, str], Collection[Place]]:
    """By pointer and text of a value: of the fields that it is, as many as are told, those beside the other values of
    its row first: among many equal ones they tell whether one record holds the row."""
    indexes: dict[tuple[str, str, str], dict[Place, list[Place]]] = {}
    values: list[tuple[ArgumentValue, dict[Place, list[Place]]]] = []
    for value in itertools.islice(values_of(arguments), bounds.MAX_ATTRIBUTED_VALUES):
        key = (value.kind, value.form, value.text)
        if key not in indexes:
            indexes[key] = _index_places(value, texts)
        values.append((value, indexes[key]))
    roots = [(text.sha256, "") for text, _ in texts]
    around_row: dict[str, set[Place]] = {}
    likely: dict[tuple[str, str], Collection[Place]] = {}
    for value, index in sorted(values, key=lambda pair: len(pair[1])):  # The rarest first: it says most.
        around = around_row.setdefault(find_row(value.pointer)[0], set())
        nearest = sorted(around, key=lambda place: (-place[1].count("/"), place))
        places = dict.fromkeys(place for above in (*nearest, *roots) for place in index.get(above, ()))
        chosen = list(itertools.islice(places, bounds.MAX_ORIGINS))
        around |= {(sha256, above) for sha256, pointer in chosen for above in _places_above(pointer)}
        likely[value.pointer, value.text] = chosen
    return likely


def _index_places(value: ArgumentValue, texts: Iterable[tuple[SourceText, _TextIndex]]) -> dict[Place, list[Place]]:
    """The fields that a value is, by each place above them."""
    index_by_place: dict[Place, list[Place]] = {}
    for text, index in texts:
        for pointer in _list_fields(value, index):
            for above in _places_above(pointer):
                below = index_by_place.setdefault((text.sha256, above), [])
                if len(below) < bounds.MAX_ORIGINS:
                    below.append((text.sha256, pointer))
    return index_by_place


def _places_above(pointer: str) -> Iterator[str]:
    while pointer:
        yield pointer
        pointer = pointer.rpartition("/")[0]
    yield ""


def _likely_first(origins: list[Origin], likely: Collection[Place]) -> list[Origin]:
    """The same, in another order where some will be cut."""
    if len(origins) <= bounds.MAX_ORIGINS:
        return origins
    return sorted(origins, key=lambda origin: (origin.sha256, origin.field) not in likely)


def _find_origins(
    value: ArgumentValue, texts: Sequence[tuple[SourceText, _TextIndex]], likely: Collection[Place]
) -> list[Origin]:
    origins: list[Origin] = []
    for text, index in texts:
        origin = Origin(
            source=text.source,
            sha256=text.sha256,
            name=text.name[: bounds.MAX_SUMMARY_CHARS],
            match="exact" if _is_exact(value, text, index) else "normalised",
            call_id=text.call_id,
        )
        fields = _list_fields(value, index)
        if len(fields) > bounds.MAX_ORIGINS:
            beside = [pointer for sha256, pointer in likely if sha256 == text.sha256]
            fields = [*beside, *(pointer for pointer in fields[: bounds.MAX_ORIGINS] if pointer not in beside)]
        for pointer in fields[: bounds.MAX_ORIGINS]:
            origins.append(origin.model_copy(update={"match": "field", "field": pointer}))
        if _is_in_text(value, index):
            origins.append(origin)
    origins = _likely_first(origins, likely)
    return sorted(origins, key=lambda origin: (TRUST.index(origin.source), origin.match != "field"))


def _is_in_text(value: ArgumentValue, index: _TextIndex) -> bool:
    if value.kind == "text":
        return bool(value.form.strip()) and value.form in index.words
    if (value.kind, value.form) in index.typed:
        return True
    if value.kind == "date" and " " in value.form:
        return _has_moment(value.form, index)
    # An address with blanks in it ends at the first of them where people write it.
    return value.kind == "url" and "%20" in value.text and word_form(unquote(value.text)).split("\0")[0] in index.words


def _has_moment(form: str, index: _TextIndex) -> bool:
    """True when the day and the time stand in the text, which has one day or one time: else they may not belong."""
    day, hours = form.split(" ")
    days = {form for kind, form in index.typed if kind == "date"}
    times = {form for kind, form in index.typed if kind == "time"}
    return day in days and hours in times and (len(days) == 1 or len(times) == 1)


def _is_exact(value: ArgumentValue, text: SourceText, index: _TextIndex) -> bool:
    if value.kind == "number":
        return value.form in index.amounts or not index.amounts
    return _whole_text_pattern(value.text).search(index.text) is not None


@lru_cache(maxsize=64)
def _whole_text_pattern(text: str) -> re.Pattern[str]:
    """The text as a whole, marked up perhaps: a folder is no part of the path below it, and a name no part of a longer
    one."""
    return re.compile(rf"(?<![\w./\\~*-])(\*{{1,3}}|__?|~~|){re.escape(text)}\1(?![\w/\\~*-]|\.\w)")


@lru_cache(maxsize=64)
def _build_index(text: str) -> _TextIndex:
    scalars, is_whole = _json_scalars(text)
    if scalars:
        keys = dict.fromkeys(key for pointer, _ in scalars for key in _keys_of(pointer))
        leaves = (leaf if isinstance(leaf, str) else json.dumps(leaf) for _, leaf in scalars)
        text = _BETWEEN_LEAVES.join((*keys, *leaves))
    every = frozenset((kind, form) for kind, _, form in typed_values(text, source=True))
    fields: dict[tuple[ValueKind, str], list[tuple[str, object]]] = {}
    amounts: set[str] = set()
    texts = [("", text)] if scalars is None else []
    for pointer, leaf in scalars or ():
        kind, form = form_of(leaf)
        fields.setdefault((kind, form), []).append((pointer, leaf))
        if kind == "text" and isinstance(leaf, str):
            texts.append((pointer, leaf))
    for pointer, inner_text in texts:
        forms = {(kind, form) for kind, _, form in typed_values(inner_text)}
        amounts |= {form for kind, form in forms if kind == "number"}
        forms |= {(kind, form) for kind, _, form in days_and_times(inner_text)}
        for sought_kind, name in _ONLY:
            lone = [typed_form for typed_form in forms if typed_form[0] == sought_kind]
            if len(lone) == 1 and len(pointer) + len(name) <= MAX_POINTER_CHARS:
                fields.setdefault(lone[0], []).append((pointer + name, None))
    return _TextIndex(text, word_form(text), every, frozenset(amounts), fields, scalars is not None, is_whole)


_ONLY: tuple[tuple[ValueKind, str], ...] = (
    ("url", "/url"),
    ("email", "/email"),
    ("account", "/account"),
    ("contact", "/contact"),
    ("number", "/amount"),
    ("date", "/date"),
    ("time", "/time"),
)


class _DuplicateKey(ValueError):
    """A key that stands twice: readers differ on which one counts."""


def _reject_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(mapping := dict(pairs)) != len(pairs):
        raise _DuplicateKey
    return mapping


def _keys_of(pointer: str) -> list[str]:
    """Names in a pointer. A name of digits alone is left out: it may be a position."""
    segments = map(unescape_segment, pointer.split("/")[1:])
    return [segment for segment in segments if not segment.isdigit()]


def _json_scalars(text: str) -> tuple[list[tuple[str, object]] | None, bool]:
    """Pointer and value of each scalar of a JSON text, none of one that reads two ways, None for any other text; and
    whether these are all."""
    if text.lstrip()[:1] not in ("{", "["):
        return None, True
    try:
        pending: list[tuple[str, object]] = [("", json.loads(text, object_pairs_hook=_reject_duplicates))]
    except (ValueError, RecursionError):
        return [], False
    scalars: list[tuple[str, object]] = []
    is_whole = True
    while pending and len(scalars) < MAX_FIELDS:
        pointer, inner = pending.pop()
        if isinstance(inner, dict):
            pairs = [(escape_segment(key), child) for key, child in inner.items()]
        elif isinstance(inner, list):
            pairs = [(str(position), child) for position, child in enumerate(inner)]
        else:
            scalars.append((pointer, inner))
            continue
        short = [(f"{pointer}/{key}", child) for key, child in pairs if len(pointer) + len(key) < MAX_POINTER_CHARS]
        is_whole = is_whole and len(short) == len(pairs)
        pending.extend(short)
    return scalars, is_whole and not pending
