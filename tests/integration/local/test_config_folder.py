"""A whole mesh with files of its operator's own: identities, tenants, rules and a pack, and what reads them later."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bulkhead.client import Mesh
from bulkhead.faststream import Requests
from bulkhead_cli.main import app
from bulkhead_contracts.task import TaskRequested
from bulkhead_infra.local.supervisor import LocalMesh
from bulkhead_infra.nats import purge
from bulkhead_infra.processes.child import StartFailed
from tests.unit.infra.identity.test_config_folder import whole_folder, write_files

pytestmark = pytest.mark.slow

FUNCTION = """
from bulkhead.tools.packs import Arguments, Call, Done, Failed

def run(arguments: Arguments, call: Call) -> Done | Failed:
    return Done(arguments["text"].upper())
"""
PLAN = {
    "steps": [
        {
            "id": "s1",
            "title": "Shout",
            "instruction": "Use shout with text=hello.",
            "tools": ["shout"],
            "inputs": [],
            "acceptance": "It is shouted.",
        }
    ]
}


async def call(*words: str) -> Any:
    return await asyncio.to_thread(CliRunner().invoke, app, list(words), env={"COLUMNS": "300"})


async def test_files_of_ones_own_are_in_force_in_the_mesh_and_in_what_reads_it_later(tmp_path: Path) -> None:
    data, own = tmp_path / "data", whole_folder(tmp_path / "own")
    write_files(own / "tools" / "loud_shouting", {"__init__.py": "", "shout.py": FUNCTION})
    (own / "tenant.yaml").write_text("")
    with pytest.raises(StartFailed, match=r"tenant\.yaml: nobody reads it; did you mean tenants\.yaml"):
        await LocalMesh(data, config=own).__aenter__()
    assert not (data / "mesh.json").exists(), "nothing was started"
    (own / "tenant.yaml").unlink()
    async with LocalMesh(data, config=own, durability="process") as mesh:
        async with Mesh(mesh.url, mesh.add_api_key("shop", "anna", "submitter")) as client:
            task = await client.submit("Shout hello.", plan=PLAN, check=False)
            shown = await task.wait_until_ended(120)
            timeline = str([row async for row in task.timeline()])
            assert shown["status"] == "succeeded" and "HELLO" in json.dumps(shown) + timeline, shown
            publisher = Requests(mesh.nats_url, str(data / "identity" / "pub_shop.nkey"), tenant="shop")
            async with publisher.broker:
                asked = await publisher.submit(TaskRequested(objective="Shout hello."), key="one")
            assert (await client.task(asked).wait_until_ended(120))["status"] == "succeeded"
        findings = {
            row["what"]: row for row in json.loads((await call("doctor", "--json", "--data", str(data))).stdout)
        }
        assert findings["streams"]["level"] == findings["settings"]["level"] == "ok", findings
        accounts = await call("render", "accounts", "--data", str(data))
        assert "pub_shop" in accounts.stdout and "wrk_shop" in accounts.stdout
        assert await asyncio.to_thread(purge.main, ["--data", str(data), "--dry-run"]) == 0
    file, copy = tmp_path / "mesh.bulkhead", tmp_path / "copy"
    backed_up = await call("backup", str(file), "--data", str(data))
    assert backed_up.exit_code == 0, backed_up.output
    refused = await call("restore", str(file), "--data", str(copy))
    assert refused.exit_code == 2 and "--config DIR" in refused.output
    restored = await call("restore", str(file), "--data", str(copy), "--config", str(own))
    assert restored.exit_code == 0, restored.output
