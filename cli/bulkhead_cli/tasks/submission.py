"""`bulkhead submit`: its arguments."""

from pathlib import Path
from typing import Annotated

import typer

from bulkhead.text import amounts
from bulkhead_cli.options import (
    GatewayOptions,
    IdempotencyKey,
    PlanFile,
    RequireComplete,
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
ApprovePlan = Annotated[
    bool, typer.Option("--approve-plan", help="Have the drafted plan wait until a person approves it: `bulkhead plan`.")
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
    approve_plan: ApprovePlan = False,
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
        "approve_plan": approve_plan,
    }
    options = {"watch": watch, "as_json": at.as_json, "complete": require_complete, "skip_unreadable": skip_unreadable}
    return submit_task(at.gateway_target(may_make_key=True), objective, docs or [], submission, **options)


submit.__doc__ = SUBMIT_HELP
