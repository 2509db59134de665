"""A remote agent by the SDK over real HTTP, and an executor that uses it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
import yaml
from google.protobuf.json_format import MessageToDict

from bulkhead.blobs import Blobs
from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.http_server.tcp_ports import free_port
from bulkhead.runtime.background import BackgroundTasks
from bulkhead.tools import agent_cards
from bulkhead.tools.agents_file import AgentsFile, AgentTool, RemoteAgent
from bulkhead.tools.api import Done, Failed
from bulkhead.tools.mcp_file import pins_path
from bulkhead_services.tool_executor.a2a import remote, tools
from bulkhead_services.tool_executor.a2a.cards import read_card
from bulkhead_services.tool_executor.a2a.http import checked_client
from bulkhead_services.tool_executor.a2a.tools import RemoteAgents
from bulkhead_services.tool_executor.core import ToolExecutor
from bulkhead_services.tool_executor.effects import ToolRunner
from bulkhead_services.tool_executor.registry import load_registry
from bulkhead_services.tool_executor.settings import Settings
from tests import a2a_agent
from tests.eventually import until
from tests.unit.services.tool_executor.conftest import Desk, open_gate


class Far:
    """The agent, behind a server that can be taken away and brought back on the same port."""

    def __init__(self, **card: Any) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.agent = a2a_agent.Agent()
        self.card = card
        self._app: Any = None
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self, app: Any = None, **card: Any) -> "Far":
        if app is not None:
            self._app = app
        elif self._app is None or card:
            self._app = a2a_agent.app(self.agent, a2a_agent.card(self.url, **(self.card | card)))
        config = uvicorn.Config(self._app, port=self.port, log_level="critical", timeout_graceful_shutdown=0)
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._task = asyncio.create_task(self._server._serve())
        await until(lambda: self._server is not None and self._server.started, "the agent listens")
        return self

    async def close(self) -> None:
        if self._server is not None and self._task is not None:
            self._server.should_exit = self._server.force_exit = True
            await asyncio.wait({self._task}, timeout=10)
            self._server = None


class House:
    """Executors over one broker that use one file of agents."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "agents.yaml"
        self.broker = MemoryBroker.for_mesh()
        self.parts: list[RemoteAgents] = []
        self.desks: list[Desk] = []

    async def pin(self, far: Far, **row: Any) -> None:
        row = {"card": far.url, "private": True, "effect": "read", "timeout_ms": 20_000, **row}
        self.file.write_text(yaml.safe_dump({"agents": {"echo": row}}))
        async with checked_client(RemoteAgent.model_validate(row)) as http:
            found = agent_cards.pin_card("echo", await read_card(http, far.url))
        pins_path(self.file).write_text(json.dumps({"echo": found.model_dump()}))

    async def desk(self) -> Desk:
        bus = MemoryBus(self.broker, "tool_executor")
        context: Any = SimpleNamespace(
            service="tool_executor",
            instance=f"i{len(self.parts)}",
            bus=bus,
            message_key=b"k" * 32,
            clock=lambda: time.time_ns() // 1_000_000,
            background=BackgroundTasks(),
            blobs=Blobs(bus, "tool_executor"),
        )
        registry = load_registry()
        part = RemoteAgents(self.file, registry, context)
        desk = Desk(ToolExecutor(registry, ToolRunner(Settings(retry_backoff_s=0.01)), open_gate(), components=(part,)))
        await part.start()
        self.parts.append(part)
        self.desks.append(desk)
        return desk

    async def call(self, desk: Desk, text: str, key: str = "acme.t1.c1", **more: Any) -> Done | Failed:
        """As the executor runs it."""
        doer = desk.doer
        tool = doer._registry.tools["agent_echo"]
        return await doer._runner.run(  # type: ignore[call-arg]
            tool, {"text": text}, key, more.pop("timeout_s", 20), more.pop("cut", None), lambda: None, ""
        )


@pytest.fixture
async def far() -> AsyncIterator[Far]:
    found = await Far().open()
    yield found
    await found.close()


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(remote, "RESUME_S", 0.05)
    monkeypatch.setattr(remote, "POLL_INTERVAL_S", 0.05)
    monkeypatch.setattr(tools, "READ_EVERY_S", 0.05)
    found = House(tmp_path)
    yield found
    for desk in found.desks:
        await desk.doer.stop()


@pytest.fixture
def agent_tool() -> AgentTool:
    """A pinned agent that nobody calls."""
    declared = RemoteAgent(card="https://agent.example")
    pinned = agent_cards.pin_card("echo", MessageToDict(a2a_agent.card("https://agent.example")))
    return AgentsFile({"echo": declared}, {"echo": pinned}).pinned_tools()["agent_echo"]
