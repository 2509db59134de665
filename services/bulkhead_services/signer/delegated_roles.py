"""Roles whose steps are carried out elsewhere, as the tenants file has them. Pure.

In: rows of a tenant's policy. Out: `Delegation`s for grants, the same in words for a model that makes a plan, or what
is wrong with a row.
"""

from collections.abc import Collection, Iterable, Mapping

from bulkhead_contracts import bounds
from bulkhead_contracts.delegation import DelegatedRole
from bulkhead_contracts.plan import WORKER_ROLE, Delegation, RoleSpec
from bulkhead_contracts.tool import ToolSpec


def find_misfit(rows: Mapping[str, DelegatedRole], tools: Collection[str]) -> str:
    """Fault in a tenant's rows, and what to do; "" when there is none. tools: the tenant's."""
    for role, row in sorted(rows.items()):
        named, unexpected = (row.identity, row.agent) if row.to == "worker" else (row.agent, row.identity)
        field, wrong = ("identity", "agent") if row.to == "worker" else ("agent", "identity")
        if named is None:
            return f"delegated_roles.{role}: `to: {row.to}` needs `{field}`; name it"
        if unexpected is not None:
            return f"delegated_roles.{role}: `to: {row.to}` has no `{wrong}`; take it out"
        if (tool := _delegation_of(role, row).agent_tool) and tool not in tools:
            return f"delegated_roles.{role}: the tenant may not use the tool {tool}; name it in tools, too"
    return ""


def delegations_for(rows: Mapping[str, DelegatedRole], roles: Collection[str]) -> tuple[Delegation, ...]:
    """The delegations that a task with steps of these roles has."""
    return tuple(_delegation_of(role, rows[role]) for role in sorted(rows.keys() & set(roles)))


def choosable_roles(
    rows: Mapping[str, DelegatedRole], granted: Iterable[Delegation], tools: Mapping[str, ToolSpec]
) -> tuple[RoleSpec, ...]:
    """The granted roles, each with one line: its row's, or what the card of its agent tells."""
    # Every step has the worker's role where it names none: nobody chooses it.
    chosen = [row for row in granted if row.role != WORKER_ROLE]
    cards = {row.role: tools[row.agent_tool].description if row.agent_tool in tools else "" for row in chosen}
    return tuple(
        RoleSpec(name=name, description=_one_line(rows[name].description or card)) for name, card in cards.items()
    )


def _one_line(text: str) -> str:
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    most = bounds.MAX_SUMMARY_CHARS
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _delegation_of(role: str, row: DelegatedRole) -> Delegation:
    name = row.identity if row.to == "worker" else row.agent
    return Delegation(role=role, to=row.to, name=name or "", deadline_ms=round(row.deadline_s * 1000))
