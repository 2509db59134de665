"""The AsyncAPI 3 document: every edge of the catalog as a channel, every service's sends and receives."""

import yaml

from bulkhead_contracts import catalog
from bulkhead_infra.render import schemas

PARAMETERS = {
    "partition": {"description": "blake2b-64(task) mod 32"},
    "tenant": {"description": "the tenant; one subject token"},
    "task": {"description": "the task, or the id of an ingestion; one subject token"},
}
KEY_PARAMETER = {"description": "`-`; of a doer's outcome the idempotency key of the call"}


def asyncapi_document() -> dict[str, object]:
    channels: dict[str, object] = {}
    operations: dict[str, object] = {}
    for row in catalog.ROWS:
        for sender, receiver in row.edges:
            name = f"{row.plane}.{sender}.{receiver}"
            channel = channels.setdefault(name, _render_channel(row.plane, sender, receiver))
            message = {"$ref": f"#/components/messages/{row.body.ce_type()}"}
            channel["messages"][row.body.ce_type()] = message  # type: ignore[index]
            for action, who in (("send", sender), ("receive", receiver)):
                key = f"{who}.{action}.{name}.{row.body.ce_type()}"
                operations[key] = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{name}"},
                    "messages": [{"$ref": f"#/channels/{name}/messages/{row.body.ce_type()}"}],
                    "tags": [{"name": who}],
                }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Bulkhead",
            "version": "0.1.0",
            "description": "Messages of the mesh. Rendered from contracts/bulkhead_contracts/catalog.py.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": _render_messages(), "schemas": {"envelope": schemas.envelope_schema()}},
    }


def _render_channel(plane: str, sender: str, receiver: str) -> dict[str, object]:
    if plane == "events":
        name = {"description": "the event's name, two tokens: the type without `event.` and version"}
        return {
            "address": "events.{tenant}.{name}.{task}",
            "description": "What outside subscribers are told; stored for seven days.",
            "parameters": {"tenant": PARAMETERS["tenant"], "name": name, "task": PARAMETERS["task"]},
            "messages": {},
        }
    address_sender = {catalog.PUBLISHER: "pub_{publisher}", catalog.OUTSIDE_WORKER: "wrk_{worker}"}.get(sender, sender)
    parameters = dict(PARAMETERS)
    if sender == catalog.PUBLISHER:
        parameters["publisher"] = {"description": "the outside publisher's name; the broker holds it to its tenant"}
    if sender == catalog.OUTSIDE_WORKER:
        parameters["worker"] = {"description": "the outside program's name; the broker holds it to its tenant"}
    storage_note = "stored in the receiver's inbox stream" if plane == "mesh" else "request/reply, not stored"
    address = f"{plane}.{address_sender}.{receiver}.{{partition}}.{{tenant}}.{{task}}"
    if plane == "mesh":
        address, parameters["key"] = f"{address}.{{key}}", KEY_PARAMETER
    return {
        "address": address,
        "description": f"{sender} to {receiver}; {storage_note}.",
        "parameters": parameters,
        "messages": {},
    }


def _render_messages() -> dict[str, object]:
    messages: dict[str, object] = {}
    for row in catalog.ROWS:
        for kind in (row.body, *(old for old, _ in row.older.values())):
            schema = schemas.schema_of(kind, kind.ce_type())
            messages[kind.ce_type()] = {
                "name": kind.ce_type(),
                "summary": (kind.__doc__ or "").strip().split("\n")[0],
                "contentType": "application/json",
                "headers": {"$ref": "#/components/schemas/envelope"},
                "payload": {
                    "schemaFormat": "application/schema+json;version=draft-07",
                    "schema": _inline_definitions(schema),
                },
            }
    return messages


def _inline_definitions(schema: dict[str, object]) -> dict[str, object]:
    """The schema with its definitions put in place, so that no reference leaves the message."""
    definitions = schema.get("$defs", {})

    def inline_node(node: object) -> object:
        if isinstance(node, list):
            return [inline_node(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            name = str(node["$ref"]).rpartition("/")[2]
            siblings = {key: value for key, value in node.items() if key != "$ref"}
            return {**inline_node(definitions[name]), **siblings}  # type: ignore[index,dict-item]
        return {key: inline_node(value) for key, value in node.items() if key not in ("$defs", "$schema", "$id")}

    return inline_node(schema)  # type: ignore[return-value]


def files() -> dict[str, str]:
    text = yaml.dump(asyncapi_document(), sort_keys=True, allow_unicode=True, width=120, Dumper=_NoAliasDumper)
    return {"contracts/asyncapi.yaml": "# Rendered by `make render`; do not edit.\n" + text}


class _NoAliasDumper(yaml.SafeDumper):
    """YAML without anchors: every part stands where it is read."""

    def ignore_aliases(self, data: object) -> bool:
        return True
