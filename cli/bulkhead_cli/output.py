"""Exit codes, errors and JSON of the command line: one line per error, one document per answer."""

import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import typer

from bulkhead.text.plain_text import escape_controls
from bulkhead.text.plain_text import one_line as one_line

if TYPE_CHECKING:
    from bulkhead.client.errors import Refused


class Exit(IntEnum):
    """Exit codes of commands."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    UNANSWERED = 5


EXIT_CODES = (
    "Exit codes: 0 ok · 1 the task failed, or a check or replay found something · 2 wrong usage or an unknown id · "
    "3 the mesh cannot be reached · 4 the mesh refused · 5 the task succeeded, and does not answer what was asked"
)


Done = Exit | None
Work = Coroutine[Any, Any, Done] | Done
"""The work of a command, and the exit code that it ends with."""


class CommandError(Exception):
    """Ends the command: what happened, what to do, and the exit code. name: the error's code for programs."""

    def __init__(self, code: Exit, what: str, hint: str = "", name: str = "") -> None:
        super().__init__(what)
        self.code = code
        self.hint = hint
        self.name = name or code.name.lower()


def print_json(value: object) -> None:
    """One JSON document on one line."""
    sys.stdout.write(json_line(value) + "\n")
    sys.stdout.flush()


def json_line(value: object) -> str:
    """One document; controls that JSON leaves as they are, too, are written out."""
    return escape_controls(json.dumps(value, ensure_ascii=False, default=str))


class ErrorFormat:
    """Form of errors: set once per invocation, before the options are read, so that wrong usage obeys it too."""

    as_json = False


def wants_json(words: Sequence[str]) -> bool:
    """True if --json stands among the words of a command line, before a `--`."""
    words = list(words)
    return "--json" in words[: words.index("--") if "--" in words else None]


def print_error(error: CommandError) -> None:
    """Say the error on one line of standard error; with --json, as one document."""
    if ErrorFormat.as_json:
        body = {"code": error.name, "what": str(error), "hint": error.hint}
        sys.stderr.write(json.dumps({"error": body}, ensure_ascii=True) + "\n")
        sys.stderr.flush()
        return
    from bulkhead_cli.screen import err

    err.print("error: ", style="bold red", end="")
    err.print(str(error), markup=False, end=f" — {error.hint}\n" if error.hint else "\n")


def run_work(work: Callable[[], Work]) -> None:
    """Do a command's work and end with its exit code; errors that are expected become one line and an exit code."""
    try:
        done = work()
        code = _run_to_end(done) if isinstance(done, Coroutine) else done
    except Exception as error:
        if (command_error := _as_command_error(error)) is None:
            raise
        print_error(command_error)
        code = command_error.code
    if code:
        raise typer.Exit(int(code))


def _run_to_end(work: Coroutine[Any, Any, Done]) -> Done:
    import asyncio

    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        if ErrorFormat.as_json:
            print_error(CommandError(Exit.FAILED, "stopped by a signal", "the mesh goes on", name="interrupted"))
        else:
            from bulkhead_cli.screen import err

            err.print("stopped watching; the mesh continues", style="dim")
        raise typer.Exit(130) from None


def _as_command_error(error: Exception) -> CommandError | None:
    """An expected error, for people at a command line; None for any other."""
    if isinstance(error, CommandError):
        return error
    from bulkhead.client.errors import MeshError, Refused, Unfit, Unreachable

    match error:
        case Refused():
            return explain_refusal(error)
        case Unfit():
            return CommandError(Exit.USAGE, str(error), error.hint)
        case MeshError():
            return CommandError(
                Exit.UNREACHABLE if isinstance(error, Unreachable) else Exit.REFUSED, str(error), error.hint
            )
    from bulkhead.bus.port import BusError
    from bulkhead.journal.history import UnknownTask

    match error:
        case UnknownTask():
            return CommandError(Exit.USAGE, str(error), error.hint)
        case BusError():
            return CommandError(Exit.UNREACHABLE, f"the broker: {error}", "`bulkhead doctor` looks at it")
    return None


HINTS = {
    "invalid_document": "give it some text, or leave it out",
    "too_large": "split it into several documents",
    "unauthorized": "check --api-key or BULKHEAD_API_KEY; keys of a local mesh are in DIR/credentials.json",
    "not_found": "`bulkhead tasks` lists the ids",
    "already_ended": "`bulkhead show TASK` has its result",
}
MISSING_HINTS = {"document": "`bulkhead documents` lists the names", "session": "`bulkhead sessions` lists the ids"}
"""Hints for people at a command line; the gateway's own hints are for programmers of HTTP."""


def explain_refusal(error: "Refused", about: str = "") -> CommandError:
    """A refusal of the mesh, for people at a command line. Wrong usage: an id that is not there, a value that does not
    fit its option."""
    code = Exit.USAGE if error.code in ("not_found", "invalid_query") else Exit.REFUSED
    problem = f"{about}: {error}" if about else str(error)
    missing = str(error.problem.get("title")).rpartition(" ")[2] if error.code == "not_found" else ""
    hint = MISSING_HINTS.get(missing) or HINTS.get(error.code, error.hint)
    return CommandError(code, problem, hint, name=error.code)
