"""What budget says was spent is what the provider says it delivered, to the token.

Real services over the in-memory bus. The offline model keeps a log of its own, `/admin/requests`, which the mesh never
sees.
"""

import itertools
from pathlib import Path
from typing import Any

import httpx

from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts.budget import SpendReplied, SpendRequested
from bulkhead_contracts.task import RequesterClaim
from bulkhead_infra.demo.corpus import generate_demo
from tests.integration.memory_mesh.test_whole import ended, ingest, mesh_beside, offline_model, submit

NUMBERS = itertools.count(1)


async def spent(mesh: MemoryMesh, by: str, top: int = 100) -> SpendReplied:
    """As the gateway asks, for an operator."""
    claim = RequesterClaim(tenant="demo", person="ann", role="operator", via="api_key")
    ask = SpendRequested(requester=claim, by=by, since_s=3600, top=top)  # type: ignore[arg-type]
    reply = await mesh.context("gateway").publisher.request(
        "budget", ask, tenant="demo", task="spend", index=str(next(NUMBERS)), timeout_s=20
    )
    assert isinstance(reply, SpendReplied) and reply.failure is None, reply
    return reply


async def delivered(url: str) -> tuple[int, int, int]:
    """Calls and tokens in and out, by the provider's own log."""
    async with httpx.AsyncClient() as http:
        log: dict[str, Any] = (await http.get(url.removesuffix("/v1") + "/admin/requests")).json()
    usages = [one["usage"] for one in log["requests"] if one["usage"]]
    assert log["total"] == len(log["requests"]), "its log has forgotten nothing"
    return (len(usages), sum(one["prompt_tokens"] for one in usages), sum(one["completion_tokens"] for one in usages))


async def test_every_sum_is_what_the_provider_delivered(tmp_path: Path) -> None:
    demo = generate_demo(1)
    async with offline_model() as url, mesh_beside(url, tmp_path) as mesh:
        await ingest(mesh, demo)
        await submit(mesh, demo.objective, "t1")
        await submit(mesh, demo.objective, "t2")
        ends = [await ended(mesh, task) for task in ("t1", "t2")]
        provider = await delivered(url)
        assert provider[0] > 8 and all(end.status == "succeeded" for end in ends)
        for by in ("agent", "step", "workflow", "feature", "user", "tenant", "model", "task"):
            told = await spent(mesh, by)
            sums = [one.spent for one in (*told.rows, told.rest)]
            assert told.total.held.calls == told.total.spent.estimated == told.late.calls == 0
            for kind, wanted in zip(("model_calls", "input_tokens", "output_tokens"), provider, strict=True):
                assert sum(getattr(one, kind) for one in sums) == wanted, (by, kind)
        tasks = {one.name: one.spent for one in (await spent(mesh, "task")).rows}
        for task, end in zip(("t1", "t2"), ends, strict=True):
            usage = end.usage
            assert (tasks[task].input_tokens, tasks[task].output_tokens, tasks[task].cost_usd_micros) == (
                usage.input_tokens,
                usage.output_tokens,
                usage.cost_usd_micros,
            )
        agents = await spent(mesh, "agent")
        services = {one.name.partition(".")[0] for one in agents.rows}
        assert services >= {"planner", "worker", "checker"}, agents.rows
        short = await spent(mesh, "agent", top=1)
        assert len(short.rows) == 1 and short.rest_rows == len(agents.rows) - 1 and short.total == agents.total
