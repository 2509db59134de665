"""A second identical question costs nothing and says so: also after a restart, and for its own tenant alone."""

from pathlib import Path
from typing import Any

from bulkhead.client import Mesh
from bulkhead_infra.demo.corpus import generate_demo
from bulkhead_infra.identity import callers
from bulkhead_infra.local.supervisor import LocalMesh

DEMO = generate_demo(1)
CACHED = {"model_gateway": {"BULKHEAD_CACHE_TTL_S": "3600"}}
TIMEOUT_S = 120.0


async def asked(mesh: LocalMesh, key: str) -> dict[str, Any]:
    """The demo's question over the demo's documents, once."""
    async with Mesh(mesh.url, key) as client:
        for one in DEMO.documents:
            await client.add_document(one.text.encode(), one.name)
        return await (await client.submit(DEMO.objective)).result(TIMEOUT_S)


async def test_a_second_identical_question_costs_nothing(tmp_path: Path) -> None:
    async with LocalMesh(tmp_path / "mesh", extra_env=CACHED) as mesh:
        key = mesh.credentials["submitter"]
        first, second = await asked(mesh, key), await asked(mesh, key)
        other = await asked(mesh, callers.add_caller("acme", "ann", "submitter", [tmp_path / "mesh"])["api_key"])
    async with LocalMesh(tmp_path / "mesh", extra_env=CACHED) as mesh:
        after_restart = await asked(mesh, key)
    calls = first["usage"]["model_calls"]
    assert first["status"] == "succeeded" and calls > 3 and "cached_calls" not in first["usage"]
    for name, again in (("second", second), ("after a restart", after_restart)):
        usage = again["usage"]
        assert (again["status"], again["answer"]) == (first["status"], first["answer"])
        assert (usage["model_calls"], usage["cost_usd_micros"], usage["input_tokens"]) == (0, 0, 0), (name, usage)
        assert usage["cached_calls"] == calls
    assert other["usage"]["model_calls"] == calls, "another tenant's question is its own"
