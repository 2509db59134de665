"""Roles that are carried out elsewhere: rows of the tenants file, and what a grant says of them."""

from copy import deepcopy
from typing import Any

import pytest

from bulkhead.tools import catalog
from bulkhead_contracts.plan import Delegation
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.signer.core import Granted, Policies, PolicyError, decide, policies_from
from tests.unit.services.signer.test_signer import DOCUMENT, NOW, request

AGENT = ToolSpec(name="agent_partner", description="a remote agent", parameters_json="{}", effect="write")
ROWS: dict[str, Any] = {
    "refunds": {"to": "worker", "identity": "wrk_acme", "deadline_s": 300},
    "partner": {"to": "agent", "agent": "partner"},
}


def policies(rows: dict[str, Any], *tools: str) -> Policies:
    document = deepcopy(DOCUMENT)
    document["tenants"]["acme"]["delegated_roles"] = rows
    document["tenants"]["acme"]["tools"] += tools
    known = {row.spec.name: row.spec for row in catalog.rows()} | {AGENT.name: AGENT}
    return policies_from(document, known, known)


def granted(*roles: str, **changes: Any) -> Granted:
    found = decide(policies(ROWS, "agent_partner"), request(worker_roles=roles, **changes), "acme", "t1", NOW)
    assert isinstance(found, Granted), found
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


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"to": "worker"}, "needs `identity`"),
        ({"to": "worker", "identity": "a", "agent": "b"}, "has no `agent`"),
        ({"to": "agent", "agent": "unknown"}, "may not use the tool agent.unknown"),
        ({"to": "somebody", "identity": "a"}, "to"),
        ({"to": "worker", "identity": "a", "deadline_s": 0}, "deadline_s"),
    ],
    ids=["nobody", "both", "no-tool", "unknown", "no-time"],
)
def test_a_row_that_does_not_fit_is_refused_at_the_start(row: dict[str, Any], what: str) -> None:
    with pytest.raises(PolicyError, match=what):
        policies({"refunds": row})
