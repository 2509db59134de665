"""Writes of a task that may or may not have been done, as people at the command line read of them.

In: the task's document as the gateway gives it, or what `bulkhead.uncertain_writes` found. Out: text.
"""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from bulkhead.amounts import clock, counted
from bulkhead.journal.why.doubts import LOOK_FIRST, named
from bulkhead_cli.output import one_line

CODE = "uncertain_effect"
"""A write whose outcome is unknown ends its task, unless that ends in another way meanwhile."""
ELSEWHERE = (
    "writes of other steps may be uncertain too: `bulkhead why TASK`, on the machine of the mesh, lists each with "
    "its arguments and its key"
)


def show(console: Console, document: Mapping[str, Any]) -> None:
    """Print the list, or where it is to be had."""
    found, more = document.get("uncertain_writes"), document.get("more_uncertain_writes") or 0
    if found is None and (document.get("failure") or {}).get("code") != CODE:
        return
    if found:
        console.print()
        console.print(
            f"{counted(len(found) + more, 'write')} may or may not have been done; none is repeated "
            f"automatically: {LOOK_FIRST}",
            style="bold yellow",
            markup=False,
        )
    for one in found or ():
        which = named(one["step_id"], one["title"], one["tool"], one["arguments_json"])
        console.print(f"  {one_line(which)}", markup=False)
        console.print(
            f"      key {one['key']}, asked for {clock(one['asked_unix_ms'])}: {one_line(one['why'])}",
            style="dim",
            markup=False,
        )
    if found is None or more:
        console.print(ELSEWHERE.replace("TASK", str(document["task_id"])), style="yellow", markup=False)
