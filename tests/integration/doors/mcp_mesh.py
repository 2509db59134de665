"""A whole mesh in this process, and the official MCP client before its doors.

In: settings of services. Out: clients that know nothing but a URL and a key.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
from mcp import Client, ClientSession
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types import CallToolResult, Request, RequestParams, Result
from openai import AsyncOpenAI

from bulkhead.client import Mesh
from bulkhead.testing.mesh_backend import TENANTS, StageOptions
from bulkhead_contracts import subjects
from bulkhead_contracts.types import Body
from bulkhead_infra.stages.memory import Memory
from tests.counter_server import CounterServer
from tests.eventually import until

TENANT = TENANTS[0]
MODERN, LEGACY = "2026-07-28", "legacy"


@dataclass
class McpMesh:
    """What a test holds in its hands."""

    stage: Memory
    counter: CounterServer
    key: str

    @asynccontextmanager
    async def client(
        self, mode: str = MODERN, key: str = "", extensions: Sequence[ClientExtension] = (), **headers: str
    ) -> AsyncIterator[Client]:
        """The official client."""
        http = create_mcp_http_client(headers={"Authorization": f"Bearer {key or self.key}", **headers})
        async with Client(
            streamable_http_client(f"{self.stage.doors_url}/mcp", http_client=http), mode=mode, extensions=extensions
        ) as found:
            yield found

    def openai(self, **headers: str) -> AsyncOpenAI:
        """OpenAI's SDK."""
        return AsyncOpenAI(base_url=f"{self.stage.doors_url}/openai/v1", api_key=self.key, default_headers=headers)

    def http(self, role: str = "operator") -> httpx.AsyncClient:
        """A person at the gateway."""
        headers = {"Authorization": f"Bearer {self.stage.new_key(TENANT, f'eve-{role}', role)}"}
        return httpx.AsyncClient(base_url=self.stage.url, headers=headers)

    def operator(self) -> Mesh:
        """An operator at the gateway."""
        return Mesh(self.stage.url, self.stage.new_key(TENANT, "eve", "operator"))

    async def bodies(self, kind: type[Body], to: str) -> list[Any]:
        """All messages of a kind in a service's inbox."""
        stored = await self.stage._mesh.messages(subjects.inbox_stream(to))
        return [kind.model_validate_json(one.body) for one in stored if one.ce_type == kind.ce_type()]


@asynccontextmanager
async def mcp_mesh(folder: Path, *, packs: tuple[str, ...] = (), **settings: Any) -> AsyncIterator[McpMesh]:
    """A running mesh whose policy asks about nothing, unless `policy_dir` says else."""
    with CounterServer() as counter:
        stage = Memory(StageOptions(folder / "mesh", packs, {"counter_url": counter.url, "hold_s": 1.0, **settings}))
        await stage.open()
        try:
            yield McpMesh(stage, counter, stage.new_key(TENANT, "ann", "submitter"))
        finally:
            await stage.close()


class TaskParams(RequestParams):
    """Which task."""

    task_id: str


class TaskRequest(Request[TaskParams, str]):
    """`tasks/get` and `tasks/cancel`; `method` says which."""

    method: str
    name_param = "taskId"


class Standing(Result):
    """A task as MCP tells it; of `tasks/cancel`, nothing."""

    result_type: str = ""
    task_id: str = ""
    status: str = ""
    result: dict[str, Any] | None = None


class Begun(Standing):
    """In place of a result."""

    result_type: Literal["task"] = "task"


async def asked(session: ClientSession, method: str, task: str) -> Standing:
    """An answer about a task."""
    return await session.send_request(TaskRequest(method=f"tasks/{method}", params=TaskParams(task_id=task)), Standing)


class KnowsTasks(ClientExtension):
    """What a client that knows tasks adds to the official one. cancels: it wants none of them."""

    identifier = "io.modelcontextprotocol/tasks"

    def __init__(self, *, cancels: bool = False) -> None:
        self.seen: list[Standing] = []
        self._cancels = cancels

    def claims(self) -> Sequence[ResultClaim[Any]]:
        """A task is asked for until it has ended."""
        return (ResultClaim(result_type="task", model=Begun, resolve=self._ended),)

    async def _ended(self, begun: Begun, context: ClaimContext) -> CallToolResult:
        self.seen.append(begun)
        if self._cancels:
            await asked(context.session, "cancel", begun.task_id)

        async def ended() -> bool:
            self.seen.append(await asked(context.session, "get", begun.task_id))
            return self.seen[-1].status != "working"

        await until(ended)
        found = self.seen[-1].result
        return CallToolResult.model_validate(found or {"content": [], "isError": True})


def text(result: CallToolResult) -> str:
    """What a call brought."""
    return "".join(getattr(part, "text", "") for part in result.content)


def task_of(result: CallToolResult) -> str:
    """Under which task it was made."""
    assert result.meta is not None
    return str(result.meta["io.bulkhead/task"])
