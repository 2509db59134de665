"""Where the values of a call's arguments stand in the texts that the model was shown. Pure.

In: the arguments, and the texts with who is behind each. Out: one ValueOrigin for each value, with the contents in
which it stands; none where it stands nowhere. A value matches a whole token of a text and never a part of one: the
account `123` does not stand in `1234`, the address `a@b.example` not in `a@b.example.org`.

A number `exact`ly stands beside a currency, or in a text that has no amounts of money: `75` in `invoice 200, 75 EUR`.
A text that is no JSON has the fields `/url`, `/email`, `/account` and `/amount`, each where exactly one stands in it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote

from bulkhead.policy.values import Kind, Value, amounts_of, form_of, typed, values_of, words
from bulkhead_contracts import bounds
from bulkhead_contracts.provenance import Origin, Source, ValueOrigin

MAX_SOURCE_CHARS = 128 * 1024
"""Of one text; what lies behind is not looked at, and the attribution is not complete."""
MAX_SOURCES = 512
MAX_FIELDS = 20_000
MAX_POINTER_CHARS = 200
TRUST: tuple[Source, ...] = ("user", "operator", "retrieved", "tool", "model")
"""From the most trusted to the least."""


@dataclass(frozen=True, slots=True)
class SourceText:
    """A text that stood in the context. name: of the document or tool. call_id: of the call that gave it."""

    text: str
    source: Source
    sha256: str
    name: str = ""
    call_id: str = ""


@dataclass(slots=True)
class _Index:
    """One text, ready for look-ups. fields: of a JSON text, the pointers of each scalar by its form."""

    words: str
    typed: frozenset[tuple[Kind, str]]
    amounts: frozenset[str]
    fields: dict[tuple[Kind, str], list[tuple[str, object]]] = field(default_factory=dict)


def attribute(arguments: Mapping[str, object], sources: Sequence[SourceText]) -> tuple[tuple[ValueOrigin, ...], bool]:
    """The values of the arguments with their origins, and whether all values and all texts were looked at whole."""
    complete = len(sources) <= MAX_SOURCES and all(len(one.text) <= MAX_SOURCE_CHARS for one in sources)
    texts = [(one, _index(one.text[:MAX_SOURCE_CHARS])) for one in sources[:MAX_SOURCES]]
    found: list[ValueOrigin] = []
    seen: set[tuple[str, str]] = set()
    for value in values_of(arguments):
        if (value.pointer, value.text) in seen:
            continue
        if len(found) == bounds.MAX_ATTRIBUTED_VALUES:
            return tuple(found), False
        if len(value.pointer) > MAX_POINTER_CHARS:
            complete = False
            continue
        seen.add((value.pointer, value.text))
        found.append(ValueOrigin(pointer=value.pointer, text=value.text, origins=_origins(value, texts)))
    return tuple(found), complete


def least_of(sources: Sequence[SourceText]) -> Source:
    """The least trusted source of a context; `user` where there is none."""
    return TRUST[max((TRUST.index(one.source) for one in sources), default=0)]


def _origins(value: Value, texts: Sequence[tuple[SourceText, _Index]]) -> tuple[Origin, ...]:
    found: list[Origin] = []
    for text, index in texts:
        at = Origin(
            source=text.source,
            sha256=text.sha256,
            name=text.name[: bounds.MAX_SUMMARY_CHARS],
            match="exact" if _exact(value, text, index) else "normalised",
            call_id=text.call_id,
        )
        for pointer, raw in index.fields.get((value.kind, value.form), ())[: bounds.MAX_ORIGINS]:
            if value.kind != "text" or raw == value.text:  # `../a` is not the field `/a`.
                found.append(at.model_copy(update={"match": "field", "field": pointer}))
        if _stands(value, index):
            found.append(at)
    found.sort(key=lambda one: (TRUST.index(one.source), one.match != "field"))
    return tuple(found[: bounds.MAX_ORIGINS])


def _stands(value: Value, index: _Index) -> bool:
    if value.kind == "text":
        return bool(value.form.strip()) and value.form in index.words
    if (value.kind, value.form) in index.typed:
        return True
    # An address with blanks in it ends at the first of them where people write it.
    return value.kind == "url" and "%20" in value.text and words(unquote(value.text)).split("\0")[0] in index.words


def _exact(value: Value, text: SourceText, index: _Index) -> bool:
    if value.kind == "number":
        return value.form in index.amounts or not index.amounts
    return _written(value.text).search(text.text) is not None


@lru_cache(maxsize=64)
def _written(text: str) -> re.Pattern[str]:
    """The text as a whole: a folder is no part of the path below it, and a name no part of a longer one."""
    return re.compile(rf"(?<![\w./\\~*-]){re.escape(text)}(?![\w/\\~*-]|\.\w)")


@lru_cache(maxsize=64)
def _index(text: str) -> _Index:
    every = frozenset((kind, form) for kind, _, form in typed(text, source=True))
    found = _Index(words(text), every, amounts_of(text))
    scalars = _scalars(text)
    for pointer, leaf in scalars or ():
        found.fields.setdefault(form_of(leaf), []).append((pointer, leaf))
    if scalars is None:
        asked_about = frozenset((kind, form) for kind, _, form in typed(text))
        for wanted, name in _ONLY:
            there = [one for one in asked_about if one[0] == wanted]
            if len(there) == 1:
                found.fields[there[0]] = [(name, None)]
    return found


_ONLY: tuple[tuple[Kind, str], ...] = (
    ("url", "/url"),
    ("email", "/email"),
    ("account", "/account"),
    ("number", "/amount"),
)


class _Twice(ValueError):
    """A key that stands twice: readers differ on which one counts."""


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(found := dict(pairs)) != len(pairs):
        raise _Twice
    return found


def _scalars(text: str) -> list[tuple[str, object]] | None:
    """Pointer and value of each scalar of a JSON text, none of one that reads two ways; None for any other text."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        pending: list[tuple[str, object]] = [("", json.loads(text, object_pairs_hook=_once))]
    except (ValueError, RecursionError):
        return []
    found: list[tuple[str, object]] = []
    while pending and len(found) < MAX_FIELDS:
        pointer, inner = pending.pop()
        if isinstance(inner, dict):
            pairs = [(key.replace("~", "~0").replace("/", "~1"), one) for key, one in inner.items()]
        elif isinstance(inner, list):
            pairs = [(str(at), one) for at, one in enumerate(inner)]
        else:
            found.append((pointer, inner))
            continue
        pending.extend((f"{pointer}/{key}", one) for key, one in pairs if len(pointer) + len(key) < MAX_POINTER_CHARS)
    return found
