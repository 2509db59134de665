"""Progress of a tool of an MCP server comes to the client of the mesh that asked for it, and to no other."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from bulkhead.tools.mcp_file import pins_path, read_mcp_file
from bulkhead_infra.stages import memory, write_tenants
from bulkhead_services.tool_executor.mcp.pinning import read_server
from tests.integration.doors.mcp_mesh import LEGACY, MODERN, mcp_mesh, text

PROGRAM = Path(__file__).parents[2] / "unit" / "services" / "tool_executor" / "mcp" / "mcp_server.py"


async def _pinned_server(folder: Path) -> Path:
    file = folder / "mcp.yaml"
    server: dict[str, Any] = {"command": [sys.executable, str(PROGRAM)], "tools": {"steps": {"effect": "read"}}}
    file.write_text(yaml.safe_dump({"servers": {"desk": server}}))
    pinned = (await read_server("desk", read_mcp_file(file).servers["desk"])).pinned
    pins_path(file).write_text(json.dumps({"desk": pinned.model_dump()}))
    return file


@pytest.mark.slow
@pytest.mark.parametrize("mode", [MODERN, LEGACY])
async def test_a_client_hears_of_progress_where_it_asks_and_the_server_is_asked_then_alone(tmp_path, mode, monkeypatch):
    def write_with_tool(path: Path, packs: Sequence[str]) -> Path:
        write_tenants(path, packs).write_text(path.read_text().replace('"tools": [', '"tools": ["desk_steps", '))
        return path

    monkeypatch.setattr(memory, "write_tenants", write_with_tool)
    reports: list[tuple[float, float | None, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, total, message))

    async with mcp_mesh(tmp_path, mcp_file=await _pinned_server(tmp_path)) as here, here.client(mode) as client:
        plain = await client.call_tool("desk_steps", {"count": 1})
        assert text(plain) == "False" and not reports
        called = await client.call_tool("desk_steps", {"count": 3}, progress_callback=on_progress)
        assert text(called) == "True"
        assert reports == [(1, 3, "step 1"), (2, 3, "step 2"), (3, 3, "step 3")]
        reports.clear()
        flood = {"count": 400, "every_s": 0.002}
        assert text(await client.call_tool("desk_steps", flood, progress_callback=on_progress)) == "True"
        assert 1 <= len(reports) <= 6, "two in a second at most"


@pytest.mark.slow
@pytest.mark.parametrize("mode", [MODERN, LEGACY])
async def test_a_client_hears_what_the_mesh_looks_at_and_goes_on_with_a_conversation(tmp_path, mode):
    messages: list[str | None] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        messages.append(message)

    async with mcp_mesh(tmp_path) as here, here.client(mode) as client:
        asked = {"objective": "What is 17 * 23? My order number is 4711.", "conversation": "c"}
        done = await client.call_tool("bulkhead_run", asked, progress_callback=on_progress)
        assert done.structured_content["status"] == "succeeded", text(done)
        assert any("calculate" in (message or "") for message in messages), messages
        known = {"objective": "What is my order number?", "conversation": "c"}
        answer = (await client.call_tool("bulkhead_run", known)).structured_content
        assert "4711" in answer["answer"] and answer["conversation"] == "c" and answer["written_by"] == "model"
        later = {"objective": "And my order number?", "conversation": answer["task_id"]}
        assert "not_found" in text(await client.call_tool("bulkhead_submit", later)), "it goes by the name of its own"
