"""`bulkhead models list`, `compare` and `probe`: the arguments of each. `main` adds them to `bulkhead`."""

from pathlib import Path
from typing import Annotated

import typer

from bulkhead_cli.invocation import CommandGroup
from bulkhead_cli.options import GatewayOptions, duration_s, parse_dollars, validate_limit_usd
from bulkhead_cli.output import EXIT_CODES, CommandError, Exit, Work

MAX_REPEAT = 100
MAX_AT_ONCE = 64
COMPARE_USD, PROBE_USD = 1.0, 0.05

models_app = CommandGroup(invoke_without_command=True, rich_markup_mode="rich", epilog=EXIT_CODES)

Routes = Annotated[
    str, typer.Option("--routes", metavar="A,B", help="Routes of the model gateway, separated by commas.")
]
Cases = Annotated[
    Path, typer.Option("--cases", metavar="FILE", help="Cases, each with an objective and checks (YAML or JSONL).")
]
Repeat = Annotated[
    int, typer.Option("--repeat", metavar="N", min=1, max=MAX_REPEAT, help="Runs of each case on each route.")
]
AtOnce = Annotated[
    int,
    typer.Option(
        "--at-once", metavar="N", min=1, max=MAX_AT_ONCE, help="Runs at the same time; more add to latencies."
    ),
]
AtLeast = Annotated[
    float | None,
    typer.Option("--at-least", metavar="SHARE", min=0, max=1, help="Exit with 1 when a route passes less than this."),
]
TotalUsd = Annotated[
    float | None,
    typer.Option("--limit-usd", metavar="USD", parser=parse_dollars, help="Maximum cost of all runs together."),
]
Deadline = Annotated[
    str, typer.Option("--deadline", metavar="TIME", help="Time after which a run ends: 90s, 2m.", show_default="120 s")
]
NoCheck = Annotated[bool, typer.Option("--no-check", help="Skip the checker's judgement of each result.")]
Baseline = Annotated[
    Path,
    typer.Option(
        "--baseline", metavar="FILE", help="File of the answers to compare with; written when there is none yet."
    ),
]
Questions = Annotated[
    Path | None,
    typer.Option(
        "--cases", metavar="FILE", help="Questions in place of the built-in ones.", show_default="five short questions"
    ),
]
Update = Annotated[bool, typer.Option("--update", help="Store the answers of this run as the new baseline.")]


@models_app.callback()
def top(at: GatewayOptions) -> Work:
    """List the routes to models, compare them on cases of your own, or probe them for drift.

    Without a subcommand, the routes are listed.

    Examples: bulkhead models list · bulkhead models compare --cases cases.yaml --routes default,small
    """
    return show(at)


@models_app.command("list")
def show(at: GatewayOptions) -> Work:
    """List the model gateway's routes: model, provider, price with its source and date, context, fallback.

    Of a mesh that was started with [bold]bulkhead up[/bold] the routes are those of its start. Elsewhere they are those
    that this environment would give a model gateway.
    """
    from bulkhead_cli.models.routes import show_routes

    show_routes(None if at.url else at.data, as_json=at.as_json)
    return None


@models_app.command("compare")
def compare(
    cases: Cases,
    routes: Routes,
    at: GatewayOptions,
    repeat: Repeat = 1,
    limit_usd: TotalUsd = COMPARE_USD,
    at_once: AtOnce = 1,
    deadline: Deadline = "",
    at_least: AtLeast = None,
    no_check: NoCheck = False,
) -> Work:
    """Compare routes as [bold]bulkhead eval models[/bold] does, by its earlier name and options.

    Examples: bulkhead models compare --cases cases.yaml --routes default,small --repeat 3 · bulkhead models compare
    --cases cases.jsonl --routes default --at-least 0.9 --limit-usd 2 --json
    """
    from bulkhead_cli.models.compare import RouteComparisonRequest, compare_routes

    request = RouteComparisonRequest(
        cases,
        parse_route_names(routes),
        repeat,
        ceiling_usd_micros(limit_usd),
        at_once,
        deadline_of(deadline),
        at_least,
        check=not no_check,
    )
    return compare_routes(at.gateway_target(may_make_key=True), request, as_json=at.as_json)


@models_app.command("probe")
def probe(
    routes: Routes,
    baseline: Baseline,
    at: GatewayOptions,
    cases: Questions = None,
    limit_usd: TotalUsd = PROBE_USD,
    update: Update = False,
) -> Work:
    """Ask each route a few fixed questions and compare the answers with a baseline; made for a schedule.

    The exit code is 1 when an answer fails a check that it passed before, has few words in common with the stored one,
    or does not come. Spending is counted under the feature "probe". Probe routes with temperature 0.

    Examples: bulkhead models probe --routes default,small --baseline probe.json
    """
    from bulkhead_cli.models.probe import probe_routes

    files = (baseline, cases)
    return probe_routes(
        at.gateway_target(),
        parse_route_names(routes),
        files,
        ceiling_usd_micros(limit_usd),
        update=update,
        as_json=at.as_json,
    )


def parse_route_names(routes: str) -> tuple[str, ...]:
    """Routes of a list. Raises CommandError for none, and for one that is named twice."""
    parsed = tuple(route.strip() for route in routes.split(",") if route.strip())
    if not parsed or len(set(parsed)) != len(parsed):
        raise CommandError(
            Exit.USAGE, f"{routes[:80]!r} is no list of different routes", "name each route once; see models list"
        )
    return parsed


def ceiling_usd_micros(usd: float | None) -> int:
    """Micro dollars of a ceiling. Raises typer.BadParameter."""
    return round((validate_limit_usd(usd) or 0) * 1_000_000)


def deadline_of(text: str) -> float:
    """Seconds. Raises typer.BadParameter."""
    return duration_s(text or "120s")
