"""`bulkhead open`: its arguments."""

from typing import Annotated

import typer

from bulkhead_cli.options import GatewayOptions, task_id
from bulkhead_cli.output import Work

OpenedTask = Annotated[
    str,
    typer.Argument(
        metavar="[TASK]",
        help="Id of the task.",
        show_default="the overview",
        callback=lambda text: task_id(text) if text else "",
    ),
]
Print = Annotated[bool, typer.Option("--print", help="Print the link instead of opening a browser.")]


def open_console(at: GatewayOptions, task: OpenedTask = "", printed: Print = False) -> Work:
    """Open the console, or a task in it, signed in.

    The link signs a browser in as the owner of the API key, once, within ten minutes. Who has it in that time is that
    person: give it to nobody. With --json and on a machine without a browser it is printed.

    Examples: bulkhead open · bulkhead open t3k2 --print
    """
    from bulkhead_cli.console.links import open_page

    return open_page(at.gateway_target(), f"/tasks/{task}" if task else "/", printed=printed, as_json=at.as_json)
