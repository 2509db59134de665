"""The A2A SDK's own server, with what the TCK asks an agent to do. In: messages; the beginning of a messageId says what
is asked. Out: tasks, kept in memory.

It is the measure of `a2a_tck.yml`: a failure that it shows, too, is the TCK's or the SDK's.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from a2a.helpers import new_task_from_user_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import Part
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from starlette.applications import Starlette

from bulkhead.http_server.tcp_ports import free_port
from bulkhead_services.doors.a2a import card
from bulkhead_services.doors.a2a.routes import JSON_RPC
from tests.integration.conformance.suite import serving

TEXT = "text/plain"
SLOW_S = 4.0
"""Twice the time after which the TCK takes a stream for silent."""
ARTIFACTS = {
    "tck-artifact-text": Part(text="Generated text content"),
    "tck-artifact-file-url": Part(url="https://example.com/output.txt", media_type=TEXT, filename="output.txt"),
    "tck-artifact-file": Part(raw=b"tck", media_type=TEXT, filename="output.txt"),
    "tck-artifact-data": Part(data=ParseDict({"key": "value", "count": 42}, Value())),
    "tck-stream-001": Part(text="Stream hello from TCK"),
    "tck-stream-003": Part(text="Stream task lifecycle"),
    "tck-stream-ordering-001": Part(text="Ordered output"),
    "tck-stream-artifact-text": Part(text="Streamed text content"),
    "tck-stream-artifact-file": Part(raw=b"tck", media_type=TEXT, filename="output.txt"),
}
"""By the beginning of a messageId, the longer first where one begins another (scenarios/*.feature of the TCK)."""


class Executor(AgentExecutor):
    """The agent. texts_only: it answers in text, and always with a task, as the agents of a mesh do."""

    def __init__(self, *, texts_only: bool = False) -> None:
        self._texts_only = texts_only

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """One message."""
        message = context.message
        assert message is not None and context.task_id is not None and context.context_id is not None
        name = message.message_id
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        if name.startswith("tck-message-response") and not self._texts_only:
            await event_queue.enqueue_event(updater.new_agent_message([Part(text="Direct message response")]))
            return
        if context.current_task is None:
            await event_queue.enqueue_event(new_task_from_user_message(message))
        if name.startswith(("tck-stream", "test-resubscribe")):
            await updater.start_work()
        if name.startswith("tck-input-required"):
            await updater.requires_input()
        elif name.startswith("tck-reject-task"):
            await updater.reject()
        elif name.startswith("tck-complete-task"):
            await updater.complete(updater.new_agent_message([Part(text="Hello from TCK")]))
        else:
            await self._with_artifacts(name, updater)
            await updater.complete()

    async def _with_artifacts(self, name: str, updater: TaskUpdater) -> None:
        if self._texts_only:
            await updater.add_artifact([Part(text="Hello from TCK")])
        elif name.startswith("tck-stream-artifact-chunked"):
            await updater.add_artifact([Part(text="chunk-1 ")], artifact_id="chunks", append=False)
            await updater.add_artifact([Part(text="chunk-2")], artifact_id="chunks", append=True, last_chunk=True)
        elif name.startswith("test-resubscribe"):
            await asyncio.sleep(SLOW_S)
        elif (part := next((part for begin, part in ARTIFACTS.items() if name.startswith(begin)), None)) is not None:
            await updater.add_artifact([part])

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """The end of a task."""
        assert context.task_id is not None and context.context_id is not None
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def application(address: str, executor: Executor) -> Starlette:
    """The server. Its card is the mesh's public one, without keys: the TCK asks both for the same."""
    own = card.public_card(address)
    own.ClearField("security_schemes")
    own.ClearField("security_requirements")
    handler = DefaultRequestHandler(
        executor, InMemoryTaskStore(), own, extended_agent_card=own, validate_input_modes=True
    )
    return Starlette(
        routes=[
            *create_agent_card_routes(own),
            *(one for path in JSON_RPC for one in create_jsonrpc_routes(handler, path, enable_v0_3_compat=True)),
            *create_rest_routes(handler, enable_v0_3_compat=True, path_prefix=card.PATH),
        ]
    )


@asynccontextmanager
async def reference(*, texts_only: bool = False) -> AsyncIterator[str]:
    """The server on a free port. Out: its address."""
    port = free_port()
    async with serving(application(f"http://127.0.0.1:{port}", Executor(texts_only=texts_only)), port) as url:
        yield url
