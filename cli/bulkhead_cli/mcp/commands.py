"""`bulkhead mcp list`, `pin` and `serve`: the arguments of each. `main` adds them to `bulkhead`."""

from pathlib import Path
from typing import Annotated

import typer

from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.options import DoorsUrl, GatewayOptions, Json
from bulkhead_cli.output import EXIT_CODES, Work

mcp_app = CommandGroup(invoke_without_command=True, rich_markup_mode="rich", epilog=EXIT_CODES)

File = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", envvar="BULKHEAD_MCP_FILE", help="File of MCP servers.")
]
Servers = Annotated[
    list[str] | None, typer.Argument(metavar="[SERVER]...", help="Servers of the file.", show_default="all")
]
Run = Annotated[str, typer.Option("--run", metavar="NAME", help="Name of the run whose task the calls belong to.")]
Check = Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 when a server differs from its pins.")]


@mcp_app.callback()
def top(file: File = None, as_json: Json = False) -> Work:
    """List the MCP servers and their pinned tools, or pin the tools of a server.

    Without a subcommand, they are listed.

    Examples: bulkhead mcp list --file mcp.yaml · bulkhead mcp pin desk --file mcp.yaml
    """
    return show(file, as_json)


@mcp_app.command("list")
def show(file: File = None, as_json: Json = False) -> Work:
    """List the MCP servers of the file and their pinned tools, with what the operator declared of each."""
    from bulkhead_cli.mcp.pins import list_tools

    list_tools(file, as_json=as_json)
    return None


@mcp_app.command("pin")
def pin(servers: Servers = None, file: File = None, check: Check = False, as_json: Json = False) -> Work:
    """Connect to MCP servers, read their tools, and write them as pins beside the file.

    Only pinned tools exist in a mesh. A tool whose description or schema differs from its pin is quarantined until it
    is pinned again, so review the changes that are printed: they are a stranger's words, shown to your models.

    Examples: bulkhead mcp pin --file mcp.yaml · bulkhead mcp pin desk --check
    """
    from bulkhead_cli.mcp.pins import pin_servers

    return pin_servers(file, tuple(servers or ()), check=check, as_json=as_json)


@mcp_app.command("serve")
def serve(at: GatewayOptions, doors_url: DoorsUrl = "", run: Run = "") -> Work:
    """Serve the tools of a mesh over stdin and stdout, to a program that starts MCP servers itself.

    Example: bulkhead mcp serve --data .bulkhead
    """
    from bulkhead_cli.mcp.serve import serve_mcp as serve_tools
    from bulkhead_cli.target import doors_of

    url, key = doors_of(at.data, doors_url, at.api_key, at.tenant)
    return serve_tools(url, key, run)
