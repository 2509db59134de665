"""A limit that something lower makes void is told so, with what holds; one that can be reached gets no note."""

import json
from pathlib import Path

import pytest

from bulkhead_cli.limits.spending import set_limit, top_up, unreachable_limit_note
from bulkhead_cli.target import GatewayTarget
from tests.unit.services.gateway.harness import OPERATOR, make_mesh, running

POLICY = {
    "task": {"cost_usd_micros": 5_000_000, "tokens": 1_000},
    "day": {"cost_usd_micros": 50_000_000, "tokens": 9_000},
}


def page(**stands: dict[str, int]) -> dict:
    return {"policy": POLICY, "limits": [{"target": name, "limit": limit} for name, limit in stands.items()]}


@pytest.mark.parametrize(
    ("of", "usd", "stands", "said"),
    [
        ("day", 80, {}, "the policy for a day"),
        ("day", 50, {}, ""),
        ("task", 6, {}, "the policy for a task"),
        ("task", 6, {"day": {"cost_usd_micros": 1_000_000}}, "the policy for a task, the limit of `day`"),
        ("task/t1", 6, {}, ""),  # Replaces the ceiling of one task, also past the policy's; not past the day's.
        ("task/t1", 60, {}, "the policy for a day"),
        ("feature/search", 20, {"day": {"cost_usd_micros": 10_000_000}}, "the limit of `day`"),
        ("month", 1_550, {}, ""),
        ("month", 1_551, {}, "the policy for a day"),
    ],
)
def test_what_holds_in_its_place(of: str, usd: int, stands: dict, said: str) -> None:
    note = unreachable_limit_note(of, {"cost_usd_micros": usd * 1_000_000}, page(**stands))
    assert bool(note) is bool(said) and said in note, note


def test_tokens_count_too_and_an_unknown_policy_says_nothing() -> None:
    assert unreachable_limit_note("user", {"tokens": 9_001, "model_calls": 10**6}, page())
    assert not unreachable_limit_note("user", {"tokens": 9_000, "model_calls": 10**6}, page())
    assert unreachable_limit_note("day", {"tokens": 9_001}, {"policy": None, "limits": []}) == ""


async def test_the_gateway_tells_the_policy_and_the_command_what_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tenants = tmp_path / "tenants.yaml"
    tenants.write_text(json.dumps({"tenants": {"acme": {"tools": [], "document_scopes": [], **POLICY}}}))
    async with running(make_mesh(tmp_path), tenants_file=tenants) as gateway:
        where = GatewayTarget(f"http://127.0.0.1:{gateway.port}", OPERATOR)
        await set_limit(where, "day", {"cost_usd_micros": 80_000_000}, as_json=True)
        found = json.loads(capsys.readouterr().out)
        await set_limit(where, "day", {"cost_usd_micros": 80_000_000}, as_json=False)
        said = capsys.readouterr().out
    assert found["policy"]["day"]["cost_usd_micros"] == 50_000_000 and "the policy for a day" in found["note"]
    assert "note: day does not reach this limit" in said
    assert "the tenant's policy (tenants.yaml) allows all its tasks of a day (UTC): $50.00" in said


@pytest.mark.parametrize(
    ("usd", "said"),
    [(60, "task/{task} does not reach this limit, since a lower one comes first: the policy for a day"), (40, "")],
)
async def test_a_top_up_past_the_day_says_that_the_day_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], usd: int, said: str
) -> None:
    tenants = tmp_path / "tenants.yaml"
    tenants.write_text(json.dumps({"tenants": {"acme": {"tools": [], "document_scopes": [], **POLICY}}}))
    async with running(make_mesh(tmp_path), tenants_file=tenants) as gateway:
        where = GatewayTarget(f"http://127.0.0.1:{gateway.port}", OPERATOR)
        async with where.mesh_client() as mesh:
            task = (await mesh.submit("Find it out.", limit_tokens=1_000)).id
        await top_up(where, task, {"cost_usd_micros": usd * 1_000_000}, "worth it", as_json=True)
        found = json.loads(capsys.readouterr().out)
        await top_up(where, task, {"cost_usd_micros": 1_000_000}, "and more", as_json=False)
        out = capsys.readouterr().out
    assert found["added"]["cost_usd_micros"] == usd * 1_000_000
    assert found.get("note", "").startswith(said.format(task=task)) and ("note" in found) is bool(said)
    assert ("note: " in out) is bool(said) and f"task {task} may spend ${usd + 1}.00" in out
