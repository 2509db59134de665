"""Pins of MCP servers: listed, made, compared with what the servers say now.

In: the file of servers. Out: the file of pins beside it; tables or JSON.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from bulkhead.text.amounts import format_count
from bulkhead.text.validation_errors import suggest_name
from bulkhead.tools.mcp_file import McpFile, McpFileError, McpToolPin, PinnedServer, pins_path, read_mcp_file
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.pin_files import write_pins
from bulkhead_cli.screen import err, out, print_whole


@dataclass(frozen=True, slots=True)
class PinChange:
    """Difference of one tool from its pin. how: new, changed, gone or left out."""

    server: str
    tool: str
    how: str
    what: str

    def as_row(self) -> dict[str, str]:
        """For programs."""
        return {"server": self.server, "tool": self.tool, "change": self.how, "what": self.what}


def list_tools(file: Path | None, *, as_json: bool) -> None:
    """Print servers and pinned tools. Raises CommandError."""
    files = _read_mcp_file(_require_mcp_file(file))
    rows: list[dict[str, Any]] = [
        {
            "tool": name,
            "server": tool.server,
            "effect": tool.row.spec.effect,
            "idempotent": tool.row.spec.idempotent,
            "egress": tool.row.spec.egress,
            "declared": tool.pin.tool in files.servers[tool.server].tools,
            "digest": tool.pin.digest,
            "description": tool.pin.description,
        }
        for name, tool in sorted(files.pinned_tools().items())
    ]
    unpinned = sorted(name for name in files.servers if name not in files.pins)
    if as_json:
        print_json({"tools": rows, "unpinned": unpinned})
        return
    table = Table(box=None, pad_edge=False)
    for title in ("tool", "effect", "declared", "description"):
        table.add_column(title, no_wrap=True)
    for row in rows:
        effect = row["effect"] + (", idempotent" if row["effect"] == "write" and row["idempotent"] else "")
        table.add_row(escape(row["tool"]), effect, "yes" if row["declared"] else "no", escape(row["description"][:120]))
    print_whole(table)
    for name in unpinned:
        out.print(f"{name} is not pinned: bulkhead mcp pin {name}", style="yellow", markup=False)


async def pin_servers(file: Path | None, servers: tuple[str, ...], *, check: bool, as_json: bool) -> Exit:
    """Read the tools of servers and pin them, or compare. Raises CommandError."""
    from bulkhead_services.tool_executor.mcp.pinning import ServerUnreadable, read_server

    path = _require_mcp_file(file)
    files = _read_mcp_file(path)
    if foreign := [server for server in servers if server not in files.servers]:
        hint = f"there are: {', '.join(files.servers)}{suggest_name(foreign[0], files.servers)}"
        raise CommandError(Exit.USAGE, f"{path} has no server {', '.join(foreign)}", hint, name="unknown_server")
    pins, changes = {name: files.pins[name] for name in files.pins if name in files.servers}, list[PinChange]()
    for name in servers or files.servers:
        try:
            current_server = await read_server(name, files.servers[name])
        except ServerUnreadable as error:
            hint = "look whether it runs and can be reached from here; nothing was written"
            raise CommandError(
                Exit.UNREACHABLE, f"MCP server {name}: {error}", hint, name="unreachable_server"
            ) from error
        changes += _find_changes(name, pins.get(name, PinnedServer()), current_server.pinned)
        pins[name] = current_server.pinned
    if not check:
        write_pins(pins_path(path), pins)
    _print_changes(path, changes, pins, check=check, as_json=as_json)
    return Exit.FAILED if check and any(change.how != "left out" for change in changes) else Exit.OK


def _print_changes(
    path: Path, changes: list[PinChange], pins: dict[str, PinnedServer], *, check: bool, as_json: bool
) -> None:
    tools = sum(len(server.tools) for server in pins.values())
    if as_json:
        written = "" if check else str(pins_path(path))
        print_json({"changes": [change.as_row() for change in changes], "tools": tools, "written": written})
        return
    for change in changes:
        out.print(f"{change.how:9} {change.tool}: {change.what}", markup=False)
    if check:
        summary = format_count(len(changes), "difference") if changes else "no difference"
        err.print(f"{tools} pinned tools, {summary}; nothing was written", style="dim", markup=False)
        return
    err.print(f"{tools} tools are pinned in {pins_path(path)}; review it", style="dim", markup=False)
    err.print(
        "name a tool in a tenant's `tools` to grant it, then restart the signer; undeclared tools count as writes",
        style="dim",
        markup=False,
    )


def _find_changes(server: str, before: PinnedServer, now: PinnedServer) -> Iterator[PinChange]:
    for name, pin in now.tools.items():
        old = before.tools.get(name)
        if old is None:
            yield PinChange(server, name, "new", pin.description)
        elif old.digest != pin.digest:
            yield PinChange(server, name, "changed", _describe_tool_changes(old, pin))
    for name in before.tools:
        if name not in now.tools:
            yield PinChange(server, name, "gone", "the server has it no more")
    for name, reason in now.left_out.items():
        yield PinChange(server, f"{server}/{name}", "left out", reason)


def _describe_tool_changes(old: McpToolPin, now: McpToolPin) -> str:
    differences = []
    if old.description != now.description:
        differences.append(f"it says {now.description!r}, and said {old.description!r}")
    if old.parameters != now.parameters:
        differences.append(f"its arguments are {json.dumps(now.parameters)}, and were {json.dumps(old.parameters)}")
    return "; ".join(differences) or "words that are cut here, its title, or the schema of its results"


def _require_mcp_file(file: Path | None) -> Path:
    if file is None:
        raise CommandError(Exit.USAGE, "no file of MCP servers is named", "give --file, or set BULKHEAD_MCP_FILE")
    return file


def _read_mcp_file(path: Path) -> McpFile:
    try:
        return read_mcp_file(path)
    except McpFileError as error:
        raise CommandError(
            Exit.USAGE, str(error), "docs/how-to/mcp-servers.md shows the form", name="bad_file"
        ) from error
