"""`bulkhead models list`: the routes of a mesh of this machine, or those that this environment gives a model gateway.

In: a data directory. Out: a table or JSON.
"""

import os
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from bulkhead.text.validation_errors import suggest_name
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.screen import err, out, print_whole
from bulkhead_cli.target import read_json

JUDGE = "judge"
Row = dict[str, Any]


def show_routes(data: Path | None, *, as_json: bool) -> None:
    """Print the routes. Raises CommandError when they cannot be known."""
    routes, where = routes_of(data), f"of the mesh in {data}"
    if not routes:
        routes, where = _of_environment(data), "of this environment; no mesh of this machine tells others"
    if as_json:
        print_json(routes)
        return
    table = Table(box=None, pad_edge=False)
    for title in ("route", "model", "region", "context", "in / cached / out, $ per Mtok", "price of", "fallback"):
        table.add_column(title, no_wrap=True, justify="right" if title == "context" else "left")
    for row in routes:
        table.add_row(
            escape(row["route"]),
            escape(name_of(row)),
            escape(row["region"] or "-"),
            f"{row['context_tokens']:,}" if row["context_tokens"] else "-",
            *_price_cells(row["price"]),
            escape(", ".join(name_of(fallback) for fallback in row["fallback"]) or "-"),
        )
    print_whole(table)
    err.print(f"routes {where}", style="dim", markup=False)
    judged_routes = [row["route"] for row in routes if row["route"] != JUDGE]
    if self_judging := self_judging_models(routes, judged_routes):
        out.print(
            f"{', '.join(self_judging)} judges its own answers: set BULKHEAD_JUDGE_MODEL", style="yellow", markup=False
        )


def routes_of(data: Path | None) -> list[Row]:
    """Rows of the mesh in a directory; [] where it tells none."""
    routes = read_json(data / "mesh.json").get("routes") if data is not None else None
    return routes if isinstance(routes, list) else []


def check_known(rows: list[Row], routes: tuple[str, ...]) -> None:
    """Raises CommandError for a route that a mesh whose routes are known does not have."""
    known_routes = [row["route"] for row in rows]
    if rows and (foreign := [route for route in routes if route not in known_routes]):
        raise CommandError(
            Exit.USAGE,
            f"the model gateway has no route {', '.join(foreign)}{suggest_name(foreign[0], known_routes)}",
            f"there are: {', '.join(known_routes)}; BULKHEAD_ROUTES adds one",
            name="unknown_route",
        )


def self_judging_models(rows: list[Row], routes: list[str]) -> list[str]:
    """Models of these routes that judge their own answers."""
    models = {row["route"]: name_of(row) for row in rows}
    judge = models.get(JUDGE)
    return sorted({models[route] for route in routes if route in models and models[route] == judge})


def name_of(row: Row) -> str:
    """`provider/model`, as labels have it."""
    return f"{row['provider']}/{row['model']}"


def _price_cells(price: Row | None) -> tuple[str, str]:
    if price is None:
        return "-", "unknown"
    amounts = " / ".join(f"{price[f'{kind}_usd_per_mtok']:g}" for kind in ("input", "cached_input", "output"))
    return amounts, f"{price['source']}{', ' + price['as_of'] if price['as_of'] else ''}"


def _of_environment(data: Path | None) -> list[Row]:
    from bulkhead.runtime.process.main import setting_problems
    from bulkhead_infra.local.environment import names_provider
    from bulkhead_services.model_gateway.routing import route_rows
    from bulkhead_services.model_gateway.settings import Settings

    if not names_provider(os.environ):
        raise CommandError(
            Exit.UNREACHABLE,
            f"no mesh {f'in {data} ' if data else ''}tells its routes here, and this environment names no provider",
            "name a mesh of this machine with --data, or set the variables that its model gateway has",
        )
    try:
        return route_rows.list_routes(Settings())
    except ValueError as error:
        raise CommandError(Exit.USAGE, "; ".join(setting_problems(error, Settings)), "correct the variables") from error
