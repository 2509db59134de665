"""Options that several commands share."""

import math
import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from bulkhead_cli.target import DEFAULT_DATA
from bulkhead_contracts import subjects

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", re.ASCII)
HOUR_S, MINUTE_S = 3600, 60
SMALLEST_LIMIT_USD = 0.000_001
"""Money is counted in micro dollars."""

MESH = "Mesh and credentials"
Form = Literal["auto", "bulkhead", "rows", "otel", "openai"]
"""Formats of recorded runs (docs/how-to/analyze.md)."""

Data = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="DIR",
        envvar="BULKHEAD_DATA",
        help="Directory of a local mesh, made by `bulkhead up`.",
        show_default=str(DEFAULT_DATA),
        rich_help_panel=MESH,
    ),
]
SubData = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Directory of a local mesh.", rich_help_panel=MESH)
]
Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="BULKHEAD_URL",
        help="Address of a gateway.",
        show_default="the gateway of the mesh in DIR",
        rich_help_panel=MESH,
    ),
]
ApiKey = Annotated[
    str,
    typer.Option(
        "--api-key",
        envvar="BULKHEAD_API_KEY",
        help="API key or JWT.",
        rich_help_panel=MESH,
        show_default="the key in DIR/credentials.json",
    ),
]
Tenant = Annotated[
    str,
    typer.Option(
        "--tenant",
        metavar="T",
        help="Tenant whose key in DIR/credentials.json is used. The tenant's first submission creates the key.",
        rich_help_panel=MESH,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON document; commands that report progress (watch, --watch, replay --all, backup, restore) "
        "print one per line.",
    ),
]
TaskTenant = Annotated[
    str, typer.Option("--tenant", metavar="T", help="Tenant of the task, when several tenants have a task of this id.")
]
PlanFile = Annotated[
    Path | None,
    typer.Option(
        "--plan",
        metavar="FILE",
        help="Plan to carry out instead of one that a model makes: a JSON object with steps, each with id, title, "
        "instruction, acceptance and, optionally, tools, inputs, role. A plan with several last steps gets one more, "
        "`answer`, in which a model composes the answer from their results.",
    ),
]
ToolNames = Annotated[
    list[str] | None,
    typer.Option(
        "--tool",
        metavar="TOOL",
        help="Tool that the task may use; may be repeated.",
        show_default="all tools of the tenant",
    ),
]
IdempotencyKey = Annotated[
    str,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        help="Key of this submission: another one with the same key returns the same task and starts no second one. "
        "For programs that repeat a submission whose outcome they do not know.",
    ),
]
RequireComplete = Annotated[
    bool,
    typer.Option(
        "--require-complete", help="Exit with 1 also when the task succeeded with a degraded or incomplete answer."
    ),
]


def task_id(text: str) -> str:
    """A task's id, which goes into addresses. Raises typer.BadParameter."""
    try:
        return subjects.token(text)
    except subjects.SubjectError:
        raise typer.BadParameter(f"{text[:80]!r} is no task's id; `bulkhead tasks` lists them") from None


TaskId = Annotated[str, typer.Argument(metavar="TASK", help="Id of the task.", callback=task_id)]


def duration_s(text: str) -> float:
    """Seconds of `90`, `90s`, `2m`, `1h30m`, `2d`. Raises typer.BadParameter."""
    match = _DURATION.fullmatch(text.strip())
    if not match or not any(match.groups()):
        raise typer.BadParameter(f"{text!r} is no duration; write 90s, 2m, 1h30m or 2d", param_hint="--deadline")
    days, hours, minutes, rest = match.groups()
    total = (int(days or 0) * 24 + int(hours or 0)) * HOUR_S + int(minutes or 0) * MINUTE_S + float(rest or 0)
    if not 0 < total <= 7 * 24 * HOUR_S:
        raise typer.BadParameter("a deadline lies between a moment and seven days from now", param_hint="--deadline")
    return total


def amount(text: str) -> float:
    """Dollars as people write them. Raises typer.BadParameter."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text[:40]!r} is no amount of dollars; write it as 0.50") from None


def dollars(value: float | None) -> float | None:
    """A money limit. Raises typer.BadParameter for what is no amount."""
    if value is not None and not (math.isfinite(value) and value >= SMALLEST_LIMIT_USD):
        raise typer.BadParameter(
            "a limit is an amount of dollars, for example 0.50; with nothing no task could begin",
            param_hint="--limit-usd",
        )
    return value
