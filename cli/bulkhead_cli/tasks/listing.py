"""`bulkhead tasks` and `cancel`: one request each, and as light as that.

In: a target and the command's options. Out: text, or the API's own JSON.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bulkhead_cli.output import print_json
from bulkhead_cli.target import GatewayTarget

if TYPE_CHECKING:
    from rich.table import Table

PAGE = 100
OBJECTIVE_CHARS = 60
ADOPTED = "adopted"
"""Kind of a task that an outside agent carries out."""
STATUS_STYLE = {"succeeded": "green", "running": "blue", "requested": "blue", "queued": "yellow", "paused": "yellow"}


async def list_tasks(target: GatewayTarget, limit: int, filters: Mapping[str, str], *, as_json: bool) -> None:
    """Print the newest tasks that fit the filters of `GET /v1/tasks`; JSON is as that has it, with so many rows."""
    rows: list[dict[str, Any]] = []
    page: dict[str, Any] = {}
    cursor: str | None = ""
    async with target.open_transport() as gateway:
        while cursor is not None and len(rows) < limit:
            query = {name: text for name, text in {**filters, "cursor": cursor}.items() if text}
            query |= {"limit": str(min(PAGE, limit - len(rows)))}
            page = await gateway.request_json("GET", "/v1/tasks", params=query)
            rows += gateway.require_field(page, "tasks")
            cursor = page.get("next")
    if as_json:
        print_json(page | {"tasks": rows})
        return
    from bulkhead_cli.screen import out, print_whole

    if not rows:
        out.print("no tasks fit" if any(filters.values()) else "no tasks yet")
        return
    print_whole(tasks_table(rows))


async def cancel_task(target: GatewayTarget, task: str, reason: str, *, as_json: bool) -> None:
    """Ask for the end of a task."""
    async with target.open_transport() as gateway:
        receipt = await gateway.request_json("POST", f"/v1/tasks/{task}/cancel", json={"reason": reason})
    if as_json:
        print_json(receipt)
        return
    from bulkhead_cli.screen import out

    out.print(f"asked to cancel {task}", markup=False)


async def rate_task(target: GatewayTarget, task: str, score: str, comment: str, *, as_json: bool) -> None:
    """Put a rating."""
    async with target.mesh_client() as mesh:
        ratings = await mesh.task(task).rate(score, comment)
    if as_json:
        print_json(ratings)
        return
    from bulkhead_cli.screen import out

    out.print(f"{task} is rated {score}; people: {ratings['good']} good, {ratings['bad']} bad", markup=False)


def tasks_table(found: list[dict[str, Any]]) -> "Table":
    """Tasks as GET /v1/tasks has them, for people."""
    from rich.markup import escape
    from rich.table import Table

    from bulkhead.client.task import UNENDED
    from bulkhead.text.amounts import format_cost, format_time
    from bulkhead_cli.tasks import answer

    table = Table(box=None, pad_edge=False)
    for name in ("task", "status", "submitted", "cost", "objective"):
        table.add_column(name, no_wrap=name != "objective")
    for row in found:
        text = row["objective"]
        short = text if len(text) <= OBJECTIVE_CHARS else text[: OBJECTIVE_CHARS - 1] + "…"
        style = STATUS_STYLE.get(row["status"], "red")
        # Never plain where the answer is not: who looks at the list alone must see it.
        doubt = escape(answer.document_doubts(row))
        status = f"[{style}]{row['status']}[/{style}]" + (f"[yellow]{doubt}[/yellow]" if doubt else "")
        least = "at least " if row["status"] in UNENDED else ""  # Steps that run are not in it.
        paid = least + format_cost(row["cost_usd_micros"], row.get("estimated_usd_micros", 0))
        mark = "[dim]adopted:[/dim] " if row.get("kind") == ADOPTED else ""
        table.add_row(row["task_id"], status, format_time(row["created_unix_ms"]), paid, mark + escape(short))
    return table
