"""Tools, policies and proposals of the tests of policy."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bulkhead_infra
from bulkhead.policy.attribution import SourceText, attribute_values, least_trusted_source
from bulkhead.policy.cedar import CedarPolicy
from bulkhead.policy.ruling import CallProposal
from bulkhead_contracts.grant import StepGrant, TaskGrant
from bulkhead_contracts.provenance import Sink
from bulkhead_contracts.task import TaskLimits
from bulkhead_contracts.tool import ToolSpec

SHIPPED = Path(bulkhead_infra.__file__).parent / "policy"


def tool(name: str, arguments: Mapping[str, Any], **declared: Any) -> ToolSpec:
    """A tool; sinks as a mapping of arguments to kinds."""
    sinks = tuple(Sink(argument=f"/{where}", kind=kind) for where, kind in declared.pop("sinks", {}).items())
    schema = {"type": "object", "additionalProperties": False, "properties": dict(arguments)}
    return ToolSpec(name=name, description=name, parameters_json=json.dumps(schema), sinks=sinks, **declared)


TEXT, NUMBER, INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}
READ = tool("read_note", {"name": TEXT})
INVOICE = tool("get_invoice", {"id": TEXT})
FETCH = tool("fetch", {"url": TEXT}, egress=True, sinks={"url": "url"})
PAY = tool(
    "pay",
    {"iban": TEXT, "amount": NUMBER, "reference": TEXT, "currency": {"type": "string", "default": "EUR"}},
    effect="write",
    idempotent=False,
    sinks={"iban": "account", "amount": "amount"},
    most_calls=1,
)
MAIL = tool(
    "send_mail", {"to": TEXT, "subject": TEXT, "body": TEXT}, effect="write", sinks={"to": "recipient", "body": "text"}
)
COUNT = tool("count", {"name": TEXT, "by": INTEGER}, effect="write")
RUN = tool("run_code", {"code": TEXT}, effect="write", isolation="wasm", sinks={"code": "code"})
TOOLS = (READ, INVOICE, FETCH, PAY, MAIL, COUNT, RUN)

HOUSE = (SHIPPED / "default.cedar").read_text()
OWN = """
@id("writes") permit (principal, action in Action::"writes", resource);
@id("pages") permit (principal, action == Action::"fetch", resource);
"""


def policy(own: str = OWN, tools: Sequence[ToolSpec] = TOOLS) -> CedarPolicy:
    """The shipped default, with rules of the tenant `acme`."""
    return CedarPolicy({"default.cedar": HOUSE, "acme.cedar": own}, tools)


def said(text: str, source: str = "user", name: str = "", call_id: str = "") -> SourceText:
    """A text in the context."""
    return SourceText(text, source, "1" * 64, name, call_id)  # type: ignore[arg-type]


def proposal(spec: ToolSpec, arguments: Mapping[str, Any], *sources: SourceText, **changes: Any) -> CallProposal:
    """A call in tenant `acme`, attributed to these texts, granted unless `granted` says otherwise."""
    granted = changes.pop("granted", tuple(one.name for one in TOOLS))
    task = TaskGrant(
        tenant=changes.pop("tenant", "acme"),
        task="task1",
        actor="anna",
        tools=granted,
        document_scopes=("default",),
        limits=TaskLimits(),
        day_cost_usd_micros=1,
        day_tokens=1,
        expires_unix_ms=1,
    )
    step = StepGrant(
        tenant=task.tenant, task="task1", step_id="s1", attempt=1, plan_version=1, tools=granted, expires_unix_ms=1
    )
    values, _ = attribute_values(arguments, sources)
    given: dict[str, Any] = {"values": values, "least_trusted": least_trusted_source(sources), "isolation": "wasm"}
    return CallProposal(task=task, step=step, tool=spec, arguments=arguments, **{**given, **changes})
