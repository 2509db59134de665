"""`bulkhead why`: the story of a task, or why it waits, was refused or was halted, with what to do.

In: the task's messages from the journal. Out: text or JSON.
"""

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bulkhead.amounts import clock
from bulkhead.journal.history import entries, of_tenant
from bulkhead.journal.reader import JournalBehind, read_journal
from bulkhead.journal.story.fold import tell, wanted
from bulkhead.journal.story.model import Story
from bulkhead.journal.story.model import as_json as story_as_json
from bulkhead.journal.story.text import ENDED, text
from bulkhead.journal.why.reason import Reason
from bulkhead.runtime.context import unix_ms
from bulkhead_cli.inspect.texts import readable
from bulkhead_cli.output import Exit, err, one_line, out, print_json
from bulkhead_cli.target import operator_bus

MAX_EVIDENCE_SHOWN = 4


async def show_why(data: Path, task: str, tenant: str = "", *, whole: bool = False, as_json: bool) -> Exit:
    """Say why. Raises Stop, BusError."""
    async with operator_bus(data) as bus:
        try:
            stored = await read_journal(bus, task, reservations=False)
        except JournalBehind as error:
            err.print(f"{error}. This is what it has by now:", style="yellow", markup=False)
            stored = await read_journal(bus, task, whole=False, reservations=False)
        found = entries(of_tenant(stored, task, tenant))
        texts = await readable(bus, found[0].tenant, wanted(found))
    from bulkhead_infra.composition import newest_logic  # It imports every decider.

    show_story(out, tell(found, task, unix_ms(), texts, newest_logic()), whole=whole, as_json=as_json)
    return Exit.OK


def show_story(console: Console, story: Story, *, whole: bool, as_json: bool) -> None:
    """Print it: of a task that goes on the reasons for which it waits, unless all is asked for."""
    if as_json:
        print_json(story_as_json(story))
    elif story.status in ENDED or whole:
        console.print(text(story, whole=whole), markup=False)
    else:
        show(console, list(story.reasons))


def show(console: Console, reasons: list[Reason]) -> None:
    """For people: a line for each, and what to do under it."""
    for one in reasons:
        colour = {"stop": "red", "warn": "yellow"}.get(one.level, "bold")
        console.print(f"[{colour}]{one.kind}[/{colour}]  {escape(clock(one.at_unix_ms))}  {escape(one_line(one.what))}")
        if one.todo:
            console.print(f"    → {one_line(one.todo)}", markup=False, style="dim")
        if one.evidence:
            rest = len(one.evidence) - MAX_EVIDENCE_SHOWN
            shown = ", ".join(one.evidence[:MAX_EVIDENCE_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
            console.print(f"    messages: {shown}", markup=False, style="dim")
