"""The tools of MCP servers in the executor's registry, for as long as it runs.

Enters: the file of servers and its pins, read anew when either changes. Leaves: tools by their names in the mesh, and
refusals of those that may not be called. A file that cannot be used changes nothing, and is told.
"""

import asyncio
import json
from pathlib import Path

import jsonschema_rs

from bulkhead.runtime.background import BackgroundTasks, cancel_tasks
from bulkhead.runtime.component import Component
from bulkhead.telemetry.log import Log
from bulkhead.tools.api import Arguments, Call, Done, Failed, Run
from bulkhead.tools.mcp_file import McpFile, McpFileError, McpTool, pinned_file_stamps, pins_path, read_mcp_file
from bulkhead_contracts.result import Failure
from bulkhead_services.tool_executor.mcp.server import McpReplicas, quarantine_refusal
from bulkhead_services.tool_executor.registry import RegisteredTool, ToolRegistry

log = Log("mcp")

READ_EVERY_S = 2.0
REVIEW_HINT = "look at what the server says now and approve it with"


class McpTools(Component):
    """Keeps the registry's MCP tools. Raises McpFileError where the files cannot be used at the start."""

    def __init__(self, file: Path, registry: ToolRegistry, background: BackgroundTasks) -> None:
        self._file, self._registry, self._background = file, registry, background
        self._mesh_names = frozenset(registry.tools) | frozenset(registry.unconfigured) | frozenset(registry.elsewhere)
        self._read_stamps = pinned_file_stamps(self._file)
        self._file_problem = ""
        self._tools: dict[str, McpTool] = {}
        self._servers: dict[str, McpReplicas] = {}
        self._closing: list[McpReplicas] = []
        self._reported_names: frozenset[str] = frozenset()
        self._draining = False
        self._task: asyncio.Task[None] | None = None
        self._files = read_mcp_file(file)
        self._offer_tools(self._files)

    async def start(self) -> None:
        """Connect to the servers, and watch the files."""
        self._connect_servers(self._files)
        self._task = self._background.start("mcp file", self._watch_files())

    async def stop(self) -> None:
        """Close everything."""
        if self._task is not None:
            await cancel_tasks(self._task)
        await asyncio.gather(*(server.close() for server in [*self._servers.values(), *self._closing]))

    def drain(self) -> None:
        """Begin and read nothing new; calls under way go on."""
        self._draining = True

    def offered_tools(self) -> tuple[RegisteredTool, ...]:
        """The tools that are in the registry by it."""
        return tuple(self._registry.tools[name] for name in self._tools)

    def describe_degradation(self) -> str:
        """Servers without a replica, tools that are quarantined, files that cannot be used."""
        if self._file_problem:
            return f"{self._file_problem}, the MCP servers of before go on; mend the file"
        if changed := sorted(self._quarantined_names()):
            servers = " ".join(sorted({self._tools[name].server for name in changed}))
            return f"quarantined MCP tools: {', '.join(changed)[:300]}; {REVIEW_HINT} bulkhead mcp pin {servers}"
        for server in self._servers.values():
            if problem := server.find_problem().replace(";", ","):
                return f"{problem}; look whether it runs and can be reached from here"
        return ""

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(READ_EVERY_S)
            self._refuse_changed()
            if (stamp := pinned_file_stamps(self._file)) == self._read_stamps or self._draining:
                continue
            self._read_stamps = stamp
            try:
                files = await asyncio.to_thread(read_mcp_file, self._file)
                self._offer_tools(files)
            except McpFileError as error:
                self._file_problem = str(error).replace(";", ",")
                log.error(
                    "mcp_file_refused", file=str(self._file), why=str(error), meaning="what was read before holds"
                )
                continue
            self._file_problem, self._files = "", files
            self._connect_servers(files)
            log.info("mcp_file_read", file=str(self._file), servers=len(files.servers), tools=len(self._tools))

    def _offer_tools(self, files: McpFile) -> None:
        """Put the pinned tools into the registry in place of those of before. Raises McpFileError."""
        tools, offered = files.pinned_tools(), dict[str, RegisteredTool]()
        if clashes := sorted(set(tools) & (self._mesh_names | set(self._registry.tools) - set(self._tools))):
            raise McpFileError(
                f"{self._file}: {clashes[0]} is a tool of the mesh already; give its MCP server another name"
            )
        for name, tool in tools.items():
            try:
                offered[name] = RegisteredTool(tool.row, _run_of(self, name), schema_of(tool))
            except (ValueError, jsonschema_rs.ReferencingError) as error:
                raise McpFileError(f"{pins_path(self._file)}: {name}: its schema cannot be used: {error}") from error
        for name in self._tools:
            self._registry.tools.pop(name, None)
        self._tools = tools
        self._registry.tools.update(offered)

    def _connect_servers(self, files: McpFile) -> None:
        pinned = {name for name in files.servers if files.pins.get(name)}
        for name in set(self._servers) - pinned:
            server = self._servers.pop(name)
            server.drain()
            self._closing.append(server)
        for name in sorted(pinned):
            if name in self._servers:
                self._servers[name].update_replicas(files.servers[name])
            else:
                self._servers[name] = McpReplicas(name, files.servers[name])
        for name in sorted(set(files.servers) - pinned):
            log.warning("mcp_server_not_pinned", server=name, todo=f"bulkhead mcp pin {name}")

    def _quarantined_names(self) -> frozenset[str]:
        return frozenset(
            name
            for name, tool in self._tools.items()
            if tool.server in self._servers and self._servers[tool.server].is_quarantined(tool)
        )

    def _refuse_changed(self) -> None:
        """Refuse tools that changed before anything is reserved or approved for them, and say so once."""
        changed = self._quarantined_names()
        for name in changed - self._reported_names:
            todo = f"{REVIEW_HINT} bulkhead mcp pin {self._tools[name].server}"
            log.error("mcp_tool_quarantined", tool=name, server=self._tools[name].server, todo=todo)
        self._reported_names = changed
        self._registry.refused.clear()
        for name in changed:
            refusal = quarantine_refusal(self._tools[name].server, self._tools[name])
            self._registry.refused[name] = Failure.from_text(refusal.code, refusal.message, refusal.hint)

    async def call_tool(self, name: str, arguments: Arguments, call: Call) -> Done | Failed:
        """One attempt at a call of a pinned tool."""
        tool = self._tools.get(name)
        server = self._servers.get(tool.server) if tool is not None else None
        if tool is None or server is None:
            return Failed("not_offered", f"{name} was taken out of the mesh", "go another way")
        tenant = call.key.partition(".")[0]
        if not server.declared.allows_tenant(tenant):
            hint = f"an operator may add the tenant to {tool.server} in the file of MCP servers"
            return Failed("not_granted", f"tenant {tenant} may not use the MCP server {tool.server}", hint)
        return await server.call_tool(tool, arguments, call)


def _run_of(tools: McpTools, name: str) -> Run:
    async def run_call(arguments: Arguments, call: Call) -> Done | Failed:
        return await tools.call_tool(name, arguments, call)

    return run_call


def schema_of(tool: McpTool) -> jsonschema_rs.Draft202012Validator:
    """Validator that fetches nothing and takes linear time for patterns: it is the server's text."""
    schema = json.loads(tool.row.spec.parameters_json)
    return jsonschema_rs.Draft202012Validator(
        schema, validate_formats=True, offline=True, pattern_options=jsonschema_rs.RegexOptions()
    )
