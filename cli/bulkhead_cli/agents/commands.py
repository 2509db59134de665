"""`bulkhead agents list`, `add` and `check`: the arguments of each. `main` adds them to `bulkhead`."""

from pathlib import Path
from typing import Annotated

import typer

from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.options import Json
from bulkhead_cli.output import EXIT_CODES, Work

agents_app = CommandGroup(invoke_without_command=True, rich_markup_mode="rich", epilog=EXIT_CODES)

File = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", envvar="BULKHEAD_AGENTS_FILE", help="File of remote agents.")
]
Url = Annotated[str, typer.Argument(metavar="URL", help="URL of the agent, or of its card.")]
Name = Annotated[str, typer.Option("--name", metavar="NAME", help="Its name in the mesh; its tool is agent_NAME.")]
Header = Annotated[
    list[str] | None, typer.Option("--header", metavar="NAME=FILE", help="Header of each request, from a file.")
]
Tenant = Annotated[list[str] | None, typer.Option("--tenant", metavar="TENANT", help="Tenant that may use it.")]
Reads = Annotated[bool, typer.Option("--reads", help="It changes nothing outside.")]
Private = Annotated[bool, typer.Option("--private", help="Its address may be private, and its URL plain http.")]
Agents = Annotated[
    list[str] | None, typer.Argument(metavar="[AGENT]...", help="Agents of the file.", show_default="all")
]


@agents_app.callback()
def top(file: File = None, as_json: Json = False) -> Work:
    """List the remote agents, add one, or look whether their cards changed.

    Without a subcommand, they are listed.

    Examples: bulkhead agents add https://crm.example.org --name crm · bulkhead agents check
    """
    return show(file, as_json)


@agents_app.command("list")
def show(file: File = None, as_json: Json = False) -> Work:
    """List the remote agents of the file, with what the operator declared of each."""
    from bulkhead_cli.agents.pins import list_agents

    list_agents(file, as_json=as_json)
    return None


@agents_app.command("add")
def add(
    url: Url,
    name: Name,
    file: File = None,
    header: Header = None,
    tenant: Tenant = None,
    reads: Reads = False,
    private: Private = False,
    as_json: Json = False,
) -> Work:
    """Read the card of an agent, show it, and pin it beside the file; write a row for it where the file has none.

    Only pinned agents exist in a mesh. One whose card differs from its pin is quarantined until it is added again, so
    review what is printed: it is a stranger's word.

    Example: bulkhead agents add https://crm.example.org --name crm --header authorization=/run/secrets/crm
    """
    from bulkhead_cli.agents.pins import add_agent

    row = {"headers": header or [], "tenants": tenant or [], "reads": reads, "private": private}
    return add_agent(file, url, name, row, as_json=as_json)


@agents_app.command("check")
def check(agents: Agents = None, file: File = None, as_json: Json = False) -> Work:
    """Read the cards of agents and compare them with their pins; exit with 1 when one differs.

    Example: bulkhead agents check crm
    """
    from bulkhead_cli.agents.pins import check_agents

    return check_agents(file, tuple(agents or ()), as_json=as_json)
