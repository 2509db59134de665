"""Parts, tools and schemas as the mesh sends them to a model. In: texts. Out: what a request holds."""

from typing import Any

from bulkhead_infra.offline_model.parts import short_digest

TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
TEXTS = {"type": "array", "items": TEXT}


def _object(**properties: Any) -> dict[str, Any]:
    """The schema of an object with these properties, all required, and no other."""
    shape = {"type": "object", "additionalProperties": False}
    return {**shape, "required": list(properties), "properties": properties}


STEP_SCHEMA = _object(id=TEXT, title=TEXT, instruction=TEXT, tools=TEXTS, inputs=TEXTS, acceptance=TEXT)
PLAN_SCHEMA = _object(steps={"type": "array", "items": STEP_SCHEMA})
VERDICT_SCHEMA = _object(
    verdict=TEXT | {"enum": ["accept", "reject"]},
    answered=TEXT | {"enum": ["yes", "partly", "no"]},
    score={"type": "number"},
    reasons=TEXTS,
    support=TEXTS,
)
TOOLS: dict[str, dict[str, Any]] = {
    name: {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}
    for name, description, parameters in (
        ("search_documents", "search the documents", _object(query=TEXT, k=NUMBER | {"maximum": 20})),
        ("calculate", "decimal arithmetic", _object(expression=TEXT)),
        ("date_difference", "days between dates", _object(start=TEXT, end=TEXT)),
        ("date_add", "add days to a date", _object(date=TEXT, days=NUMBER)),
    )
}


def part(kind: str, text: str, **attributes: str) -> str:
    named = "".join(f' {key}="{value}"' for key, value in attributes.items())
    digest = short_digest(text)
    return f"[[part kind={kind} id={digest}{named}]]\n{text}\n[[/part {digest}]]"
