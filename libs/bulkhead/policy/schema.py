"""The Cedar schema of the tools, and a proposed call as a Cedar request.

In: ToolSpecs, a CallProposal and what its sinks hold. Out: the text of a schema, against which policies are validated;
the entities and the request that they are evaluated on. docs/how-to/policy.md names all of it for authors of policies.
"""

import json
from collections.abc import Iterable, Mapping
from decimal import ROUND_UP, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from bulkhead.policy.ruling import CallProposal
from bulkhead_contracts.tool import ToolSpec

READS, WRITES, EGRESS, FLOW = "reads", "writes", "egress", "flow"
RESERVED = frozenset((READS, WRITES, EGRESS, FLOW))
"""Actions that are no tool: groups of tools, and the flow of a source into a sink."""
MAX_DEPTH = 4
_LONG = 2**63
_DECIMAL = Decimal("922337203685477.5807")
_HEAD = """\
entity Role;
entity Person in [Role] = { "role": String, "agent": String, "feature": String, "workflow": String };
entity Tenant = { "scopes": Set<String> };
entity Source in [Source];
action "reads", "writes", "egress";
action "flow" appliesTo { principal: [Source], resource: [Tenant],
  context: { "tool": String, "argument": String, "kind": String, "field": String } };
"""


class UnfitArguments(ValueError):
    """An argument that policy cannot be asked about: it is not of the declared type, or too large."""


def render_schema(tools: Iterable[ToolSpec]) -> str:
    """The schema. Raises ValueError for a tool whose name is one of a group."""
    return _HEAD + "".join(map(_render_action, sorted(tools, key=lambda tool: tool.name)))


def action_groups(tool: ToolSpec) -> tuple[str, ...]:
    """The groups of actions that the tool is in."""
    return (WRITES if tool.effect == "write" else READS, *((EGRESS,) if tool.egress else ()))


def _render_action(tool: ToolSpec) -> str:
    if tool.name in RESERVED:
        raise ValueError(f"a tool cannot be named {tool.name}: policies use the word for a group; rename the tool")
    declared = declared_arguments(tool)
    sources = ", ".join(f"{json.dumps(name)}?: Set<String>" for name in sorted(declared))
    parents = ", ".join(f'Action::"{group}"' for group in action_groups(tool))
    return (
        f"action {json.dumps(tool.name)} in [{parents}]\n"
        "  appliesTo { principal: [Person], resource: [Tenant], context: {\n"
        f'  "arguments": {_record_type(_parse_parameters(tool.parameters_json))},\n  "sources": {{ {sources} }},\n'
        '  "tainted": Set<String>, "risk": String, "isolation": String, "least": String,\n'
        '  "shown": Set<String>,\n'
        '  "spent_usd_micros": Long, "calls_before": Long } };\n'
    )


def declared_arguments(tool: ToolSpec) -> Mapping[str, Any]:
    """The arguments that the tool declares, with the JSON Schema of each."""
    properties = _parse_parameters(tool.parameters_json).get("properties", {})
    return properties if isinstance(properties, dict) else {}


@lru_cache(maxsize=1_024)
def _parse_parameters(parameters_json: str) -> Mapping[str, Any]:
    parameters = json.loads(parameters_json)
    return parameters if isinstance(parameters, dict) else {}


def _record_type(schema: Mapping[str, Any], depth: int = 0) -> str:
    required = schema.get("required", ())
    rows = [
        f"{json.dumps(name)}{'' if name in required else '?'}: {kind}"
        for name, inner in sorted((schema.get("properties") or {}).items())
        if (kind := _cedar_type(inner, depth + 1))
    ]
    return f"{{ {', '.join(rows)} }}"


def _cedar_type(schema: object, depth: int) -> str:
    """The Cedar type of a JSON Schema; "" for what has none: policies cannot refer to it."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return ""
    match schema.get("type"):
        case "string":
            return "String"
        case "integer":
            return "Long"
        case "number":
            return "decimal"
        case "boolean":
            return "Bool"
        case "array" if inner := _cedar_type(schema.get("items"), depth + 1):
            return f"Set<{inner}>"
        case "object" if schema.get("properties"):
            return _record_type(schema, depth)
    return ""


def arguments_of(tool: ToolSpec, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as Cedar reads them: those that the schema has a type for. Raises UnfitArguments."""
    return _cedar_fields(_parse_parameters(tool.parameters_json), arguments, 0)


def _cedar_fields(schema: Mapping[str, Any], values: object, depth: int) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise UnfitArguments("an object is declared and none was given")
    declared = schema.get("properties", {})
    return {
        name: _cedar_value(declared[name], values[name], depth + 1)
        for name in declared
        if name in values and _cedar_type(declared[name], depth + 1)
    }


def _cedar_value(schema: Mapping[str, Any], value: object, depth: int) -> object:
    match schema["type"], value:
        case "string", str():
            return value
        case "boolean", bool():
            return value
        case "integer", int() | float() if not isinstance(value, bool) and value == int(value):
            if not -_LONG <= value < _LONG:
                raise UnfitArguments("a number is larger than policies can compare")
            return int(value)
        case "number", int() | float() if not isinstance(value, bool):
            return {"__extn": {"fn": "decimal", "arg": _cedar_decimal(value)}}
        case "array", list() | tuple():
            return [_cedar_value(schema["items"], item, depth + 1) for item in value]
        case "object", Mapping():
            return _cedar_fields(schema, value, depth)
    raise UnfitArguments(f"{schema['type']} is declared and {type(value).__name__} was given")


def _cedar_decimal(value: float) -> str:
    """Four digits behind the point, rounded away from zero: no bound is passed by rounding."""
    try:
        rounded = Decimal(str(value)).quantize(Decimal("0.0001"), rounding=ROUND_UP)
        is_comparable = abs(rounded) <= _DECIMAL
    except InvalidOperation:  # Larger than that, or no number.
        is_comparable = False
    if not is_comparable:
        raise UnfitArguments("a number is larger than policies can compare")
    return format(rounded, "f")


def person_attributes(proposal: CallProposal) -> dict[str, str]:
    """For whom and through which agent the call is made."""
    task, step = proposal.task, proposal.step
    return {
        "role": proposal.role,
        "agent": f"{proposal.agent}.{step.role}"
        if step and step.role and "." not in proposal.agent
        else proposal.agent,
        "feature": task.feature,
        "workflow": task.workflow,
    }


def call_entities(proposal: CallProposal) -> list[dict[str, Any]]:
    """The person, the tenant and the tool's action."""
    task = proposal.task
    return [
        _build_entity(
            "Person",
            task.actor,
            person_attributes(proposal),
            [_entity_uid("Role", proposal.role)] if proposal.role else [],
        ),
        _build_entity("Tenant", task.tenant, {"scopes": list(task.document_scopes)}, []),
        _build_entity(
            "Action", proposal.tool.name, {}, [_entity_uid("Action", group) for group in action_groups(proposal.tool)]
        ),
    ]


def call_request(proposal: CallProposal, context: Mapping[str, Any]) -> dict[str, Any]:
    """May this person have this tool called, with this context?"""
    return {
        "principal": _entity_uid("Person", proposal.task.actor),
        "action": _entity_uid("Action", proposal.tool.name),
        "resource": _entity_uid("Tenant", proposal.task.tenant),
        "context": dict(context),
    }


def flow_entities(source: str, name: str, tenant: str) -> list[dict[str, Any]]:
    """A source within its kind, `retrieved:handbook.md` in `retrieved`, and the tenant."""
    tenant_entity = _build_entity("Tenant", tenant, {"scopes": []}, [])
    if not name:
        return [tenant_entity, _build_entity("Source", source, {}, [])]
    return [tenant_entity, _build_entity("Source", f"{source}:{name}", {}, [_entity_uid("Source", source)])]


def flow_request(source: str, name: str, tenant: str, context: Mapping[str, str]) -> dict[str, Any]:
    """May a value of this source be this argument?"""
    return {
        "principal": _entity_uid("Source", f"{source}:{name}" if name else source),
        "action": _entity_uid("Action", FLOW),
        "resource": _entity_uid("Tenant", tenant),
        "context": dict(context),
    }


def _entity_uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _build_entity(kind: str, name: str, attrs: dict[str, Any], parents: list[dict[str, str]]) -> dict[str, Any]:
    return {"uid": _entity_uid(kind, name), "attrs": attrs, "parents": parents}
