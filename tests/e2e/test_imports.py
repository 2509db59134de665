"""Imports after readiness, in every service: a large one would hold its event loop in the midst of calls."""

import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml
from anthropic import AsyncAnthropic
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from openai import AsyncOpenAI

from bulkhead.tools.mcp_file import pins_path, read_mcp_file
from bulkhead_infra.local.supervisor import START_ORDER
from bulkhead_services.tool_executor.mcp.pinning import read_server
from tests.e2e.fixtures.world import TOOLS, World
from tests.paths import ROOT

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]
HOOK = Path(__file__).with_name("fixtures") / "imports"
SERVER = ROOT / "tests" / "unit" / "services" / "tool_executor" / "mcp" / "mcp_server.py"
TENANT = "t5"
SMALL = frozenset({"encodings.utf_16_be"})
"""Modules that a service may import late: each takes less than a few milliseconds."""
HELLO: list[Any] = [{"role": "user", "content": "What is 17 * 23?"}]


@pytest_asyncio.fixture(loop_scope="session")
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A mesh whose services write down what they import, with an MCP server."""
    servers = tmp_path / "mcp.yaml"
    declared = {"command": [sys.executable, str(SERVER), "--log", str(tmp_path / "log")], "timeout_ms": 30_000}
    tools = {"add": {"effect": "read"}}
    servers.write_text(yaml.safe_dump({"servers": {"desk": declared | {"tools": tools}}}))
    pinned = {name: (await read_server(name, row)).pinned for name, row in read_mcp_file(servers).servers.items()}
    pins_path(servers).write_text(json.dumps({name: row.model_dump() for name, row in pinned.items()}))
    permit = tmp_path / "permit"
    permit.mkdir()
    (permit / "default.cedar").write_text('@id("tests")\npermit (principal, action, resource);\n')
    path = os.pathsep.join(filter(None, (str(HOOK), os.environ.get("PYTHONPATH", ""))))
    extra = {
        service: {"PYTHONPATH": path, "IMPORTS_FILE": str(tmp_path / f"{service}.imports")} for service in START_ORDER
    }
    for service in ("signer", "tool_executor"):
        extra[service]["BULKHEAD_MCP_FILE"] = str(servers)
    extra["tool_executor"]["BULKHEAD_POLICY_DIR"] = str(permit)
    made = World(tmp_path / "world", extra_env=extra)
    made.change_tenants(**{TENANT: {"tools": [*TOOLS, "desk_add"]}})
    async with made:
        yield made


async def test_services_import_nothing_large_after_readiness(world: World, tmp_path: Path) -> None:
    ready_s = time.time()
    key = world.mesh.add_api_key(TENANT, f"{TENANT}-agent", "submitter")
    await world.client(TENANT).add_document(b"The fare to Oslo is 40 euros.", "fares.md", "text/markdown")
    task = await world.submit(TENANT, "What is the fare to Oslo?")
    await world.finish(task)
    async with httpx.AsyncClient(base_url=world.mesh.url, headers={"Authorization": f"Bearer {key}"}) as http:
        assert (await http.get("/v1/tasks")).status_code == 200
        assert (await http.get("/")).status_code == 303, "to the console's login"
    openai, anthropic = f"{world.mesh.doors_url}/openai/v1", f"{world.mesh.doors_url}/anthropic"
    chat = AsyncOpenAI(base_url=openai, api_key=key)
    await chat.chat.completions.create(model="default", messages=HELLO)
    await chat.responses.create(model="default", input="What is 17 * 23?")
    async with await chat.chat.completions.create(model="default", messages=HELLO, stream=True) as stream:
        assert [chunk async for chunk in stream]
    await AsyncAnthropic(base_url=anthropic, api_key=key).messages.create(
        model="default", max_tokens=100, messages=HELLO
    )
    headers = create_mcp_http_client(headers={"Authorization": f"Bearer {key}"})
    async with Client(streamable_http_client(f"{world.mesh.doors_url}/mcp", http_client=headers)) as client:
        for name, arguments in (("desk_add", {"a": 1, "b": 2}), ("calculate", {"expression": "6 * 7"})):
            answer = await client.call_tool(name, arguments)
            assert not answer.is_error, answer
        await client.call_tool("counter_increment", {"name": "stock"})
        await client.call_tool("search_documents", {"query": "fare"})
    late = {service: names for service in START_ORDER if (names := _imported_after(tmp_path, service, ready_s) - SMALL)}
    assert not late, f"import these at the start, or list what is small among SMALL: {late}"


def _imported_after(folder: Path, service: str, ready_s: float) -> set[str]:
    """Names of modules that processes which were ready imported then; those of a later process are its start's."""
    file = folder / f"{service}.imports"
    rows = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    ready = {process for at_s, process, _ in rows if float(at_s) < ready_s}
    return {name for at_s, process, name in rows if process in ready and float(at_s) > ready_s}
