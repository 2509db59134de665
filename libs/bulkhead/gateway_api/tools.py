"""Reads of the tenant's tools and of the policies that decide about their calls."""

from typing import Annotated, Literal

from pydantic import Field

from bulkhead.gateway_api.query import Query
from bulkhead_contracts import bounds
from bulkhead_contracts.provenance import Isolation, ValueOrigin
from bulkhead_contracts.tool import OfferedTool, PolicyEffect, PolicyRule, ToolSpec, TrialFinding
from bulkhead_contracts.types import Contract, Count, Reason


class ToolPage(Contract):
    """Tools that the tenant's tasks may be granted, by name. more: how many are not listed."""

    tools: Annotated[tuple[OfferedTool, ...], Field(max_length=bounds.MAX_TOOLS)]
    more: Count = 0


class ToolDocument(Contract):
    """A tool: how it is offered, how it is declared, and the rules that speak of it. sample_json: arguments of the
    sample call; "" where they are too long. policies: this caller may read rules and constraints; for others they are
    empty. more_rules: how many are not listed. constraints: on the values of
    arguments, in each grant of the tenant. policy_sha256: of all files of the policy."""

    tool: OfferedTool
    spec: ToolSpec
    sample_json: str = ""
    policies: bool
    rules: Annotated[tuple[PolicyRule, ...], Field(max_length=bounds.MAX_RULES_TOLD)] = ()
    more_rules: Count = 0
    constraints: Annotated[tuple[str, ...], Field(max_length=bounds.MAX_CONSTRAINTS)] = ()
    policy_sha256: str = ""


class PolicyTrialDocument(Contract):
    """Answer to a policy trial: what the call would be. rule: what decided; written: its text, null for what is no rule
    of a file (grant, isolation, taint, no permit). reasons: the first one decided. code: of a forbidden call, for
    programs. findings: values that stand where policy does not want them from there. origins: of each value, the texts
    in which it stands. isolation: what the executor has for the tool. policy_sha256: of all files of the policy."""

    effect: PolicyEffect
    rule: str
    risk: Literal["low", "medium", "high"]
    code: str = ""
    reasons: Annotated[tuple[Reason, ...], Field(max_length=bounds.MAX_FINDINGS)] = ()
    findings: Annotated[tuple[TrialFinding, ...], Field(max_length=bounds.MAX_FINDINGS)] = ()
    origins: Annotated[tuple[ValueOrigin, ...], Field(max_length=bounds.MAX_FINDINGS)] = ()
    written: PolicyRule | None = None
    isolation: Isolation
    policy_sha256: str


class ToolListQuery(Query[ToolPage], name="listTools", path="/v1/tools", action="read tools"):
    """List the tools that the tenant's tasks may be granted, with what policy says of a sample call of each."""


class ToolQuery(Query[ToolDocument], name="showTool", path="/v1/tools/{tool}", action="read tools"):
    """Show a tool: its declaration, and for operators and auditors the rules that speak of it.

    The text of a rule is shown to those roles alone, for it says how to keep below it.
    """

    tool: Annotated[str, Field(description="The tool's name")]
