"""Output schemas that the tool door declares, and what fits them. Pure.

In: specs, results. Out: schemas, verdicts. Official clients refuse a success whose structured content is missing or
unfit, so that a schema is declared only where every success can be held to it.
"""

import json
from functools import lru_cache
from typing import Any

import jsonschema_rs

from bulkhead_contracts.tool import ToolSpec

DRAFT = "https://json-schema.org/draft/2020-12/schema"
MAX_KEPT = 256


def declared_schema(spec: ToolSpec) -> dict[str, Any] | None:
    """The schema that a tool is listed with; None for none. A write has none: one that was made must never be told as
    an error, though its result is cut or unfit."""
    compiled = _compile_schema(spec.output_json) if spec.effect == "read" and spec.output_json else None
    return compiled[0] if compiled is not None else None


def fits_schema(spec: ToolSpec, found: dict[str, Any] | None) -> bool:
    """True when a result may be told as a success of this tool."""
    if declared_schema(spec) is None:
        return True
    compiled = _compile_schema(spec.output_json)
    return found is not None and compiled is not None and compiled[1].is_valid(found)


@lru_cache(maxsize=MAX_KEPT)
def _compile_schema(text: str) -> tuple[dict[str, Any], jsonschema_rs.Draft202012Validator] | None:
    schema = json.loads(text)
    if not isinstance(schema, dict) or schema.get("type") != "object" or not _is_plain(schema):
        return None
    try:
        return schema, jsonschema_rs.Draft202012Validator(schema)
    except ValueError:
        return None


def _is_plain(part: Any) -> bool:
    """True when all clients read it alike: regular expressions have dialects, drafts differ, and what a schema
    refers to outside is nowhere.
    """
    if isinstance(part, list):
        return all(map(_is_plain, part))
    if not isinstance(part, dict):
        return True
    foreign = isinstance(part.get("pattern"), str) or "patternProperties" in part or isinstance(part.get("$id"), str)
    draft = part.get("$schema", DRAFT)
    refers = [part[name] for name in ("$ref", "$dynamicRef") if isinstance(part.get(name), str)]
    inside = all(reference.startswith("#") for reference in refers)
    return not foreign and draft == DRAFT and inside and all(map(_is_plain, part.values()))
