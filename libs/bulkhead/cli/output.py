"""What the command line says and how it ends: plain without a terminal, one line per error, documented exit codes."""

import asyncio
import json
import os
import sys
from collections.abc import Coroutine
from enum import IntEnum
from typing import Any, NoReturn, TextIO, TypeVar

import typer
from rich.console import Console

T = TypeVar("T")


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4


EXIT_CODES = (
    "Exit codes: 0 ok · 1 the task failed, or a check or replay found something · 2 wrong usage · "
    "3 the mesh cannot be reached · 4 the mesh refused"
)


class Stop(Exception):
    """Ends the command: what happened, what to do, and the exit code."""

    def __init__(self, code: Exit, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.code = code
        self.hint = hint


PIPE_WIDTH = 200
"""Columns where there is no terminal to ask, unless COLUMNS says."""


def _width(stream: TextIO) -> int | None:
    return None if stream.isatty() or os.environ.get("COLUMNS") else PIPE_WIDTH


out = Console(soft_wrap=True, highlight=False, width=_width(sys.stdout))
err = Console(stderr=True, soft_wrap=True, highlight=False, width=_width(sys.stderr))


def print_json(value: object) -> None:
    """One JSON document on one line."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def stop(error: Stop) -> NoReturn:
    """Say the error on one line and exit."""
    err.print("error: ", style="bold red", end="")
    err.print(str(error), markup=False, end=f" — {error.hint}\n" if error.hint else "\n")
    raise typer.Exit(int(error.code))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work; errors that are expected become one line and an exit code."""
    from bulkhead.bus.port import BusError
    from bulkhead.client.errors import MeshError, Refused, Unreachable

    try:
        return asyncio.run(work)
    except Stop as error:
        stop(error)
    except Unreachable as error:
        stop(Stop(Exit.UNREACHABLE, str(error), error.hint))
    except Refused as error:
        stop(Stop(Exit.REFUSED, str(error), error.hint))
    except MeshError as error:
        stop(Stop(Exit.REFUSED, str(error), error.hint))
    except BusError as error:
        stop(Stop(Exit.UNREACHABLE, f"the broker: {error}", "`bulkhead doctor` looks at it"))
    except KeyboardInterrupt:
        err.print("stopped watching; the mesh goes on", style="dim")
        raise typer.Exit(130) from None


def money(micros: int) -> str:
    """Dollars, with as many digits as a small amount needs."""
    dollars = micros / 1_000_000
    return f"${dollars:.2f}" if dollars >= 1 else f"${dollars:.6f}".rstrip("0").ljust(5, "0")


def seconds(milliseconds: float) -> str:
    """A duration as people say it."""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    minutes, rest = divmod(round(milliseconds / 1000), 60)
    return f"{minutes} min {rest} s"


def clock(unix_ms: int) -> str:
    """Local date and time."""
    from datetime import datetime

    return datetime.fromtimestamp(unix_ms / 1000).strftime("%Y-%m-%d %H:%M:%S") if unix_ms else "-"
