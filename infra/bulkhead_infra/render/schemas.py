"""JSON Schemas of every released message version, and of the envelope's headers."""

import json

from bulkhead_contracts import bounds, catalog
from bulkhead_contracts.control import Breaker, Halt, HaltV1
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.model import CallAbandoned, CallFollowers, TextDelta
from bulkhead_contracts.tool import ToolProgress
from bulkhead_contracts.types import Body, Contract

ALSO: dict[str, type[Contract]] = {
    "TaskGrant": TaskGrant,
    "StepGrant": StepGrant,
    "CallAbandoned": CallAbandoned,
    "CallFollowers": CallFollowers,
    "TextDelta": TextDelta,
    "ToolProgress": ToolProgress,
    "Halt": HaltV1,
    "Halt.v2": Halt,
    "Breaker": Breaker,
}
"""Shapes beside messages that cross a wire, by name."""


def body_classes() -> list[type[Body]]:
    """Every body class of the catalog, older versions included."""
    classes: list[type[Body]] = []
    for row in catalog.ROWS:
        classes.append(row.body)
        classes.extend(old for old, _ in row.older.values())
    return classes


def schema_of(kind: type[Contract], name: str) -> dict[str, object]:
    """Schema for readers: unknown fields are allowed."""
    schema = kind.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:bulkhead:{name}", **schema}


def envelope_schema() -> dict[str, object]:
    """The NATS headers around every body (CloudEvents 1.0, binary mode)."""
    text = {"type": "string"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:bulkhead:envelope",
        "title": "Envelope",
        "description": "NATS headers of every message. Nats-Msg-Id is the publisher's HMAC of ce-id; an outside "
        "publisher may use any value that only it knows.",
        "type": "object",
        "required": ["ce-specversion", "ce-id", "ce-type", "ce-source", "ce-time", "content-type"],
        "properties": {
            "ce-specversion": {"const": "1.0"},
            "ce-id": {**text, "pattern": "^[0-9a-f]{32}$", "description": "hash of emitter, cause and index"},
            "ce-type": {**text, "maxLength": 100, "examples": ["mesh.task.requested.v2"]},
            "ce-source": {**text, "description": "the sender; must equal the subject's <from>"},
            "ce-time": {**text, "format": "date-time"},
            "content-type": {"const": "application/json"},
            "ce-causeid": {**text, "description": "ce-id of the message that caused this one"},
            "ce-actor": {**text, "description": "the person or program on whose authority"},
            "ce-grantdigest": text,
            "ce-approvalid": text,
            "ce-logicversion": {**text, "pattern": "^[0-9]+$"},
            "traceparent": {**text, "description": "W3C trace context"},
            "bulkhead-grant": {**text, "maxLength": bounds.MAX_GRANT_TOKEN_BYTES},
            "Nats-Msg-Id": {**text, "maxLength": 64},
        },
    }


def files() -> dict[str, str]:
    texts = {
        f"contracts/schemas/{kind.ce_type()}.json": _render_schema(schema_of(kind, kind.ce_type()))
        for kind in body_classes()
    }
    for name, kind in ALSO.items():
        texts[f"contracts/schemas/{name}.json"] = _render_schema(schema_of(kind, name))
    texts["contracts/schemas/envelope.json"] = _render_schema(envelope_schema())
    return texts


def _render_schema(schema: dict[str, object]) -> str:
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"
