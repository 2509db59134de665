"""`bulkhead limits`, `topup` and `spend`: the arguments of each. `main` adds them to `bulkhead`."""

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.options import UNITS_MS, GatewayOptions, Options, Since, parse_dollars, reason_of, since_s
from bulkhead_cli.output import CommandError, Exit, Work
from bulkhead_contracts import bounds

FORMS = (
    "task, step, agent, workflow, feature, user (each of them); task/ID, agent/worker.ROLE, agent/planner "
    "(all of its roles), workflow/NAME, feature/NAME, user/NAME (this one); day, month (of the tenant, UTC)"
)
TARGET = re.compile(r"(step|day|month|(task|agent|workflow|feature|user)(/[!-~]{1,64})?)")
KINDS = ("task", "step", "agent", "workflow", "feature", "user", "day", "month")

LimitTarget = Annotated[str, typer.Argument(metavar="TARGET", help=f"Target of the limit: {FORMS}.")]
By = Literal["agent", "step", "workflow", "feature", "user", "tenant", "model", "tool", "task", "prompt"]
WALL = re.compile(r"\d{1,9}[smhd]", re.ASCII)


class LimitCommands(TyperGroup):
    """The subcommands of `limits`; `unset`, for which `set` would be suggested, is `remove`."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """See TyperGroup."""
        return super().get_command(ctx, "remove" if cmd_name == "unset" else cmd_name)


limits_app = CommandGroup(
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
ChangeReason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Reason, stored with the change and its author.")
]
TopUpReason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Reason, stored as a fact with its author.")]
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


@dataclass(frozen=True, slots=True)
class LimitOptions(Options):
    """The units of a limit."""

    usd: Annotated[float | None, typer.Option("--usd", metavar="USD", parser=parse_dollars, help="Maximum cost.")] = (
        None
    )
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens", metavar="N", min=0, max=bounds.MAX_TOKENS, help="Maximum number of tokens, input and output."
        ),
    ] = None
    model_calls: Annotated[
        int | None,
        typer.Option("--model-calls", metavar="N", min=0, max=bounds.MAX_CALLS, help="Maximum number of model calls."),
    ] = None
    tool_calls: Annotated[
        int | None,
        typer.Option("--tool-calls", metavar="N", min=0, max=bounds.MAX_CALLS, help="Maximum number of tool calls."),
    ] = None
    wall: Annotated[
        str, typer.Option("--wall", metavar="TIME", help="Maximum duration of all ended calls: 90s, 2h, 1d.")
    ] = ""

    def limit_units(self) -> dict[str, int]:
        """The units that the options name. Raises CommandError for what is no amount or time."""
        amounts = {
            "cost_usd_micros": usd_micros(self.usd),
            "tokens": self.tokens,
            "model_calls": self.model_calls,
            "tool_calls": self.tool_calls,
            "wall_ms": wall_ms(self.wall),
        }
        return {unit: value for unit, value in amounts.items() if value is not None}


@dataclass(frozen=True, slots=True)
class TopUpOptions(LimitOptions):
    """The units of a top-up."""

    usd: Annotated[
        float | None, typer.Option("--usd", metavar="USD", parser=parse_dollars, help="Additional cost.")
    ] = None
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens", metavar="N", min=1, max=bounds.MAX_TOKENS, help="Additional tokens, input and output."
        ),
    ] = None
    model_calls: Annotated[
        int | None,
        typer.Option("--model-calls", metavar="N", min=1, max=bounds.MAX_CALLS, help="Additional model calls."),
    ] = None
    tool_calls: Annotated[
        int | None,
        typer.Option("--tool-calls", metavar="N", min=1, max=bounds.MAX_CALLS, help="Additional tool calls."),
    ] = None
    wall: Annotated[
        str, typer.Option("--wall", metavar="TIME", help="Additional duration of all ended calls: 90s, 2h, 1d.")
    ] = ""


@limits_app.command("get")
def get(at: GatewayOptions) -> Work:
    """Show the tenant's current limits."""
    from bulkhead_cli.limits.spending import show_limits

    return show_limits(at.gateway_target(), as_json=at.as_json)


def optional_reason(text: str) -> str:
    """The reason on one line; "" for none. Raises CommandError."""
    return reason_of(text) if text else ""


@limits_app.command("set")
def set_(of: LimitTarget, maxima: LimitOptions, at: GatewayOptions, reason: ChangeReason = "") -> Work:
    """Set the limit of a target, in the named units; other units stay as they are.

    Examples: bulkhead limits set feature/search --usd 20 · bulkhead limits set user --model-calls 500 · bulkhead limits
    set task/t3k2 --usd 2 --reason "a long report"
    """
    from bulkhead_cli.limits.spending import set_limit

    named = maxima.limit_units()
    if not named:
        raise CommandError(
            Exit.USAGE,
            "no limit is given",
            "use --usd, --tokens, --model-calls, --tool-calls or --wall"
            f"; `bulkhead limits remove {of}` removes all of them",
        )
    return set_limit(at.gateway_target(), require_limit_target(of), named, optional_reason(reason), as_json=at.as_json)


@limits_app.command("remove")
def remove(of: LimitTarget, at: GatewayOptions, reason: ChangeReason = "") -> Work:
    """Remove all limits of a target. Those of the policy and of the task stay."""
    from bulkhead_cli.limits.spending import set_limit

    return set_limit(at.gateway_target(), require_limit_target(of), {}, optional_reason(reason), as_json=at.as_json)


def topup(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Id of the task.")],
    reason: TopUpReason,
    added: TopUpOptions,
    at: GatewayOptions,
) -> Work:
    """Raise the limits of one task by an amount.

    A task that was halted at a limit goes on at once. Finished calls are neither repeated nor paid again, except an
    answer of a model that was cut by the halt. Requires an operator of the task's tenant. The amount may exceed the
    tenant's limit for a task, but not its limit for a day. A halted task without a top-up ends at its deadline.

    Examples: bulkhead topup t3k2 --usd 0.50 --reason "worth it" · bulkhead topup t3k2 --tokens 20000 --reason "long"
    """
    from bulkhead_cli.limits.spending import top_up

    named = {unit: value for unit, value in added.limit_units().items() if value}
    if not named:
        hint = "use --usd, --tokens, --model-calls, --tool-calls or --wall, with more than 0"
        raise CommandError(Exit.USAGE, "nothing is added", hint)
    return top_up(at.gateway_target(), task, named, reason_of(reason), as_json=at.as_json)


def spend(
    at: GatewayOptions,
    by: Annotated[By, typer.Option("--by", help="Grouping of the sums.")] = "agent",
    since: Since = "24h",
    top: Top = 20,
) -> Work:
    """Sum up the cost of a tenant's calls by agent, step, user, model and more.

    Requires an operator or auditor. A call counts at the time of its admission. Estimated amounts (a provider told no
    usage) are marked. Failed attempts, which a retry, a fallback or an error followed, are listed with their cost and
    the time that they took. Amounts reserved for unfinished calls are listed as held. The sums are computed from stored
    facts.

    Examples: bulkhead spend --by agent --since 1h · bulkhead spend --by user --since 7d --json
    """
    from bulkhead_cli.limits.spending import show_spending

    since_s(since)
    return show_spending(at.gateway_target(), by, since, top, as_json=at.as_json)


def require_limit_target(of: str) -> str:
    """A target. Raises CommandError for what is none."""
    if TARGET.fullmatch(of) is None:
        from bulkhead.text.validation_errors import suggest_name

        near = suggest_name(of.partition("/")[0], KINDS)
        raise CommandError(Exit.USAGE, f"{of[:80]!r} is no target of a limit{near}", f"there are: {FORMS}")
    return of


def usd_micros(usd: float | None) -> int | None:
    """Micro dollars. Raises CommandError for what is no amount. With 0 nothing that costs is done any more."""
    if usd is None:
        return None
    if not (math.isfinite(usd) and 0 <= usd <= bounds.MAX_COST_USD_MICROS / 1_000_000):
        hint = f"write an amount of dollars from 0 to {bounds.MAX_COST_USD_MICROS // 1_000_000:,}"
        raise CommandError(Exit.USAGE, f"--usd {usd:g} is out of bounds", hint)
    return round(usd * 1_000_000)


def wall_ms(text: str) -> int | None:
    """Milliseconds of `90s`, `2h`, `1d`. Raises CommandError for what is no time."""
    if not text:
        return None
    if not WALL.fullmatch(text) or _duration_ms(text) > bounds.MAX_WALL_MS:
        raise CommandError(Exit.USAGE, f"{text[:40]!r} is no time", "write 90s, 20m, 2h or 1d, at most 366d")
    return _duration_ms(text)


def _duration_ms(text: str) -> int:
    return int(text[:-1]) * UNITS_MS[text[-1]]
