"""`bulkhead watch`, `tasks`, `doors`, `show` and `cancel`: the arguments of each."""

from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import typer

from bulkhead_cli.options import DoorsUrl, GatewayOptions, Options, RequireComplete, TaskId
from bulkhead_cli.output import Work

Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="Number of tasks to list.")]
CancelReason = Annotated[str, typer.Option("--reason", help="Reason, stored with the task.")]


def watch(task: TaskId, at: GatewayOptions, require_complete: RequireComplete = False) -> Work:
    """Follow a task from its start to its end and print its answer."""
    from bulkhead_cli.tasks.tasks import watch_task

    return watch_task(at.gateway_target(), task, as_json=at.as_json, complete=require_complete)


@dataclass(frozen=True, slots=True)
class TaskFilterOptions(Options):
    """Filters of a list of tasks, each under its name in `GET /v1/tasks`."""

    status: Annotated[
        str,
        typer.Option(
            "--status",
            metavar="WORDS",
            help="Only tasks of these states: requested, queued, running, paused, rejected, succeeded, failed, "
            "cancelled or halted, with commas between.",
        ),
    ] = ""
    since: Annotated[
        str,
        typer.Option(
            "--since", metavar="TIME", help="Only tasks submitted in this time: 90s, 20m, 1h, 7d; at most 31d."
        ),
    ] = ""
    feature: Annotated[str, typer.Option("--feature", metavar="NAME", help="Only tasks of this feature.")] = ""
    workflow: Annotated[
        str, typer.Option("--workflow", metavar="NAME.N", help="Only runs of this version of a workflow.")
    ] = ""
    person: Annotated[str, typer.Option("--person", metavar="NAME", help="Only tasks of this person.")] = ""
    answered: Annotated[
        str,
        typer.Option(
            "--answered",
            metavar="WORDS",
            help="Only tasks that are answered so: yes, partly, no or unknown (nobody judged it), with commas between.",
        ),
    ] = ""
    rated: Annotated[
        str,
        typer.Option(
            "--rated", metavar="WORDS", help="Only tasks that people rate so: good, bad or none, with commas between."
        ),
    ] = ""
    code: Annotated[str, typer.Option("--code", metavar="CODE", help="Only tasks that ended with this error code.")] = (
        ""
    )


def tasks(at: GatewayOptions, filters: TaskFilterOptions, limit: Limit = 20) -> Work:
    """List the tenant's tasks, newest first.

    A status is followed by the state of the answer: "degraded" (a part came from a fallback, or a call failed) or
    "incomplete" (a part is missing). [bold]bulkhead why TASK[/bold] gives the details.

    Examples: bulkhead tasks --status failed --since 1h · bulkhead tasks --answered no --feature search --json
    """
    from bulkhead_cli.tasks.listing import list_tasks

    return list_tasks(at.gateway_target(), limit, asdict(filters), as_json=at.as_json)


def doors(at: GatewayOptions, limit: Limit = 20, doors_url: DoorsUrl = "") -> Work:
    """Show who is outside: agents' runs, newest first, spend, delegated steps, subscribers.

    A run is a task: [bold]show[/bold], [bold]why[/bold], [bold]topup[/bold] and [bold]halt[/bold] take its id.
    """
    from bulkhead_cli.tasks.doors import show_doors

    return show_doors(at.gateway_target(), limit, doors_url, as_json=at.as_json)


def show(task: TaskId, at: GatewayOptions) -> Work:
    """Show a task: its steps, its answer and its cost."""
    from bulkhead_cli.tasks.tasks import show_task

    return show_task(at.gateway_target(), task, as_json=at.as_json)


def cancel(task: TaskId, at: GatewayOptions, reason: CancelReason = "") -> Work:
    """Cancel a task.

    The task ends soon after the request; [bold]bulkhead watch TASK[/bold] shows when.
    """
    from bulkhead_cli.tasks.listing import cancel_task

    return cancel_task(at.gateway_target(), task, reason, as_json=at.as_json)


def rate(
    task: TaskId,
    score: Annotated[Literal["good", "bad"], typer.Argument(metavar="good|bad", help="What the answer is.")],
    at: GatewayOptions,
    comment: Annotated[str, typer.Option("--comment", metavar="TEXT", help="Reason; stored without keys.")] = "",
) -> Work:
    """Say whether a task's answer is good.

    Your later word on a task replaces the one before. [bold]bulkhead quality[/bold] counts ratings, and
    [bold]bulkhead eval from-tasks --rated bad[/bold] makes cases of them.

    Examples: bulkhead rate t1 bad --comment "the excess is 250 euros since May"
    """
    from bulkhead_cli.tasks.listing import rate_task

    return rate_task(at.gateway_target(), task, score, comment, as_json=at.as_json)
