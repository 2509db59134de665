"""`bulkhead halt`, `resume`, `halts` and `breakers`: the arguments of each. `main` adds them to `bulkhead`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from bulkhead_cli import output, target
from bulkhead_cli.halts.target_of_halt import Named
from bulkhead_cli.options import ApiKey, Data, Json, SubData, Url
from bulkhead_cli.output import EXIT_CODES, Exit, Stop, run
from bulkhead_contracts.control import HaltScope

TaskName = Annotated[str, typer.Option("--task", metavar="TASK", help="Task.")]
AgentName = Annotated[
    str,
    typer.Option(
        "--agent", metavar="AGENT", help="Agent: worker.ROLE (the role of plan steps), worker, planner or checker."
    ),
]
ToolName = Annotated[str, typer.Option("--tool", metavar="TOOL", help="Tool.")]
ModelName = Annotated[str, typer.Option("--model", metavar="MODEL", help="Model, by its name in replies.")]
FeatureName = Annotated[
    str, typer.Option("--feature", metavar="FEATURE", help="Feature that tasks were submitted under.")
]
TenantName = Annotated[
    str,
    typer.Option(
        "--tenant", metavar="T", help="Alone: everything of a tenant. With another option: for this tenant only."
    ),
]
HaltReason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Reason, shown to everybody whose work is held back.")
]
ResetReason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Repair that was made; stored as a fact.")]
ResumeReason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Reason, stored as a fact.")]
BreakerName = Annotated[
    str,
    typer.Argument(metavar="SCOPE:NAME", help="Name in the output of `bulkhead breakers`, for example tool:http_get."),
]
BreakerTenant = Annotated[
    str, typer.Option("--tenant", metavar="T", help="Tenant of the breaker, when several tenants have one.")
]


def halt(
    reason: HaltReason,
    task: TaskName = "",
    agent: AgentName = "",
    tool: ToolName = "",
    model: ModelName = "",
    feature: FeatureName = "",
    tenant: TenantName = "",
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    as_json: Json = False,
) -> None:
    """Halt a task, agent, tool, model, feature or tenant until it is resumed.

    The halt takes effect at once, also on work in flight: streams from models are cut, tool calls that have not
    started are postponed, and a write in progress finishes. Halted work is not lost, but the deadline of a task keeps
    running; [bold]bulkhead cancel[/bold] ends a task.

    With the operator's key in DIR, a halt holds for all tenants or, with --tenant, for one; only the broker has to
    run. With --url and --api-key of a tenant's operator, it holds for this tenant.

    Examples: bulkhead halt --tool http_get --reason "the site is under attack" · bulkhead halt --tenant acme --reason
    "its agents run wild"
    """
    _switch(
        reason,
        {"task": task, "agent": agent, "tool": tool, "model": model, "feature": feature},
        tenant,
        (data, url, api_key),
        active=True,
        as_json=as_json,
    )


def resume(
    task: TaskName = "",
    agent: AgentName = "",
    tool: ToolName = "",
    model: ModelName = "",
    feature: FeatureName = "",
    tenant: TenantName = "",
    reason: ResumeReason = "",
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    as_json: Json = False,
) -> None:
    """Resume halted work.

    Finished calls are not repeated; an answer of a model that was cut by the halt is requested again.
    """
    _switch(
        reason or "no reason was given",
        {"task": task, "agent": agent, "tool": tool, "model": model, "feature": feature},
        tenant,
        (data, url, api_key),
        active=False,
        as_json=as_json,
    )


def halts(data: Data = target.DEFAULT_DATA, url: Url = "", api_key: ApiKey = "", as_json: Json = False) -> None:
    """List active halts with their time, author and reason."""
    from bulkhead_cli.halts.halts import show_halts

    run(show_halts(data, _remote(data, url, api_key), as_json=as_json))


breakers_app = typer.Typer(invoke_without_command=True, rich_markup_mode="rich", epilog=EXIT_CODES)


@breakers_app.callback()
def breakers(
    context: typer.Context, data: Data = target.DEFAULT_DATA, url: Url = "", api_key: ApiKey = "", as_json: Json = False
) -> None:
    """List circuit breakers that have opened, and reset them.

    A breaker of a tool, model, agent or tenant is open, half-open (trial calls are let through) or closed again.
    Without a subcommand, the breakers are listed with the reason for their state.
    """
    context.obj = (data, url, api_key, as_json)
    if context.invoked_subcommand is None:
        from bulkhead_cli.halts.halts import show_breakers

        run(show_breakers(data, _remote(data, url, api_key), as_json=as_json))


@breakers_app.command("reset", epilog=EXIT_CODES)
def reset(
    context: typer.Context,
    named: BreakerName,
    tenant: BreakerTenant = "",
    reason: ResetReason = "",
    data: SubData = None,
    url: Url = "",
    api_key: ApiKey = "",
    as_json: Json = False,
) -> None:
    """Close a breaker whose cause has been repaired.

    With the operator's key in DIR, any breaker can be closed. With --url and --api-key, an operator of a tenant can
    close breakers of the tenant's tools, models and agents, except those that calls of the operator's own tasks opened.
    """
    from bulkhead_cli.halts.halts import reset_breaker

    above, above_url, above_key, above_json = context.obj
    remote = _remote(data or above, url or above_url, api_key or above_key)
    why = " ".join(reason.split())[:1_000] or "no reason was given"
    run(reset_breaker(data or above, remote, named, tenant, why, as_json=as_json or above_json))


def _switch(
    reason: str,
    options: Mapping[HaltScope, str],
    tenant: str,
    where: tuple[Path, str, str],
    *,
    active: bool,
    as_json: bool,
) -> None:
    from bulkhead_cli.halts.halts import switch

    found = named(options, tenant)
    if not reason.strip() or len(reason) > 1_000:
        output.stop(Stop(Exit.USAGE, f"--reason has {len(reason.strip())} characters", "say why in 1 to 1,000"))
    run(switch(where[0], _remote(*where), found, " ".join(reason.split()), active=active, as_json=as_json))


def named(options: Mapping[HaltScope, str], tenant: str) -> Named:
    """The target that the options name; ends the command when they name none, or several."""
    given = {scope: name for scope, name in options.items() if name}
    if len(given) > 1 or not (given or tenant):
        output.stop(
            Stop(
                Exit.USAGE,
                "name one thing: --task, --agent, --tool, --model, --feature or --tenant",
                "--tenant beside one of the others means: only for this tenant",
            )
        )
    for scope, name in given.items():
        return Named(scope, name, tenant)
    return Named("tenant", tenant)


def _remote(data: Path, url: str, api_key: str) -> target.Target | None:
    """The gateway, when it is named; otherwise the operator's key is used."""
    return target.required(data, url, api_key) if url or api_key else None
