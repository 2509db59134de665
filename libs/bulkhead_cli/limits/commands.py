"""`bulkhead limits`, `topup` and `spend`: the arguments of each. `main` adds them to `bulkhead`."""

import math
import re
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from bulkhead.validation_errors import meant
from bulkhead_cli import output, target
from bulkhead_cli.options import ApiKey, Data, Json, Tenant, Url, amount
from bulkhead_cli.output import EXIT_CODES, Exit, Stop, run
from bulkhead_contracts import bounds

UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
FORMS = (
    "task, step, agent, workflow, feature, user (each of them); task/ID, agent/worker.ROLE, agent/planner "
    "(all of its roles), workflow/NAME, feature/NAME, user/NAME (this one); day, month (of the tenant, UTC)"
)
TARGET = re.compile(r"(step|day|month|(task|agent|workflow|feature|user)(/[!-~]{1,64})?)")
KINDS = ("task", "step", "agent", "workflow", "feature", "user", "day", "month")

LimitTarget = Annotated[str, typer.Argument(metavar="TARGET", help=f"Target of the limit: {FORMS}.")]
SINCE = re.compile(r"[1-9]\d{0,6}[smhd]", re.ASCII)
By = Literal["agent", "step", "workflow", "feature", "user", "tenant", "model", "task"]
Wall = re.compile(r"(\d{1,9})([smhd])", re.ASCII)


class LimitCommands(TyperGroup):
    """The subcommands of `limits`; `unset`, for which `set` would be suggested, is `remove`."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """See TyperGroup."""
        return super().get_command(ctx, "remove" if cmd_name == "unset" else cmd_name)


limits_app = typer.Typer(
    cls=LimitCommands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Show and change a tenant's limits.\n\n"
    "These limits apply beside those of the tenant's policy and of each task. Every member of a tenant can read them; "
    "operators can change them. A change applies from the next call on, and is stored as a fact with its author and "
    "the old and new value.\n\n"
    "The accounts of an agent, a workflow, a feature and a user start again at 00:00 UTC. A general limit (task, day) "
    "only narrows the task's request and the tenant's policy; task/ID replaces the limit of one running task. A task "
    "that reaches a limit is halted and says why. It goes on after the limit was raised or after [bold]bulkhead "
    "topup[/bold], and otherwise ends at its deadline.",
)
MaxUsd = Annotated[float | None, typer.Option("--usd", metavar="USD", parser=amount, help="Maximum cost.")]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--tokens", metavar="N", min=0, max=bounds.MAX_TOKENS, help="Maximum number of tokens, input and output."
    ),
]
MaxModelCalls = Annotated[
    int | None,
    typer.Option("--model-calls", metavar="N", min=0, max=bounds.MAX_CALLS, help="Maximum number of model calls."),
]
MaxToolCalls = Annotated[
    int | None,
    typer.Option("--tool-calls", metavar="N", min=0, max=bounds.MAX_CALLS, help="Maximum number of tool calls."),
]
MaxWall = Annotated[
    str, typer.Option("--wall", metavar="TIME", help="Maximum duration of all calls together: 90s, 2h, 1d.")
]
AddedUsd = Annotated[float | None, typer.Option("--usd", metavar="USD", parser=amount, help="Additional cost.")]
AddedTokens = Annotated[
    int | None,
    typer.Option("--tokens", metavar="N", min=1, max=bounds.MAX_TOKENS, help="Additional tokens, input and output."),
]
AddedModelCalls = Annotated[
    int | None, typer.Option("--model-calls", metavar="N", min=1, max=bounds.MAX_CALLS, help="Additional model calls.")
]
AddedToolCalls = Annotated[
    int | None, typer.Option("--tool-calls", metavar="N", min=1, max=bounds.MAX_CALLS, help="Additional tool calls.")
]
AddedWall = Annotated[
    str, typer.Option("--wall", metavar="TIME", help="Additional duration of all calls together: 90s, 2h, 1d.")
]
TopUpReason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Reason, stored as a fact with its author.")]
Since = Annotated[str, typer.Option("--since", metavar="TIME", help="Period up to now: 90s, 20m, 1h, 7d; at most 31d.")]
Top = Annotated[
    int,
    typer.Option(
        "--top",
        metavar="N",
        min=1,
        max=bounds.MAX_SPEND_ROWS,
        help="Number of rows, the most expensive first; the others are added up in one.",
    ),
]


@limits_app.command("get", epilog=EXIT_CODES)
def get(
    data: Data = target.DEFAULT_DATA, url: Url = "", api_key: ApiKey = "", tenant: Tenant = "", as_json: Json = False
) -> None:
    """Show the tenant's current limits."""
    from bulkhead_cli.limits.spending import show_limits

    run(show_limits(target.required(data, url, api_key, tenant), as_json=as_json))


@limits_app.command("set", epilog=EXIT_CODES)
def set_(
    of: LimitTarget,
    usd: MaxUsd = None,
    tokens: MaxTokens = None,
    model_calls: MaxModelCalls = None,
    tool_calls: MaxToolCalls = None,
    wall: MaxWall = "",
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Set the limit of a target, in the named units; other units stay as they are.

    Examples: bulkhead limits set feature/search --usd 20 · bulkhead limits set user --model-calls 500 · bulkhead limits
    set task/t3k2 --usd 2
    """
    from bulkhead_cli.limits.spending import set_limit

    named = units(usd, tokens, model_calls, tool_calls, wall)
    if not named:
        output.stop(
            Stop(
                Exit.USAGE,
                "no limit is given",
                "use --usd, --tokens, --model-calls, --tool-calls or --wall"
                f"; `bulkhead limits remove {of}` removes all of them",
            )
        )
    run(set_limit(target.required(data, url, api_key, tenant), checked(of), named, as_json=as_json))


@limits_app.command("remove", epilog=EXIT_CODES)
def remove(
    of: LimitTarget,
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Remove all limits of a target. Those of the policy and of the task stay."""
    from bulkhead_cli.limits.spending import set_limit

    run(set_limit(target.required(data, url, api_key, tenant), checked(of), {}, as_json=as_json))


def topup(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Id of the task.")],
    reason: TopUpReason,
    usd: AddedUsd = None,
    tokens: AddedTokens = None,
    model_calls: AddedModelCalls = None,
    tool_calls: AddedToolCalls = None,
    wall: AddedWall = "",
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Raise the limits of one task by an amount.

    A task that was halted at a limit goes on at once. Finished calls are neither repeated nor paid again, except an
    answer of a model that was cut by the halt. Requires an operator of the task's tenant. The amount may exceed the
    tenant's limit for a task, but not its limit for a day. A halted task without a top-up ends at its deadline.

    Examples: bulkhead topup t3k2 --usd 0.50 --reason "worth it" · bulkhead topup t3k2 --tokens 20000 --reason "long"
    """
    from bulkhead_cli.limits.spending import top_up

    named = {unit: value for unit, value in units(usd, tokens, model_calls, tool_calls, wall).items() if value}
    if not named:
        output.stop(
            Stop(
                Exit.USAGE,
                "nothing is added",
                "use --usd, --tokens, --model-calls, --tool-calls or --wall, with more than 0",
            )
        )
    if not reason.strip() or len(reason) > 1_000:
        output.stop(Stop(Exit.USAGE, f"--reason has {len(reason.strip())} characters", "say why in 1 to 1,000"))
    where = target.required(data, url, api_key, tenant)
    run(top_up(where, task, named, " ".join(reason.split()), as_json=as_json))


def spend(
    by: Annotated[By, typer.Option("--by", help="Grouping of the sums.")] = "agent",
    since: Since = "24h",
    top: Top = 20,
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Sum up the cost of a tenant's calls by agent, step, user, model and more.

    Requires an operator or auditor. A call counts at the time of its admission. Tokens are the provider's counts.
    Amounts reserved for unfinished calls are listed as held. The sums are computed from stored facts.

    Examples: bulkhead spend --by agent --since 1h · bulkhead spend --by user --since 7d --json
    """
    from bulkhead_cli.limits.spending import show_spending

    found = SINCE.fullmatch(since)
    if found is None or not 1 <= int(since[:-1]) * UNITS_MS[since[-1]] // 1000 <= bounds.MAX_SPEND_S:
        output.stop(Stop(Exit.USAGE, f"--since {since[:40]!r} is no time", "write 90s, 20m, 1h or 7d, at most 31d"))
    where = target.required(data, url, api_key, tenant)
    run(show_spending(where, by, since, top, as_json=as_json))


def checked(of: str) -> str:
    """A target; ends the command for what is none."""
    if TARGET.fullmatch(of) is None:
        near = meant(of.partition("/")[0], KINDS)
        output.stop(Stop(Exit.USAGE, f"{of[:80]!r} is no target of a limit{near}", f"there are: {FORMS}"))
    return of


def units(
    usd: float | None, tokens: int | None, model_calls: int | None, tool_calls: int | None, wall: str
) -> dict[str, int]:
    """The units that the options name; ends the command for what is no amount or time."""
    given = {
        "cost_usd_micros": micros(usd),
        "tokens": tokens,
        "model_calls": model_calls,
        "tool_calls": tool_calls,
        "wall_ms": wall_ms(wall),
    }
    return {unit: value for unit, value in given.items() if value is not None}


def micros(usd: float | None) -> int | None:
    """Micro dollars; ends the command for what is no amount. With 0 nothing that costs is done any more."""
    if usd is None:
        return None
    if not (math.isfinite(usd) and 0 <= usd <= bounds.MAX_COST_USD_MICROS / 1_000_000):
        output.stop(
            Stop(
                Exit.USAGE,
                f"--usd {usd:g} is out of bounds",
                f"write an amount of dollars from 0 to {bounds.MAX_COST_USD_MICROS // 1_000_000:,}",
            )
        )
    return round(usd * 1_000_000)


def wall_ms(text: str) -> int | None:
    """Milliseconds of `90s`, `2h`, `1d`; ends the command for what is no time."""
    if not text:
        return None
    match = Wall.fullmatch(text)
    found = int(match[1]) * UNITS_MS[match[2]] if match else -1
    if not 0 <= found <= bounds.MAX_WALL_MS:
        output.stop(Stop(Exit.USAGE, f"{text[:40]!r} is no time", "write 90s, 20m, 2h or 1d, at most 366d"))
    return found
