"""The Cedar schema of the tools, and a proposed call as a Cedar request.

In: ToolSpecs, a Proposal and what its sinks hold. Out: the text of a schema, against which policies are validated; the
entities and the request that they are evaluated on. docs/how-to/policy.md names all of it for the authors of policies.
"""

import json
from collections.abc import Iterable, Mapping
from decimal import ROUND_UP, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from bulkhead.policy.ruling import Proposal
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


class Unfit(ValueError):
    """An argument that policy cannot be asked about: it is not of the declared type, or too large."""


def render(tools: Iterable[ToolSpec]) -> str:
    """The schema. Raises ValueError for a tool whose name is one of a group."""
    return _HEAD + "".join(map(_action, sorted(tools, key=lambda tool: tool.name)))


def groups(tool: ToolSpec) -> tuple[str, ...]:
    """The groups of actions that the tool is in."""
    return (WRITES if tool.effect == "write" else READS, *((EGRESS,) if tool.egress else ()))


def _action(tool: ToolSpec) -> str:
    if tool.name in RESERVED:
        raise ValueError(f"a tool cannot be named {tool.name}: policies use the word for a group; rename the tool")
    declared = declared_arguments(tool)
    sources = ", ".join(f"{json.dumps(name)}?: Set<String>" for name in sorted(declared))
    parents = ", ".join(f'Action::"{group}"' for group in groups(tool))
    return (
        f"action {json.dumps(tool.name)} in [{parents}]\n"
        "  appliesTo { principal: [Person], resource: [Tenant], context: {\n"
        f'  "arguments": {_record(_read(tool.parameters_json))},\n  "sources": {{ {sources} }},\n'
        '  "tainted": Set<String>, "risk": String, "isolation": String, "least": String,\n'
        '  "spent_usd_micros": Long, "calls_before": Long } };\n'
    )


def declared_arguments(tool: ToolSpec) -> Mapping[str, Any]:
    """The arguments that the tool declares, with the JSON Schema of each."""
    found = _read(tool.parameters_json).get("properties", {})
    return found if isinstance(found, dict) else {}


@lru_cache(maxsize=1_024)
def _read(parameters_json: str) -> Mapping[str, Any]:
    found = json.loads(parameters_json)
    return found if isinstance(found, dict) else {}


def _record(schema: Mapping[str, Any], depth: int = 0) -> str:
    required = schema.get("required", ())
    rows = [
        f"{json.dumps(name)}{'' if name in required else '?'}: {kind}"
        for name, inner in sorted((schema.get("properties") or {}).items())
        if (kind := _kind(inner, depth + 1))
    ]
    return f"{{ {', '.join(rows)} }}"


def _kind(schema: object, depth: int) -> str:
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
        case "array" if inner := _kind(schema.get("items"), depth + 1):
            return f"Set<{inner}>"
        case "object" if schema.get("properties"):
            return _record(schema, depth)
    return ""


def arguments_of(tool: ToolSpec, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as Cedar reads them: those that the schema has a type for. Raises Unfit."""
    return _fields(_read(tool.parameters_json), arguments, 0)


def _fields(schema: Mapping[str, Any], values: object, depth: int) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise Unfit("an object is declared and none was given")
    declared = schema.get("properties", {})
    return {
        name: _cedar(declared[name], values[name], depth + 1)
        for name in declared
        if name in values and _kind(declared[name], depth + 1)
    }


def _cedar(schema: Mapping[str, Any], value: object, depth: int) -> object:
    match schema["type"], value:
        case "string", str():
            return value
        case "boolean", bool():
            return value
        case "integer", int() | float() if not isinstance(value, bool) and value == int(value):
            if not -_LONG <= value < _LONG:
                raise Unfit("a number is larger than policies can compare")
            return int(value)
        case "number", int() | float() if not isinstance(value, bool):
            return {"__extn": {"fn": "decimal", "arg": _decimal(value)}}
        case "array", list() | tuple():
            return [_cedar(schema["items"], one, depth + 1) for one in value]
        case "object", Mapping():
            return _fields(schema, value, depth)
    raise Unfit(f"{schema['type']} is declared and {type(value).__name__} was given")


def _decimal(value: float) -> str:
    """Four digits behind the point, rounded away from zero: no bound is passed by rounding."""
    try:
        found = Decimal(str(value)).quantize(Decimal("0.0001"), rounding=ROUND_UP)
    except InvalidOperation as error:
        raise Unfit("a number is larger than policies can compare") from error
    if abs(found) > _DECIMAL:
        raise Unfit("a number is larger than policies can compare")
    return format(found, "f")


def person(proposal: Proposal) -> dict[str, str]:
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


def entities(proposal: Proposal) -> list[dict[str, Any]]:
    """The person, the tenant and the tool's action."""
    task = proposal.task
    return [
        _entity("Person", task.actor, person(proposal), [_uid("Role", proposal.role)] if proposal.role else []),
        _entity("Tenant", task.tenant, {"scopes": list(task.document_scopes)}, []),
        _entity("Action", proposal.tool.name, {}, [_uid("Action", group) for group in groups(proposal.tool)]),
    ]


def request(proposal: Proposal, context: Mapping[str, Any]) -> dict[str, Any]:
    """May this person have this tool called, with this context?"""
    return {
        "principal": _uid("Person", proposal.task.actor),
        "action": _uid("Action", proposal.tool.name),
        "resource": _uid("Tenant", proposal.task.tenant),
        "context": dict(context),
    }


def flow_entities(source: str, name: str, tenant: str) -> list[dict[str, Any]]:
    """A source within its kind, `retrieved:handbook.md` in `retrieved`, and the tenant."""
    there = _entity("Tenant", tenant, {"scopes": []}, [])
    if not name:
        return [there, _entity("Source", source, {}, [])]
    return [there, _entity("Source", f"{source}:{name}", {}, [_uid("Source", source)])]


def flow_request(source: str, name: str, tenant: str, context: Mapping[str, str]) -> dict[str, Any]:
    """May a value of this source be this argument?"""
    return {
        "principal": _uid("Source", f"{source}:{name}" if name else source),
        "action": _uid("Action", FLOW),
        "resource": _uid("Tenant", tenant),
        "context": dict(context),
    }


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _entity(kind: str, name: str, attrs: dict[str, Any], parents: list[dict[str, str]]) -> dict[str, Any]:
    return {"uid": _uid(kind, name), "attrs": attrs, "parents": parents}
