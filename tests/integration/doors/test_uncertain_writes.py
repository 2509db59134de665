"""Writes of which nobody knows whether they were made, over the tool door and the gateway of a whole mesh."""

import re
from typing import Any

import httpx
import pytest
from mcp_types import CallToolResult

from bulkhead.client import Mesh, Refused
from bulkhead_contracts.tool import ToolCallReplied, WriteResolveRequested
from tests.integration.doors.mcp_mesh import TENANT, McpMesh, mcp_mesh, text

WRITE = "counter_increment_unkeyed"
STOCK = {"name": "stock", "amount": 1}
COMMAND = re.compile(r"`bulkhead writes resolve ([0-9a-f]{32}) --happened`")


async def increment(here: McpMesh, run: str, **meta: Any) -> CallToolResult:
    """The write, asked for in a run of this name."""
    async with here.client(**{"X-Bulkhead-Run": run}) as client:
        return await client.call_tool(WRITE, STOCK, **({"meta": meta} if meta else {}))


async def make_doubtful(here: McpMesh) -> str:
    """The id of a write that was made and whose answer was lost."""
    here.counter.misbehave("drop_after")
    told = text(await increment(here, "first"))
    found = COMMAND.search(told)
    assert found and "may have been done" in told and "happen twice" in told, told
    again = await increment(here, "second")
    assert again.is_error and COMMAND.findall(text(again)) == [found[1]]
    assert here.counter.counts()["increments"] == 1, "not made again in another run"
    return found[1]


async def row_of(mesh: Mesh, write: str, state: str = "uncertain") -> dict[str, Any]:
    [row] = [row for row in (await mesh.writes(state))["writes"] if row["write_id"] == write]
    return row


async def test_a_write_that_happened_is_the_answer_of_the_next_call_alike_in_any_run(tmp_path):
    async with mcp_mesh(tmp_path) as here, here.operator() as eve:
        write = await make_doubtful(here)
        row = await row_of(eve, write)
        assert (row["write"]["tool"], row["resolution"]) == (WRITE, None) and '"stock"' in row["write"][
            "arguments_json"
        ]
        done = await eve.resolve_write(write, True, "it stands in the list", result="stock is 1")
        assert (done["state"], done["resolution"]["person"]) == ("happened", "eve")
        assert done == await eve.resolve_write(write, True, "said again", result="stock is 1"), "the first word stands"
        with pytest.raises(Refused) as refused:
            await eve.resolve_write(write, False, "I see nothing")
        assert (refused.value.status, refused.value.code) == (409, "already_resolved")
        assert "it stands in the list" in str(refused.value)
        assert (await eve.writes())["writes"] == [] and await row_of(eve, write, "happened") == done
        answer = await increment(here, "third")
        assert not answer.is_error and text(answer) == "stock is 1"
        assert here.counter.counts()["increments"] == 1
        assert not (await increment(here, "fourth")).is_error
        assert here.counter.counts()["increments"] == 2, "a call alike is another act again"


async def test_a_write_that_did_not_happen_is_made_by_the_next_call_alike_and_who_said_so_is_on_record(tmp_path):
    async with mcp_mesh(tmp_path) as here, here.operator() as eve:
        write = await make_doubtful(here)
        await eve.resolve_write(write, False, "nothing there, says ann@example.com")
        for run in ("third", "first"):
            assert not (await increment(here, run)).is_error
        assert here.counter.counts()["increments"] == 3
        [word] = await here.bodies(WriteResolveRequested, "tool_executor")
        [reply] = [one for one in await here.bodies(ToolCallReplied, "doors") if one.resolution is not None]
        assert reply.resolution == word.resolution and (reply.outcome, reply.failure.code) == ("failed", "not_done")
        assert (word.resolution.person, word.resolution.reason) == ("eve", "nothing there, says [masked]")


async def test_only_approvers_and_operators_of_the_tenant_resolve_a_write(tmp_path):
    async with mcp_mesh(tmp_path) as here:
        write = await make_doubtful(here)
        async with here.http() as http:
            body = {"happened": False, "reason": "seen", "result": "receipt 17"}
            assert (await http.post(f"/v1/writes/{write}", json=body)).status_code == 422, "nothing has a result"
        for role, status in (("submitter", 403), ("auditor", 403), ("approver", 200)):
            async with here.http(role) as http:
                body = {"happened": True, "reason": "seen", "result": "told ann@example.com"}
                answer = await http.post(f"/v1/writes/{write}", json=body)
                assert answer.status_code == status, (role, answer.text)
        assert answer.json()["resolution"]["result"] == "told [masked]", "every role reads it"
        foreign = here.stage.new_key("other" if TENANT != "other" else "else", "mallory", "operator")
        async with httpx.AsyncClient(base_url=here.stage.url, headers={"Authorization": f"Bearer {foreign}"}) as http:
            assert (await http.get("/v1/writes?state=all")).json()["writes"] == []
            assert (await http.post(f"/v1/writes/{write}", json={"happened": True, "reason": "x"})).status_code == 404
