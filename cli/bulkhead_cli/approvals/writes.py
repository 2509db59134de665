"""`bulkhead writes`: list writes that may or may not have been done, and say what became of one. `main` adds it.

In: the gateway, as a person of a tenant. Out: text or JSON on standard output, and an exit code.
"""

from typing import Annotated, Any

import typer

from bulkhead.client import Mesh
from bulkhead.journal.why.doubts import MAX_SHOWN_CHARS
from bulkhead.text import amounts
from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.options import GatewayOptions, reason_of
from bulkhead_cli.output import EXIT_CODES, CommandError, Exit, one_line, print_json
from bulkhead_cli.screen import out

MIN_ID_CHARS, ID_CHARS, WHOLE_ID_CHARS = 4, 12, 32
State = Annotated[
    str, typer.Option("--state", metavar="STATE", help="uncertain, happened, not_happened or all.", show_default=True)
]
OfTask = Annotated[str, typer.Option("--task", metavar="TASK", help="Only writes of this task.")]
HOW_TO_RESOLVE = (
    "look at the target of each, then `bulkhead writes resolve ID --happened` or `--not-happened`, with --reason TEXT; "
    "none is made again before"
)

writes_app = CommandGroup(invoke_without_command=True, rich_markup_mode="rich", epilog=EXIT_CODES)


@writes_app.callback()
async def writes(at: GatewayOptions, state: State = "uncertain", task: OfTask = "") -> None:
    """List writes of which nobody knows whether they were done, and say what became of one.

    A write whose outcome was lost is *uncertain*: it is not made again until somebody with the role approver or
    operator has looked at its target (docs/how-to/operate.md). Without a subcommand, they are listed.
    """
    await _print_writes(at, state, task)


@writes_app.command("list")
async def list_writes(at: GatewayOptions, state: State = "uncertain", task: OfTask = "") -> None:
    """List them, the newest first."""
    await _print_writes(at, state, task)


@writes_app.command("resolve")
async def resolve_write(
    write: Annotated[str, typer.Argument(metavar="ID", help="Id of the write, or its first characters.")],
    at: GatewayOptions,
    happened: Annotated[
        bool | None,
        typer.Option("--happened/--not-happened", help="It was made; or it was not, and may be.", show_default=False),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Reason; stored with the word.")] = "",
    result: Annotated[
        str, typer.Option("--result", metavar="TEXT", help="What its asker is told as its result, where it happened.")
    ] = "",
) -> None:
    """Say what became of a write. The next call alike has that as its answer, or makes the write.

    The first word stands, and is on record with its person, time and reason.
    """
    if happened is None or not reason:
        problem, remedy = "say what you have seen", "--happened or --not-happened, with --reason TEXT"
        raise CommandError(Exit.USAGE, problem, remedy)
    async with at.gateway_target().mesh_client() as mesh:
        write_id = write if len(write) == WHOLE_ID_CHARS else await _find_write_id(mesh, write)
        done = await mesh.resolve_write(write_id, happened, reason_of(reason), result)
    if at.as_json:
        print_json(done)
        return
    print_write(done)
    ended = done["resolution"]
    state = "the executor has not confirmed it yet: ask again" if ended is None else done["state"].replace("_", " ")
    out.print(f"{state}: {done['write_id'][:ID_CHARS]} of task {done['task_id']}", markup=False)


async def _print_writes(at: GatewayOptions, state: str, task: str) -> None:
    async with at.gateway_target().mesh_client() as mesh:
        page = await mesh.writes(state, task)
    if at.as_json:
        print_json(page)
        return
    for row in page["writes"]:
        print_write(row)
    if page["more"]:
        out.print(f"... and {page['more']} more", markup=False, style="dim")
    if not page["writes"]:
        out.print("no write is uncertain" if state == "uncertain" else f"no writes: {state}", markup=False)
    elif state == "uncertain":
        out.print(f"\n{HOW_TO_RESOLVE}", markup=False, style="dim")


def print_write(row: dict[str, Any]) -> None:
    """Print one write: what was asked for, under which key, and what a person has said of it."""
    write, resolution = row["write"], row["resolution"]
    arguments = one_line(write["arguments_json"])
    shown = arguments if len(arguments) <= MAX_SHOWN_CHARS else f"{arguments[:MAX_SHOWN_CHARS]}…"
    when = amounts.format_time(write["asked_unix_ms"])
    line = f"{row['write_id'][:ID_CHARS]}  {row['state']:12} {when}  {write['tool']} {shown}  task {row['task_id']}"
    out.print(one_line(line), markup=False)
    detail = f"key {write['key']}: {write['why']}"
    if resolution is not None:
        detail = f"{resolution['person']} ({resolution['role']}): {resolution['reason']}"
    out.print(f"      {one_line(detail)}", markup=False, style="dim")


async def _find_write_id(mesh: Mesh, write: str) -> str:
    """The whole id of the write that begins so, among the newest of those that wait for a word, then of all."""
    matching: list[str] = []
    for state in ("uncertain", "all") if len(write) >= MIN_ID_CHARS else ():
        rows = (await mesh.writes(state))["writes"]
        if matching := [row["write_id"] for row in rows if row["write_id"].startswith(write)]:
            break
    if len(matching) != 1:
        problem = "several writes begin" if matching else "no uncertain write begins"
        raise CommandError(
            Exit.USAGE, f"{problem} with {write[:64]!r}", "`bulkhead writes --state all` lists their ids"
        )
    return matching[0]
