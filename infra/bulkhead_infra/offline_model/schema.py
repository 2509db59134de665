"""Data that fits a JSON schema. Enters: a value, a schema. Leaves: the value made to fit, gaps filled minimally."""

from collections.abc import Mapping
from typing import Any

DEPTH_MAX = 12


def resolve(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that a local `$ref` or a one-branch union stands for."""
    for _ in range(DEPTH_MAX):
        if "$ref" in schema:
            node: Any = root
            for key in str(schema["$ref"]).lstrip("#/").split("/"):
                node = node.get(key, {}) if isinstance(node, dict) else {}
            schema = node
        elif "allOf" in schema and len(schema["allOf"]) == 1:
            schema = schema["allOf"][0]
        else:
            break
    return schema


def conform(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int = 0) -> Any:
    """`value` without forbidden properties, with missing required ones filled in and lengths cut."""
    schema = resolve(schema, root)
    if depth > DEPTH_MAX:
        return value
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches:
        fitting = [b for b in branches if _is_kind(value, resolve(b, root).get("type"))]
        return conform(value, fitting[0] if fitting else branches[0], root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema and value not in schema["enum"]:
        return schema["enum"][0]
    properties = schema.get("properties")
    if isinstance(value, dict) and properties is not None:
        made = {
            key: conform(item, properties[key], root, depth + 1) if key in properties else item
            for key, item in value.items()
            if key in properties or schema.get("additionalProperties", True)
        }
        for key in schema.get("required") or ():
            if key not in made:
                made[key] = minimal(properties.get(key, {}), root, depth + 1)
        return made
    if isinstance(value, list):
        kept = value[: schema["maxItems"]] if "maxItems" in schema else value
        return [conform(item, schema.get("items") or {}, root, depth + 1) for item in kept]
    if isinstance(value, str) and "maxLength" in schema:
        return value[: schema["maxLength"]]
    if not _is_kind(value, schema.get("type")):
        return minimal(schema, root, depth + 1)
    return value


def _is_kind(value: Any, kind: Any) -> bool:
    kinds = kind if isinstance(kind, list) else [kind]
    tests = {
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "integer": isinstance(value, int) and not isinstance(value, bool),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
        "null": value is None,
    }
    return kind is None or any(tests.get(str(k), True) for k in kinds)


def minimal(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int = 0) -> Any:
    """The smallest value that a schema allows, as far as its plain keywords tell."""
    schema = resolve(schema, root)
    if "default" in schema:
        return schema["default"]
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches and depth < DEPTH_MAX:
        return minimal(next((b for b in branches if b.get("type") == "null"), branches[0]), root, depth + 1)
    kind = schema.get("type", "string")
    kind = ("null" if "null" in kind else kind[0]) if isinstance(kind, list) else kind
    match kind:
        case "object":
            properties = schema.get("properties") or {}
            keys = schema.get("required") or () if depth < DEPTH_MAX else ()
            return {key: minimal(properties.get(key, {}), root, depth + 1) for key in keys}
        case "array":
            count = int(schema.get("minItems", 0)) if depth < DEPTH_MAX else 0
            return [minimal(schema.get("items") or {}, root, depth + 1) for _ in range(count)]
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
        case "null":
            return None
        case _:
            return "-" * int(schema.get("minLength", 0))
