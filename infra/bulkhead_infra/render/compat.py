"""Whether a schema may stand in for the one that was released. Pure.

In: two JSON Schemas as pydantic renders them. Out: what would break, one sentence each; empty when nothing does.
A message that was written under the old schema must be read under the new one (journals are replayed), and a message
that is written under the new one must be read by replicas that still have the old one. Left alone: titles and
descriptions. Allowed: new optional properties, and wider bounds (roll out every reader before anybody writes beyond the
old bound).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]

_PROSE = frozenset({"title", "description", "examples", "$id", "$schema", "$comment", "$defs"})
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_SHAPE = frozenset({"type", "const", "enum", "properties", "required", "items", "anyOf", "$ref", *_UPPER, *_LOWER})
_MISSING = object()
MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two schemas at one place, and where their references lead."""

    old: Schema
    new: Schema
    old_root: Schema
    new_root: Schema
    path: str
    depth: int = 0

    def at(self, old: Schema, new: Schema, path: str) -> "_Pair":
        return _Pair(old, new, self.old_root, self.new_root, path, self.depth + 1)

    def says(self, text: str) -> str:
        return f"{self.path or 'body'}: {text}"


def breaking(old_schema: Schema, new_schema: Schema) -> list[str]:
    """Why `new_schema` cannot be called by the name of `old_schema`; [] when it can."""
    return _compare(_Pair(old_schema, new_schema, old_schema, new_schema, ""))


def changed(old_schema: Schema, new_schema: Schema) -> bool:
    """Whether anything but prose differs."""
    return _bare(old_schema) != _bare(new_schema)


def _compare(pair: _Pair) -> list[str]:
    assert pair.depth < MAX_DEPTH, "a contract does not contain itself"
    pair = pair.at(_resolve(pair.old, pair.old_root), _resolve(pair.new, pair.new_root), pair.path)
    if "anyOf" in pair.old or "anyOf" in pair.new:
        return _branches(pair)
    return [*_types(pair), *_values(pair), *_bounds(pair), *_properties(pair), *_items(pair), *_others(pair)]


def _types(pair: _Pair) -> list[str]:
    old, new = _type_set(pair.old), _type_set(pair.new)
    if old == new:
        return []
    if not new or (old and old < new):
        return [pair.says(f"type widened from {_names(old)} to {_names(new)}; released readers refuse the rest")]
    return [pair.says(f"type changed from {_names(old)} to {_names(new)}; what was written may not be read")]


def _values(pair: _Pair) -> list[str]:
    """const and enum alike: the values that are allowed."""
    old, new = _allowed(pair.old), _allowed(pair.new)
    if old == new:
        return []
    if old is None:
        return [pair.says("values narrowed to a list; what was written may not be read")]
    if new is None:
        return [pair.says("the list of values is gone; released readers refuse what is not on it")]
    gone, came = sorted(old - new), sorted(new - old)
    found = [pair.says(f"value {', '.join(gone)} is no longer allowed; it may have been written")] if gone else []
    return found + ([pair.says(f"new value {', '.join(came)}; released readers refuse it")] if came else [])


def _bounds(pair: _Pair) -> list[str]:
    found = []
    for key in (*_UPPER, *_LOWER):
        old, new = pair.old.get(key), pair.new.get(key)
        if new is None or new == old:
            continue
        if old is None or (new < old if key in _UPPER else new > old):
            before = "none" if old is None else old
            found.append(pair.says(f"{key} narrowed from {before} to {new}; what was written may not be read"))
    return found


def _properties(pair: _Pair) -> list[str]:
    old, new = pair.old.get("properties", {}), pair.new.get("properties", {})
    needed_before, needed = set(pair.old.get("required", ())), set(pair.new.get("required", ()))
    found = []
    for name in old:
        if name not in new:
            found.append(pair.says(f"property {name!r} is gone; readers may rely on it"))
            continue
        if name in needed and name not in needed_before:
            found.append(pair.says(f"property {name!r} became required; what was written may lack it"))
        if name in needed_before and name not in needed:
            found.append(pair.says(f"property {name!r} became optional; released readers require it"))
        found += _compare(pair.at(old[name], new[name], f"{pair.path}.{name}".lstrip(".")))
    return found + [
        pair.says(f"new property {name!r} is required; what was written lacks it")
        for name in new
        if name not in old and name in needed
    ]


def _items(pair: _Pair) -> list[str]:
    old, new = pair.old.get("items"), pair.new.get("items")
    if old is None and new is None:
        return []
    return _compare(pair.at(old or {}, new or {}, f"{pair.path}[]"))


def _others(pair: _Pair) -> list[str]:
    """Every other keyword (pattern, format, default, ...) must stay as it is."""
    found = []
    for key in sorted((set(pair.old) | set(pair.new)) - _SHAPE - _PROSE):
        old, new = pair.old.get(key, _MISSING), pair.new.get(key, _MISSING)
        if key == "default" and not _extends(old, new):
            change = f"default changed from {_text(old)} to {_text(new)}"
            found.append(pair.says(f"{change}; what is absent would mean something else"))
        elif key != "default" and _text(old) != _text(new):
            found.append(pair.says(f"{key} changed from {_text(old)} to {_text(new)}; one side may refuse the other"))
    return found


def _extends(old: object, new: object) -> bool:
    """Whether a default says what it said: a contract inside it may have got new optional properties."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return all(key in new and _extends(value, new[key]) for key, value in old.items())
    return _text(old) == _text(new)


def _branches(pair: _Pair) -> list[str]:
    """Alternatives: each is held against the one that is most like it; what is left came or went."""
    olds, news = _alternatives(pair.old, pair.old_root), _alternatives(pair.new, pair.new_root)
    found = _others(pair.at(_default(pair.old), _default(pair.new), pair.path))
    left = list(news)
    for old in olds:
        alike = [new for new in left if _type_set(new) == _type_set(old)]
        rated = [(_compare(pair.at(old, new, pair.path)), new) for new in alike]
        if not rated:
            found.append(pair.says(f"alternative {_names(_type_set(old))} is gone; it may have been written"))
            continue
        problems, chosen = min(rated, key=lambda row: len(row[0]))
        left.remove(chosen)
        found += problems
    return found + [pair.says(f"new alternative {_names(_type_set(one))}; released readers refuse it") for one in left]


def _default(schema: Schema) -> Schema:
    return {"default": schema["default"]} if "default" in schema else {}


def _alternatives(schema: Schema, root: Schema) -> list[Schema]:
    if "anyOf" not in schema:
        return [{key: value for key, value in schema.items() if key != "default"}]
    return [_resolve(one, root) for one in schema["anyOf"]]


def _resolve(schema: Schema, root: Schema) -> Schema:
    """The schema that a reference within its document leads to; keywords beside the reference stay."""
    while "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        schema = {**root["$defs"][name], **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def _type_set(schema: Schema) -> frozenset[str]:
    found = schema.get("type", ())
    return frozenset([found] if isinstance(found, str) else found)


def _allowed(schema: Schema) -> frozenset[str] | None:
    if "const" in schema:
        return frozenset({_text(schema["const"])})
    return frozenset(map(_text, schema["enum"])) if "enum" in schema else None


def _names(types: frozenset[str]) -> str:
    return "/".join(sorted(types)) or "anything"


def _text(value: object) -> str:
    return "none" if value is _MISSING else json.dumps(value, sort_keys=True)


def _bare(node: object, names: bool = False) -> object:
    """Without prose. names: the keys of this mapping are names of properties, not keywords."""
    if isinstance(node, Mapping):
        return {
            key: _bare(value, not names and key in ("properties", "$defs"))
            for key, value in node.items()
            if names or key == "$defs" or key not in _PROSE
        }
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [_bare(one) for one in node]
    return node
