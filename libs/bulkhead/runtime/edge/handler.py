"""The edge shell: stored messages to `handle_message`, requests to the rpc table, both checked."""

import json
from collections.abc import Collection, Mapping

from bulkhead.bus.port import LiveMessage, StoredMessage
from bulkhead.runtime import crash_points
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import EdgeComponent, ReceivedMessage, RpcTable
from bulkhead.runtime.errors import Unreadable
from bulkhead.telemetry import names, trace
from bulkhead.telemetry.log import Log
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.types import Body

log = Log("edge")


class EdgeHandler:
    """Handles an edge's inbox, in order within a task."""

    ordered = True

    def __init__(self, edge: EdgeComponent) -> None:
        self._edge = edge

    def forget_task(self, tenant: str, task: str) -> None:
        """An edge remembers for itself."""

    async def on_rejected(self, stored: StoredMessage, code: str, reason: str) -> None:
        """The dead letter says it all."""

    async def handle_message(self, message: ReceivedMessage) -> None:
        """Pass it on. Raises HandBack."""
        if not isinstance(message.body, MessageRejected):
            await self._edge.handle_message(message)


class RpcServer:
    """Answers `rpc.*.<service>.>` from the edge's table. long_polls: types of requests that wait for something."""

    def __init__(self, context: Context, table: RpcTable, long_polls: Collection[type[Body]] = ()) -> None:
        self._context, self._table = context, table
        self._long_polls = frozenset(kind.ce_type() for kind in long_polls)

    def is_long_poll(self, request: LiveMessage) -> bool:
        """Check whether it waits for something to happen, by what its header says."""
        return any(value in self._long_polls for name, value in request.headers.items() if name.lower() == "ce-type")

    async def answer_request(self, request: LiveMessage) -> tuple[Mapping[str, str], bytes]:
        """One request. What cannot be handled is answered with a `bulkhead-error` header, never with silence."""
        now_unix_ms = self._context.clock()
        try:
            message = inbound.read_message(
                StoredMessage(request.subject, request.headers, request.body, 0, now_unix_ms), self._context.service
            )
        except Unreadable as error:
            return _error_reply(error.code, error.reason)
        handler = self._table.get(type(message.body))
        if handler is None:
            return _error_reply("no_handler", f"{self._context.service} does not answer {message.envelope.type}")
        crash_points.pass_point("after_request")
        ready: tuple[Body, Mapping[str, str], bytes] | None = None

        def prepare_answer(body: Body) -> None:
            nonlocal ready
            ready = (
                body,
                self._context.publisher.make_envelope(body, cause=message.envelope.id).to_headers(),
                body.encode(),
            )

        name = f"{names.PROCESS} rpc.{message.sender}.{message.receiver}"
        try:
            with trace.span(name, message.envelope.traceparent, attributes={names.TASK: message.task}):
                body = await handler(message.as_request(prepare_answer))
        except Exception as error:
            log.error("rpc_failed", exc_info=True, subject=request.subject)
            return _error_reply("failed", f"{self._context.service} failed: {type(error).__name__}")
        if ready is None or ready[0] is not body:
            prepare_answer(body)
        assert ready is not None
        crash_points.pass_point("before_answer")
        return ready[1:]


def _error_reply(code: str, reason: str) -> tuple[Mapping[str, str], bytes]:
    return {"bulkhead-error": code}, json.dumps({"code": code, "message": reason}).encode()
