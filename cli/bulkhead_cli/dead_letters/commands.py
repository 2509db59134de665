"""`bulkhead dead-letters`: list, show, send again, dismiss. `main` hangs it into `bulkhead`.

In: the data directory, under the operator's key; or a gateway, as a person of a tenant, which sends nothing again. Out:
text or JSON on standard output, and an exit code.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from bulkhead.gateway_api.operators import LetterListQuery, LetterQuery
from bulkhead.gateway_api.query import MAX_PAGE
from bulkhead.runtime import dead_letters as letters
from bulkhead.runtime.dead_letters import DeadLetterMark, Letter
from bulkhead.text import amounts
from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.options import BrokerOptions, BrokerOrGatewayOptions, reason_of
from bulkhead_cli.output import EXIT_CODES, CommandError, Exit, print_json
from bulkhead_cli.screen import out
from bulkhead_cli.target import GatewayTarget, local_user, operator_bus
from bulkhead_contracts import catalog

MIN_ID_CHARS = 4
ID_CHARS = 12
HANDLER_FAILED = "handler_failed"
LetterId = Annotated[str, typer.Argument(metavar="ID", help="Id of the letter, or its first characters.")]
Again = Annotated[bool, typer.Option("--again", help="Send it even if it was sent again or dismissed before.")]
All = Annotated[bool, typer.Option("--all", help="Include letters that were sent again or dismissed.")]

letters_app = CommandGroup(invoke_without_command=True, rich_markup_mode="rich", epilog=EXIT_CODES)


@letters_app.callback()
async def dead_letters(at: BrokerOrGatewayOptions, everything: All = False) -> None:
    """List, send again or dismiss messages that a service could not handle.

    Without a subcommand, the open letters are listed. Uses the operator's key in DIR. With --url and --api-key a
    gateway is asked for the letters of the key's tenant; messages are sent again in DIR alone.
    """
    await _print_letters(at, everything)


@letters_app.command("list")
async def list_letters(at: BrokerOrGatewayOptions, everything: All = False) -> None:
    """List open dead letters, oldest first."""
    await _print_letters(at, everything)


@letters_app.command("show")
async def show_letter(letter: LetterId, at: BrokerOrGatewayOptions) -> None:
    """Show a dead letter: its reason, the actions taken on it, and the original message with its headers."""
    target = at.remote_target()
    if target:
        async with target.mesh_client() as mesh:
            document = await mesh.read_json(LetterQuery(letter_id=letter))
    else:
        document = _document_of(_pick_letter(await _read_all_letters(at.data), letter))
    if at.as_json:
        print_json(document)
        return
    row = document["letter"]
    for name in ("id", "code", "reason", "service", "subject", "sequence", "buried_unix_ms"):
        out.print(f"{name}: {row[name]}", markup=False)
    out.print(f"standing: {_standing_of(row)}", markup=False)
    for mark in row["marks"]:
        out.print(
            f"{amounts.format_time(mark['at_unix_ms'])}  {mark['what']} by {mark['by']}: {mark['reason']}", markup=False
        )
    out.print()
    for name, value in document["headers"].items():
        out.print(f"{name}: {value}", markup=False, style="dim")
    out.print()
    left_out = document["left_out_chars"]
    out.print(document["body"] + (f" ... {left_out} characters more" if left_out else ""), markup=False)


@letters_app.command("redrive")
async def redrive_letter(letter: LetterId, at: BrokerOptions, again: Again = False) -> None:
    """Send the original message again, after the cause was repaired.

    The letter is no longer open then. If the message fails again, a new letter appears.
    """
    async with operator_bus(at.data) as bus:
        dead_letter = _pick_letter(await letters.read_letters(bus), letter)
        if not dead_letter.subject.startswith("mesh."):
            raise CommandError(
                Exit.REFUSED,
                f"{dead_letter.subject or 'an unknown subject'} is no inbox subject",
                "look at the letter; what was not addressed to an inbox cannot be sent again",
            )
        if dead_letter.marks and not again:
            raise _already_marked_error(dead_letter)
        ack = await letters.redrive_letter(bus, dead_letter, local_user())
    if at.as_json:
        print_json(
            {"id": dead_letter.id, "subject": dead_letter.subject, "stream": ack.stream, "sequence": ack.sequence}
        )
        return
    out.print(f"sent again: {dead_letter.subject} is number {ack.sequence} of {ack.stream}", markup=False)
    if dead_letter.code == HANDLER_FAILED and dead_letter.service in catalog.DOERS:
        asker = dead_letter.headers.get("ce-source", "who asked")
        out.print(
            f"{dead_letter.service} has answered {asker} that the request failed, and will answer the "
            "same: run the step "
            "again (`bulkhead replay TASK --from-step`)",
            markup=False,
        )


@letters_app.command("dismiss")
async def dismiss_letter(
    letter: LetterId,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Reason, stored with the letter.")],
    at: BrokerOrGatewayOptions,
) -> None:
    """Dismiss a letter that needs no action.

    The letter is no longer open, but remains stored.
    """
    stored_reason, target = reason_of(reason, letters.MAX_REASON_CHARS), at.remote_target()
    done = (
        await _dismiss_at_gateway(target, letter, stored_reason)
        if target
        else await _dismiss_by_key(at.data, letter, stored_reason)
    )
    if at.as_json:
        print_json(done)
    else:
        mark = done["marks"][-1]
        out.print(f"dismissed by {mark['by']}: {done['id'][:ID_CHARS]} ({mark['reason']})", markup=False)


async def _dismiss_by_key(data: Path, letter: str, why: str) -> dict[str, Any]:
    async with operator_bus(data) as bus:
        dead_letter = _pick_letter(await letters.read_letters(bus), letter)
        if dead_letter.standing == "dismissed":
            raise _already_marked_error(dead_letter)
        mark = DeadLetterMark("dismissed", local_user(), why)
        await letters.mark_letter(bus, dead_letter, mark)
        return _row_of(_pick_letter(await letters.read_letters(bus), dead_letter.id))


async def _read_all_letters(data: Path) -> list[Letter]:
    async with operator_bus(data) as bus:
        return await letters.read_letters(bus)


def _already_marked_error(found: Letter) -> CommandError:
    last = found.marks[-1]
    problem = f"the letter was {last.what} by {last.by} at {amounts.format_time(last.at_unix_ms)}: {last.reason}"
    return CommandError(Exit.REFUSED, problem, "to send it all the same: `bulkhead dead-letters redrive ID --again`")


def _pick_letter(found: list[Letter], letter: str) -> Letter:
    matching = (
        [candidate for candidate in found if candidate.id.startswith(letter)] if len(letter) >= MIN_ID_CHARS else []
    )
    if len({candidate.id for candidate in matching}) != 1:
        problem = "several dead letters begin" if matching else "no dead letter begins"
        raise CommandError(
            Exit.USAGE, f"{problem} with {letter[:64]!r}", "`bulkhead dead-letters --all` lists their ids"
        )
    return matching[-1]


async def _print_letters(at: BrokerOrGatewayOptions, everything: bool) -> None:
    target = at.remote_target()
    if target is not None:
        page = await _read_letters_of_gateway(target, everything=everything)
    else:
        dead_letters = await _read_all_letters(at.data)
        rows = [_row_of(dead_letter) for dead_letter in dead_letters if everything or not dead_letter.marks]
        page = {"letters": rows, "content": True, "next": None}
    if at.as_json:
        print_json(page)
        return
    rows = page["letters"]
    if not rows:
        out.print("no dead letters")
    for row in rows:
        standing = f"  [dim]{_standing_of(row)}[/dim]" if row["marks"] else ""
        out.print(
            f"[bold]{escape(row['id'][:ID_CHARS])}[/bold]  {amounts.format_time(row['buried_unix_ms'])}  "
            f"{escape(row['service'])}  [red]{escape(row['code'])}[/red]  {escape(row['subject'])}{standing}"
        )
        if row["reason"]:
            out.print(f"  {row['reason']}", markup=False, style="dim")


async def _read_letters_of_gateway(target: GatewayTarget, *, everything: bool) -> dict[str, Any]:
    """Every page of what a gateway tells who has an API key; without reasons for who may not read them."""
    rows: list[dict[str, Any]] = []
    page: dict[str, Any] = {}
    cursor: str | None = ""
    async with target.mesh_client() as mesh:
        while cursor is not None:
            page = await mesh.read_json(LetterListQuery(all=everything, limit=MAX_PAGE, cursor=cursor))
            rows += page["letters"]
            cursor = page["next"]
    return page | {"letters": rows}


async def _dismiss_at_gateway(target: GatewayTarget, letter: str, reason: str) -> dict[str, Any]:
    async with target.mesh_client() as mesh:
        return await mesh.dismiss_letter(letter, reason)


def _row_of(letter: Letter) -> dict[str, Any]:
    """The row as a gateway has it, of whom nothing is kept."""
    from bulkhead_services.budget.queries.dead_letters import row_of

    return row_of(letter, content=True).model_dump(mode="json")


def _document_of(letter: Letter) -> dict[str, Any]:
    """The letter as a gateway has it, with all that it holds: who has the operator's key reads the broker anyway."""
    body = letter.body.decode("utf-8", "replace")
    document = {"letter": _row_of(letter), "content": True, "headers": letter.headers, "body": body}
    return document | {"left_out_chars": 0, "left_out_headers": 0}


def _standing_of(row: dict[str, Any]) -> str:
    return str(row["marks"][-1]["what"]) if row["marks"] else "open"
