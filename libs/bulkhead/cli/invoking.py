"""How a command line is taken: before any option is read, and when it cannot be read.

In: the words. Out: the commands' own work, or wrong usage as one line (one document with --json) and exit code 2.
"""

import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from bulkhead.cli.output import Exit, Speech, Stop, say, wants_json

UsageError: Any = typer.BadParameter.__mro__[1]
"""Of whichever click typer stands on; it exports only this subclass."""


class Commands(TyperGroup):
    """The top of the `bulkhead` command."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, complete_var: str | None = None,
             standalone_mode: bool = True, **extra: Any) -> Any:
        """Run one command line; ends the process when standalone."""
        words = list(sys.argv[1:] if args is None else args)
        Speech.as_json = wants_json(words)
        # Bytes that are no UTF-8 arrive as lone surrogates, which nothing behind this can encode.
        unreadable = next((number for number, word in enumerate(words, 1) if not _is_text(word)), 0)
        if unreadable:
            say(Stop(Exit.USAGE, f"argument {unreadable} is not UTF-8 text", "convert it, for example with iconv"))
            sys.exit(int(Exit.USAGE))
        words = words or ["--help"]
        if not (Speech.as_json and standalone_mode):
            return super().main(words, prog_name, complete_var, standalone_mode, **extra)
        try:
            code = super().main(words, prog_name, complete_var, standalone_mode=False, **extra)
        except UsageError as error:
            say(Stop(Exit.USAGE, error.format_message(), "see --help"))
            code = error.exit_code
        except typer.Abort:
            say(Stop(Exit.FAILED, "stopped by a signal", name="interrupted"))
            code = int(Exit.FAILED)
        sys.exit(code if isinstance(code, int) else 0)


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def show_version(wanted: bool) -> None:
    """Eager option of the top command."""
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        typer.echo(f"bulkhead {version('bulkhead')}")
    except PackageNotFoundError:
        typer.echo("bulkhead, run from its source")
    raise typer.Exit
