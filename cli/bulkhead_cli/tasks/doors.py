"""`bulkhead doors`: the runs of agents outside, whose they are, what they spend, who has delegated steps, and the
subscribers of the tenant's events.

In: a target mesh, and its doors. Out: tables or JSON. What a run that goes on has spent is known by its calls alone.
"""

from collections import Counter
from collections.abc import Awaitable
from typing import Any

from rich.markup import escape
from rich.table import Table

from bulkhead.client import Mesh, MeshError, Refused
from bulkhead.client.mesh import UNENDED
from bulkhead.gateway_api.operators import SpendingQuery, SubscriberListQuery
from bulkhead.gateway_api.query import MAX_PAGE
from bulkhead.text.amounts import format_cost, format_count, format_time
from bulkhead_cli.output import print_json
from bulkhead_cli.screen import out, print_whole
from bulkhead_cli.target import GatewayTarget, read_json
from bulkhead_cli.tasks.listing import OBJECTIVE_CHARS, STATUS_STYLE

DOORS = "doors"
SINCE = "7d"
"""As long as a run can last."""
FORBIDDEN = 403
COLUMNS = ("run", "by", "status", "since", "calls", "tokens", "cost", "objective")
SUBSCRIBER_COLUMNS = ("subscriber", "tenant", "state", "waiting", "not acknowledged", "last event")
STEP_COLUMNS = ("task", "step", "role", "holder", "since", "taken", "deadline")


async def show_doors(target: GatewayTarget, limit: int, doors_url: str = "", *, as_json: bool) -> None:
    """Print the newest runs, the tenant's subscribers, and delegated steps where the doors' address is known. Raises
    MeshError."""
    async with target.mesh_client() as mesh:
        runs = await mesh.tasks(limit, opened_by=DOORS)
        spent = await _read_spending(mesh, [run["task_id"] for run in runs])
        subscribers = await _unless_forbidden(mesh.read_json(SubscriberListQuery()))
    heard = subscribers["subscribers"] if subscribers is not None else None
    local = str(read_json(target.data / "mesh.json").get("doors_url", "")) if target.data is not None else ""
    address = doors_url or local
    steps, why_not = await _open_steps(address, target.api_key)
    for run in runs:
        run["spent"] = (spent or {}).get(run["task_id"])
    if as_json:
        print_json({"url": address, "runs": runs, "steps": steps, "subscribers": heard})
        return
    if address:
        out.print(f"doors: {address}", style="dim", markup=False)
    _print_runs(runs, may_see=spent is not None)
    if steps is None:
        out.print(f"who has delegated steps is not known: {why_not}", style="yellow", markup=False)
    elif steps["steps"]:
        print_whole(_steps_table(steps["steps"]))
        if steps["more"]:
            out.print(f"and {format_count(steps['more'], 'newer step')}", style="yellow")
    if heard is None:
        out.print("subscribers are shown to operators and auditors", style="yellow")
    elif heard:
        print_whole(_subscribers_table(heard))


async def _unless_forbidden(answer: Awaitable[dict[str, Any]]) -> dict[str, Any] | None:
    """The answer; None for who may not see it. Raises MeshError."""
    try:
        return await answer
    except Refused as error:
        if error.status != FORBIDDEN:
            raise
        return None


async def _read_spending(mesh: Mesh, tasks: list[str]) -> dict[str, Any] | None:
    """Spending of each of these tasks; None for who may not see it. Raises MeshError."""
    spending: dict[str, Any] = {}
    # An answer has as many rows as tasks that were asked for, so none is added up with others.
    for first in range(0, len(tasks), MAX_PAGE):
        named = ",".join(tasks[first : first + MAX_PAGE])
        query = SpendingQuery(by="task", since=SINCE, limit=MAX_PAGE, tasks=named)
        page = await _unless_forbidden(mesh.read_json(query))
        if page is None:
            return None
        spending |= {row["name"]: row["spent"] for row in page["rows"]}
    return spending


def _print_runs(runs: list[dict[str, Any]], *, may_see: bool) -> None:
    if not runs:
        out.print("no agent has come yet: point its OPENAI_BASE_URL at the doors, as `bulkhead up` prints it")
        return
    print_whole(_runs_table(runs))
    if not may_see:
        out.print("what open runs have spent is shown to operators and auditors", style="yellow")
    people = Counter(run["person"] for run in runs if run["status"] in UNENDED)
    named = ", ".join(f"{person} {format_count(count, 'open run')}" for person, count in people.most_common())
    out.print(f"connected: {named}" if people else "nobody is connected", style="dim", markup=False)


async def _open_steps(address: str, key: str) -> tuple[dict[str, Any] | None, str]:
    """The delegated steps without an answer, or why they are not known: runs are told all the same."""
    if not address:
        return None, "name the doors with --doors-url"
    try:
        async with Mesh(address, key) as doors:
            return await doors.get("/v1/steps/open"), ""
    except MeshError as error:
        return None, f"the doors at {address} say: {error}"


def _steps_table(steps: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in STEP_COLUMNS:
        table.add_column(name, no_wrap=True)
    for step in steps:
        is_taken = step["number"] > 0
        since = format_time(step["taken_unix_ms"] if is_taken else step["asked_unix_ms"])
        who = escape(step["holder"] or step["identity"]) if is_taken else "[yellow]nobody[/yellow]"
        until = format_time(step["deadline_unix_ms"])
        if step["held_until_unix_ms"]:
            until += f", paused until {format_time(step['held_until_unix_ms'])}"
        table.add_row(step["task"], step["step"], escape(step["role"]), who, since, str(step["number"]), until)
    return table


def _subscribers_table(subscribers: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in SUBSCRIBER_COLUMNS:
        table.add_column(name, no_wrap=True)
    for subscriber in subscribers:
        if subscriber["pending"] is None:
            state, counts = "[red]no consumer: run the provisioner[/red]", ("·", "·")
        else:
            state = "asks for events" if subscriber["asking"] else "[yellow]asks for none[/yellow]"
            counts = (f"{subscriber['pending']:,}", f"{subscriber['in_work']:,}")
        last = format_time(subscriber["active_unix_ms"]) if subscriber["active_unix_ms"] else "·"
        table.add_row(subscriber["name"], subscriber["tenant"], state, *counts, last)
    return table


def _runs_table(runs: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, no_wrap=name != "objective")
    for run in runs:
        text, style, spent = run["objective"], STATUS_STYLE.get(run["status"], "red"), run["spent"]
        short = text if len(text) <= OBJECTIVE_CHARS else text[: OBJECTIVE_CHARS - 1] + "…"
        cells = (
            [
                f"{spent['model_calls'] + spent['tool_calls']:,}",
                f"{spent['input_tokens'] + spent['output_tokens']:,}",
                format_cost(spent["cost_usd_micros"], spent["estimated_usd_micros"]),
            ]
            if spent
            else ["·", "·", format_cost(run["cost_usd_micros"], run.get("estimated_usd_micros", 0))]
        )
        status, since = f"[{style}]{run['status']}[/{style}]", format_time(run["created_unix_ms"])
        table.add_row(run["task_id"], escape(run["person"]), status, since, *cells, escape(short))
    return table
