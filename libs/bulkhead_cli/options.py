"""Options that several commands share."""

import math
import re
from pathlib import Path
from typing import Annotated

import typer

from bulkhead_cli.target import DEFAULT_DATA
from bulkhead_contracts import subjects

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", re.ASCII)
HOUR_S, MINUTE_S = 3600, 60
SMALLEST_LIMIT_USD = 0.000_001
"""Money is counted in micro dollars."""

Data = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="DIR",
        envvar="BULKHEAD_DATA",
        help="Directory of a local mesh, as `bulkhead up` made it.",
        show_default=str(DEFAULT_DATA),
    ),
]
SubData = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Directory of a local mesh.")]
Url = Annotated[
    str, typer.Option("--url", envvar="BULKHEAD_URL", help="Address of a gateway; without it, that of the mesh in DIR.")
]
ApiKey = Annotated[
    str,
    typer.Option(
        "--api-key", envvar="BULKHEAD_API_KEY", help="API key or JWT; without it, the one in DIR/credentials.json."
    ),
]
Tenant = Annotated[
    str,
    typer.Option(
        "--tenant", metavar="T", help="Whose key of DIR/credentials.json to use; the first submission makes it."
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print JSON: one document; where something is followed or goes through many (watch, --watch, "
        "replay --all, backup, restore), one per line, as it comes.",
    ),
]
TaskTenant = Annotated[
    str, typer.Option("--tenant", metavar="T", help="Whose task it is, where several tenants have one of this id.")
]


PlanFile = Annotated[
    Path | None,
    typer.Option(
        "--plan",
        metavar="FILE",
        help="Have these steps carried out, and let no model plan: a JSON object with steps, "
        "each with id, title, instruction, acceptance, and, if wanted, tools, inputs, role. Where it ends in several, "
        "one "
        "more is added, `answer`, in which a model composes the answer from theirs.",
    ),
]
ToolNames = Annotated[
    list[str] | None,
    typer.Option(
        "--tool",
        metavar="TOOL",
        help="Let the task use this tool; may be repeated.",
        show_default="all of the tenant's",
    ),
]
IdempotencyKey = Annotated[
    str,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        help="A repeat under the same key is the same task, and no second one. For "
        "programs that call this again when they do not know whether it went through.",
    ),
]


RequireComplete = Annotated[
    bool,
    typer.Option(
        "--require-complete", help="End with 1, too, when the task succeeded and its answer is degraded or incomplete."
    ),
]


def task_id(text: str) -> str:
    """A task's id, which goes into addresses. Raises typer.BadParameter."""
    try:
        return subjects.token(text)
    except subjects.SubjectError:
        raise typer.BadParameter(f"{text[:80]!r} is no task's id; `bulkhead tasks` lists them") from None


TaskId = Annotated[str, typer.Argument(metavar="TASK", help="The task's id.", callback=task_id)]


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
