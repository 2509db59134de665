"""The agent door before a whole mesh in this process. In: keys. Out: the official client of A2A, and plain HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from a2a.client import Client, ClientConfig, create_client
from a2a.types import Message, Part, Role, SendMessageConfiguration, SendMessageRequest, StreamResponse, Task, TaskState

from bulkhead.callers.authentication import CallerAuthenticator
from bulkhead.http_server.server import HttpServer
from bulkhead.runtime.component import Component
from bulkhead.testing.mesh_backend import StageOptions
from bulkhead_infra.stages.memory import KEYS_FILE, Memory
from bulkhead_services.doors.a2a.routes import A2aRoutes
from bulkhead_services.doors.http.gateway_pool import GatewayPool
from bulkhead_services.doors.http.routes import DoorsHttp
from bulkhead_services.doors.settings import Settings
from tests.integration.doors.desk import ScriptedDesk

QUESTION = "What is 17 * 23?"
DONE = TaskState.TASK_STATE_COMPLETED


def message(text: str = QUESTION, name: str = "m1", **more: Any) -> Message:
    """A client's message of one text."""
    return Message(message_id=name, role=Role.ROLE_USER, parts=[Part(text=text)], **more)


def request(sent: Message, **configuration: Any) -> SendMessageRequest:
    """A request to send it."""
    return SendMessageRequest(message=sent, configuration=SendMessageConfiguration(**configuration))


async def events(client: Client, sent: SendMessageRequest) -> list[StreamResponse]:
    """All that the client is told."""
    return [event async for event in client.send_message(sent)]


async def sent(client: Client, asked: SendMessageRequest) -> Task:
    """The task of a client that does not stream."""
    [found] = await events(client, asked)
    return found.task


@asynccontextmanager
async def client_of(url: str, key: str, binding: str = "JSONRPC", *, streaming: bool = False) -> AsyncIterator[Client]:
    """The official client, which knows an address and a key."""
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=30) as http:
        config = ClientConfig(httpx_client=http, streaming=streaming, supported_protocol_bindings=[binding])
        yield await create_client(url, config)


@dataclass
class AgentDoor:
    """A running mesh."""

    stage: Memory

    def key(self, role: str = "submitter", tenant: str = "demo") -> str:
        """A new key."""
        return self.stage.new_key(tenant, f"{tenant}-{role}", role)

    @property
    def keys(self) -> Path:
        """The file of all keys."""
        return self.stage._folder / KEYS_FILE

    @property
    def doors(self) -> Component:
        """The replica."""
        found = next(row for (name, _), row in self.stage._mesh.running.items() if name == "doors").service.component
        assert isinstance(found, Component)
        return found

    @asynccontextmanager
    async def http(self, key: str, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
        """HTTP with a key, to the doors."""
        url, own = self.stage.doors_url, {"Authorization": f"Bearer {key}", "A2A-Version": "1.0", **headers}
        async with httpx.AsyncClient(base_url=url, headers=own, timeout=30) as client:
            yield client

    @asynccontextmanager
    async def client(self, key: str, binding: str = "JSONRPC", *, streaming: bool = False) -> AsyncIterator[Client]:
        """The official client."""
        async with client_of(self.stage.doors_url, key, binding, streaming=streaming) as found:
            yield found


@asynccontextmanager
async def before(gateway_url: str, keys: Path, **more: Any) -> AsyncIterator[str]:
    """The agent door alone, before a gateway that runs already. Out: its address."""
    own = {"http_port": 0, "nats_url": "nats://127.0.0.1:1", "gateway_url": gateway_url, "api_keys_file": keys}
    settings = Settings(**{**own, **more})

    async def ready() -> str:
        return ""

    http = DoorsHttp(settings, CallerAuthenticator(settings), ScriptedDesk(), ready)
    gateway = GatewayPool(settings.gateway_url)
    door = A2aRoutes(settings, http, gateway)
    http.more = [*door.build_routes()]
    server = HttpServer(http.build_app(), settings, "doors")
    await server.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        door.close()
        await server.stop()
        await gateway.close_connections()


@asynccontextmanager
async def agent_door(folder: Path, **settings: Any) -> AsyncIterator[AgentDoor]:
    """A mesh of every service, with the offline model."""
    stage = Memory(StageOptions(folder / "mesh", settings=settings))
    await stage.open()
    try:
        yield AgentDoor(stage)
    finally:
        await stage.close()
