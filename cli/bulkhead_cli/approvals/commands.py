"""`bulkhead approvals`: list, show, grant, deny. `main` adds it to `bulkhead`.

In: the gateway, as a person of a tenant. Out: text or JSON on standard output, and an exit code.
"""

from typing import Annotated, Any

import typer

from bulkhead.client import Mesh
from bulkhead.client.request_checks import check_query
from bulkhead.gateway_api.approvals import ApprovalListQuery
from bulkhead.text import amounts
from bulkhead_cli.approvals.writes import HOW_TO_RESOLVE, print_write
from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.options import GatewayOptions, reason_of
from bulkhead_cli.output import EXIT_CODES, CommandError, Exit, one_line, print_json
from bulkhead_cli.screen import out

MIN_ID_CHARS = 4
ID_CHARS = 12
ApprovalId = Annotated[str, typer.Argument(metavar="ID", help="Id of the approval, or its first characters.")]
Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Reason; stored with the decision.")]
State = Annotated[
    str,
    typer.Option(
        "--state",
        metavar="STATE",
        help="waiting, granted, denied, expired, abandoned (its task ended before) or all.",
        show_default=True,
    ),
]
OfTask = Annotated[str, typer.Option("--task", metavar="TASK", help="Only calls of this task.")]

approvals_app = CommandGroup(invoke_without_command=True, rich_markup_mode="rich", epilog=EXIT_CODES)


@approvals_app.callback()
async def approvals(at: GatewayOptions, state: State = "waiting", task: OfTask = "") -> None:
    """List calls that wait for a person's word, and grant or deny them.

    Policy asks about a call (docs/how-to/approvals.md): the step waits, over restarts, until somebody with the role
    approver or operator decides, or the time is over. Without a subcommand, the calls that wait are listed; and beside
    them the writes of which nobody knows whether they were done (bulkhead writes).
    """
    await _print_approvals(at, state, task)


@approvals_app.command("list")
async def list_approvals(at: GatewayOptions, state: State = "waiting", task: OfTask = "") -> None:
    """List calls that wait, the newest first."""
    await _print_approvals(at, state, task)


@approvals_app.command("show")
async def show_approval(approval: ApprovalId, at: GatewayOptions) -> None:
    """Show a call exactly as it is made if it is granted, why it is asked about, and what became of it."""
    async with at.gateway_target().mesh_client() as mesh:
        row = await _pick_approval(mesh, approval)
    if at.as_json:
        print_json(row)
    else:
        _print_approval(row)


@approvals_app.command("grant")
async def grant(approval: ApprovalId, at: GatewayOptions, reason: Why = "") -> None:
    """Let a call be made, once, exactly as [bold]bulkhead approvals show[/bold] prints it."""
    await _decide_approval(at, approval, "granted", reason)


@approvals_app.command("deny")
async def deny(approval: ApprovalId, at: GatewayOptions, reason: Why = "") -> None:
    """Refuse a call. Its agent is told, with the reason, and goes on without it."""
    await _decide_approval(at, approval, "denied", reason)


async def _decide_approval(at: GatewayOptions, approval: str, decision: str, reason: str) -> None:
    stored_reason = reason_of(reason or "no reason was given")
    async with at.gateway_target().mesh_client() as mesh:
        row = await _pick_approval(mesh, approval)
        done = await mesh.decide(row["approval_id"], row["request"]["arguments_sha256"], decision, stored_reason)
    if at.as_json:
        print_json(done)
        return
    _print_approval(row)
    out.print()
    state = done["state"] if done["state"] != "waiting" else f"{decision}; the executor has not confirmed it yet"
    out.print(f"{state}: {row['approval_id'][:ID_CHARS]} of task {row['task_id']}", markup=False)


async def _print_approvals(at: GatewayOptions, state: str, task: str) -> None:
    async with at.gateway_target().mesh_client() as mesh:
        page = await mesh.read_json(check_query(ApprovalListQuery, {"state": state, "task": task}))
        doubtful = (await mesh.writes(task=task))["writes"] if state in ("waiting", "all") else []
    page |= {"uncertain_writes": doubtful}
    if at.as_json:
        print_json(page)
        return
    for row in page["approvals"]:
        request = row["request"]
        when = amounts.format_time(request["requested_unix_ms"])
        out.print(
            f"{row['approval_id'][:ID_CHARS]}  {row['state']:9} {request['risk']:6} {when}  ", end="", markup=False
        )
        question = row.get("question")
        text = question["text"] if question else f"{request['tool']} {request['arguments_json']}"
        short = text if len(text) <= 120 else text[:117] + "..."
        out.print(one_line(f"{short}  task {row['task_id']}"), markup=False)
    if page["more"]:
        out.print(f"... and {page['more']} more", markup=False, style="dim")
    if not page["approvals"]:
        out.print("nothing waits for a decision" if state == "waiting" else f"no approvals: {state}", markup=False)
    elif state == "waiting":
        out.print(
            "\n`bulkhead approvals show ID`, then `grant ID` or `deny ID --reason TEXT`", markup=False, style="dim"
        )
    if doubtful:
        out.print(f"\nnobody knows whether these were done: {HOW_TO_RESOLVE}", markup=False)
    for row in doubtful:
        print_write(row)


async def _pick_approval(mesh: Mesh, approval: str) -> dict[str, Any]:
    rows = (await mesh.read_json(ApprovalListQuery(state="all")))["approvals"] if len(approval) >= MIN_ID_CHARS else []
    matching = [row for row in rows if row["approval_id"].startswith(approval)]
    if len(matching) != 1:
        problem = "several approvals begin" if matching else "no approval begins"
        raise CommandError(
            Exit.USAGE, f"{problem} with {approval[:64]!r}", "`bulkhead approvals --state all` lists their ids"
        )
    picked: dict[str, Any] = matching[0]
    return picked


def _print_approval(approval: dict[str, Any]) -> None:
    request = approval["request"]
    if question := approval.get("question"):
        out.print(one_line(question["text"]), style="bold", markup=False)
        for result in question["results"]:
            out.print(f"  {result}", markup=False)
    else:
        out.print(request["preview"], markup=False)
    out.print()
    sources = {
        value["pointer"]: ", ".join(
            dict.fromkeys(f"{origin['source']} {origin['name']}".strip() for origin in value["origins"])
        )
        or "nowhere"
        for value in request["values"]
    }
    rows = [
        ("approval", approval["approval_id"]),
        ("state", approval["state"]),
        ("risk", request["risk"]),
        *(("why", reason) for reason in request["why"]),
        *(("value", f"{pointer} stands in: {where}") for pointer, where in sources.items()),
        ("rule", f"{request['rule']} (policy {request['policy_sha256'][:12]})"),
        ("task", f"{approval['task_id']}, step {request['step_id']}, for {request['asked_for']}"),
        (
            "asked",
            f"{amounts.format_time(request['requested_unix_ms'])}, until "
            f"{amounts.format_time(request['expires_unix_ms'])}",
        ),
        *([("four eyes", f"not to be granted by {request['asked_for']}")] if request["four_eyes"] else []),
        *([("roles", ", ".join(request["roles"]))] if request.get("roles") else []),
        ("digest", request["arguments_sha256"]),
    ]
    if (end := approval.get("end")) is not None:
        by = f" by {end['person']} ({end['role']})" if end["person"] else ""
        rows.append(("ended", f"{end['outcome']}{by}: {end['reason']}"))
    for name, value in rows:
        out.print(one_line(f"{name + ':':10} {value}"), markup=False)
