"""`bulkhead submit`, `watch`, `tasks`, `show` and `cancel`: the arguments of each. `main` adds them to `bulkhead`."""

from pathlib import Path
from typing import Annotated

import typer

from bulkhead import amounts
from bulkhead_cli import output, target
from bulkhead_cli.options import (
    ApiKey,
    Data,
    IdempotencyKey,
    Json,
    PlanFile,
    RequireComplete,
    TaskId,
    Tenant,
    ToolNames,
    Url,
    amount,
    dollars,
    duration_s,
)
from bulkhead_cli.output import Exit, Stop, exit_with, run
from bulkhead_contracts import bounds

DEADLINE = f"{bounds.DEFAULT_TASK_DEADLINE_MS // 1000} s"
LIMITS = (
    f"Without limits of its own a task may cost {amounts.money(bounds.DEFAULT_TASK_COST_USD_MICROS)}, use "
    f"{bounds.DEFAULT_TASK_TOKENS:,} tokens and take {DEADLINE} by the clock, from submission to answer."
)
SUBMIT_HELP = (
    "Submit an objective as a new task.\n\n"
    "The task is stored durably before the command returns. " + LIMITS + "\n\n"
    'Examples: bulkhead submit "What is refunded, and when?" --docs ./notes --watch · '
    "bulkhead submit - --deadline 10m --limit-usd 2 < question.txt"
)

Objective = Annotated[
    str, typer.Argument(metavar="OBJECTIVE", help="The question or assignment. `-` reads standard input.")
]
Docs = Annotated[
    list[Path] | None,
    typer.Option(
        "--docs",
        metavar="PATH",
        help="Document to add before the task starts, or a directory of documents; may be repeated.",
    ),
]
SkipUnreadable = Annotated[
    bool,
    typer.Option(
        "--skip-unreadable", help="With --docs: submit the task also when documents of a directory cannot be read."
    ),
]
LimitUsd = Annotated[
    float | None,
    typer.Option(
        "--limit-usd",
        metavar="USD",
        parser=amount,
        show_default=amounts.money(bounds.DEFAULT_TASK_COST_USD_MICROS),
        help="Maximum cost of the task.",
    ),
]
LimitTokens = Annotated[
    int | None,
    typer.Option(
        "--limit-tokens",
        metavar="N",
        min=1,
        show_default=f"{bounds.DEFAULT_TASK_TOKENS:,}",
        help="Maximum number of tokens that the task may use.",
    ),
]
Deadline = Annotated[
    str,
    typer.Option(
        "--deadline",
        metavar="TIME",
        show_default=DEADLINE,
        help="Time by the clock after which the task ends, finished or not: 90s, 2m, 1h30m, 2d.",
    ),
]
Watch = Annotated[bool, typer.Option("--watch", help="Follow the task and print its answer.")]
Feature = Annotated[
    str, typer.Option("--feature", metavar="NAME", help="Feature of your product that the spending is counted under.")
]
Workflow = Annotated[
    str, typer.Option("--workflow", metavar="NAME", help="Workflow that the spending is counted under.")
]
NoCheck = Annotated[bool, typer.Option("--no-check", help="Skip the check of results: faster and cheaper.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="Number of tasks to list.")]
CancelReason = Annotated[str, typer.Option("--reason", help="Reason, stored with the task.")]


def submit(
    objective: Objective,
    docs: Docs = None,
    skip_unreadable: SkipUnreadable = False,
    tenant: Tenant = "",
    limit_usd: LimitUsd = None,
    limit_tokens: LimitTokens = None,
    deadline: Deadline = "",
    watch: Watch = False,
    feature: Feature = "",
    workflow: Workflow = "",
    require_complete: RequireComplete = False,
    plan: PlanFile = None,
    tool: ToolNames = None,
    idempotency_key: IdempotencyKey = "",
    no_check: NoCheck = False,
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    as_json: Json = False,
) -> None:
    """See SUBMIT_HELP, which states the defaults."""
    from bulkhead_cli.tasks.tasks import submit_task

    if require_complete and not watch:
        output.stop(
            Stop(Exit.USAGE, "--require-complete needs the answer, and submit does not wait for it", "add --watch")
        )
    wanted = {
        "plan": plan,
        "tools": tuple(tool or ()),
        "idempotency_key": idempotency_key,
        "limit_usd": dollars(limit_usd),
        "limit_tokens": limit_tokens,
        "check": not no_check,
        "deadline_s": duration_s(deadline) if deadline else None,
        "feature": feature,
        "workflow": workflow,
    }
    mesh = target.required(data, url, api_key, tenant, may_make_key=True)
    options = {"watch": watch, "as_json": as_json, "complete": require_complete, "skip_unreadable": skip_unreadable}
    exit_with(run(submit_task(mesh, objective, docs or [], wanted, **options)))


def watch(
    task: TaskId,
    require_complete: RequireComplete = False,
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Follow a task from its start to its end and print its answer."""
    from bulkhead_cli.tasks.tasks import watch_task

    mesh = target.required(data, url, api_key, tenant)
    exit_with(run(watch_task(mesh, task, as_json=as_json, complete=require_complete)))


def tasks(
    limit: Limit = 20,
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """List the tenant's tasks, newest first.

    A status is followed by the state of the answer: "degraded" (a part came from a fallback, or a call failed) or
    "incomplete" (a part is missing). [bold]bulkhead why TASK[/bold] gives the details.
    """
    from bulkhead_cli.tasks.tasks import list_tasks

    run(list_tasks(target.required(data, url, api_key, tenant), limit, as_json=as_json))


def show(
    task: TaskId,
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Show a task: its steps, its answer and its cost."""
    from bulkhead_cli.tasks.tasks import show_task

    run(show_task(target.required(data, url, api_key, tenant), task, as_json=as_json))


def cancel(
    task: TaskId,
    reason: CancelReason = "",
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Cancel a task.

    The task ends soon after the request; [bold]bulkhead watch TASK[/bold] shows when.
    """
    from bulkhead_cli.tasks.tasks import cancel_task

    run(cancel_task(target.required(data, url, api_key, tenant), task, reason, as_json=as_json))
