"""Roles whose steps are carried out elsewhere, as the tenants file has them. Pure.

In: rows of a tenant's policy. Out: `Delegation`s for grants, the tools that they call, or what is wrong with a row.
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Literal

from pydantic import Field

from bulkhead_contracts import bounds
from bulkhead_contracts.plan import Delegation, Role
from bulkhead_contracts.types import Contract, Token


class DelegatedRole(Contract, extra="forbid"):
    """One row. identity: of the program outside that alone is handed such steps. agent: called as the tool
    `agent.NAME`. deadline_s: of one attempt at a step; the task's deadline stands above it."""

    to: Literal["worker", "agent"]
    identity: Token | None = None
    agent: Token | None = None
    deadline_s: Annotated[float, Field(gt=0, le=bounds.MAX_TASK_DEADLINE_MS / 1000)] = (
        bounds.DEFAULT_DELEGATED_STEP_MS / 1000
    )


DelegatedRoles = Annotated[Mapping[Role, DelegatedRole], Field(max_length=bounds.MAX_DELEGATED_ROLES)]


def misfit(rows: Mapping[str, DelegatedRole], tools: Collection[str]) -> str:
    """What is wrong with a tenant's rows, and what to do; "" when nothing is. tools: the tenant's."""
    for role, row in sorted(rows.items()):
        named, other = (row.identity, row.agent) if row.to == "worker" else (row.agent, row.identity)
        field, wrong = ("identity", "agent") if row.to == "worker" else ("agent", "identity")
        if named is None:
            return f"delegated_roles.{role}: `to: {row.to}` needs `{field}`; name it"
        if other is not None:
            return f"delegated_roles.{role}: `to: {row.to}` has no `{wrong}`; take it out"
        if (tool := _delegation(role, row).tool) and tool not in tools:
            return f"delegated_roles.{role}: the tenant may not use the tool {tool}; name it in tools, too"
    return ""


def delegations(rows: Mapping[str, DelegatedRole], roles: Collection[str]) -> tuple[Delegation, ...]:
    """The delegations that a task with steps of these roles has."""
    return tuple(_delegation(role, rows[role]) for role in sorted(rows.keys() & set(roles)))


def _delegation(role: str, row: DelegatedRole) -> Delegation:
    name = row.identity if row.to == "worker" else row.agent
    return Delegation(role=role, to=row.to, name=name or "", deadline_ms=round(row.deadline_s * 1000))
