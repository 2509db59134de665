"""Writes of a task that may or may not have been done, as people at the command line read of them.

In: the task's document as the gateway gives it, or what `bulkhead.journal.uncertain_writes` found. Out: text.
"""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from bulkhead.journal.why.doubts import LOOK_FIRST, describe_write, resolve_command
from bulkhead.text.amounts import format_count, format_time
from bulkhead_cli.output import one_line

CODE = "uncertain_effect"
"""A write whose outcome is unknown ends its task, unless that ends in another way meanwhile."""
ELSEWHERE = (
    "writes of other steps may be uncertain too: `bulkhead why TASK`, on the machine of the mesh, lists each with "
    "its arguments and its key"
)


def print_uncertain_writes(console: Console, document: Mapping[str, Any]) -> None:
    """Print the list, or where it is to be had."""
    writes, more_count = document.get("uncertain_writes"), document.get("more_uncertain_writes") or 0
    if writes is None and (document.get("failure") or {}).get("code") != CODE:
        return
    if writes:
        console.print()
        console.print(
            f"{format_count(len(writes) + more_count, 'write')} may or may not have been done; none is repeated "
            f"automatically: {LOOK_FIRST}",
            style="bold yellow",
            markup=False,
        )
    for write in writes or ():
        which = describe_write(write["step_id"], write["title"], write["tool"], write["arguments_json"])
        console.print(f"  {one_line(which)}", markup=False)
        console.print(
            f"      key {write['key']}, asked for {format_time(write['asked_unix_ms'])}: {one_line(write['why'])}",
            style="dim",
            markup=False,
        )
        if write.get("write_id"):
            console.print(f"      `{resolve_command(write['write_id'])}`", style="dim", markup=False)
    if writes is None or more_count:
        console.print(ELSEWHERE.replace("TASK", str(document["task_id"])), style="yellow", markup=False)
