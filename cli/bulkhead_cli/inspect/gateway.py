"""`bulkhead why`, `timeline`, `cite` and `mesh` of a gateway: what it tells who has an API key.

In: a gateway. Out: text or JSON on standard output.
"""

from typing import Any

from rich.table import Table

from bulkhead.client import Refused, Task
from bulkhead.gateway_api.histories import StoryQuery, TimelineQuery
from bulkhead.gateway_api.operators import MeshQuery
from bulkhead.gateway_api.query import MAX_PAGE
from bulkhead.text.amounts import format_count
from bulkhead_cli.output import CommandError, Exit, one_line, print_json
from bulkhead_cli.query_command import query_command
from bulkhead_cli.screen import out, print_whole
from bulkhead_cli.target import GatewayTarget

MS_PER_MINUTE = 60_000
WORDS = {"no_replica": "no replica", "full": "no room", "dead_letters": "dead letters", "failures": "failures"}
"""Troubles, the worst first."""
MARKER_CHARS = 12
HINT = "`bulkhead cite --task TASK` shows all of them; a marker is the 12 digits in [#...]"


async def show_why(target: GatewayTarget, task: str, *, whole: bool, as_json: bool) -> Exit:
    """The story."""
    async with target.mesh_client() as mesh:
        answer = await mesh.read_json(StoryQuery(task_id=mesh.task(task).id, all=whole))
    if as_json:
        print_json(answer)
    else:
        out.print(answer["text"], markup=False)
    return Exit.OK


async def show_timeline(target: GatewayTarget, task: str, *, as_json: bool) -> Exit:
    """Every page."""
    pages: list[dict[str, Any]] = []
    after, following = -1, 0
    async with target.mesh_client() as mesh:
        while following > after:
            after = following
            page = await mesh.read_json(TimelineQuery(task_id=mesh.task(task).id, limit=MAX_PAGE, after=after))
            following = page.get("next") or 0
            if as_json:
                pages.append(page)
            elif page["text"]:
                out.print(page["text"], markup=False)
    if as_json:
        text = "\n".join(page["text"] for page in pages)
        print_json(pages[-1] | {"text": text, "rows": [row for page in pages for row in page["rows"]]})
    return Exit.OK


async def show_citations(target: GatewayTarget, task: str, marker: str, *, as_json: bool) -> Exit:
    """Text behind one marker of an answer, or behind all. Raises CommandError for one that the task does not have."""
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


def print_mesh(load: dict[str, Any]) -> None:
    """Load of the whole mesh."""
    table = Table(box=None, pad_edge=False)
    for name in ("service", "state", "replicas", "waiting", "in work", "received/min", "failed/min", "dead letters"):
        table.add_column(name, no_wrap=True)
    window_ms = load["window_ms"]
    for row in load["services"]:
        words = [trouble for name, trouble in WORDS.items() if name in row["troubles"]]
        style = {"no_replica": "red"}.get(next(iter(row["troubles"]), ""), "yellow") if words else None
        failed = row["failed"] + row["rejected"]
        rates = [f"{_per_minute(count, window_ms):,}" for count in (row["received"], failed)]
        waits = [_render_count(row[part]) for part in ("pending", "in_work")]
        table.add_row(
            *(
                row["service"],
                ", ".join(words) or ("unknown" if row["listens"] is None else "ok"),
                _render_replicas(row),
                *waits,
                *rates,
                f"{row['dead_letters']:,}",
            ),
            style=style,
        )
    print_whole(table)
    out.print()
    if not load["edges"]:
        out.print("no message was stored in the last minute")
    for row in load["edges"]:
        rate = _per_minute(row["messages"], window_ms)
        out.print(f"{row['sender']} -> {row['receiver']}: {rate:,} messages a minute", markup=False)


def _per_minute(messages: int, window_ms: int) -> int:
    """A minute's worth; what happened at all is at least one."""
    return max(min(messages, 1), round(messages * MS_PER_MINUTE / window_ms)) if window_ms else 0


def _render_count(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


def _render_replicas(one: dict[str, Any]) -> str:
    return "1 or more" if one["replicas"] is None and one["listens"] else _render_count(one["replicas"])


mesh = query_command(
    MeshQuery,
    "mesh",
    """Show each service's replicas, waiting messages, failures, and the messages between them.

    Of the whole mesh, all tenants together, over the last minute; no tenant, task or person is named. Replicas are
    unknown while a service has no room for more work, and for the signer, which takes requests alone. Needs the key
    of an operator or auditor of any tenant.
    """,
    print_mesh,
)
