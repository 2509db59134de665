"""`bulkhead chat`: a conversation, a turn at a time, that remembers what was said before.

In: a message, or lines of standard input. Out: each answer as `bulkhead watch` prints it, and the session's id.
"""

import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from bulkhead_cli.options import GatewayOptions
from bulkhead_cli.output import Exit, Work, print_json
from bulkhead_cli.target import GatewayTarget

Message = Annotated[str, typer.Argument(metavar="[MESSAGE]", help="One message; without it, a line of input is one.")]
SessionId = Annotated[str, typer.Option("--session", metavar="ID", help="Go on with it: `bulkhead sessions` lists.")]


def chat(at: GatewayOptions, message: Message = "", session: SessionId = "") -> Work:
    """Talk to the mesh, which remembers what was said.

    Each message is a task, shown the ones before it.

    Examples: bulkhead chat "What is refunded, and when?"
    """
    return hold_conversation(at.gateway_target(), message, session, as_json=at.as_json)


async def hold_conversation(target: GatewayTarget, message: str, session_id: str, *, as_json: bool) -> Exit:
    """Take a turn for the message, or for each line of standard input; returns how the last one ended."""
    from bulkhead_cli.screen import err, out
    from bulkhead_cli.tasks import follow

    code = Exit.OK
    async with target.mesh_client() as mesh:
        session = mesh.session(session_id)
        for text in [message] if message else _read_lines():
            task = await session.say(text)
            if as_json:
                print_json({"event": "turn", "session_id": session.id, "task_id": task.id})
            code = await follow.watch_to_end(task, out, as_json=as_json)
        if session.id and not as_json:
            err.print(f"go on: bulkhead chat --session {session.id}", style="dim", markup=False)
    return code


def _read_lines() -> Iterator[str]:
    """Messages of standard input; a terminal is shown a prompt."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()
