"""`bulkhead cite`: the text behind the markers of an answer.

In: a task and a marker of it, or none for all. Out: where each comes from and what it says; JSON gives every field.
"""

from typing import Any

from bulkhead.client import Refused, Task
from bulkhead.text.amounts import format_count
from bulkhead_cli.output import CommandError, Exit, one_line, out, print_json
from bulkhead_cli.target import GatewayTarget

MARKER_CHARS = 12
HINT = "`bulkhead cite --task TASK` shows all of them; a marker is the 12 digits in [#...]"


async def show_citations(target: GatewayTarget, task: str, marker: str, *, as_json: bool) -> Exit:
    """One citation, or every one of the answer. Raises CommandError for a marker that the task does not have."""
    async with target.mesh_client() as mesh:
        task_client = mesh.task(task)
        citations, more_count = await _find_citations(
            task_client, marker.strip().removeprefix("[").removesuffix("]").removeprefix("#")
        )
    if as_json:
        print_json(citations[0] if marker else {"task_id": task, "citations": citations, "more": more_count})
        return Exit.OK
    if not citations:
        out.print("the answer cites nothing", style="yellow")
    for number, row in enumerate(citations, 1):
        _print_citation(row, "" if marker else f"[{number}] ")
    if more_count:
        out.print(f"{format_count(more_count, 'citation')} more: name a marker", style="dim", markup=False)
    return Exit.OK


async def _find_citations(task: Task, marker: str) -> tuple[list[dict[str, Any]], int]:
    if len(marker) == MARKER_CHARS or not (marker or "0").isdecimal():
        return [await task.cite(marker)], 0
    page = await task.citations()
    rows = page["citations"]
    if marker:
        if not 1 <= int(marker) <= len(rows):
            raise CommandError(
                Exit.USAGE, f"the answer has {format_count(len(rows), 'citation')}, and no [{marker}]", HINT
            )
        rows = [rows[int(marker) - 1]]
    return [await _with_text(task, row) for row in rows], 0 if marker else page["more"]


async def _with_text(task: Task, row: dict[str, Any]) -> dict[str, Any]:
    """A row with its text; as it is where nothing of the task names it."""
    try:
        return await task.cite(row["marker"])
    except Refused as error:
        if error.status != 404:
            raise
        note = "no accepted result of the task names it"
        return {
            **row,
            "state": "unknown",
            "text": None,
            "cut": False,
            "superseded_by": None,
            "call": None,
            "note": note,
        }


def _print_citation(row: dict[str, Any], number: str) -> None:
    out.print(f"{number}[#{row['marker']}] {_describe_source(row)}", style="bold cyan", markup=False)
    if row["note"]:
        out.print(f"  {row['note']}", style="yellow", markup=False)
    if (call := row["call"]) is not None:
        out.print(f"  {call['tool']} {one_line(call['arguments_json'])}", style="dim", markup=False)
    for line in (row["text"] or "").splitlines():
        out.print(f"  | {line}", markup=False)
    if row["cut"]:
        out.print("  (cut here)", style="dim")


def _describe_source(row: dict[str, Any]) -> str:
    step = f" in step {row['step_id']}" if row["step_id"] else ""
    if row["kind"] == "document" and row["document_sha256"]:
        place = f"characters {row['start']}–{row['end']} of version {row['document_sha256'][:12]}"
        return f"{row['source']}, {place}"
    named = {
        "document": f"a passage of {row['source']}",
        "tool_result": f"result of the tool {row['source']}{step}",
        "step_result": f"result of step {row['source']}",
        "objective": "the objective",
    }
    return named.get(row["kind"], "unknown source")
