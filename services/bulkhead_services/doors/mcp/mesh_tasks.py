"""Tasks of the mesh as tasks of MCP, for clients that know the extension (SEP-2663).

In: `tasks/get`, `tasks/cancel`, `tasks/update`, with the caller's own credential. Out: how a task of the mesh stands,
with its result once it has ended. Nothing is kept here: an id is the mesh's own, and any replica answers.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolResult,
    RequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from bulkhead.client.errors import MeshError, Refused, Unfit
from bulkhead.client.task import UNENDED, Task
from bulkhead_services.doors.http.gateway_pool import GatewayPool
from bulkhead_services.doors.mcp.mesh_tools import render_document

EXTENSION = "io.modelcontextprotocol/tasks"
POLL_MS = 2_000
KEPT_MS = 24 * 3_600_000
"""A task can be asked for at least so long."""
Document = Mapping[str, Any]
CredentialOf = Callable[[Any], str]


class TaskParams(RequestParams):
    """Which task; an update's answers are not read, as no task of the mesh asks its client for any."""

    task_id: str


class MeshTasks:
    """The methods of the extension. credential_of: a request's."""

    def __init__(self, gateway: GatewayPool, credential_of: CredentialOf) -> None:
        self._gateway, self._credential_of = gateway, credential_of

    def register_methods(self, server: Server[Any]) -> None:
        """Add them to a server, which tells its clients."""
        server.extensions[EXTENSION] = {}
        for method, handler in (("get", self.get_task), ("cancel", self.cancel_task), ("update", self.update_task)):
            server.add_request_handler(f"tasks/{method}", TaskParams, handler)

    async def get_task(self, ctx: Any, params: TaskParams) -> dict[str, Any]:
        """`tasks/get`: with the result, once there is one."""
        document = await self._ask_gateway(ctx, params, Task.show)
        task_state = render_task_state(document)
        return task_state | (
            {"result": _dump_result(render_document(document))} if task_state["status"] == "completed" else {}
        )

    async def cancel_task(self, ctx: Any, params: TaskParams) -> dict[str, Any]:
        """`tasks/cancel`: asks for its end, which `tasks/get` tells; one that has ended stays as it is."""

        async def cancel_unless_ended(task: Task) -> None:
            try:
                await task.cancel("cancelled over MCP")
            except Refused as error:
                if error.code != "already_ended":
                    raise

        await self._ask_gateway(ctx, params, cancel_unless_ended)
        return {}

    async def update_task(self, ctx: Any, params: TaskParams) -> dict[str, Any]:
        """`tasks/update`: taken, of a task that is there."""
        await self._ask_gateway(ctx, params, Task.show)
        return {}

    async def _ask_gateway(self, ctx: Any, params: TaskParams, ask: Callable[[Task], Awaitable[Any]]) -> Any:
        if not knows_tasks(ctx):
            requirement: dict[str, Any] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
            raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, f"your client has not declared {EXTENSION}", requirement)
        if ctx.request.headers.get("mcp-name") != params.task_id:
            raise MCPError(HEADER_MISMATCH, "the header Mcp-Name is not the request's taskId; send the same in both")
        try:
            async with self._gateway.client_for(self._credential_of(ctx)) as mesh:
                return await ask(mesh.task(params.task_id))
        except MeshError as error:
            unknown = isinstance(error, Unfit) or (isinstance(error, Refused) and error.status == 404)
            hint = f"; {error.hint}" if error.hint else ""
            raise MCPError(INVALID_PARAMS if unknown else INTERNAL_ERROR, f"{error}{hint}") from error


def knows_tasks(ctx: Any) -> bool:
    """True when a request's client can be given a task in place of a result."""
    declared = ctx.session.client_capabilities
    extensions = (declared.extensions if declared is not None else None) or {}
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS and EXTENSION in extensions


def render_begun_task(document: Document) -> dict[str, Any]:
    """The result of a call that has become a task."""
    return {"resultType": "task", **render_task_state(document)}


def render_task_state(document: Document) -> dict[str, Any]:
    """A task's state. One that failed has a result that says so: `failed` is for errors of the protocol."""
    status = document["status"]
    ends = {"cancelled": "cancelled"}
    fields = {
        "taskId": document["task_id"],
        "status": "working" if status in UNENDED else ends.get(status, "completed"),
        "createdAt": _format_time(document["created_unix_ms"]),
        "lastUpdatedAt": _format_time(document["updated_unix_ms"]),
        "ttlMs": KEPT_MS,
        "pollIntervalMs": POLL_MS,
    }
    status_message = (document.get("pause") or {}).get("reason", "") or status
    return fields | {"statusMessage": status_message}


def _format_time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _dump_result(result: CallToolResult) -> dict[str, Any]:
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)
