"""How a command line is taken: before any option is read, and when it cannot be read.

In: the words. Out: the commands' own work, or wrong usage as one line (one document with --json) and exit code 2.
"""

import errno
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial, wraps
from inspect import Parameter
from typing import Any, get_type_hints

import typer
from typer.core import TyperGroup
from typer.models import CommandFunctionType

from bulkhead_cli.options import Options, SubData
from bulkhead_cli.output import EXIT_CODES, Exit, Speech, Stop, run, say, wants_json

UsageError: Any = typer.BadParameter.__mro__[1]
"""UsageError of the click that typer is built on; typer exports only this subclass."""

AT_THE_BROKER = (("doctor",), ("dead-letters", "redrive"))
"""Words of commands that no gateway answers."""
ELSEWHERE = (
    "run it there, with --data DIR; over HTTP `show` prints the state of a task, `why` its story, `watch` its events"
)

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Commands(TyperGroup):
    """The top of the `bulkhead` command."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run one command line; ends the process when standalone."""
        words = list(sys.argv[1:] if args is None else args)
        Speech.as_json = wants_json(words)
        # Bytes that are no UTF-8 arrive as lone surrogates, which nothing behind this can encode.
        unreadable = next((number for number, word in enumerate(words, 1) if not _is_text(word)), 0)
        if unreadable:
            say(Stop(Exit.USAGE, f"argument {unreadable} is not UTF-8 text", "convert it, for example with iconv"))
            sys.exit(int(Exit.USAGE))
        named = next((one for one in AT_THE_BROKER if words[:1] == [one[0]] and {*one} <= {*words}), None)
        if named and any(word.startswith(("--url", "--api-key")) for word in words):
            say(
                Stop(
                    Exit.USAGE,
                    f"{' '.join(named)} takes no --url and no --api-key: it reads the broker itself, under the "
                    "operator's key, which only the mesh's machine has",
                    ELSEWHERE,
                )
            )
            sys.exit(int(Exit.USAGE))
        words = words or ["--help"]
        try:
            return self._run(words, prog_name, complete_var, standalone_mode, windows_expand_args, **extra)
        except OSError as error:
            if error.errno not in NO_ROOM or error.filename is not None:
                raise
            with suppress(OSError):  # What is still held back would fail once more, at the very end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            say(
                Stop(
                    Exit.FAILED,
                    f"the output cannot be written: {error.strerror}",
                    "free space where the output goes; what the command did is kept",
                )
            )
            sys.exit(int(Exit.FAILED))

    def _run(
        self,
        words: Sequence[str],
        prog_name: str | None,
        complete_var: str | None,
        standalone_mode: bool,
        windows_expand_args: bool,
        **extra: Any,
    ) -> Any:
        if not (Speech.as_json and standalone_mode):
            return super().main(words, prog_name, complete_var, standalone_mode, windows_expand_args, **extra)
        try:
            code = super().main(words, prog_name, complete_var, False, windows_expand_args, **extra)
        except UsageError as error:
            say(Stop(Exit.USAGE, error.format_message(), "see --help"))
            code = error.exit_code
        except typer.Abort:
            say(Stop(Exit.FAILED, "stopped by a signal", name="interrupted"))
            code = int(Exit.FAILED)
        sys.exit(code if isinstance(code, int) else 0)


class Group(typer.Typer):
    """Commands whose parameters may be `Options`, and whose expected errors end them with a line and an exit code.

    The callback of a group runs when no subcommand is named; its options hold for subcommands, too.
    """

    shares = False
    """Whether the callback has options that subcommands inherit."""

    def command(self, name: str | None = None, **more: Any) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """See Typer."""

        def add(work: CommandFunctionType) -> CommandFunctionType:
            super(Group, self).command(name, epilog=EXIT_CODES, **more)(_prepared(work, below=self.shares))
            return work

        return add

    def callback(self, **more: Any) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """See Typer."""

        def add(work: CommandFunctionType) -> CommandFunctionType:
            kinds = inspect.signature(work, eval_str=True).parameters.values()
            self.shares = any(_is_options(own.annotation) for own in kinds)
            super(Group, self).callback(**more)(_prepared(work))
            return work

        return add


def _prepared(work: Callable[..., Any], *, below: bool = False) -> Callable[..., None]:
    """The command as typer takes it. below: it belongs to a group, whose options it inherits."""
    parameters: list[Parameter] = []
    groups: dict[str, type[Options]] = {}
    names = inspect.signature(work, eval_str=True).parameters
    for own in names.values():
        if not _is_options(own.annotation):
            parameters += [own] if own.name != "context" else []
            continue
        groups[own.name] = own.annotation
        hints = get_type_hints(own.annotation, include_extras=True)
        for option in fields(own.annotation):
            inherited = below and option.name == "data"
            hint, default = (SubData, None) if inherited else (hints[option.name], option.default)
            parameters.append(Parameter(option.name, Parameter.KEYWORD_ONLY, default=default, annotation=hint))

    @wraps(work)
    def call(context: typer.Context, **given: Any) -> None:
        for name, kind in groups.items():
            values = {option.name: given.pop(option.name) for option in fields(kind)}
            if below and context.obj is not None:
                values = {option: value or getattr(context.obj, option, value) for option, value in values.items()}
            given[name] = kind(**values)
            if context.invoked_subcommand is not None:
                context.obj = given[name]
        given |= {"context": context} if "context" in names else {}
        if context.invoked_subcommand is None:
            run(partial(work, **given))

    parameters = [own.replace(kind=Parameter.KEYWORD_ONLY) for own in parameters]
    above = Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context)
    call.__annotations__ = {own.name: own.annotation for own in (above, *parameters)}
    call.__signature__ = inspect.Signature([above, *parameters])  # type: ignore[attr-defined]
    return call


def _is_options(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Options)


def flow_helps(app: typer.Typer) -> None:
    """Join the lines of each paragraph in the helps of all commands: only the terminal's width breaks them."""
    for command in app.registered_commands:
        command.help = _flowing(command.help or inspect.getdoc(command.callback))
    if app.registered_callback is not None and app.registered_callback.callback is not None:
        app.registered_callback.help = _flowing(inspect.getdoc(app.registered_callback.callback))
    for group in app.registered_groups:
        if group.typer_instance is not None:
            flow_helps(group.typer_instance)


def _flowing(text: str | None) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in (text or "").split("\n\n"))


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
