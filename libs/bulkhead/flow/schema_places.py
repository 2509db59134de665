"""Places in a JSON Schema: what a tool takes or gives, as plans name it. Pure.

In: a schema. Out: the pointer of each scalar that it declares, `*` for every item of a list, and its type.
"""

from typing import Any

from bulkhead.flow.json_pointer import escape_segment
from bulkhead_contracts import bounds

MAX_PLACES = bounds.MAX_RESULT_FIELDS


def list_places(schema: object) -> tuple[tuple[str, str], ...]:
    """(pointer, type) of each scalar, in the schema's order; the type is `any` where it is not said. What is referred
    to, or lies too deep, is left out."""
    places: list[tuple[str, str]] = []
    pending: list[tuple[str, object, int]] = [("", schema, 0)]
    while pending and len(places) < MAX_PLACES:
        pointer, node, depth = pending.pop()
        if not isinstance(node, dict) or depth > bounds.MAX_JSON_DEPTH or len(pointer) > bounds.MAX_POINTER_CHARS:
            continue
        properties, items = node.get("properties"), node.get("items")
        if isinstance(properties, dict):
            inner = [(f"{pointer}/{escape_segment(name)}", child, depth + 1) for name, child in properties.items()]
            pending.extend(reversed(inner))
        elif isinstance(items, dict):
            pending.append((f"{pointer}/*", items, depth + 1))
        elif pointer and not _is_container(node):
            places.append((pointer, _type_of(node)))
    return tuple(places)


def _is_container(node: dict[str, Any]) -> bool:
    return node.get("type") in ("object", "array") or "$ref" in node


def _type_of(node: dict[str, Any]) -> str:
    kind = node.get("type")
    return kind if isinstance(kind, str) else "any"
