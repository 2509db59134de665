"""`bulkhead doors`: the runs of agents outside, whose they are, and what they spend.

In: a target mesh. Out: a table or JSON. What a run that goes on has spent is known by its calls alone.
"""

from collections import Counter
from typing import Any

from rich.markup import escape
from rich.table import Table

from bulkhead.amounts import clock, cost, counted
from bulkhead.client import Refused
from bulkhead.client.mesh import UNENDED
from bulkhead_cli.output import out, print_json, print_whole
from bulkhead_cli.target import Target, read_json
from bulkhead_cli.tasks.tasks import OBJECTIVE_CHARS, STATUS_STYLE

DOORS = "doors"
SINCE = "7d"
"""As long as a run can last."""
MAX_SPEND_ROWS = 100
FORBIDDEN = 403
COLUMNS = ("run", "by", "status", "since", "calls", "tokens", "cost", "objective")


async def show_doors(target: Target, limit: int, *, as_json: bool) -> None:
    """Print the newest runs. Raises MeshError."""
    async with target.mesh() as mesh:
        runs = await mesh.tasks(limit, opened_by=DOORS)
        query = {"by": "task", "since": SINCE, "limit": str(MAX_SPEND_ROWS)}
        try:
            rows = (await mesh.get("/v1/spend", query))["rows"] if runs else []
        except Refused as error:
            if error.status != FORBIDDEN:
                raise
            rows = None
    spent = {row["name"]: row["spent"] for row in rows or ()}
    address = str(read_json(target.data / "mesh.json").get("doors_url", "")) if target.data is not None else ""
    for run in runs:
        run["spent"] = spent.get(run["task_id"])
    if as_json:
        print_json({"url": address, "runs": runs})
        return
    if address:
        out.print(f"doors: {address}", style="dim", markup=False)
    if not runs:
        out.print("no agent has come yet: point its OPENAI_BASE_URL at the doors, as `bulkhead up` prints it")
        return
    print_whole(_table(runs))
    if rows is None:
        out.print("what open runs have spent is shown to operators", style="yellow")
    people = Counter(run["person"] for run in runs if run["status"] in UNENDED)
    named = ", ".join(f"{person} {counted(count, 'open run')}" for person, count in people.most_common())
    out.print(f"connected: {named}" if people else "nobody is connected", style="dim", markup=False)


def _table(runs: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, no_wrap=name != "objective")
    for run in runs:
        text, style, spent = run["objective"], STATUS_STYLE.get(run["status"], "red"), run["spent"]
        short = text if len(text) <= OBJECTIVE_CHARS else text[: OBJECTIVE_CHARS - 1] + "…"
        told = (
            [
                f"{spent['model_calls'] + spent['tool_calls']:,}",
                f"{spent['input_tokens'] + spent['output_tokens']:,}",
                cost(spent["cost_usd_micros"], spent["estimated_usd_micros"]),
            ]
            if spent
            else ["·", "·", cost(run["cost_usd_micros"], run.get("estimated_usd_micros", 0))]
        )
        status, since = f"[{style}]{run['status']}[/{style}]", clock(run["created_unix_ms"])
        table.add_row(run["task_id"], escape(run["person"]), status, since, *told, escape(short))
    return table
