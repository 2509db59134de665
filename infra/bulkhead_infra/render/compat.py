"""Compatibility of a schema with the one that was released. Pure.

In: two JSON Schemas as pydantic renders them. Out: what would break, one sentence each; empty when nothing does.
A message that was written under the old schema must be read under the new one (journals are replayed), and a
message that is written under the new one must be read by replicas that still have the old one. Left alone:
titles and descriptions. Allowed: new optional properties, and wider bounds (roll out every reader before
anybody writes beyond the old bound).
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
class _SchemaPair:
    """Two schemas at one place, and where their references lead."""

    old: Schema
    new: Schema
    old_root: Schema
    new_root: Schema
    path: str
    depth: int = 0

    def descend_to(self, old: Schema, new: Schema, path: str) -> "_SchemaPair":
        return _SchemaPair(old, new, self.old_root, self.new_root, path, self.depth + 1)

    def problem_at_path(self, text: str) -> str:
        return f"{self.path or 'body'}: {text}"


def breaking_changes(old_schema: Schema, new_schema: Schema) -> list[str]:
    """Why `new_schema` cannot be called by the name of `old_schema`; [] when it can."""
    return _compare_pair(_SchemaPair(old_schema, new_schema, old_schema, new_schema, ""))


def has_changed(old_schema: Schema, new_schema: Schema) -> bool:
    """True when anything but prose differs."""
    return _without_prose(old_schema) != _without_prose(new_schema)


def _compare_pair(pair: _SchemaPair) -> list[str]:
    assert pair.depth < MAX_DEPTH, "a contract does not contain itself"
    pair = pair.descend_to(
        _resolve_reference(pair.old, pair.old_root), _resolve_reference(pair.new, pair.new_root), pair.path
    )
    if "anyOf" in pair.old or "anyOf" in pair.new:
        return _compare_branches(pair)
    return [
        *_compare_types(pair),
        *_compare_values(pair),
        *_compare_bounds(pair),
        *_compare_properties(pair),
        *_compare_items(pair),
        *_compare_other_keywords(pair),
    ]


def _compare_types(pair: _SchemaPair) -> list[str]:
    old, new = _type_set(pair.old), _type_set(pair.new)
    if old == new:
        return []
    if not new or (old and old < new):
        return [
            pair.problem_at_path(
                f"type widened from {_render_types(old)} to {_render_types(new)}; released readers refuse the rest"
            )
        ]
    return [
        pair.problem_at_path(
            f"type changed from {_render_types(old)} to {_render_types(new)}; what was written may not be read"
        )
    ]


def _compare_values(pair: _SchemaPair) -> list[str]:
    """const and enum alike: the values that are allowed."""
    old, new = _allowed_values(pair.old), _allowed_values(pair.new)
    if old == new:
        return []
    if old is None:
        return [pair.problem_at_path("values narrowed to a list; what was written may not be read")]
    if new is None:
        return [pair.problem_at_path("the list of values is gone; released readers refuse what is not on it")]
    removed, added = sorted(old - new), sorted(new - old)
    problems = (
        [pair.problem_at_path(f"value {', '.join(removed)} is no longer allowed; it may have been written")]
        if removed
        else []
    )
    return problems + (
        [pair.problem_at_path(f"new value {', '.join(added)}; released readers refuse it")] if added else []
    )


def _compare_bounds(pair: _SchemaPair) -> list[str]:
    problems = []
    for key in (*_UPPER, *_LOWER):
        old, new = pair.old.get(key), pair.new.get(key)
        if new is None or new == old:
            continue
        if old is None or (new < old if key in _UPPER else new > old):
            before = "none" if old is None else old
            problems.append(
                pair.problem_at_path(f"{key} narrowed from {before} to {new}; what was written may not be read")
            )
    return problems


def _compare_properties(pair: _SchemaPair) -> list[str]:
    old, new = pair.old.get("properties", {}), pair.new.get("properties", {})
    needed_before, needed = set(pair.old.get("required", ())), set(pair.new.get("required", ()))
    problems = []
    for name in old:
        if name not in new:
            problems.append(pair.problem_at_path(f"property {name!r} is gone; readers may rely on it"))
            continue
        if name in needed and name not in needed_before:
            problems.append(pair.problem_at_path(f"property {name!r} became required; what was written may lack it"))
        if name in needed_before and name not in needed:
            problems.append(pair.problem_at_path(f"property {name!r} became optional; released readers require it"))
        problems += _compare_pair(pair.descend_to(old[name], new[name], f"{pair.path}.{name}".lstrip(".")))
    return problems + [
        pair.problem_at_path(f"new property {name!r} is required; what was written lacks it")
        for name in new
        if name not in old and name in needed
    ]


def _compare_items(pair: _SchemaPair) -> list[str]:
    old, new = pair.old.get("items"), pair.new.get("items")
    if old is None and new is None:
        return []
    return _compare_pair(pair.descend_to(old or {}, new or {}, f"{pair.path}[]"))


def _compare_other_keywords(pair: _SchemaPair) -> list[str]:
    """Every other keyword (pattern, format, default, ...) must stay as it is."""
    problems = []
    for key in sorted((set(pair.old) | set(pair.new)) - _SHAPE - _PROSE):
        old, new = pair.old.get(key, _MISSING), pair.new.get(key, _MISSING)
        if key == "default" and not _is_extended_default(old, new):
            change = f"default changed from {_render_value(old)} to {_render_value(new)}"
            problems.append(pair.problem_at_path(f"{change}; what is absent would mean something else"))
        elif key != "default" and _render_value(old) != _render_value(new):
            problems.append(
                pair.problem_at_path(
                    f"{key} changed from {_render_value(old)} to {_render_value(new)}; one side may refuse the other"
                )
            )
    return problems


def _is_extended_default(old: object, new: object) -> bool:
    """True when a default says what it said: a contract inside it may have got new optional properties."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return all(key in new and _is_extended_default(value, new[key]) for key, value in old.items())
    return _render_value(old) == _render_value(new)


def _compare_branches(pair: _SchemaPair) -> list[str]:
    """Alternatives: each is held against the one that is most like it; what is left came or went."""
    olds, news = _list_alternatives(pair.old, pair.old_root), _list_alternatives(pair.new, pair.new_root)
    all_problems = _compare_other_keywords(pair.descend_to(_default_of(pair.old), _default_of(pair.new), pair.path))
    unmatched = list(news)
    for old in olds:
        alike = [new for new in unmatched if _type_set(new) == _type_set(old)]
        rated = [(_compare_pair(pair.descend_to(old, new, pair.path)), new) for new in alike]
        if not rated:
            all_problems.append(
                pair.problem_at_path(f"alternative {_render_types(_type_set(old))} is gone; it may have been written")
            )
            continue
        problems, chosen = min(rated, key=lambda row: len(row[0]))
        unmatched.remove(chosen)
        all_problems += problems
    return all_problems + [
        pair.problem_at_path(f"new alternative {_render_types(_type_set(branch))}; released readers refuse it")
        for branch in unmatched
    ]


def _default_of(schema: Schema) -> Schema:
    return {"default": schema["default"]} if "default" in schema else {}


def _list_alternatives(schema: Schema, root: Schema) -> list[Schema]:
    if "anyOf" not in schema:
        return [{key: value for key, value in schema.items() if key != "default"}]
    return [_resolve_reference(branch, root) for branch in schema["anyOf"]]


def _resolve_reference(schema: Schema, root: Schema) -> Schema:
    """The schema that a reference within its document leads to; keywords beside the reference stay."""
    while "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        schema = {**root["$defs"][name], **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def _type_set(schema: Schema) -> frozenset[str]:
    types = schema.get("type", ())
    return frozenset([types] if isinstance(types, str) else types)


def _allowed_values(schema: Schema) -> frozenset[str] | None:
    if "const" in schema:
        return frozenset({_render_value(schema["const"])})
    return frozenset(map(_render_value, schema["enum"])) if "enum" in schema else None


def _render_types(types: frozenset[str]) -> str:
    return "/".join(sorted(types)) or "anything"


def _render_value(value: object) -> str:
    return "none" if value is _MISSING else json.dumps(value, sort_keys=True)


def _without_prose(node: object, names: bool = False) -> object:
    """Without prose. names: the keys of this mapping are names of properties, not keywords."""
    if isinstance(node, Mapping):
        return {
            key: _without_prose(value, not names and key in ("properties", "$defs"))
            for key, value in node.items()
            if names or key == "$defs" or key not in _PROSE
        }
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [_without_prose(item) for item in node]
    return node
