"""Agents that know MCP and nothing of us, on real processes: over HTTP, and by a server that a desktop starts."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from tests.e2e.fixtures.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")

TENANT = "t5"
PERMIT = '@id("tests")\npermit (principal, action, resource);\n'
CALL = {"name": "counter_increment", "arguments": {"name": "stock"}}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def agents(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A mesh whose policy asks about nothing."""
    folder = Path(tmp_path_factory.mktemp("mcp"))
    (folder / "permit").mkdir()
    (folder / "permit" / "default.cedar").write_text(PERMIT)
    extra = {"tool_executor": {"BULKHEAD_POLICY_DIR": str(folder / "permit")}}
    async with World(folder, extra_env=extra, scale={"doors": 2}) as found:
        yield found


@pytest.fixture(scope="module")
def key(agents: World) -> str:
    return agents.mesh.add_api_key(TENANT, "t5-agent", "submitter")


@asynccontextmanager
async def mcp(agents: World, key: str, **headers: str) -> AsyncIterator[Client]:
    http = create_mcp_http_client(headers={"Authorization": f"Bearer {key}", **headers})
    async with Client(streamable_http_client(f"{agents.mesh.doors_url}/mcp", http_client=http)) as found:
        yield found


async def test_a_write_whose_doors_were_killed_in_mid_call_is_repeated_and_made_once(agents: World, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}", "Accept": "application/json, text/event-stream"}
    about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    url = f"{agents.mesh.doors_url}/mcp"
    async with httpx.AsyncClient(headers=headers, timeout=60) as http:
        begun = await http.post(url, json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": about})
        session = {"Mcp-Session-Id": begun.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL}

        async def call() -> httpx.Response:
            for _ in range(300):
                try:
                    return await http.post(url, json=body, headers=session)
                except httpx.TransportError:
                    await asyncio.sleep(0.2)  # Its doors are away for a moment.
            raise AssertionError("the doors did not come back")

        before = agents.counter.count("stock")
        async with agents.counter.held() as arrived:
            first = asyncio.create_task(call())
            await arrived()
            await agents.mesh.kill_replica("doors")
        answer = await first
        again = await http.post(url, json=body, headers=session)
    assert answer.status_code == again.status_code == 200 and '"isError":false' in answer.text.replace(" ", "")
    assert agents.counter.count("stock") == before + 1


async def test_a_write_whose_outcome_was_lost_is_made_in_no_other_run_and_a_person_resolves_it(
    agents: World, key: str
) -> None:
    approver = agents.mesh.add_api_key(TENANT, "t5-approver", "approver")

    async def send_parcel(run: str) -> str:
        async with mcp(agents, key, **{"X-Bulkhead-Run": run}) as client:
            return str((await client.call_tool("counter_increment_unkeyed", {"name": "parcel"})).content)

    async def writes(*words: str) -> str:
        code, out, err = await agents.command("writes", *words, "--api-key", approver)
        assert code == 0, err
        return out

    async with agents.counter.held() as arrived:
        first = asyncio.create_task(send_parcel("monday"))
        await arrived()
        await agents.mesh.kill_replica("tool_executor")
        assert "may have been done" in await first
    [row] = json.loads(await writes("list", "--json"))["writes"]
    assert row["write_id"] in await send_parcel("tuesday"), "the agent's people are told what to do"
    assert agents.counter.count("parcel") == 1
    seen = ("--happened", "--reason", "it left the house", "--result", "parcel 17")
    assert "it left the house" in await writes("resolve", row["write_id"][:12], *seen)
    code, _, err = await agents.command(
        "writes", "resolve", row["write_id"], "--not-happened", "--reason", "no", "--api-key", approver
    )
    assert code != 0 and "t5-approver said" in err and "it left the house" in err
    assert "parcel 17" in await send_parcel("wednesday") and agents.counter.count("parcel") == 1
    assert "may have been done" not in await send_parcel("thursday") and agents.counter.count("parcel") == 2


async def test_a_desktop_program_starts_a_server_and_calls_by_it(agents: World, key: str) -> None:
    words = ["-m", "bulkhead_cli.main", "mcp", "serve", "--data", str(agents.mesh.directory), "--api-key", key]
    async with Client(StdioServerParameters(command=sys.executable, args=words)) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"calculate", "bulkhead_submit"} <= names
        found = await client.call_tool("calculate", {"expression": "6 * 7"})
        assert not found.is_error and "42" in str(found.content)
        submitted = await client.call_tool("bulkhead_submit", {"objective": "What is 17 * 23?"})
        assert submitted.structured_content is not None, submitted
        watched = await client.call_tool("bulkhead_watch", {"task": submitted.structured_content["task"]})
        assert watched.structured_content is not None and watched.structured_content["status"] == "succeeded"
