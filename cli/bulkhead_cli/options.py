"""Options that several commands share."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from bulkhead_cli.output import CommandError, Exit
from bulkhead_cli.target import DEFAULT_DATA, GatewayTarget, find_target
from bulkhead_contracts import bounds, subjects

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
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON document; commands that report progress (watch, --watch, replay --all, backup, restore) "
        "print one per line.",
    ),
]

OwnConfig = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="DIR",
        envvar="BULKHEAD_CONFIG_DIR",
        help="Folder of your identities, tenants, policies and tools, added to those of the mesh "
        "(docs/how-to/files-of-your-own.md).",
    ),
]
Since = Annotated[str, typer.Option("--since", metavar="TIME", help="Period up to now: 90s, 20m, 1h, 7d; at most 31d.")]
_SINCE = re.compile(r"[1-9]\d{0,6}[smhd]", re.ASCII)
UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def since_s(text: str) -> int:
    """Seconds of `90s`, `7d`. Raises CommandError for what is no period."""
    period_s = int(text[:-1]) * UNITS_MS[text[-1]] // 1000 if _SINCE.fullmatch(text) else 0
    if not 1 <= period_s <= bounds.MAX_SPEND_S:
        raise CommandError(Exit.USAGE, f"--since {text[:40]!r} is no time", "write 90s, 20m, 1h or 7d, at most 31d")
    return period_s


@dataclass(frozen=True, slots=True)
class Options:
    """Base of options that several commands share: a parameter of such a type stands for its fields.

    An option of a group of commands may stand before the subcommand as well as after it, which counts more.
    """


@dataclass(frozen=True, slots=True)
class BrokerOptions(Options):
    """A mesh of this machine, whose broker the command asks under the operator's key."""

    data: Data = DEFAULT_DATA
    as_json: Json = False


@dataclass(frozen=True, slots=True)
class BrokerOrGatewayOptions(BrokerOptions):
    """A mesh of this machine, or a gateway."""

    url: Annotated[
        str,
        typer.Option(
            "--url",
            envvar="BULKHEAD_URL",
            help="Address of a gateway.",
            show_default="the gateway of the mesh in DIR",
            rich_help_panel=MESH,
        ),
    ] = ""
    api_key: Annotated[
        str,
        typer.Option(
            "--api-key",
            envvar="BULKHEAD_API_KEY",
            help="API key or JWT.",
            rich_help_panel=MESH,
            show_default="the key in DIR/credentials.json",
        ),
    ] = ""

    def remote_target(self) -> GatewayTarget | None:
        """The gateway, when it is named; otherwise the operator's key is used. Raises CommandError."""
        return find_target(self.data, self.url, self.api_key) if self.url or self.api_key else None


@dataclass(frozen=True, slots=True)
class GatewayOptions(BrokerOrGatewayOptions):
    """A gateway, and a tenant there."""

    tenant: Annotated[
        str,
        typer.Option(
            "--tenant",
            metavar="T",
            help="Tenant whose key in DIR/credentials.json is used. The tenant's first submission creates the key.",
            rich_help_panel=MESH,
        ),
    ] = ""

    def gateway_target(self, *, may_make_key: bool = False) -> GatewayTarget:
        """The gateway that is meant. Raises CommandError when something is missing."""
        return find_target(self.data, self.url, self.api_key, self.tenant, may_make_key=may_make_key)


DoorsUrl = Annotated[
    str,
    typer.Option(
        "--doors-url",
        metavar="URL",
        envvar="BULKHEAD_DOORS_URL",
        help="Address of the doors.",
        rich_help_panel=MESH,
        show_default="of the mesh in DIR",
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
        show_default="those of the tenant that only read, and what its policy or --plan names",
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
        "--require-complete",
        help="Exit with 1 also when the task succeeded with a degraded, incomplete or partial answer.",
    ),
]


def task_id(text: str) -> str:
    """A task's id, which goes into addresses. Raises typer.BadParameter."""
    try:
        return subjects.check_token(text)
    except subjects.SubjectError:
        raise typer.BadParameter(f"{text[:80]!r} is no task's id; `bulkhead tasks` lists them") from None


TaskId = Annotated[str, typer.Argument(metavar="TASK", help="Id of the task.", callback=task_id)]


def duration_s(text: str) -> float:
    """Seconds of `90`, `90s`, `2m`, `1h30m`, `2d`. Raises typer.BadParameter."""
    match = _DURATION.fullmatch(text.strip())
    if not match or not any(match.groups()):
        raise typer.BadParameter(f"{text!r} is no duration; write 90s, 2m, 1h30m or 2d", param_hint="--deadline")
    days, hours, minutes, seconds = match.groups()
    total = (int(days or 0) * 24 + int(hours or 0)) * HOUR_S + int(minutes or 0) * MINUTE_S + float(seconds or 0)
    if not 0 < total <= 7 * 24 * HOUR_S:
        raise typer.BadParameter("a deadline lies between a moment and seven days from now", param_hint="--deadline")
    return total


def parse_dollars(text: str) -> float:
    """Dollars as people write them. Raises typer.BadParameter."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text[:40]!r} is no amount of dollars; write it as 0.50") from None


def reason_of(text: str, most: int = 1_000) -> str:
    """The text of --reason on one line. Raises CommandError for none at all and for a long one."""
    if not text.strip() or len(text) > most:
        raise CommandError(Exit.USAGE, f"--reason has {len(text.strip())} characters", f"say why in 1 to {most:,}")
    return " ".join(text.split())


def validate_limit_usd(value: float | None) -> float | None:
    """A money limit. Raises typer.BadParameter for what is no amount."""
    if value is not None and not (math.isfinite(value) and value >= SMALLEST_LIMIT_USD):
        raise typer.BadParameter(
            "a limit is an amount of dollars, for example 0.50; with nothing no task could begin",
            param_hint="--limit-usd",
        )
    return value
