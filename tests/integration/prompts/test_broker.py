"""The registry over a real broker, under the rights that the policy renders: what is stored is read by who needs it."""

from pathlib import Path

import httpx
import pytest

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import PublishRefused
from bulkhead.prompts.released import ReleasedPrompts
from bulkhead_contracts import subjects
from bulkhead_infra.local.supervisor import LocalMesh

CONTENT = {"text": "Answer in a {{tone}} tone.", "variables": [{"name": "tone", "default": "plain"}]}


async def test_what_a_person_releases_reaches_the_model_gateway_and_nobody_else_writes_it(tmp_path: Path) -> None:
    services = ("signer", "budget", "registry", "gateway")
    async with LocalMesh(tmp_path, services=services, durability="process") as mesh:
        key = mesh.add_api_key("demo", "pia", "prompt_editor")
        async with httpx.AsyncClient(base_url=mesh.url, headers={"X-API-Key": key}, timeout=30) as pia:
            body = {"content": CONTENT, "note": "our words", "owner": "support"}
            assert (await pia.post("/v1/prompts/worker.step", json=body)).status_code == 201
            change = {"prompt": "worker.step", "number": 1, "values": {"tone": "formal"}}
            moved = await pia.post("/v1/releases/production", json={"after": 0, "reason": "go", "changes": [change]})
            assert moved.status_code == 201, moved.text
            assert (await pia.get("/v1/prompts/worker.step")).json()["versions"][0]["person"] == "pia"
            assert (await pia.get("/v1/releases/production")).json()["releases"][0]["number"] == 1
        for name in ("model_gateway", "signer"):
            bus = await JetStreamBus.connect(mesh.nats_url, service=name, nkey_seed=mesh.nkey_seed(name), name="test")
            version = await ReleasedPrompts(bus).find_version("demo", "production.1", "worker.step")
            assert version is not None
            assert (version.name, version.text) == ("worker.step@r1", "Answer in a formal tone.\n")
            with pytest.raises(PublishRefused):
                await bus.publish(subjects.release_subject("demo", "production", 2), b"{}", {}, "forged")
            await bus.close()
