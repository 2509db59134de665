"""`bulkhead sessions`: the conversations of a person.

In: the gateway, as a person. Out: text or JSON, and an exit code.
"""

from bulkhead.text.amounts import format_count, format_time
from bulkhead_cli.options import GatewayOptions
from bulkhead_cli.output import one_line, print_json
from bulkhead_cli.screen import out


async def list_sessions(at: GatewayOptions) -> None:
    """List your conversations, the newest first, with the last change of each.

    [bold]bulkhead chat --session ID[/bold] goes on with one.
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
