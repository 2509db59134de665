"""A remote A2A agent, written with the official SDK alone. The first word of a message says what it does.

As a program: `a2a_agent.py --port N --log FILE` writes a line to the file for each task that it begins or cancels.
"""

import argparse
import asyncio
from collections.abc import Iterable
from pathlib import Path

import uvicorn
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Message,
    Part,
    Role,
    Task,
    TaskState,
    TaskStatus,
)
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from starlette.applications import Starlette

TICK_S = 0.1


class Agent(AgentExecutor):
    """begun: message ids, one per task. cancelled: ids of tasks."""

    def __init__(self, log: Path | None = None) -> None:
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.go = asyncio.Event()
        self._log = log

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None and context.task_id is not None and context.context_id is not None
        word, _, rest = context.get_user_input().strip().partition(" ")
        self.begun.append(context.message.message_id)
        self._write(f"begun {context.task_id} {context.message.message_id}")
        if word == "message":
            said = Message(message_id="m", role=Role.ROLE_AGENT, parts=[Part(text=rest)])
            await event_queue.enqueue_event(said)
            return
        if word == "mute":
            await self.go.wait()
        state = TaskStatus(state=TaskState.TASK_STATE_SUBMITTED)
        await event_queue.enqueue_event(Task(id=context.task_id, context_id=context.context_id, status=state))
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        await updater.start_work()
        await self._do(word, rest, updater)

    async def _do(self, word: str, rest: str, updater: TaskUpdater) -> None:
        said = updater.new_agent_message([Part(text=rest)])
        match word:
            case "fail":
                await updater.failed(said)
            case "reject":
                await updater.reject(said)
            case "ask":
                await updater.requires_input(said)
            case "login":
                await updater.requires_auth(said)
            case "hang":
                await asyncio.Event().wait()
            case "big":
                await updater.add_artifact([Part(text="x" * int(rest))])
                await updater.complete()
            case "parts":
                data = ParseDict({"sum": 3}, Value())
                picture = Part(raw=b"\x89PNG", media_type="image/png", filename="chart.png")
                link = Part(url="http://127.0.0.1:1/secret", filename="far.txt", media_type="text/plain")
                notes = Part(raw=b"a note", media_type="text/plain", filename="note.txt")
                await updater.add_artifact([Part(text="the sum"), Part(data=data)], name="sum")
                await updater.add_artifact([picture, link, notes], name="files")
                await updater.complete()
            case "wait" | "slow":
                until = asyncio.get_running_loop().time() + (float(rest.split()[0]) if word == "slow" else float("inf"))
                while not self.go.is_set() and asyncio.get_running_loop().time() < until:
                    await updater.start_work(updater.new_agent_message([Part(text="at it")]))
                    await asyncio.sleep(TICK_S)
                await updater.add_artifact([Part(text=f"done: {rest}")])
                await updater.complete()
            case _:
                await updater.add_artifact([Part(text=f"you said: {word} {rest}")], artifact_id="a")
                await updater.add_artifact([Part(text=", indeed")], artifact_id="a", append=True, last_chunk=True)
                await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id is not None and context.context_id is not None
        self.cancelled.append(context.task_id)
        self._write(f"cancelled {context.task_id}")
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()

    def _write(self, line: str) -> None:
        if self._log is not None:
            with self._log.open("a") as file:
                file.write(line + "\n")


def card(url: str, *, streaming: bool = True, versions: Iterable[str] = ("1.0",), said: str = "Echoes.") -> AgentCard:
    """The agent's card."""
    interfaces = [
        AgentInterface(url=url + "/a2a", protocol_binding=binding, protocol_version=version)
        for version in versions
        for binding in ("JSONRPC", "HTTP+JSON")
    ]
    return AgentCard(
        name="Echo",
        description=said,
        version="1",
        supported_interfaces=interfaces,
        capabilities=AgentCapabilities(streaming=streaming),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="echo", name="Echo", description="Says it again.", tags=["echo"])],
    )


def app(agent: Agent, shown: AgentCard) -> Starlette:
    """The agent behind its card, in both bindings and versions."""
    handler = DefaultRequestHandler(agent, InMemoryTaskStore(), shown)
    routes = [
        *create_agent_card_routes(shown),
        *create_jsonrpc_routes(handler, "/a2a", enable_v0_3_compat=True),
        *create_rest_routes(handler, enable_v0_3_compat=True, path_prefix="/a2a"),
    ]
    return Starlette(routes=routes)


if __name__ == "__main__":
    words = argparse.ArgumentParser()
    words.add_argument("--port", type=int)
    words.add_argument("--log", type=Path)
    given = words.parse_args()
    uvicorn.run(app(Agent(given.log), card(f"http://127.0.0.1:{given.port}")), port=given.port, log_level="warning")
