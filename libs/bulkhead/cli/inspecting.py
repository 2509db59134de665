"""The commands that read the broker and the data directory themselves, under the operator's key.

In: the data directory. Out: text or JSON on standard output, and an exit code.
"""

import secrets
from pathlib import Path

from bulkhead.bus.port import PubAck
from bulkhead.cli import doctor, history, letters, timeline
from bulkhead.cli.journal import JournalBehind, read_journal
from bulkhead.cli.output import Exit, Stop, err, out, print_json, print_whole
from bulkhead.cli.target import operator_bus

MIN_ID_CHARS = 4
MARKS = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "problem": "[red]✗[/red]"}


async def show_timeline(data: Path, task: str, *, as_json: bool) -> None:
    """The task's messages and spans. Raises Stop, BusError."""
    async with operator_bus(data) as bus:
        try:
            stored = await read_journal(bus, task)
        except JournalBehind as error:
            err.print(f"{error}. This is what it has by now:", style="yellow", markup=False)
            stored = await read_journal(bus, task, whole=False)
    if not stored:
        raise Stop(Exit.USAGE, f"the journal holds nothing of task {task}",
                   "check the id (`bulkhead tasks`) and --data; the journal may lag by a moment")
    found = history.entries(stored)
    history.attach(found, history.read_spans(data / "traces", task))
    if as_json:
        print_json(timeline.as_json(found))
    else:
        print_whole(timeline.tree(task, found))


async def show_doctor(data: Path, redis_url: str, otlp_endpoint: str, *, as_json: bool) -> Exit:
    """Print findings; FAILED when there is a problem."""
    found = []
    async for finding in doctor.examine(data, redis_url, otlp_endpoint):
        found.append(finding)
        if as_json:
            continue
        out.print(f"{MARKS[finding.level]} [bold]{finding.what}[/bold] ", end="")
        out.print(finding.detail, markup=False)
        if finding.todo:
            out.print(f"    → {finding.todo}", markup=False, style="dim")
    if as_json:
        print_json([{"what": one.what, "level": one.level, "detail": one.detail, "todo": one.todo} for one in found])
    return Exit.FAILED if any(one.level == "problem" for one in found) else Exit.OK


async def all_letters(data: Path) -> list[letters.Letter]:
    """Every dead letter. Raises Stop, BusError."""
    async with operator_bus(data) as bus:
        return await letters.read_letters(bus)


async def one_letter(data: Path, letter: str) -> letters.Letter:
    """The letter whose id begins so. Raises Stop, BusError."""
    return _pick(await all_letters(data), letter)


async def redrive_letter(data: Path, letter: str) -> tuple[letters.Letter, PubAck]:
    """Send one letter's original again. Raises Stop, BusError."""
    async with operator_bus(data) as bus:
        found = _pick(await letters.read_letters(bus), letter)
        if not found.subject.startswith("mesh."):
            raise Stop(Exit.REFUSED, f"{found.subject or 'an unknown subject'} is no inbox subject",
                       "look at the letter; what was not addressed to an inbox cannot be sent again")
        return found, await letters.redrive(bus, found, secrets.token_hex(8))


def _pick(found: list[letters.Letter], letter: str) -> letters.Letter:
    matching = [one for one in found if one.id.startswith(letter)] if len(letter) >= MIN_ID_CHARS else []
    if len({one.id for one in matching}) != 1:
        what = "several dead letters begin" if matching else "no dead letter begins"
        raise Stop(Exit.USAGE, f"{what} with {letter[:64]!r}", "`bulkhead dead-letters` lists their ids")
    return matching[-1]
