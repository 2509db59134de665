"""Limits through the front door: a real gateway over HTTP, a real budget behind it, the in-memory bus between them."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bulkhead.client import Mesh, Refused
from bulkhead.runtime.context import Context, unix_ms
from bulkhead.testing.mesh import MemoryMesh
from bulkhead_cli.limits import spending
from bulkhead_cli.target import GatewayTarget
from bulkhead_contracts.budget import Amount, LimitsChanged, ReserveReplied, ReserveRequested, Settled
from bulkhead_contracts.grant import TaskGrant
from bulkhead_contracts.result import Usage
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
    await spending.set_limit(door.target(), "feature/search", {"tokens": 1_000}, as_json=True)
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
    assert facts[2].limits == () and facts[2].old == facts[1].new


async def test_a_submitter_changes_nothing_and_a_change_made_on_old_knowledge_neither(door: Door) -> None:
    await admitted(door, "r1", "search")
    async with door.client("submitter") as mesh:
        with pytest.raises(Refused) as told:
            await mesh.change_limit("month", {"tokens": 5})
        assert told.value.status == 403
    async with door.client() as mesh:
        assert (await mesh.change_limit("month", {"tokens": 5}, expect_revision=0))["revision"] == 1
        with pytest.raises(Refused) as told:
            await mesh.change_limit("month", {"tokens": 9}, expect_revision=0)
        assert (told.value.status, told.value.code) == (409, "changed_meanwhile")


async def test_a_change_is_made_once_under_its_key_and_another_one_is_refused_there(door: Door) -> None:
    await admitted(door, "r1", "search")
    async with door.client() as mesh:
        assert (await mesh.change_limit("month", {"tokens": 5}, idempotency_key="k1"))["revision"] == 1
        assert (await mesh.change_limit("month", {"tokens": 9}))["revision"] == 2
        again = await mesh.change_limit("month", {"tokens": 5}, idempotency_key="k1")
        assert again["revision"] == 2 and again["limits"][0]["limit"]["tokens"] == 9, "it takes no later one back"
        for target, tokens, expected in (("month", 6, None), ("day", 5, None), ("month", 5, 2)):
            with pytest.raises(Refused) as told:
                await mesh.change_limit(target, {"tokens": tokens}, expect_revision=expected, idempotency_key="k1")
            assert (told.value.status, told.value.code) == (422, "idempotency_reused")
        assert (await mesh.get("/v1/limits"))["revision"] == 2
    async with door.client("submitter") as other:
        with pytest.raises(Refused) as told:
            await other.change_limit("month", {"tokens": 5}, idempotency_key="x" * 255)
        assert told.value.status == 403


async def test_an_operator_sees_what_was_spent_and_what_is_held_and_a_submitter_does_not(
    door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (await admitted(door, "r1", "search")).decision == "reserved"
    assert (await door.ask("r2", "chat")).decision == "reserved"
    used = Settled(
        reservation_id="r1",
        call_id="r1",
        usage=Usage(input_tokens=5, output_tokens=2, model_calls=1, cost_usd_micros=9),
        wall_ms=3,
    )
    for _ in range(2):
        await door.mesh.context("model_gateway").publisher.send(
            "budget", used, tenant="acme", task="t1", cause="r1", index="r1"
        )
    await spending.show_spending(door.target(), "feature", "1h", 20, as_json=True)
    page = json.loads(capsys.readouterr().out)
    rows = {one["name"]: one for one in page["rows"]}
    assert set(rows) == {"search", "chat"} and rows["search"]["held"]["calls"] == rows["chat"]["spent"]["calls"] == 0
    assert (rows["search"]["spent"]["input_tokens"], rows["search"]["spent"]["output_tokens"]) == (5, 2)
    assert rows["chat"]["held"]["tokens"] == 10 and page["total"]["spent"]["cost_usd_micros"] == 9
    await spending.show_spending(door.target(), "agent", "1h", 20, as_json=False)
    assert "worker.writer" in capsys.readouterr().out
    async with door.client("submitter") as mesh:
        with pytest.raises(Refused) as told:
            await mesh.get("/v1/spend")
    assert told.value.status == 403
