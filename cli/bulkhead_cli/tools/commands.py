"""`bulkhead tools list`, `show`, `try`, `export` and `new`: the arguments of each. `main` adds them to `bulkhead`."""

from pathlib import Path
from typing import Annotated

import typer

from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.options import Json
from bulkhead_cli.output import EXIT_CODES, Work

tools_app = CommandGroup(
    no_args_is_help=True, rich_markup_mode="rich", epilog=EXIT_CODES, help="List, show, try and make tools."
)

Packs = Annotated[
    list[str] | None,
    typer.Option(
        "--pack",
        metavar="PACKAGE",
        help="Package of tools, installed or in this folder; may be repeated.",
        show_default="those of BULKHEAD_PACKS",
    ),
]
Tool = Annotated[str, typer.Argument(metavar="TOOL", help="Name of the tool.")]
Given = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME=VALUE]...", help="Arguments; a value is JSON where the schema wants no text."),
]
AsJson = Annotated[
    str, typer.Option("--arguments", metavar="JSON", help="All arguments as one JSON object, as a model writes them.")
]
Tenant = Annotated[str, typer.Option("--tenant", metavar="T", help="Tenant whose credentials the tool gets.")]
User = Annotated[str, typer.Option("--user", metavar="U", help="User whose credentials the tool gets.")]
Key = Annotated[str, typer.Option("--key", metavar="KEY", help="Idempotency key, to make the same call again.")]
Approve = Annotated[bool, typer.Option("--approve", help="Be the person who agrees, where policy asks for one.")]
Package = Annotated[str, typer.Argument(metavar="PACKAGE", help="Name of the package, as in an import.")]
Check = Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 when the file is not up to date.")]
Folder = Annotated[Path, typer.Option("--in", metavar="DIR", help="Folder in which it is made.")]


@tools_app.command("list")
def show_all(pack: Packs = None, as_json: Json = False) -> Work:
    """List the tools: effect, isolation, sinks and the service that serves each.

    Installed packages that nobody named in BULKHEAD_PACKS are listed below: their tools are none of the mesh.
    """
    from bulkhead_cli.tools.listing import show_tools

    show_tools(tuple(pack or ()), as_json=as_json)
    return None


@tools_app.command("show")
def show(tool: Tool, pack: Packs = None, as_json: Json = False) -> Work:
    """Show one tool: what models read of it, its schemas, and the fields that policies look at."""
    from bulkhead_cli.tools.listing import show_tool

    show_tool(tool, tuple(pack or ()), as_json=as_json)
    return None


@tools_app.command("try")
def try_one(
    tool: Tool,
    given: Given = None,
    arguments: AsJson = "",
    pack: Packs = None,
    tenant: Tenant = "demo",
    user: User = "you",
    key: Key = "",
    approve: Approve = False,
    as_json: Json = False,
) -> Work:
    """Run one tool here, once, under the executor's checks: schema, policy, process, time, credentials, bounds.

    A write really writes, and the policy of the tenant decides about it: you count as the user who wrote each value.
    No mesh is needed and nothing is recorded. Settings, credentials and BULKHEAD_POLICY_DIR are those of this
    environment, as of tool_executor. The exit code is 1 when the tool fails, 4 when the call is refused.

    Examples: bulkhead tools try calculate "expression=2 + 2" · bulkhead tools try refund --pack acme_desk order=A-17
    amount_cents=3500 --json
    """
    from bulkhead_cli.tools.trial import ToolTrialRequest, try_tool

    request = ToolTrialRequest(tool, tuple(given or ()), arguments, tenant, user, key, approve)
    return try_tool(request, tuple(pack or ()), as_json=as_json)


@tools_app.command("export")
def export(package: Package, check: Check = False, as_json: Json = False) -> Work:
    """Write the tools.yaml of a package from its functions with @tool.

    Services that hold keys read that file and run no code of the package. The executor starts only where both say the
    same.
    """
    from bulkhead_cli.tools.packages import export_package

    return export_package(package, check=check, as_json=as_json)


@tools_app.command("new")
def new(package: Package, folder: Folder = Path("."), as_json: Json = False) -> Work:
    """Make a small package: one tool that writes, a policy for it, and tests that run it.

    Example: bulkhead tools new acme_tickets
    """
    from bulkhead_cli.tools.packages import new_package

    new_package(package, folder, as_json=as_json)
    return None
