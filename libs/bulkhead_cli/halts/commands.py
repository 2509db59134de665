"""`bulkhead halt`, `resume`, `halts` and `breakers`: what each takes. `main` hangs them into `bulkhead`."""

from pathlib import Path
from typing import Annotated

import typer

from bulkhead_cli import output, target
from bulkhead_cli.halts.target_of_halt import Named
from bulkhead_cli.options import ApiKey, Data, Json, SubData, Url
from bulkhead_cli.output import EXIT_CODES, Exit, Stop, run

TaskName = Annotated[str, typer.Option("--task", metavar="TASK", help="One task.")]
AgentName = Annotated[
    str,
    typer.Option(
        "--agent", metavar="AGENT", help="An agent: worker.ROLE (a role of plan steps), or worker, planner, checker."
    ),
]
ToolName = Annotated[str, typer.Option("--tool", metavar="TOOL", help="A tool.")]
ModelName = Annotated[str, typer.Option("--model", metavar="MODEL", help="A model, as it is named in replies.")]
FeatureName = Annotated[str, typer.Option("--feature", metavar="FEATURE", help="Tasks submitted under this feature.")]
TenantName = Annotated[
    str,
    typer.Option("--tenant", metavar="T", help="Alone: all of a tenant. Beside another option: only for this tenant."),
]
WhyHalt = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; everybody who has to wait reads it.")]
WhyReset = Annotated[str, typer.Option("--reason", metavar="TEXT", help="What was mended; kept as a fact.")]
WhyResume = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why it may go on; kept as a fact.")]


def halt(
    reason: WhyHalt,
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
    """Hold something back until it is resumed: work in flight too, at once.

    Streams of models are cut, tool calls that were not started are put off, a write under way is let finish. Work
    waits and is not lost, but a task's deadline goes on; to end a task, [bold]bulkhead cancel[/bold] it.

    By the operator's key in DIR, for everybody or with --tenant for one, and with nothing but the broker running; or
    with --url and --api-key, as an operator of a tenant, for this tenant alone.

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
    reason: WhyResume = "",
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    as_json: Json = False,
) -> None:
    """Let go on what [bold]bulkhead halt[/bold] holds back. Nothing that was done is done again; a model's answer that
    was cut in the middle is asked for anew."""
    _switch(
        reason or "no reason was given",
        {"task": task, "agent": agent, "tool": tool, "model": model, "feature": feature},
        tenant,
        (data, url, api_key),
        active=False,
        as_json=as_json,
    )


def halts(data: Data = target.DEFAULT_DATA, url: Url = "", api_key: ApiKey = "", as_json: Json = False) -> None:
    """What people have halted, since when, by whom and why."""
    from bulkhead_cli.halts.halts import show_halts

    run(show_halts(data, _remote(data, url, api_key), as_json=as_json))


breakers_app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode="rich",
    epilog=EXIT_CODES,
    help="Breakers of tools, models, agents and tenants: those that have opened, and how they stand.",
)


@breakers_app.callback()
def breakers(
    context: typer.Context, data: Data = target.DEFAULT_DATA, url: Url = "", api_key: ApiKey = "", as_json: Json = False
) -> None:
    """Breakers that have opened: open, half-open (trial calls go out) or closed again, and why."""
    context.obj = (data, url, api_key, as_json)
    if context.invoked_subcommand is None:
        from bulkhead_cli.halts.halts import show_breakers

        run(show_breakers(data, _remote(data, url, api_key), as_json=as_json))


@breakers_app.command("reset", epilog=EXIT_CODES)
def reset(
    context: typer.Context,
    named: Annotated[str, typer.Argument(metavar="SCOPE:NAME", help="As `bulkhead breakers` lists it: tool:http_get.")],
    tenant: Annotated[str, typer.Option("--tenant", metavar="T", help="Whose, where several tenants have one.")] = "",
    reason: WhyReset = "",
    data: SubData = None,
    url: Url = "",
    api_key: ApiKey = "",
    as_json: Json = False,
) -> None:
    """Close a breaker by hand, once its cause is mended.

    By the operator's key in DIR; or with --url and --api-key, as an operator of a tenant, of a tool, model or agent of
    this tenant, unless calls of one's own tasks opened it.
    """
    from bulkhead_cli.halts.halts import reset_breaker

    above, above_url, above_key, above_json = context.obj
    remote = _remote(data or above, url or above_url, api_key or above_key)
    why = " ".join(reason.split())[:1_000] or "no reason was given"
    run(reset_breaker(data or above, remote, named, tenant, why, as_json=as_json or above_json))


def _switch(
    reason: str, options: dict[str, str], tenant: str, where: tuple[Path, str, str], *, active: bool, as_json: bool
) -> None:
    from bulkhead_cli.halts.halts import switch

    found = named(options, tenant)
    if not reason.strip() or len(reason) > 1_000:
        output.stop(Stop(Exit.USAGE, f"--reason has {len(reason.strip())} characters", "say why in 1 to 1,000"))
    run(switch(where[0], _remote(*where), found, " ".join(reason.split()), active=active, as_json=as_json))


def named(options: dict[str, str], tenant: str) -> Named:
    """What the options mean; ends the command when they mean nothing, or several things."""
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
        return Named(scope, name, tenant)  # type: ignore[arg-type]
    return Named("tenant", tenant)


def _remote(data: Path, url: str, api_key: str) -> target.Target | None:
    """The gateway, when it is named; otherwise the operator's key is used."""
    if not (url or api_key):
        return None
    try:
        return target.find(data, url, api_key)
    except Stop as error:
        output.stop(error)
