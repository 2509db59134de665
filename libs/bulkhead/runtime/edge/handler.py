"""The edge shell: stored messages to `handle`, requests to the rpc table, both checked against the catalog."""

import json
from collections.abc import Collection, Mapping

from bulkhead.bus.port import Live, Stored
from bulkhead.runtime import crash_points
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import Edge, Received, RpcTable
from bulkhead.runtime.errors import Unreadable
from bulkhead.telemetry import names, trace
from bulkhead.telemetry.log import Log
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.types import Body

log = Log("edge")


class EdgeHandler:
    """Handles an edge's inbox, in order within a task."""

    ordered = True

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    def forget(self, tenant: str, task: str) -> None:
        """An edge remembers for itself."""

    async def rejected(self, stored: Stored, code: str, reason: str) -> None:
        """The dead letter says it all."""

    async def handle(self, message: Received) -> None:
        """Pass it on. Raises HandBack."""
        if not isinstance(message.body, MessageRejected):
            await self._edge.handle(message)


class RpcServer:
    """Answers `rpc.*.<service>.>` from the edge's table. standing: types of requests that wait for something."""

    def __init__(self, context: Context, table: RpcTable, standing: Collection[type[Body]] = ()) -> None:
        self._context, self._table = context, table
        self._standing = frozenset(kind.ce_type() for kind in standing)

    def stands(self, request: Live) -> bool:
        """Whether it waits for something to happen, by what its header says."""
        return any(value in self._standing for name, value in request.headers.items() if name.lower() == "ce-type")

    async def answer(self, request: Live) -> tuple[Mapping[str, str], bytes]:
        """One request. What cannot be handled is answered with a `bulkhead-error` header, never with silence."""
        now = self._context.clock()
        try:
            message = inbound.read(
                Stored(request.subject, request.headers, request.body, 0, now), self._context.service
            )
        except Unreadable as error:
            return _error(error.code, error.reason)
        handler = self._table.get(type(message.body))
        if handler is None:
            return _error("no_handler", f"{self._context.service} does not answer {message.envelope.type}")
        crash_points.passes("after_request")
        ready: tuple[Body, Mapping[str, str], bytes] | None = None

        def prepare(body: Body) -> None:
            nonlocal ready
            ready = (body, self._context.publisher.envelope(body, cause=message.envelope.id).headers(), body.encode())

        name = f"{names.PROCESS} rpc.{message.sender}.{message.receiver}"
        try:
            with trace.span(name, message.envelope.traceparent, attributes={names.TASK: message.task}):
                body = await handler(message.asked(prepare))
        except Exception as error:
            log.error("rpc_failed", exc_info=True, subject=request.subject)
            return _error("failed", f"{self._context.service} failed: {type(error).__name__}")
        if ready is None or ready[0] is not body:
            prepare(body)
        assert ready is not None
        crash_points.passes("before_answer")
        return ready[1:]


def _error(code: str, reason: str) -> tuple[Mapping[str, str], bytes]:
    return {"bulkhead-error": code}, json.dumps({"code": code, "message": reason}).encode()
