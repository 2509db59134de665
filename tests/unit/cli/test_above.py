"""A limit that something lower makes void is told so, with what holds; one that can be reached gets no note."""

import json
from pathlib import Path

import pytest

from bulkhead_cli.limits import unreachable
from bulkhead_cli.limits.spending import set_limit, top_up
from bulkhead_cli.target import Target
from tests.unit.gateway.harness import OPERATOR, make_mesh, running

POLICY = {
    "task": {"cost_usd_micros": 5_000_000, "tokens": 1_000},
    "day": {"cost_usd_micros": 50_000_000, "tokens": 9_000},
}


def page(**stands: dict[str, int]) -> dict:
    return {"policy": POLICY, "limits": [{"target": name, "limit": limit} for name, limit in stands.items()]}


@pytest.mark.parametrize(
    ("of", "usd", "stands", "said"),
    [
        ("day", 80, {}, "so it is $50.00; whoever operates the mesh"),
        ("day", 50, {}, ""),
        ("task", 6, {}, "allows one task $5.00"),
        ("task", 6, {"day": {"cost_usd_micros": 1_000_000}}, "`day` is limited to $1.00"),
        ("task/t1", 6, {}, ""),  # Replaces the ceiling of one task, also past the policy's; not past the day's.
        ("task/t1", 60, {}, "allows $50.00 a day"),
        ("feature/search", 20, {"day": {"cost_usd_micros": 10_000_000}}, "so it is $10.00; `bulkhead limits set day`"),
        ("month", 1_550, {}, ""),
        ("month", 1_551, {}, "$1550.00 in 31 days"),
    ],
)
def test_what_holds_in_its_place(of: str, usd: int, stands: dict, said: str) -> None:
    notes = unreachable.of_limit(of, {"cost_usd_micros": usd * 1_000_000}, page(**stands))
    assert bool(notes) is bool(said) and said in "".join(notes), notes


def test_each_unit_is_told_and_an_unknown_policy_says_nothing() -> None:
    units = {"cost_usd_micros": 60_000_000, "tokens": 9_001, "model_calls": 10**6}
    assert [one.partition(" for ")[0] for one in unreachable.of_limit("user", units, page())] == [
        "$60.00",
        "9,001 tokens",
    ]
    assert unreachable.of_limit("day", units, {"policy": None, "limits": []}) == []


async def test_the_gateway_tells_the_policy_and_the_command_what_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tenants = tmp_path / "tenants.yaml"
    tenants.write_text(json.dumps({"tenants": {"acme": {"tools": [], "document_scopes": [], **POLICY}}}))
    async with running(make_mesh(tmp_path), tenants_file=tenants) as gateway:
        where = Target(f"http://127.0.0.1:{gateway.port}", OPERATOR)
        await set_limit(where, "day", {"cost_usd_micros": 80_000_000}, as_json=True)
        found = json.loads(capsys.readouterr().out)
        await set_limit(where, "day", {"cost_usd_micros": 80_000_000}, as_json=False)
        said = capsys.readouterr().out
    assert found["policy"]["day"]["cost_usd_micros"] == 50_000_000 and "so it is $50.00" in found["note"]
    assert "note: $80.00 for day is never reached" in said
    assert "the tenant's policy (tenants.yaml) allows all its tasks of a day (UTC): $50.00" in said


@pytest.mark.parametrize(
    ("usd", "said"),
    [(60, "$60.00 for task/{task} is never reached: the tenant's policy allows $50.00 a day"), (40, "")],
)
async def test_a_top_up_past_the_day_says_that_the_day_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], usd: int, said: str
) -> None:
    tenants = tmp_path / "tenants.yaml"
    tenants.write_text(json.dumps({"tenants": {"acme": {"tools": [], "document_scopes": [], **POLICY}}}))
    async with running(make_mesh(tmp_path), tenants_file=tenants) as gateway:
        where = Target(f"http://127.0.0.1:{gateway.port}", OPERATOR)
        async with where.mesh() as mesh:
            task = (await mesh.submit("Find it out.", limit_tokens=1_000)).id
        await top_up(where, task, {"cost_usd_micros": usd * 1_000_000}, "worth it", as_json=True)
        found = json.loads(capsys.readouterr().out)
        await top_up(where, task, {"cost_usd_micros": 1_000_000}, "and more", as_json=False)
        out = capsys.readouterr().out
    assert found["added"]["cost_usd_micros"] == usd * 1_000_000
    assert found.get("note", "").startswith(said.format(task=task)) and ("note" in found) is bool(said)
    assert ("note: " in out) is bool(said) and f"task {task} may spend ${usd + 1}.00" in out
