"""`bulkhead limits` and `bulkhead spend`: what each form takes. `main` hangs them into `bulkhead`."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from bulkhead.validation_errors import meant
from bulkhead_cli import output, target
from bulkhead_cli.options import ApiKey, Data, Json, Tenant, Url, amount
from bulkhead_cli.output import EXIT_CODES, Exit, Stop, run
from bulkhead_contracts import bounds

UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
FORMS = (
    "task, step, agent, workflow, feature, user (each of them); task/ID, agent/worker.ROLE, agent/planner "
    "(each of its roles), workflow/NAME, "
    "feature/NAME, user/NAME (that one); day, month (of the tenant, UTC)"
)
TARGET = re.compile(r"(step|day|month|(task|agent|workflow|feature|user)(/[!-~]{1,64})?)")
KINDS = ("task", "step", "agent", "workflow", "feature", "user", "day", "month")

LimitTarget = Annotated[str, typer.Argument(metavar="TARGET", help=f"What it holds for: {FORMS}.")]
SINCE = re.compile(r"[1-9]\d{0,6}[smhd]", re.ASCII)
By = Literal["agent", "step", "workflow", "feature", "user", "tenant", "model", "task"]
Wall = re.compile(r"(\d{1,9})([smhd])", re.ASCII)


@dataclass(frozen=True, slots=True)
class Where:
    """Which gateway, as whom."""

    data: Path
    url: str
    api_key: str
    tenant: str

    def target(self) -> target.Target:
        """Ends the command when something is missing."""
        try:
            return target.find(self.data, self.url, self.api_key, self.tenant)
        except Stop as error:
            output.stop(error)


limits_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Ceilings of a tenant, beside those of its policy and of each task: read by everybody, changed by operators, "
    "in force from the next call on, and kept as facts with who, when, from what and to what.\n\n"
    "Accounts of an agent, a workflow, a feature and a user begin anew at 00:00 UTC. A general limit (task, day) can "
    "only narrow what the task asked for and the tenant's policy allows; task/ID replaces the ceiling of one task, "
    "while it runs. At a ceiling a task is halted where it stands and told why: raised, or with [bold]bulkhead "
    "topup[/bold], it goes on; at its deadline it ends.",
)


@limits_app.command("get", epilog=EXIT_CODES)
def get(
    data: Data = target.DEFAULT_DATA, url: Url = "", api_key: ApiKey = "", tenant: Tenant = "", as_json: Json = False
) -> None:
    """The tenant's limits as they stand."""
    from bulkhead_cli.limits.spending import show_limits

    run(show_limits(Where(data, url, api_key, tenant).target(), as_json=as_json))


@limits_app.command("set", epilog=EXIT_CODES)
def set_(
    of: LimitTarget,
    usd: Annotated[
        float | None, typer.Option("--usd", metavar="USD", parser=amount, help="Most that it may cost.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", metavar="N", min=0, max=bounds.MAX_TOKENS, help="Most tokens, in and out.")
    ] = None,
    model_calls: Annotated[
        int | None,
        typer.Option("--model-calls", metavar="N", min=0, max=bounds.MAX_CALLS, help="Most calls of models."),
    ] = None,
    tool_calls: Annotated[
        int | None, typer.Option("--tool-calls", metavar="N", min=0, max=bounds.MAX_CALLS, help="Most calls of tools.")
    ] = None,
    wall: Annotated[
        str, typer.Option("--wall", metavar="TIME", help="Time of all its calls together: 90s, 2h, 1d.")
    ] = "",
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Set a ceiling in the units that are named; the others stay as they are.

    Examples: bulkhead limits set feature/search --usd 20 · bulkhead limits set user --model-calls 500 · bulkhead limits
    set task/t3k2 --usd 2
    """
    from bulkhead_cli.limits.spending import set_limit

    given = {
        "cost_usd_micros": micros(usd),
        "tokens": tokens,
        "model_calls": model_calls,
        "tool_calls": tool_calls,
        "wall_ms": wall_ms(wall),
    }
    named = {unit: value for unit, value in given.items() if value is not None}
    if not named:
        output.stop(
            Stop(
                Exit.USAGE,
                "no ceiling is named",
                "use --usd, --tokens, --model-calls, --tool-calls or --wall"
                f"; `bulkhead limits remove {of}` takes all of them away",
            )
        )
    run(set_limit(Where(data, url, api_key, tenant).target(), checked(of), named, as_json=as_json))


@limits_app.command("remove", epilog=EXIT_CODES)
def remove(
    of: LimitTarget,
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Take every ceiling of a target away. What the policy and the task's own limits say stays."""
    from bulkhead_cli.limits.spending import set_limit

    run(set_limit(Where(data, url, api_key, tenant).target(), checked(of), {}, as_json=as_json))


def topup(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task's id.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept as a fact, with who.")],
    usd: Annotated[
        float | None, typer.Option("--usd", metavar="USD", parser=amount, help="So much more it may cost.")
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option("--tokens", metavar="N", min=1, max=bounds.MAX_TOKENS, help="So many more tokens, in and out."),
    ] = None,
    model_calls: Annotated[
        int | None,
        typer.Option("--model-calls", metavar="N", min=1, max=bounds.MAX_CALLS, help="So many more calls of models."),
    ] = None,
    tool_calls: Annotated[
        int | None,
        typer.Option("--tool-calls", metavar="N", min=1, max=bounds.MAX_CALLS, help="So many more calls of tools."),
    ] = None,
    wall: Annotated[
        str, typer.Option("--wall", metavar="TIME", help="Time of all its calls together: 90s, 2h, 1d.")
    ] = "",
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """Let a task spend so much more than its limits say; halted at its ceiling, it goes on where it stands, at once.

    Nothing that was done is done again, and nothing is paid twice, but for a model's answer that was cut in the middle.
    For operators of the task's tenant. It may go past what the tenant allows one task, not past what it allows a day. A
    task that nobody tops up ends at its deadline.

    Examples: bulkhead topup t3k2 --usd 0.50 --reason "worth it" · bulkhead topup t3k2 --tokens 20000 --reason "long"
    """
    from bulkhead_cli.limits.spending import top_up

    given = {
        "cost_usd_micros": micros(usd),
        "tokens": tokens,
        "model_calls": model_calls,
        "tool_calls": tool_calls,
        "wall_ms": wall_ms(wall),
    }
    named = {unit: value for unit, value in given.items() if value}
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
    where = Where(data, url, api_key, tenant)
    run(top_up(where.target(), task, named, " ".join(reason.split()), as_json=as_json))


def spend(
    by: Annotated[By, typer.Option("--by", help="What to sum by.")] = "agent",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="How far back: 90s, 20m, 1h, 7d; at most 31d.")
    ] = "24h",
    top: Annotated[
        int,
        typer.Option(
            "--top",
            metavar="N",
            min=1,
            max=bounds.MAX_SPEND_ROWS,
            help="So many rows, the dearest; the others come as one sum.",
        ),
    ] = 20,
    data: Data = target.DEFAULT_DATA,
    url: Url = "",
    api_key: ApiKey = "",
    tenant: Tenant = "",
    as_json: Json = False,
) -> None:
    """What a tenant's calls cost, by agent, step, workflow, feature, user, model or task; for operators and auditors.

    A call counts for the time in which it was admitted. Tokens are the provider's own counts; what is reserved for
    calls that have not settled yet stands apart, as held. Sums are made of the stored facts.

    Examples: bulkhead spend --by agent --since 1h · bulkhead spend --by user --since 7d --json
    """
    from bulkhead_cli.limits.spending import show_spending

    found = SINCE.fullmatch(since)
    if found is None or not 1 <= int(since[:-1]) * UNITS_MS[since[-1]] // 1000 <= bounds.MAX_SPEND_S:
        output.stop(Stop(Exit.USAGE, f"--since {since[:40]!r} is no time", "write 90s, 20m, 1h or 7d, at most 31d"))
    where = Where(data, url, api_key, tenant)
    run(show_spending(where.target(), by, since, top, as_json=as_json))


def checked(of: str) -> str:
    """A target; ends the command for what is none."""
    if TARGET.fullmatch(of) is None:
        near = meant(of.partition("/")[0], KINDS)
        output.stop(Stop(Exit.USAGE, f"{of[:80]!r} is nothing that has limits{near}", f"there are: {FORMS}"))
    return of


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
