"""`bulkhead events`: tell the mesh what happened outside.

In: the gateway, as a person; a body of JSON. Out: the event's id in the mesh, and an exit code.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.options import GatewayOptions
from bulkhead_cli.output import EXIT_CODES, CommandError, Exit, print_json
from bulkhead_cli.screen import out

events_app = CommandGroup(no_args_is_help=True, rich_markup_mode="rich", epilog=EXIT_CODES)


@events_app.callback()
def describe_events() -> None:
    """Tell the mesh what happened outside."""


@events_app.command("publish")
async def publish_event(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the event: order.paid.")],
    at: GatewayOptions,
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="Key by which steps wait for it: an order.")] = "",
    event_id: Annotated[
        str, typer.Option("--id", metavar="ID", help="Your id; the same is the same event.", show_default="a new one")
    ] = "",
    body: Annotated[
        str, typer.Option("--body", metavar="JSON", help="What is known of it; @FILE reads a file.")
    ] = "{}",
) -> None:
    """Publish an event: it begins runs of workflows, and ends waits for it.

    Example: bulkhead events publish order.paid --key 42 --id payment-7 --body '{"id": 42}'
    """
    document = _read_body(body)
    async with at.gateway_target().mesh_client() as mesh:
        receipt = await mesh.publish_event(name, document, key=key, event_id=event_id)
    if at.as_json:
        print_json(receipt)
        return
    out.print(receipt["event"] + (" (it was there before)" if receipt.get("repeated") else ""), markup=False)


def _read_body(text: str) -> Any:
    """JSON, of a file where the text is @FILE. Raises CommandError."""
    try:
        return json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except OSError as error:
        raise CommandError(Exit.USAGE, f"{text[1:]} cannot be read: {error.strerror}", "check its path") from error
    except ValueError as error:
        raise CommandError(Exit.USAGE, f"--body is no JSON: {error}", "write '{\"id\": 42}'") from error
