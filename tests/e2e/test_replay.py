"""The replay commands against real processes: export, replay of a file and of everything, a fork from a step on."""

import json
from pathlib import Path

import pytest

from bulkhead_infra.demo.corpus import generate_demo
from tests.e2e.fixtures.world import World, verdict

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENANT = "t20"
DEMO = generate_demo(77)


async def answered(world: World):
    """A task of the demo that has ended rightly."""
    await world.ingest(TENANT, DEMO)
    task = await world.submit(TENANT, DEMO.objective)
    document = await world.finish(task)
    assert verdict(DEMO, document).ok
    assert (await world.replay(task)).divergences == []
    return task, document


async def test_a_task_is_exported_replayed_elsewhere_and_forked(world: World, tmp_path: Path) -> None:
    task, document = await answered(world)
    await _exported(world, task.id, tmp_path)
    step = document["steps"][-1]["step_id"]
    edit = tmp_path / "edit.json"
    edit.write_text(json.dumps({"title": "Answer once more"}))
    code, said, errors = await world.command("replay", task.id, "--from-step", step, "--edit", str(edit), "--dry-run")
    assert code == 0 and not said and f"runs again: {step}" in errors, errors
    code, said, errors = await world.command("replay", task.id, "--from-step", step, "--edit", str(edit), "--watch")
    assert code == 0, (said, errors)
    new = world.client(TENANT).task(said.split()[0])
    world.submitted.append(new.id)
    forked = await new.show()
    assert verdict(DEMO, forked).ok, "the same answer, from results that were taken over"
    assert [one["attempts"] for one in forked["steps"]] == [0] * (len(forked["steps"]) - 1) + [1]
    assert forked["usage"]["cost_usd_micros"] < document["usage"]["cost_usd_micros"] / 2
    assert forked["steps"][-1]["title"] == "Answer once more" and forked["requester"]["tenant"] == TENANT
    report = await world.replay(new)
    assert report.divergences == [] and report.ended


async def _exported(world: World, task: str, folder: Path) -> None:
    """The file is the same each time and needs no mesh."""
    for file in (folder / "one.jsonl", folder / "two.jsonl.gz"):
        code, said, errors = await world.command("export", task, "-o", str(file), "--json")
        assert code == 0 and json.loads(said)["gone"] == 0, (said, errors)
        code, said, _ = await world.command("replay", str(file), "--json")
        report = json.loads(said)
        assert code == 0 and report["divergences"] == [] and report["ended"] and report["compared"] > 20
    raw = (folder / "one.jsonl").read_bytes()
    code, said, _ = await world.command("export", task)
    # The first line also tells whether it was long ago.
    assert code == 0 and said.encode().splitlines()[1:] == raw.splitlines()[1:]
    for secret in (world.mesh.directory / "identity").glob("*.nkey"):
        assert secret.read_bytes().strip() not in raw


async def test_everything_is_replayed_and_summed_up(world: World) -> None:
    code, said, errors = await world.command("replay", "--all", "--json")
    rows = [json.loads(line) for line in said.splitlines()]
    assert code == 0, (rows[-1], errors)
    assert rows[-1]["tasks"] == len(rows) - 1 >= 1 and rows[-1]["divergent"] == [] == rows[-1]["unknown"]
    assert rows[-1]["compared"] == sum(one["compared"] for one in rows[:-1])
    code, said, _ = await world.command("replay", "--all")
    assert code == 0 and said.startswith("no divergence: "), said
