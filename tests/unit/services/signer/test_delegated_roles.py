"""Roles that are carried out elsewhere: rows of the tenants file, and what a grant says of them."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from bulkhead.testing.mesh import MemoryMesh
from bulkhead.tools import catalog
from bulkhead_contracts import bounds
from bulkhead_contracts.plan import Delegation
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.signer.app import build
from bulkhead_services.signer.core import GrantDecision, GrantPolicies, TenantsFileError, decide_grant, policies_from
from bulkhead_services.signer.settings import Settings
from tests.unit.services.signer.test_signer import DOCUMENT, NOW, _ask, _started, request

AGENT = ToolSpec(name="agent_partner", description="a remote agent", parameters_json="{}", effect="write")
ROWS: dict[str, Any] = {
    "refunds": {"to": "worker", "identity": "wrk_acme", "deadline_s": 300, "description": "Refunds of tickets."},
    "partner": {"to": "agent", "agent": "partner"},
}


def policies(rows: dict[str, Any], *tools: str, agent: ToolSpec = AGENT, **changes: Any) -> GrantPolicies:
    """agent: the tool of the remote one. changes: to the tenant's row."""
    document = deepcopy(DOCUMENT)
    document["tenants"]["acme"]["delegated_roles"] = rows
    document["tenants"]["acme"]["tools"] += tools
    document["tenants"]["acme"] |= changes
    known = {row.spec.name: row.spec for row in catalog.tool_rows()} | {AGENT.name: agent}
    return policies_from(document, known, known)


def granted(*roles: str, **changes: Any) -> GrantDecision:
    found = decide_grant(policies(ROWS, "agent_partner"), request(worker_roles=roles, **changes), "acme", "t1", NOW)
    assert isinstance(found, GrantDecision), found
    return found


def test_a_grant_names_who_carries_out_the_roles_of_its_plan() -> None:
    grant = granted("refunds", "step").grant
    assert grant.delegated == (Delegation(role="refunds", to="worker", name="wrk_acme", deadline_ms=300_000),)
    assert granted("step").grant.delegated == ()
    assert "delegated" not in granted("step").grant.model_dump(mode="json"), "older tokens keep their bytes"


def test_a_remote_agents_tool_comes_with_its_role_and_not_without() -> None:
    assert "agent_partner" in granted("partner").grant.tools
    assert granted("partner", tools=("calculate",)).grant.tools == ("agent_partner", "calculate")
    assert "agent_partner" not in granted("refunds").grant.tools


def test_a_document_delegates_nothing() -> None:
    assert granted("refunds", purpose="ingest").grant.delegated == ()
    assert granted(purpose="ingest", drafted=True).grant.delegated == ()


# Tasks whose plan the mesh makes


def drafted(*, tools: tuple[str, ...] = (), rows: dict[str, Any] = ROWS, **policy: Any) -> GrantDecision:
    """tools: that the request names. policy: as in `policies`."""
    found = decide_grant(
        policies(rows, "agent_partner", **policy), request(tools=tools, drafted=True), "acme", "t1", NOW
    )
    assert isinstance(found, GrantDecision), found
    return found


def chosen(found: GrantDecision) -> list[str]:
    assert [row.role for row in found.grant.delegated] == [role.name for role in found.roles]
    return [role.name for role in found.roles]


def test_a_plan_that_the_mesh_makes_may_choose_the_tenants_roles_and_is_told_what_they_do() -> None:
    assert [(role.name, role.description) for role in drafted().roles] == [("refunds", "Refunds of tickets.")]
    nobody = request(drafted=True).model_copy(update={"drafted": False})
    found = decide_grant(policies(ROWS, "agent_partner"), nobody, "acme", "t1", NOW)
    assert isinstance(found, GrantDecision) and not found.grant.delegated, "of a plan that names no role, none"


READS = AGENT.model_copy(update={"effect": "read"})


@pytest.mark.parametrize(
    ("policy", "tools", "roles"),
    [
        ({}, (), ["refunds"]),
        ({"default_writes": ["agent_partner"]}, (), ["partner", "refunds"]),
        ({"agent": READS}, (), ["partner", "refunds"]),
        ({}, ("agent_partner",), ["partner", "refunds"]),
        ({"agent": READS, "default_writes": ["agent_partner"]}, ("calculate",), ["refunds"]),
    ],
    ids=["unnamed-write", "default-write", "read", "named", "narrowed"],
)
def test_a_role_brings_a_drafted_plan_no_tool_that_the_task_has_not_got(
    policy: dict[str, Any], tools: tuple[str, ...], roles: list[str]
) -> None:
    found = drafted(tools=tools, **policy)
    assert chosen(found) == roles
    assert ("agent_partner" in found.grant.tools) == ("partner" in roles)


def test_an_agents_card_speaks_for_a_role_without_words_in_one_bounded_line() -> None:
    card = AGENT.model_copy(update={"effect": "read", "description": "Sells\ntickets\u2028and " + "x" * 1_000})
    [partner, _] = drafted(agent=card).roles
    assert partner.description.startswith("Sells tickets and xxx")
    assert len(partner.description) == bounds.MAX_SUMMARY_CHARS and partner.description.isprintable()


def test_the_workers_own_role_is_delegated_and_none_to_choose() -> None:
    found = drafted(rows={"step": {"to": "worker", "identity": "wrk_acme"}})
    assert [row.role for row in found.grant.delegated] == ["step"] and found.roles == ()


async def test_roles_that_nobody_named_leave_a_grant_that_would_be_too_large(tmp_path: Path) -> None:
    rows = {f"r{at:x}_{'x' * 28}": {"to": "worker", "identity": f"w{at}_{'y' * 60}"} for at in range(16)}
    document = deepcopy(DOCUMENT)
    document["tenants"]["acme"] |= {"tools": ["calculate"], "delegated_roles": rows}
    document["tenants"]["acme"]["constraints"] = [f'calculate /expression regex "{at}{"x" * 200}"' for at in range(4)]
    file = tmp_path / "tenants.yaml"
    file.write_text(yaml.safe_dump(document))
    async with MemoryMesh({"signer": lambda c: build(c, Settings(tenants_file=file))}) as mesh:
        await _started(mesh)
        gateway = mesh.context("gateway")
        body = request(drafted=True).model_copy(update={"requested_unix_ms": gateway.clock()})
        answer = await _ask(gateway, body)
        assert answer.granted and not answer.roles and not answer.delegated, answer
        by_name = body.model_copy(update={"drafted": False, "worker_roles": tuple(rows)})
        assert (await _ask(gateway, by_name)).code == "grant_too_large"


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"to": "worker"}, "needs `identity`"),
        ({"to": "worker", "identity": "a", "agent": "b"}, "has no `agent`"),
        ({"to": "agent", "agent": "unknown"}, "may not use the tool agent.unknown"),
        ({"to": "somebody", "identity": "a"}, "to"),
        ({"to": "worker", "identity": "a", "deadline_s": 0}, "deadline_s"),
        ({"to": "worker", "identity": "a", "description": "two\nlines"}, "description"),
        ({"to": "worker", "identity": "a", "description": "x" * 201}, "description"),
    ],
    ids=["nobody", "both", "no-tool", "unknown", "no-time", "lines", "long"],
)
def test_a_row_that_does_not_fit_is_refused_at_the_start(row: dict[str, Any], what: str) -> None:
    with pytest.raises(TenantsFileError, match=what):
        policies({"refunds": row})
