"""A whole mesh in this process, and the official MCP client before its doors.

In: settings of services. Out: clients that know nothing but a URL and a key.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types import CallToolResult
from openai import AsyncOpenAI

from bulkhead.testing.counter import CounterServer
from bulkhead.testing.mesh_backend import TENANTS, Wishes
from bulkhead_contracts import subjects
from bulkhead_contracts.types import Body
from bulkhead_infra.stages.memory import Memory

TENANT = TENANTS[0]
MODERN, LEGACY = "2026-07-28", "legacy"


@dataclass
class McpMesh:
    """What a test holds in its hands."""

    stage: Memory
    counter: CounterServer
    key: str

    @asynccontextmanager
    async def client(self, mode: str = MODERN, key: str = "", **headers: str) -> AsyncIterator[Client]:
        """The official client."""
        http = create_mcp_http_client(headers={"Authorization": f"Bearer {key or self.key}", **headers})
        async with Client(streamable_http_client(f"{self.stage.doors_url}/mcp", http_client=http), mode=mode) as found:
            yield found

    def openai(self, **headers: str) -> AsyncOpenAI:
        """OpenAI's SDK."""
        return AsyncOpenAI(base_url=f"{self.stage.doors_url}/openai/v1", api_key=self.key, default_headers=headers)

    def http(self, role: str = "operator") -> httpx.AsyncClient:
        """A person at the gateway."""
        headers = {"Authorization": f"Bearer {self.stage.new_key(TENANT, f'eve-{role}', role)}"}
        return httpx.AsyncClient(base_url=self.stage.url, headers=headers)

    async def bodies(self, kind: type[Body], to: str) -> list[Any]:
        """All messages of a kind in a service's inbox."""
        stored = await self.stage._mesh.messages(subjects.inbox_stream(to))
        return [kind.model_validate_json(one.body) for one in stored if one.ce_type == kind.ce_type()]


@contextmanager
def counting(folder: Path) -> Iterator[CounterServer]:
    """A counter to write to."""
    with CounterServer(folder / "counter") as found:
        yield found


@asynccontextmanager
async def mcp_mesh(folder: Path, *, packs: tuple[str, ...] = (), **settings: Any) -> AsyncIterator[McpMesh]:
    """A running mesh whose policy asks about nothing, unless `policy_dir` says else."""
    with counting(folder) as counter:
        stage = Memory(Wishes(folder / "mesh", packs, {"counter_url": counter.url, "hold_s": 1.0, **settings}))
        await stage.open()
        try:
            yield McpMesh(stage, counter, stage.new_key(TENANT, "ann", "submitter"))
        finally:
            await stage.close()


def text(result: CallToolResult) -> str:
    """What a call brought."""
    return "".join(getattr(part, "text", "") for part in result.content)


def task_of(result: CallToolResult) -> str:
    """Under which task it was made."""
    assert result.meta is not None
    return str(result.meta["io.bulkhead/task"])
