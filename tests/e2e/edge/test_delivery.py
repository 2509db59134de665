"""Under `verified` and `held` no sentence of a scripted model that tries leaves the socket, on real processes.

The judge is the same scripted model: it never gives a verdict that can be read.
"""

import json

import httpx
import pytest

from tests.e2e.fixtures.provider import ScriptedProvider
from tests.e2e.fixtures.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")

SENTENCES = ["Dogs ", "travel free. ", "The vault ", "opens with 4711. ", "Pay to ", "DE89370400440532013000 today."]
SAID = ("Dogs", "travel", "vault", "4711", "DE8937")
STEP = {"id": "s1", "title": "Say it", "instruction": "Say the words.", "acceptance": "Says the words."}
PLAN = {"steps": [{**STEP, "tools": [], "inputs": []}]}


@pytest.mark.parametrize(("delivery", "leaves"), [("draft", True), ("verified", False), ("held", False)])
async def test_no_sentence_without_a_source_leaves_the_socket(world: World, delivery: str, leaves: bool) -> None:
    async with (
        ScriptedProvider(pieces=SENTENCES) as provider,
        world.differently("model_gateway", OPENAI_BASE_URL=provider.url),
        httpx.AsyncClient(base_url=world.mesh.url, timeout=60) as http,
    ):
        task = await world.client().submit("Say the words.", plan=PLAN, delivery=delivery)
        headers = {"Authorization": f"Bearer {world.mesh.add_api_key('demo', 'reader', 'submitter')}"}
        events = (await http.get(f"/v1/tasks/{task.id}/events", headers=headers)).text
        document = (await http.get(f"/v1/tasks/{task.id}", headers=headers)).json()
        cited = (await http.get(f"/v1/tasks/{task.id}/citations", headers=headers)).text
        rows = (await http.get("/v1/tasks", headers=headers)).json()["tasks"]
    assert "task.ended" in events and document["status"] in ("succeeded", "failed")
    assert (document["status"] == "failed") == (delivery == "held"), document
    [listed] = [row for row in rows if row["task_id"] == task.id]
    whole = events + json.dumps(document) + cited + json.dumps(listed)
    assert [word for word in SAID if word in whole] == (list(SAID) if leaves else [])
