"""`bulkhead why`: the story of a task, or why it waits, was refused or was halted, with what to do.

In: the task's messages from the journal. Out: text or JSON.
"""

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bulkhead.journal.history import build_entries, messages_of_tenant
from bulkhead.journal.reader import JournalBehind, read_journal
from bulkhead.journal.story.fold import contents_to_quote, fold_story
from bulkhead.journal.story.model import Story
from bulkhead.journal.story.model import as_json as story_as_json
from bulkhead.journal.story.text import ENDED, render_story
from bulkhead.journal.why.reason import Reason
from bulkhead.runtime.context import unix_ms
from bulkhead.text.amounts import format_time
from bulkhead_cli.inspect.texts import read_texts
from bulkhead_cli.output import Exit, err, one_line, out, print_json
from bulkhead_cli.target import operator_bus

MAX_EVIDENCE_SHOWN = 4


async def show_why(data: Path, task: str, tenant: str = "", *, whole: bool = False, as_json: bool) -> Exit:
    """Say why. Raises CommandError, BusError."""
    async with operator_bus(data) as bus:
        try:
            stored = await read_journal(bus, task, reservations=False)
        except JournalBehind as error:
            err.print(f"{error}. This is what it has by now:", style="yellow", markup=False)
            stored = await read_journal(bus, task, whole=False, reservations=False)
        task_entries = build_entries(messages_of_tenant(stored, task, tenant))
        texts = await read_texts(bus, task_entries[0].tenant, contents_to_quote(task_entries))
    from bulkhead_infra.composition import newest_logic  # It imports every decider.

    show_story(out, fold_story(task_entries, task, unix_ms(), texts, newest_logic()), whole=whole, as_json=as_json)
    return Exit.OK


def show_story(console: Console, story: Story, *, whole: bool, as_json: bool) -> None:
    """Print it: of a task that goes on the reasons for which it waits, unless all is asked for."""
    if as_json:
        print_json(story_as_json(story))
    elif story.status in ENDED or whole:
        console.print(render_story(story, whole=whole), markup=False)
    else:
        print_reasons(console, list(story.reasons))


def print_reasons(console: Console, reasons: list[Reason]) -> None:
    """For people: a line for each, and what to do under it."""
    for reason in reasons:
        colour = {"stop": "red", "warn": "yellow"}.get(reason.level, "bold")
        console.print(
            f"[{colour}]{reason.kind}[/{colour}]  {escape(format_time(reason.at_unix_ms))}  "
            f"{escape(one_line(reason.what))}"
        )
        if reason.todo:
            console.print(f"    → {one_line(reason.todo)}", markup=False, style="dim")
        if reason.evidence:
            left_out_count = len(reason.evidence) - MAX_EVIDENCE_SHOWN
            evidence = ", ".join(reason.evidence[:MAX_EVIDENCE_SHOWN]) + (
                f" and {left_out_count} more" if left_out_count > 0 else ""
            )
            console.print(f"    messages: {evidence}", markup=False, style="dim")
