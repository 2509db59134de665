"""`bulkhead dead-letters`: list, show, send again, dismiss. `main` hangs it into `bulkhead`.

In: the data directory, under the operator's key; or a gateway, as a person of a tenant, which sends nothing again. Out:
text or JSON on standard output, and an exit code.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from bulkhead import amounts
from bulkhead.runtime import dead_letters as letters
from bulkhead.runtime.dead_letters import Letter, Mark
from bulkhead_cli.dead_letters import remote
from bulkhead_cli.invocation import Group
from bulkhead_cli.options import Broker, Either, reason_of
from bulkhead_cli.output import EXIT_CODES, Exit, Stop, out, print_json
from bulkhead_cli.target import operator_bus, person
from bulkhead_contracts import catalog

MIN_ID_CHARS = 4
ID_CHARS = 12
HANDLER_FAILED = "handler_failed"
LetterId = Annotated[str, typer.Argument(metavar="ID", help="Id of the letter, or its first characters.")]
Again = Annotated[bool, typer.Option("--again", help="Send it even if it was sent again or dismissed before.")]
All = Annotated[bool, typer.Option("--all", help="Include letters that were sent again or dismissed.")]

letters_app = Group(invoke_without_command=True, rich_markup_mode="rich", epilog=EXIT_CODES)


@letters_app.callback()
async def dead_letters(at: Either, everything: All = False) -> None:
    """List, send again or dismiss messages that a service could not handle.

    Without a subcommand, the open letters are listed. Uses the operator's key in DIR. With --url and --api-key a
    gateway is asked for the letters of the key's tenant; messages are sent again in DIR alone.
    """
    await _list(at, everything)


@letters_app.command("list")
async def list_letters(at: Either, everything: All = False) -> None:
    """List open dead letters, oldest first."""
    await _list(at, everything)


@letters_app.command("show")
async def show_letter(letter: LetterId, at: Either) -> None:
    """Show a dead letter: its reason, the actions taken on it, and the original message with its headers."""
    target = at.remote()
    values: dict[str, Any] = (
        await remote.read_letter(target, letter) if target else _pick(await _all(at.data), letter).as_json()
    )
    if at.as_json:
        print_json(values)
        return
    body, headers, marks = values.pop("body"), values.pop("headers"), values.pop("marks")
    for name, value in values.items():
        out.print(f"{name}: {value}", markup=False)
    for mark in marks:
        out.print(
            f"{amounts.clock(mark['at_unix_ms'])}  {mark['what']} by {mark['by']}: {mark['reason']}", markup=False
        )
    out.print()
    for name, value in headers.items():
        out.print(f"{name}: {value}", markup=False, style="dim")
    out.print()
    out.print(body, markup=False)


@letters_app.command("redrive")
async def redrive_letter(letter: LetterId, at: Broker, again: Again = False) -> None:
    """Send the original message again, after the cause was repaired.

    The letter is no longer open then. If the message fails again, a new letter appears.
    """
    async with operator_bus(at.data) as bus:
        found = _pick(await letters.read_letters(bus), letter)
        if not found.subject.startswith("mesh."):
            raise Stop(
                Exit.REFUSED,
                f"{found.subject or 'an unknown subject'} is no inbox subject",
                "look at the letter; what was not addressed to an inbox cannot be sent again",
            )
        if found.marks and not again:
            raise _done(found)
        ack = await letters.redrive(bus, found, person())
    if at.as_json:
        print_json({"id": found.id, "subject": found.subject, "stream": ack.stream, "sequence": ack.sequence})
        return
    out.print(f"sent again: {found.subject} is number {ack.sequence} of {ack.stream}", markup=False)
    if found.code == HANDLER_FAILED and found.service in catalog.DOERS:
        asker = found.headers.get("ce-source", "who asked")
        out.print(
            f"{found.service} has answered {asker} that the request failed, and will answer the same: run the step "
            "again (`bulkhead replay TASK --from-step`)",
            markup=False,
        )


@letters_app.command("dismiss")
async def dismiss_letter(
    letter: LetterId,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Reason, stored with the letter.")],
    at: Either,
) -> None:
    """Dismiss a letter that needs no action.

    The letter is no longer open, but remains stored.
    """
    why, target = reason_of(reason, letters.MAX_REASON_CHARS), at.remote()
    done = await remote.dismiss(target, letter, why) if target else await _dismiss(at.data, letter, why)
    if at.as_json:
        print_json(done)
    else:
        out.print(f"dismissed by {done['dismissed_by']}: {done['id'][:ID_CHARS]} ({done['reason']})", markup=False)


async def _dismiss(data: Path, letter: str, why: str) -> dict[str, str]:
    async with operator_bus(data) as bus:
        found = _pick(await letters.read_letters(bus), letter)
        if found.standing == "dismissed":
            raise _done(found)
        mark = Mark("dismissed", person(), why)
        await letters.mark(bus, found, mark)
    return {"id": found.id, "dismissed_by": mark.by, "reason": mark.reason}


async def _all(data: Path) -> list[Letter]:
    async with operator_bus(data) as bus:
        return await letters.read_letters(bus)


def _done(found: Letter) -> Stop:
    last = found.marks[-1]
    what = f"the letter was {last.what} by {last.by} at {amounts.clock(last.at_unix_ms)}: {last.reason}"
    return Stop(Exit.REFUSED, what, "to send it all the same: `bulkhead dead-letters redrive ID --again`")


def _pick(found: list[Letter], letter: str) -> Letter:
    matching = [one for one in found if one.id.startswith(letter)] if len(letter) >= MIN_ID_CHARS else []
    if len({one.id for one in matching}) != 1:
        what = "several dead letters begin" if matching else "no dead letter begins"
        raise Stop(Exit.USAGE, f"{what} with {letter[:64]!r}", "`bulkhead dead-letters --all` lists their ids")
    return matching[-1]


async def _list(at: Either, everything: bool) -> None:
    target = at.remote()
    if target is not None:
        rows = await remote.read_letters(target, everything=everything)
    else:
        rows = [one.as_json() for one in await _all(at.data) if everything or not one.marks]
    if at.as_json:
        print_json(rows)
        return
    if not rows:
        out.print("no dead letters")
    for row in rows:
        standing = f"  [dim]{row['standing']}[/dim]" if row["marks"] else ""
        out.print(
            f"[bold]{escape(row['id'][:ID_CHARS])}[/bold]  {amounts.clock(row['buried_unix_ms'])}  "
            f"{escape(row['service'])}  [red]{escape(row['code'])}[/red]  {escape(row['subject'])}{standing}"
        )
        if row["reason"]:
            out.print(f"  {row['reason']}", markup=False, style="dim")
