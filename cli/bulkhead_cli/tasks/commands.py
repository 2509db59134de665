"""`bulkhead submit`, `watch`, `tasks`, `show` and `cancel`: the arguments of each. `main` adds them to `bulkhead`."""

from pathlib import Path
from typing import Annotated

import typer

from bulkhead.text import amounts
from bulkhead_cli.options import (
    DoorsUrl,
    GatewayOptions,
    IdempotencyKey,
    PlanFile,
    RequireComplete,
    TaskId,
    ToolNames,
    duration_s,
    parse_dollars,
    validate_limit_usd,
)
from bulkhead_cli.output import CommandError, Exit, Work
from bulkhead_contracts import bounds
from bulkhead_contracts.output import Delivery
from bulkhead_contracts.task_options import TaskOptions

OPTIONS = TaskOptions.model_fields
DEADLINE = f"{bounds.DEFAULT_TASK_DEADLINE_MS // 1000} s"
LIMITS = (
    f"Without limits of its own a task may cost {amounts.format_usd(bounds.DEFAULT_TASK_COST_USD_MICROS)}, use "
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
        parser=parse_dollars,
        show_default=amounts.format_usd(bounds.DEFAULT_TASK_COST_USD_MICROS),
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
Feature = Annotated[str, typer.Option("--feature", metavar="NAME", help=OPTIONS["feature"].description)]
Workflow = Annotated[str, typer.Option("--workflow", metavar="NAME", help=OPTIONS["workflow"].description)]
Deliver = Annotated[
    Delivery | None, typer.Option("--delivery", help=OPTIONS["delivery"].description, show_default="draft")
]
Route = Annotated[
    str, typer.Option("--route", metavar="NAME", help=OPTIONS["route"].description, show_default="default")
]
NoReplan = Annotated[
    bool,
    typer.Option(
        "--no-replan",
        help="Let nothing take the place of your plan when it fails. Without it a model may make another plan, with "
        "your plan's tools and no write more.",
    ),
]
Constraint = Annotated[
    list[str] | None,
    typer.Option(
        "--constraint",
        metavar="TEXT",
        help="Narrow the values of a tool's argument, as in 'pay /amount range 0..100'; may be repeated.",
    ),
]
NoCheck = Annotated[bool, typer.Option("--no-check", help="Skip the check of results: faster and cheaper.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="Number of tasks to list.")]
Answered = Annotated[
    str,
    typer.Option(
        "--answered",
        metavar="WORDS",
        help="Only tasks that are answered so: yes, partly, no or unknown (nobody judged it), with commas between.",
    ),
]
CancelReason = Annotated[str, typer.Option("--reason", help="Reason, stored with the task.")]


def submit(
    objective: Objective,
    at: GatewayOptions,
    docs: Docs = None,
    skip_unreadable: SkipUnreadable = False,
    limit_usd: LimitUsd = None,
    limit_tokens: LimitTokens = None,
    deadline: Deadline = "",
    watch: Watch = False,
    feature: Feature = "",
    workflow: Workflow = "",
    delivery: Deliver = None,
    route: Route = "",
    require_complete: RequireComplete = False,
    plan: PlanFile = None,
    tool: ToolNames = None,
    idempotency_key: IdempotencyKey = "",
    no_check: NoCheck = False,
    no_replan: NoReplan = False,
    constraint: Constraint = None,
) -> Work:
    """See SUBMIT_HELP, which states the defaults."""
    from bulkhead_cli.tasks.tasks import submit_task

    if require_complete and not watch:
        raise CommandError(
            Exit.USAGE, "--require-complete needs the answer, and submit does not wait for it", "add --watch"
        )
    submission = {
        "plan": plan,
        "tools": tuple(tool or ()),
        "idempotency_key": idempotency_key,
        "limit_usd": validate_limit_usd(limit_usd),
        "limit_tokens": limit_tokens,
        "check": not no_check,
        "deadline_s": duration_s(deadline) if deadline else None,
        "feature": feature,
        "workflow": workflow,
        "delivery": delivery or "",
        "route": route,
        "replan": "none" if no_replan else "",
        "constraints": tuple(constraint or ()),
    }
    options = {"watch": watch, "as_json": at.as_json, "complete": require_complete, "skip_unreadable": skip_unreadable}
    return submit_task(at.gateway_target(may_make_key=True), objective, docs or [], submission, **options)


def watch(task: TaskId, at: GatewayOptions, require_complete: RequireComplete = False) -> Work:
    """Follow a task from its start to its end and print its answer."""
    from bulkhead_cli.tasks.tasks import watch_task

    return watch_task(at.gateway_target(), task, as_json=at.as_json, complete=require_complete)


def tasks(at: GatewayOptions, limit: Limit = 20, answered: Answered = "") -> Work:
    """List the tenant's tasks, newest first.

    A status is followed by the state of the answer: "degraded" (a part came from a fallback, or a call failed) or
    "incomplete" (a part is missing). [bold]bulkhead why TASK[/bold] gives the details.
    """
    from bulkhead_cli.tasks.tasks import list_tasks

    return list_tasks(at.gateway_target(), limit, answered, as_json=at.as_json)


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
    from bulkhead_cli.tasks.tasks import cancel_task

    return cancel_task(at.gateway_target(), task, reason, as_json=at.as_json)
