"""MCP servers of our own as processes, and executors that use them."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bulkhead.http_server.tcp_ports import free_port
from bulkhead.runtime.background import BackgroundTasks
from bulkhead.tools.mcp_file import pins_path, read_mcp_file
from bulkhead_services.tool_executor.core import ToolExecutor
from bulkhead_services.tool_executor.effects import ToolRunner
from bulkhead_services.tool_executor.mcp import replica
from bulkhead_services.tool_executor.mcp.pinning import read_server
from bulkhead_services.tool_executor.mcp.tools import McpTools
from bulkhead_services.tool_executor.registry import load_registry
from bulkhead_services.tool_executor.settings import Settings
from tests.eventually import until
from tests.unit.services.tool_executor.conftest import open_gate

PROGRAM = Path(__file__).with_name("mcp_server.py")
READS = {name: {"effect": "read"} for name in ("where", "add", "picture", "big", "environment", "die", "steps")}
TOOLS = READS | {"append_once": {"idempotent": True}}


class Replica:
    """A process of the server, on a port."""

    def __init__(self, name: str, log: Path, port: int = 0, *more: str) -> None:
        self.name, self.port = name, port or free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        words = ["--name", name, "--log", str(log), "--port", str(self.port), *more]
        self.process = subprocess.Popen([sys.executable, PROGRAM, *words], stderr=subprocess.DEVNULL)

    async def ready(self) -> "Replica":
        async def connects() -> bool:
            assert self.process.poll() is None
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return False
            writer.close()
            return True

        await until(connects, f"{self.name} listens", 60)
        return self

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "written.txt"


@pytest.fixture
def replicas(log: Path) -> Iterator[Callable[..., Any]]:
    made: list[Replica] = []

    async def start(*names: str, port: int = 0, more: tuple[str, ...] = ()) -> list[Replica]:
        new = [Replica(name, log, port, *more) for name in names]
        made.extend(new)
        return [await one.ready() for one in new]

    yield start
    for one in made:
        one.end()


@pytest.fixture
def stdio(log: Path) -> dict[str, Any]:
    return {"command": [sys.executable, str(PROGRAM), "--log", str(log)], "tools": TOOLS, "timeout_ms": 30_000}


class House:
    """The executor's side of the file of servers."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "mcp.yaml"
        self.background = BackgroundTasks()
        self.registry = load_registry()
        self.bench = ToolRunner(Settings())
        self.mcp: McpTools | None = None

    def write(self, **servers: dict[str, Any]) -> None:
        self.file.write_text(yaml.safe_dump({"servers": servers}))

    async def pin(self, **servers: dict[str, Any]) -> None:
        if servers:
            self.write(**servers)
        found = {
            name: (await read_server(name, server)).pinned for name, server in read_mcp_file(self.file).servers.items()
        }
        pins_path(self.file).write_text(json.dumps({name: one.model_dump() for name, one in found.items()}))

    async def open(self) -> None:
        self.mcp = McpTools(self.file, self.registry, self.background)
        await self.mcp.start()

    @property
    def tools(self) -> McpTools:
        assert self.mcp is not None
        return self.mcp

    def doer(self) -> ToolExecutor:
        return ToolExecutor(self.registry, self.bench, open_gate(), components=(self.tools,))

    async def call(self, name: str, arguments: dict[str, Any] | None = None, key: str = "acme.t1.c1", **more: Any):
        """As the executor runs it."""
        return await self.bench.run(self.registry.tools[name], arguments or {}, key, more.pop("timeout_s", 30), None)

    def usable(self, server: str = "desk") -> int:
        return sum(one.is_usable() for one in self.tools._servers[server].replicas.values())


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(replica, "CHECK_INTERVAL_S", 0.5)
    monkeypatch.setattr(replica, "CHECK_TIMEOUT_S", 1.0)
    monkeypatch.setattr("bulkhead_services.tool_executor.mcp.tools.READ_EVERY_S", 0.05)
    found = House(tmp_path)
    yield found
    if found.mcp is not None:
        await found.mcp.stop()
    await found.bench.close()


def http(*replicas: Replica, **more: Any) -> dict[str, Any]:
    return {"urls": [one.url for one in replicas], "tools": TOOLS, "timeout_ms": 30_000, **more}
