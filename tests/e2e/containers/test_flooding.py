"""One tenant floods in containers: it gets its places and no more, is told to come later, and another one goes on.

In: the running mesh; two tenants. Out: facts alone: nothing of the flood ends while the other tenant's task does.
"""

import asyncio
import json

import httpx
import pytest

from bulkhead.client import Mesh
from tests.e2e.containers.field import CROWD, CROWD_PLACES, CROWD_WAITING, Count, Field, finished
from tests.eventually import until

pytestmark = [pytest.mark.nightly, pytest.mark.asyncio(loop_scope="session")]

PLAN = {"steps": [{"id": "a", "title": "Note it", "instruction": "Note it.", "kind": "noop", "acceptance": "Noted."}]}
WITHIN_S = 60.0
TOO_MANY = 429


async def test_a_flood_waits_for_its_places_and_another_tenant_goes_on(field: Field) -> None:
    made = field.stack.run_compose(
        "run", "--rm", "-T", "--no-deps", "provision-keys", "caller", CROWD, "ann", "submitter"
    )
    key = json.loads(made.stdout)["api_key"]
    async with Mesh(field.stack.url, key) as crowd, field.client() as calm:
        async with field.counter.held():
            before = field.counter.arrived
            flood = [await Count(field, crowd).submit() for _ in range(CROWD_PLACES)]
            await until(lambda: field.counter.arrived >= before + CROWD_PLACES, timeout_s=WITHIN_S)
            # All its places are taken and nothing in them can end: who comes now waits.
            flood += await asyncio.gather(*(Count(field, crowd).submit() for _ in range(CROWD_WAITING)))
            async with asyncio.timeout(WITHIN_S):
                while await _standing(crowd) != {"running": CROWD_PLACES, "queued": CROWD_WAITING}:
                    await asyncio.sleep(0.2)
            refused = await _submit(field, key)
            assert refused.status_code == TOO_MANY and refused.json()["code"] == "queue_full", refused.text
            assert int(refused.headers["retry-after"]) > 0
            for number in range(3):
                task = await calm.submit(f"See to it {number}.", plan=PLAN, check=False)
                assert (await finished(task))["status"] == "succeeded"
            assert await _standing(crowd) == {"running": CROWD_PLACES, "queued": CROWD_WAITING}
        for one in flood:
            await one.ends_rightly()


async def _standing(client: Mesh) -> dict[str, int]:
    """How many of the tenant's tasks stand how."""
    counts: dict[str, int] = {}
    for one in await client.tasks(limit=100):
        counts[one["status"]] = counts.get(one["status"], 0) + 1
    return counts


async def _submit(field: Field, key: str) -> httpx.Response:
    """Once, without the client's patience."""
    async with httpx.AsyncClient(base_url=field.stack.url) as http:
        return await http.post(
            "/v1/tasks",
            json={"objective": "One more.", "plan": PLAN, "check": False},
            headers={"Authorization": f"Bearer {key}", "Idempotency-Key": "one-more"},
        )
