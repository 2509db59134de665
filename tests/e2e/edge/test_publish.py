"""A task straight onto the bus: by Python in both versions, by Node from the schemas alone; and what is refused."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bulkhead.client import Mesh, MeshError, Task
from bulkhead_infra.demo.corpus import generate_demo
from tests.e2e.fixtures.world import World, until, verdict
from tests.paths import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="session")

NODE_SCRIPT = ROOT / "tests" / "e2e" / "node"
DEMO = generate_demo(21)


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def documents(world: World) -> None:
    """The publisher's tenant has the case's documents."""
    await world.ingest("demo", DEMO)


def key_of(world: World, publisher: str = "demo") -> Path:
    return world.mesh.directory / "identity" / f"pub_{publisher}.nkey"


async def runs(world: World, task_id: str) -> dict[str, Any]:
    """The published task ends rightly, under the publisher's own authority."""
    task = world.client("demo", "auditor").task(task_id)
    world.submitted.append(task_id)
    await until(lambda: _known(task), "the gateway knows the published task")
    document = await world.finish(task)
    found = verdict(DEMO, document)
    assert found.ok, (found.differences, document["answer"])
    assert document["requester"] == {
        "tenant": "demo",
        "person": "demo-publisher",
        "role": "submitter",
        "via": "publisher",
    }
    return document


async def _known(task: Task) -> bool:
    try:
        return (await task.show())["status"] != "unknown"
    except MeshError:
        return False


@pytest.mark.parametrize("version", [1, 2])
async def test_both_versions_of_a_request_run(world: World, version: int) -> None:
    async with Mesh.on_bus(world.mesh.nats_url, key_of(world), "demo", "demo") as bus:
        published = await bus.publish(DEMO.objective, limit_usd=0.4, deadline_s=90, contract_version=version)
    document = await runs(world, published)
    assert document["limits"]["cost_usd_micros"] == 400_000 and document["limits"]["deadline_ms"] == 90_000


@pytest.mark.nightly
@pytest.mark.needs("node")
async def test_node_publishes_from_the_schemas_alone(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "node"
    shutil.copytree(NODE_SCRIPT, folder, ignore=shutil.ignore_patterns("node_modules"))
    assert "resolved" not in (folder / "package-lock.json").read_text(), "the lock file names no registry"
    code, said, err = await _run(folder, "npm", "ci", "--no-audit", "--no-fund")
    assert code == 0, (said, err)
    schemas = str(ROOT / "contracts" / "schemas")
    common = ("--url", world.mesh.nats_url, "--key", str(key_of(world)), "--schemas", schemas)
    for version in ("1", "2"):
        more = ("--version", version, "--limit-usd", "0.4", "--deadline", "90")
        code, said, err = await _run(folder, "node", "publish.mjs", *common, *more, DEMO.objective)
        assert code == 0, (said, err)
        document = await runs(world, json.loads(said)["task_id"])
        assert document["limits"]["cost_usd_micros"] == 400_000
    code, said, err = await _run(folder, "node", "publish.mjs", *common, "--tenant", "t0", "Not mine")
    assert code == 4 and "t0" in err, (said, err)
    code, said, err = await _run(folder, "node", "publish.mjs", *common, "--limit-usd=-1", "Negative")
    assert code == 2 and "error" in err, (said, err)
    (folder / "empty.nkey").write_text("no seed\n")
    for more in (
        ("--key", "nowhere.nkey"),
        ("--key", "empty.nkey"),
        ("--schemas", "nowhere"),
        ("--nonsense",),
        ("--version", "3"),
    ):
        code, said, err = await _run(folder, "node", "publish.mjs", *common, *more, "x")
        assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, (more, said, err)


async def _run(folder: Path, *words: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *words, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode, out.decode(), err.decode()
