"""`bulkhead models` over a real mesh: two routes on the offline model, listed, compared as tasks, and probed."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bulkhead_contracts.model import ModelCallRequested
from tests.e2e.fixtures.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODEL = "offline-rules-1"
ROUTES = {"a": {"model": MODEL, "temperature": 0}, "b": {"model": MODEL, "temperature": 0, "max_output_tokens": 900}}
TERMS = "# Refunds\n\nWhen a train is 60 minutes late or more, 40 EUR are refunded.\n"
CASES = """
- name: late
  objective: What is refunded when a train is 60 minutes late?
  documents: [terms.md]
  checks: [{contains: 40 EUR}, {equals_number: 60}, {cites: terms.md}]
- name: lunch
  objective: What is refunded when a train is 60 minutes late?
  checks: [{contains: a free lunch}]
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    extra = {"model_gateway": {"BULKHEAD_ROUTES": json.dumps(ROUTES)}}
    async with World(tmp_path_factory.mktemp("models"), extra_env=extra) as found:
        yield found


@pytest.fixture
def cases(tmp_path: Path) -> str:
    (tmp_path / "terms.md").write_text(TERMS)
    (tmp_path / "cases.yaml").write_text(CASES)
    return str(tmp_path / "cases.yaml")


async def ask(world: World, *words: str, code: int = 0) -> Any:
    ended, said, errors = await world.command("models", *words, "--json")
    assert ended == code, (said, errors)
    return json.loads(said or errors)


async def test_cases_are_compared_as_tasks_on_their_routes(world: World, cases: str) -> None:
    found = await ask(world, "compare", "--cases", cases, "--routes", "a,b", "--repeat", "2")
    assert found["runs"] == found["runs_wanted"] == 8 and not found["problems"]
    for row in found["routes"]:
        assert (row["runs"], row["passed"]["value"], row["always"], row["never"]) == (4, 0.5, 1, 1)
        assert 0 < row["passed"]["low"] < 0.5 < row["passed"]["high"] < 1
        assert 0 < row["first_token_ms"]["value"] < row["latency_p50_ms"]["value"] <= row["latency_p95_ms"]["value"]
        assert row["models"] == [f"openai/{MODEL}"] and list(row["failed_checks"].values()) == [2]
    assert found["frontier"] and all(
        bool(row["beaten_by"]) != (row["route"] in found["frontier"]) for row in found["routes"]
    )
    assert found["routes"][1]["settings"] == {"provider": "openai", **ROUTES["b"]}
    (difference,) = found["differences"]
    assert (difference["passed"]["value"], difference["verdict"]) == (0, "no difference shown")
    assert any("judges its own answers" in text for text in found["warnings"])
    runs = found["each"]
    assert found["spent_usd_micros"] == sum(run["cost_usd_micros"] for run in runs) > 0
    late = next(run for run in runs if run["route"] == "b" and run["passed"])
    calls = [row.body for row in await world.history(world.client().task(late["task_id"]))]
    tiers = {call.prompt_id.partition(".")[0]: call.tier for call in calls if isinstance(call, ModelCallRequested)}
    assert tiers == {"planner": "b", "worker": "b", "checker": "judge"}
    code, said, errors = await world.command("spend", "--by", "workflow", "--json")
    assert code == 0, errors
    spent = {row["name"]: row["spent"]["cost_usd_micros"] for row in json.loads(said)["rows"]}
    assert all(spent[name] == sum(run["cost_usd_micros"] for run in runs if run["route"] == name) for name in "ab")


async def test_a_probe_stores_a_baseline_and_tells_a_drift(world: World, tmp_path: Path) -> None:
    words = ("probe", "--routes", "a,b", "--baseline", str(tmp_path / "probe.json"))
    first = await ask(world, *words)
    assert first["written"] and not first["problem"] and 0 < first["spent_usd_micros"] < 50_000
    again = await ask(world, *words)
    assert not again["written"] and not again["problem"] and not again["changes"]
    await world.arm("long_answer", "capital of France")
    drifted = await ask(world, *words, code=1)
    (change,) = drifted["changes"]
    assert (change["question"], change["change"], change["drifted"]) == ("capital", "answer", True)
    assert drifted["problem"] == f"drifted: {change['route']}"
    assert (await ask(world, *words, "--limit-usd", "0.0002", code=1))["problem"].endswith("raise --limit-usd")
    code, said, errors = await world.command("spend", "--by", "feature", "--json")
    assert code == 0 and "probe" in {row["name"] for row in json.loads(said)["rows"]}, errors
