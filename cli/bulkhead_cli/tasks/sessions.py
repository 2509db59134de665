"""`bulkhead sessions`: the conversations of a person, and their erasure.

In: the gateway, as a person. Out: text or JSON, and an exit code.
"""

from typing import Annotated

import typer

from bulkhead.text.amounts import format_count, format_time
from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.options import GatewayOptions
from bulkhead_cli.output import EXIT_CODES, one_line, print_json
from bulkhead_cli.screen import out

Person = Annotated[str, typer.Option("--person", metavar="NAME", help="Name in the key or the token.")]

sessions_app = CommandGroup(invoke_without_command=True, rich_markup_mode="rich", epilog=EXIT_CODES)


@sessions_app.callback()
async def list_sessions(at: GatewayOptions) -> None:
    """List your conversations, or erase a person's.

    Without a subcommand, yours are listed, the newest first.

    Examples: bulkhead sessions · bulkhead sessions erase --person ann
    """
    async with at.gateway_target().mesh_client() as mesh:
        rows = await mesh.sessions()
    if at.as_json:
        print_json({"sessions": [row.model_dump(mode="json") for row in rows]})
        return
    for row in rows:
        turns = format_count(row.turn_count, "turn")
        out.print(one_line(f"{row.session_id}  {format_time(row.changed_unix_ms)}  {turns}  {row.title}"), markup=False)
    if not rows:
        out.print("no conversations yet: `bulkhead chat` begins one", markup=False)


@sessions_app.command("erase")
async def erase_sessions(person: Person, at: GatewayOptions) -> None:
    """Erase the conversations that a person opened: yours, or as an operator anybody's. Nothing brings them back.

    They are shown no more at once. The purge, daily or by hand (docs/how-to/operate.md), then removes their facts, the
    tasks of their turns and the contents of those.
    """
    async with at.gateway_target().mesh_client() as mesh:
        receipt = await mesh.erase_sessions(person)
    if at.as_json:
        print_json(receipt.model_dump(mode="json"))
        return
    sessions = format_count(receipt.erased, "session")
    out.print(one_line(f"{sessions} of {person} erased; {receipt.waiting} wait for the purge. Kept:"), markup=False)
    for row in receipt.kept:
        named = f" ({', '.join(row.session_ids)})" if row.session_ids else ""
        out.print(one_line(f"  {row.what}: {row.reason}{named}"), markup=False)
