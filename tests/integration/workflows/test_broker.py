"""Workflows over a real broker, under the rights that the policy renders: the registry alone writes them."""

from pathlib import Path

import pytest

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import PublishRefused
from bulkhead.client import Mesh
from bulkhead.workflows.ledger import WorkflowLedger
from bulkhead_contracts import subjects
from bulkhead_infra.local.supervisor import LocalMesh

STEP = {"id": "look", "instruction": "Look for {{topic}}.", "acceptance": "found"}
CONTENT = {"objective": "Look for {{topic}}", "parameters": [{"name": "topic"}], "steps": [STEP]}


@pytest.mark.slow
async def test_what_people_publish_is_read_by_the_gateway_and_nobody_else_writes_it(tmp_path: Path) -> None:
    services = ("signer", "budget", "registry", "gateway")
    async with LocalMesh(tmp_path, services=services, durability="process") as mesh:
        pia, bob = (
            mesh.add_api_key("demo", name, role) for name, role in (("pia", "prompt_editor"), ("bob", "approver"))
        )
        async with Mesh(mesh.url, pia) as editor, Mesh(mesh.url, bob) as approver:
            sha256 = (await editor.draft_workflow("looks", CONTENT, "first"))["sha256"]
            await editor.move_workflow("looks", 1, "submit", sha256, "go")
            await approver.move_workflow("looks", 1, "approve", sha256, "fine")
            row = await editor.move_workflow("looks", 1, "publish", sha256, "fine")
            assert (row["state"], row["transitions"][1]["person"]) == ("published", "bob")
            next_sha256 = (await editor.draft_workflow("looks", CONTENT | {"description": "next"}, "next"))["sha256"]
            await editor.move_workflow("looks", 2, "submit", next_sha256, "go")
            await approver.move_workflow("looks", 2, "approve", next_sha256, "fine")
            row = await editor.move_workflow("looks", 2, "publish", next_sha256, "try it", canary={"percent": 20})
            assert (row["state"], row["canary"]["percent"]) == ("approved", 20)
        for name in ("gateway", "signer"):
            bus = await JetStreamBus.connect(mesh.nats_url, service=name, nkey_seed=mesh.nkey_seed(name), name="test")
            ledger = WorkflowLedger(bus)
            await ledger.read_new()
            published = ledger.find_published("demo", "looks")
            assert published is not None and published.row.sha256 == sha256
            assert ledger.find_canary("demo", "looks") is not None
            for number, place in ((1, 4), (0, 2)):
                with pytest.raises(PublishRefused):
                    await bus.publish(subjects.workflow_subject("demo", "looks", number, place), b"{}", {}, "forged")
            await bus.close()
