"""`bulkhead plan`: show, approve, reject, skip a step. `main` adds it to `bulkhead`.

In: the gateway, as a person of a tenant; a file with an edited plan. Out: text or JSON on standard output, and an exit
code.
"""

from pathlib import Path
from typing import Annotated

import typer

from bulkhead.gateway_api.tasks import PlanDocument
from bulkhead.text.amounts import format_time
from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.options import GatewayOptions, TaskId, reason_of
from bulkhead_cli.output import EXIT_CODES, CommandError, Exit, one_line, print_json
from bulkhead_cli.screen import out
from bulkhead_cli.tasks.tasks import read_plan
from bulkhead_contracts.plan import Plan

Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Reason; stored with the decision.")]
Edited = Annotated[
    Path | None, typer.Option("--plan", metavar="FILE", help='Plan (JSON, {"steps": [...]}) to run in its place.')
]
Redraft = Annotated[bool, typer.Option("--redraft", help="Have another draft made, which is told the reason.")]

plans_app = CommandGroup(rich_markup_mode="rich", epilog=EXIT_CODES, no_args_is_help=True)


@plans_app.callback()
def plan() -> None:
    """Show, approve or reject a drafted plan, or skip a step.

    A task that was submitted with [bold]--approve-plan[/bold] waits with its drafted plan, over restarts, until
    somebody with the role approver or operator decides. Its deadline stands still meanwhile.
    """


@plans_app.command("show")
async def show_plan(task: TaskId, at: GatewayOptions) -> None:
    """Show a task's plan, and whether it waits for a person."""
    async with at.gateway_target().mesh_client() as mesh:
        document = await mesh.task(task).plan()
    if at.as_json:
        print_json(document.model_dump(mode="json"))
    else:
        _print_plan(document)


@plans_app.command("approve")
async def approve_plan(task: TaskId, at: GatewayOptions, reason: Why = "", plan: Edited = None) -> None:
    """Let the plan run as [bold]bulkhead plan show[/bold] prints it, or an edited one in its place."""
    edited = Plan.model_validate(read_plan(plan)) if plan is not None else None
    await _decide_plan(at, task, "approve", reason, redraft=False, edited=edited)


@plans_app.command("reject")
async def reject_plan(task: TaskId, at: GatewayOptions, reason: Why = "", redraft: Redraft = False) -> None:
    """Reject the plan: the task ends, or another draft is made."""
    await _decide_plan(at, task, "reject", reason, redraft=redraft, edited=None)


@plans_app.command("skip")
async def skip_step(
    task: TaskId,
    step: Annotated[str, typer.Argument(metavar="STEP", help="Step's id.", show_default=False)],
    at: GatewayOptions,
    reason: Why = "",
) -> None:
    """Skip a step that waits or has failed, where its plan says [bold]skippable[/bold].

    Steps that build on it go on without its result; those that read a field of it are skipped, too.
    """
    async with at.gateway_target().mesh_client() as mesh:
        document = await mesh.task(task).plan()
        if document.state != "adopted" or not document.sha256:
            raise CommandError(Exit.REFUSED, f"no step of task {task} may be skipped", "its plan says which may")
        stored_reason = reason_of(reason or "no reason was given")
        await mesh.task(task).decide_plan("approve", document.sha256, stored_reason, skip=step)
    if at.as_json:
        print_json({"task_id": task, "skip": step, "sha256": document.sha256})
    else:
        out.print(f"skip of step {step} of task {task} is stored; `bulkhead watch {task}` shows it", markup=False)


async def _decide_plan(
    at: GatewayOptions, task: str, decision: str, reason: str, *, redraft: bool, edited: Plan | None
) -> None:
    stored_reason = reason_of(reason or "no reason was given")
    async with at.gateway_target().mesh_client() as mesh:
        document = await mesh.task(task).plan()
        if document.state != "in_review":
            raise CommandError(Exit.REFUSED, f"no plan of task {task} waits", "`bulkhead plan show TASK` shows it")
        await mesh.task(task).decide_plan(decision, document.sha256, stored_reason, redraft=redraft, plan=edited)
    if at.as_json:
        print_json({"task_id": task, "decision": decision, "sha256": document.sha256})
        return
    _print_plan(document)
    out.print(f"\n{decision}: {document.sha256[:12]} of task {task}", markup=False)


def _print_plan(document: PlanDocument) -> None:
    if document.plan is None:
        out.print("there is no plan yet", markup=False)
        return
    waits = f", waits until {format_time(document.until_unix_ms)}" if document.until_unix_ms else ""
    out.print(f"plan {document.sha256[:12]} {document.state}{waits}".replace("  ", " "), markup=False, style="bold")
    for step in document.plan.steps:
        after = f"  after {', '.join(step.inputs)}" if step.inputs else ""
        tools = f"  with {', '.join(step.tools)}" if step.tools else ""
        out.print(one_line(f"  {step.id} ({step.action}) {step.title}{after}{tools}"), markup=False)
        if step.instruction:
            out.print(f"      {one_line(step.instruction)}", markup=False, style="dim")
    for note in document.plan.notes:
        out.print(one_line(f"  {note.severity}: {note.message}"), markup=False, style="yellow")
