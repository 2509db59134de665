"""Limits through the front door: a real gateway over HTTP, a real budget behind it, the in-memory bus between them."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bulkhead.client import Mesh
from bulkhead.runtime.context import Context, unix_ms
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_cli.limits import spending
from bulkhead_cli.target import GatewayTarget
from bulkhead_contracts.budget import Amount, LimitsChanged, ReserveReplied, ReserveRequested
from bulkhead_contracts.grant import TaskGrant
from bulkhead_services.budget import app as budget
from bulkhead_services.gateway import app as gateway
from tests.eventually import until
from tests.samples import sample

KEYS = {"operator": "bk_operator_of_acme", "submitter": "bk_submitter_of_acme"}


class Door:
    """A mesh of two services, and who may come in."""

    def __init__(self, mesh: MemoryMesh, port: int) -> None:
        self.mesh, self._url = mesh, f"http://127.0.0.1:{port}"

    def target(self, role: str = "operator") -> GatewayTarget:
        return GatewayTarget(self._url, KEYS[role])

    def client(self, role: str = "operator") -> Mesh:
        return self.target(role).mesh_client()

    async def ask(self, rid: str, feature: str) -> ReserveReplied:
        """As a doer does, for a task that was submitted under a feature."""
        grant = sample(TaskGrant, tenant="acme", expires_unix_ms=unix_ms() + 60_000, feature=feature)
        body = ReserveRequested(
            reservation_id=rid,
            call_id=rid,
            purpose="model",
            resource="m",
            agent="worker.writer",
            worst_case=Amount(tokens=10, cost_usd_micros=10, model_calls=1),
        )
        answer = await self.mesh.context("model_gateway").publisher.request(
            "budget",
            body,
            tenant="acme",
            task="t1",
            index=rid,
            grant=self.mesh.context("signer").signer.sign_grant(grant),
        )
        assert isinstance(answer, ReserveReplied)
        return answer


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    rows = [
        {"sha256": hashlib.sha256(key.encode()).hexdigest(), "tenant": "acme", "person": f"{role}-ann", "role": role}
        for role, key in KEYS.items()
    ]
    (tmp_path / "keys.json").write_text(json.dumps({"keys": rows}))
    made: dict[str, gateway.GatewayService] = {}

    def front(context: Context) -> gateway.GatewayService:
        made["gateway"] = gateway.build(
            context, gateway.Settings(http_port=0, api_keys_file=tmp_path / "keys.json", data_dir=tmp_path)
        )
        return made["gateway"]

    async with MemoryMesh(
        {
            "gateway": front,
            "budget": lambda c: budget.build(c, budget.Settings(redis_url="memory://", data_dir=tmp_path)),
        }
    ) as mesh:
        await until(lambda: made and made["gateway"].port)
        yield Door(mesh, made["gateway"].port)


async def admitted(door: Door, rid: str, feature: str) -> ReserveReplied:
    """Asked until the ledger is there."""
    while (answer := await door.ask(rid, feature)).reason.startswith("budget admits nothing now"):
        pass
    return answer


async def test_an_operator_limits_a_feature_and_the_next_call_for_it_is_refused(
    door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (await admitted(door, "r1", "search")).decision == "reserved"
    await spending.set_limit(door.target(), "feature/search", {"model_calls": 0}, as_json=True)
    await spending.set_limit(door.target(), "feature/search", {"tokens": 1_000}, "a quiet month", as_json=True)
    page = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert page["revision"] == 2 and page["limits"][0]["limit"]["model_calls"] == 0  # The other unit stayed.
    refused = await door.ask("r2", "search")
    assert refused.decision == "refused" and "feature search of tenant acme" in refused.reason
    assert "bulkhead limits set feature/search --model-calls 1" in refused.reason
    assert (await door.ask("r3", "chat")).decision == "reserved"
    await spending.show_limits(door.target("submitter"), as_json=False)
    assert "feature/search" in capsys.readouterr().out
    await spending.set_limit(door.target(), "feature/search", {}, as_json=True)
    assert (await door.ask("r4", "search")).decision == "reserved"
    facts = [
        LimitsChanged.model_validate_json(one.body)
        for one in await door.mesh.messages("INBOX_JOURNAL")
        if one.ce_type == LimitsChanged.ce_type()
    ]
    assert [(one.by, one.revision) for one in facts] == [("operator-ann", 1), ("operator-ann", 2), ("operator-ann", 3)]
    assert [one.reason for one in facts] == ["", "a quiet month", ""]
    assert facts[2].limits == () and facts[2].old == facts[1].new
