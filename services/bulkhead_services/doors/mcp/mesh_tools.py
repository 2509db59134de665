"""The mesh itself as tools: tasks of its own, for agents that write code or look after others.

In: a call and its caller's own credential. Out: what the gateway answers to that credential. Doors have no right to
tasks that the mesh plans: they hand the words on, and the gateway decides by the key, as for any client.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, get_args

from mcp_types import CallToolResult, TextContent, Tool, ToolAnnotations

from bulkhead.client import Mesh
from bulkhead.client.errors import MeshError, Refused
from bulkhead.client.task import UNENDED, Task
from bulkhead.gateway_api.histories import StoryQuery
from bulkhead.text.live_calls import CALL_EVENTS, describe_call
from bulkhead.text.plain_text import escape_controls
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import SpendKey
from bulkhead_contracts.tool import ToolProgress
from bulkhead_services.doors.http.gateway_pool import GatewayPool
from bulkhead_services.doors.http.mesh_turns import begin_turn
from bulkhead_services.doors.mcp.contents import META

PREFIX = "bulkhead_"
MAX_WAIT_S = 55.0
"""Many clients give up a call after a minute."""
PAGE_ROWS = 100
Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MeshToolRequest:
    """A call's own. key: for what it changes. on_progress: hears what its task looks at; None where nobody wants to."""

    key: str
    on_progress: Callable[[ToolProgress], None] | None = None


MeshMethod = Callable[[Mesh, Arguments, MeshToolRequest], Awaitable[dict[str, Any]]]
_TASK: dict[str, Any] = {"task": {"type": "string", "description": "Id of the task."}}


@dataclass(frozen=True, slots=True)
class MeshTool:
    """One tool. ask: (mesh, arguments, request) to a document."""

    name: str
    description: str
    properties: dict[str, Any]
    required: tuple[str, ...]
    ask: MeshMethod
    reads: bool = True

    def mcp_tool(self) -> Tool:
        """The tool as MCP lists it."""
        shape = {"properties": self.properties, "required": list(self.required), "additionalProperties": False}
        schema: dict[str, Any] = {"type": "object", **shape}
        hints = ToolAnnotations(read_only_hint=self.reads, destructive_hint=not self.reads, idempotent_hint=self.reads)
        return Tool(name=self.name, description=self.description, input_schema=schema, annotations=hints)


async def _submit_task(mesh: Mesh, arguments: Arguments, request: MeshToolRequest) -> dict[str, Any]:
    limits: dict[str, Any] = {name: arguments.get(name) for name in ("limit_usd", "limit_tokens", "deadline_s")}
    tools, conversation = tuple(arguments.get("tools") or ()), arguments.get("conversation") or ""

    async def submit() -> Task:
        return await mesh.submit(
            arguments["objective"],
            tools=tools,
            conversation=conversation,
            written_by="model",  # A model calls this tool, under whosever key.
            idempotency_key=request.key,
            **limits,
        )

    task = await begin_turn(
        mesh, conversation, arguments["objective"], request.key, submit, limits=limits, options={"tools": tools}
    )
    return {"task": task.id, "next": f"call {PREFIX}watch with it"}


async def _watch_task(mesh: Mesh, arguments: Arguments, request: MeshToolRequest) -> dict[str, Any]:
    task, wait_s = mesh.task(arguments["task"]), arguments.get("wait_s", MAX_WAIT_S)
    try:
        async with asyncio.timeout(min(float(wait_s), MAX_WAIT_S)), aclosing(task.events()) as events:
            sentences_sent = 0
            async for event in events:
                if event.name in CALL_EVENTS and request.on_progress is not None:
                    sentences_sent += 1
                    sentence = escape_controls(describe_call(event.name, event.data))[: bounds.MAX_SUMMARY_CHARS]
                    request.on_progress(ToolProgress(call_id=task.id, progress=sentences_sent, message=sentence))
            return await task.show()
    except TimeoutError:
        return await task.show() | {"next": "it goes on: watch it again"}


async def _run_task(mesh: Mesh, arguments: Arguments, request: MeshToolRequest) -> dict[str, Any]:
    submitted = await _submit_task(mesh, arguments, request)
    document = await _watch_task(mesh, submitted, request)
    return document | ({"next": f"it goes on: call {PREFIX}watch with its task_id"} if "next" in document else {})


async def _begin_task(mesh: Mesh, arguments: Arguments, request: MeshToolRequest) -> dict[str, Any]:
    return await mesh.task((await _submit_task(mesh, arguments, request))["task"]).show()


async def _show_task(mesh: Mesh, arguments: Arguments, _: MeshToolRequest) -> dict[str, Any]:
    return await mesh.task(arguments["task"]).show()


async def _explain_task(mesh: Mesh, arguments: Arguments, _: MeshToolRequest) -> dict[str, Any]:
    explanation = await mesh.read_json(StoryQuery(task_id=mesh.task(arguments["task"]).id))
    return {name: value for name, value in explanation.items() if name != "story"}  # The same, for programs, at length.


async def _read_timeline(mesh: Mesh, arguments: Arguments, _: MeshToolRequest) -> dict[str, Any]:
    task, after = mesh.task(arguments["task"]), int(arguments.get("after", 0))
    page = await mesh.get(f"/v1/tasks/{task.id}/timeline", {"limit": str(PAGE_ROWS), "after": str(after)})
    return {name: value for name, value in page.items() if name != "rows"}


async def _read_spend(mesh: Mesh, arguments: Arguments, _: MeshToolRequest) -> dict[str, Any]:
    return await mesh.get("/v1/spend", {"by": str(arguments.get("by", "task"))})


_OBJECTIVE: dict[str, Any] = {
    "objective": {"type": "string", "minLength": 1},
    "limit_usd": {"type": "number", "exclusiveMinimum": 0},
    "limit_tokens": {"type": "integer", "minimum": 1},
    "deadline_s": {"type": "number", "exclusiveMinimum": 0},
    "tools": {"type": "array", "items": {"type": "string"}, "description": "All that it may use."},
    "conversation": {
        "type": "string",
        "description": "A name of yours: what was said under it is known, and its first `tools` count; or a task's id.",
    },
}
RUN = MeshTool(
    f"{PREFIX}run",
    f"Hand an objective to a squad of agents and wait for its answer: {MAX_WAIT_S:.0f} s at most, or as a task where "
    "the client knows tasks.",
    _OBJECTIVE,
    ("objective",),
    _run_task,
    reads=False,
)
BEGIN = replace(RUN, ask=_begin_task)
"""The same, which does not wait."""
TOOLS = {
    row.name: row
    for row in (
        RUN,
        MeshTool(
            f"{PREFIX}submit",
            "Hand an objective to a squad of agents. Returns the task's id at once; its answer comes later.",
            _OBJECTIVE,
            ("objective",),
            _submit_task,
            reads=False,
        ),
        MeshTool(
            f"{PREFIX}watch",
            f"Wait until a task has ended, at most {MAX_WAIT_S:.0f} s, and return it with its answer.",
            _TASK | {"wait_s": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_WAIT_S}},
            ("task",),
            _watch_task,
        ),
        MeshTool(
            f"{PREFIX}show",
            "What is known of a task now: status, steps, spending, answer.",
            _TASK,
            ("task",),
            _show_task,
        ),
        MeshTool(f"{PREFIX}why", "What a task did and why, or why it waits.", _TASK, ("task",), _explain_task),
        MeshTool(
            f"{PREFIX}timeline",
            f"What happened to a task, message by message: {PAGE_ROWS}, and where the `next` ones begin.",
            _TASK | {"after": {"type": "integer", "minimum": 0}},
            ("task",),
            _read_timeline,
        ),
        MeshTool(
            f"{PREFIX}spend",
            "What was spent today, by one dimension.",
            {"by": {"type": "string", "enum": list(get_args(SpendKey))}},
            (),
            _read_spend,
        ),
    )
}


async def call_mesh_tool(
    gateway: GatewayPool, credential: str, tool: MeshTool, arguments: Arguments, request: MeshToolRequest
) -> CallToolResult:
    """Ask the gateway under the caller's credential. What it refuses is told as it says it."""
    try:
        if unknown := sorted(set(arguments) - set(tool.properties)):
            raise ValueError(f"{tool.name} has no argument {unknown[0][: bounds.MAX_NAME_CHARS]!r}")
        async with gateway.client_for(credential) as mesh:
            document = await tool.ask(mesh, arguments, request)
    except MeshError as error:
        code = error.code if isinstance(error, Refused) else type(error).__name__.lower()
        return _error_result(f"{code}: {error}" + (f"; {error.hint}" if error.hint else ""), {META + "code": code})
    except (KeyError, TypeError, ValueError) as error:
        return _error_result(
            f"bad_arguments: {error}; send what the tool's schema asks for", {META + "code": "bad_arguments"}
        )
    return render_document(document, judged=tool is RUN)


def render_document(document: Mapping[str, Any], *, judged: bool = True) -> CallToolResult:
    """A document as a result. judged: one of a task that ended without an answer is an error."""
    failed = judged and document["status"] not in (*UNENDED, "succeeded")
    text = json.dumps(document, ensure_ascii=False)
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=dict(document), is_error=failed
    )


def _error_result(text: str, meta: dict[str, Any]) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True, _meta=meta)
