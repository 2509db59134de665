"""Descriptions of fields for the OpenAPI document, out of what the docstrings of models say about them.

In: JSON schemas, whose descriptions are docstrings of the form `Summary. field, other: text. third: text.` Out: the
same schemas with the texts at their fields. A field of which its model says nothing gets the meaning that its name has
everywhere (field_meanings.toml), unless it refers to another model.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

Json = dict[str, Any]
MEANINGS: dict[str, str] = tomllib.loads(Path(__file__).with_name("field_meanings.toml").read_text())
_FIELDS = re.compile(r"(?:^|(?<=[.;] ))((?:`?\w+`?(?:, | and ))*`?\w+`?): ")


def describe_fields(schemas: Json) -> None:
    """Move the texts about fields from the description of each schema to its properties."""
    for schema in schemas.values():
        properties: Json = schema.get("properties", {})
        summary, texts = _split_docstring(schema.get("description", ""), properties)
        if summary:
            schema["description"] = summary
        for name, field in properties.items():
            text = texts.get(name) or field.get("description") or MEANINGS.get(name, "")
            if text and (name in texts or not refers_to_model(field)):
                field["description"] = text[0].upper() + text[1:]


def refers_to_model(field: Json) -> bool:
    """True where the field's values are objects, whose model describes them."""
    parts = [field, field.get("items", {}), field.get("additionalProperties", {}), *field.get("anyOf", ())]
    return any(isinstance(part, dict) and "$ref" in (part | part.get("items", {})) for part in parts)


def _split_docstring(docstring: str, properties: Json) -> tuple[str, dict[str, str]]:
    """The part about the whole model, and by field what is said about it."""
    text = " ".join(docstring.split())
    starts = [match for match in _FIELDS.finditer(text) if {*_names_of(match[1])} <= {*properties}]
    ends = [*(match.start() for match in starts[1:]), len(text)]
    texts: dict[str, str] = {}
    for match, end in zip(starts, ends, strict=False):
        texts |= dict.fromkeys(_names_of(match[1]), text[match.end() : end].strip().removesuffix(";"))
    return text[: starts[0].start()].strip() if starts else text, texts


def _names_of(listed: str) -> list[str]:
    return [name for name in re.findall(r"\w+", listed) if name != "and"]
