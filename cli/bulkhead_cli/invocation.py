"""Start of a command line: before any option is read, and when it cannot be read.

In: the words. Out: the commands' own work, or wrong usage as one line (one document with --json) and exit
code 2.
"""

import errno
import inspect
import os
import sys
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial, wraps
from importlib import import_module
from inspect import Parameter
from typing import Any, ClassVar, NamedTuple, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command
from typer.models import CommandFunctionType

from bulkhead_cli.completion import VARIABLE
from bulkhead_cli.options import Options, SubData
from bulkhead_cli.output import EXIT_CODES, CommandError, ErrorFormat, Exit, print_error, run_work, wants_json

UsageError: Any = typer.BadParameter.__mro__[1]
"""UsageError of the click that typer is built on; typer exports only this subclass."""

AT_THE_BROKER = (("doctor",), ("dead-letters", "redrive"))
"""Words of commands that no gateway answers."""
ELSEWHERE = (
    "run it there, with --data DIR; over HTTP `show` prints the state of a task, `why` its story, `watch` its events"
)

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class CommandRow(NamedTuple):
    """A command whose module is imported when it runs. place: `module:name` of its function, or of its group; summary:
    the first paragraph of its help."""

    name: str
    place: str
    summary: str
    panel: str = ""


class LazyCommands(MutableMapping[str, Any]):
    """Commands by name; each is built when it is looked up."""

    def __init__(self, rows: Sequence[CommandRow]) -> None:
        self._rows = {row.name: row for row in rows}
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = _build_command(self._rows[name])
        return self._built[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._built[name] = command

    def __delitem__(self, name: str) -> None:
        del self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def _build_command(row: CommandRow) -> Any:
    module, _, name = row.place.partition(":")
    work = getattr(import_module(f"bulkhead_cli.{module}"), name)
    group = work if isinstance(work, typer.Typer) else CommandGroup()
    if group is not work:
        group.command(row.name)(work)
    flow_helps(group)
    command: Any = get_command(group)
    command.name, command.rich_help_panel = row.name, row.panel
    return command


class MainCommandGroup(TyperGroup):
    """The top of the `bulkhead` command."""

    rows: ClassVar[tuple[CommandRow, ...]] = ()

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: MutableMapping[str, Any] = LazyCommands(self.rows)

    def list_commands(self, ctx: Any) -> list[str]:
        """See TyperGroup."""
        return list(self.commands)

    def get_help_option(self, ctx: Any) -> Any:
        """See TyperGroup. Without a default its value would be parsed, which takes an import of pydantic."""
        if (option := super().get_help_option(ctx)) is not None:
            option.default = False
        return option

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """See TyperGroup."""
        with self._only_summaries():
            super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """See TyperGroup."""
        with self._only_summaries():
            return super().shell_complete(ctx, incomplete)

    @contextmanager
    def _only_summaries(self) -> Iterator[None]:
        """A list of the commands needs none of them."""
        commands = self.commands
        self.commands = {
            row.name: TyperCommand(row.name, help=row.summary, rich_help_panel=row.panel) for row in self.rows
        }
        try:
            yield
        finally:
            self.commands = commands

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
        if VARIABLE in os.environ:
            from typer._completion_classes import completion_init

            completion_init()
        ErrorFormat.as_json = wants_json(words)
        # Bytes that are no UTF-8 arrive as lone surrogates, which nothing behind this can encode.
        unreadable = next((number for number, argument in enumerate(words, 1) if not _is_text(argument)), 0)
        if unreadable:
            print_error(
                CommandError(
                    Exit.USAGE, f"argument {unreadable} is not UTF-8 text", "convert it, for example with iconv"
                )
            )
            sys.exit(int(Exit.USAGE))
        named = next(
            (
                command_words
                for command_words in AT_THE_BROKER
                if words[:1] == [command_words[0]] and {*command_words} <= {*words}
            ),
            None,
        )
        if named and any(argument.startswith(("--url", "--api-key")) for argument in words):
            print_error(
                CommandError(
                    Exit.USAGE,
                    f"{' '.join(named)} takes no --url and no --api-key: it reads the broker itself, under the "
                    "operator's key, which only the mesh's machine has",
                    ELSEWHERE,
                )
            )
            sys.exit(int(Exit.USAGE))
        words = words or ["--help"]
        try:
            return self._run_with_json_errors(
                words, prog_name, complete_var or VARIABLE, standalone_mode, windows_expand_args, **extra
            )
        except OSError as error:
            if error.errno not in NO_ROOM or error.filename is not None:
                raise
            with suppress(OSError):  # What is still held back would fail once more, at the very end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            print_error(
                CommandError(
                    Exit.FAILED,
                    f"the output cannot be written: {error.strerror}",
                    "free space where the output goes; what the command did is kept",
                )
            )
            sys.exit(int(Exit.FAILED))

    def _run_with_json_errors(
        self,
        words: Sequence[str],
        prog_name: str | None,
        complete_var: str | None,
        standalone_mode: bool,
        windows_expand_args: bool,
        **extra: Any,
    ) -> Any:
        if not (ErrorFormat.as_json and standalone_mode):
            return super().main(words, prog_name, complete_var, standalone_mode, windows_expand_args, **extra)
        try:
            code = super().main(words, prog_name, complete_var, False, windows_expand_args, **extra)
        except UsageError as error:
            print_error(CommandError(Exit.USAGE, error.format_message(), "see --help"))
            code = error.exit_code
        except typer.Abort:
            print_error(CommandError(Exit.FAILED, "stopped by a signal", name="interrupted"))
            code = int(Exit.FAILED)
        sys.exit(code if isinstance(code, int) else 0)


class CommandGroup(typer.Typer):
    """Commands whose parameters may be `Options`, and whose expected errors end them with a line and an exit code.

    The callback of a group runs when no subcommand is named; its options hold for subcommands, too.
    """

    shares = False
    """Whether the callback has options that subcommands inherit."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(add_completion=False, **settings)  # `bulkhead completion` prints the script.

    def command(self, name: str | None = None, **more: Any) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """See Typer."""

        def register_command(work: CommandFunctionType) -> CommandFunctionType:
            super(CommandGroup, self).command(name, epilog=EXIT_CODES, **more)(
                _as_typer_command(work, below=self.shares)
            )
            return work

        return register_command

    def callback(self, **more: Any) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """See Typer."""

        def register_callback(work: CommandFunctionType) -> CommandFunctionType:
            kinds = inspect.signature(work, eval_str=True).parameters.values()
            self.shares = any(_is_options(parameter.annotation) for parameter in kinds)
            super(CommandGroup, self).callback(**more)(_as_typer_command(work))
            return work

        return register_callback


def _as_typer_command(work: Callable[..., Any], *, below: bool = False) -> Callable[..., None]:
    """The command as typer takes it. below: it belongs to a group, whose options it inherits."""
    parameters: list[Parameter] = []
    groups: dict[str, type[Options]] = {}
    names = inspect.signature(work, eval_str=True).parameters
    for parameter in names.values():
        if not _is_options(parameter.annotation):
            parameters += [parameter] if parameter.name != "context" else []
            continue
        groups[parameter.name] = parameter.annotation
        hints = get_type_hints(parameter.annotation, include_extras=True)
        for option in fields(parameter.annotation):
            inherited = below and option.name == "data"
            hint, default = (SubData, None) if inherited else (hints[option.name], option.default)
            parameters.append(Parameter(option.name, Parameter.KEYWORD_ONLY, default=default, annotation=hint))

    @wraps(work)
    def run_command(context: typer.Context, **given: Any) -> None:
        for name, kind in groups.items():
            values = {option.name: given.pop(option.name) for option in fields(kind)}
            if below and context.obj is not None:
                values = {option: value or getattr(context.obj, option, value) for option, value in values.items()}
            given[name] = kind(**values)
            if context.invoked_subcommand is not None:
                context.obj = given[name]
        given |= {"context": context} if "context" in names else {}
        if context.invoked_subcommand is None:
            run_work(partial(work, **given))

    parameters = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters]
    above = Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context)
    run_command.__annotations__ = {parameter.name: parameter.annotation for parameter in (above, *parameters)}
    run_command.__signature__ = inspect.Signature([above, *parameters])  # type: ignore[attr-defined]
    return run_command


def _is_options(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Options)


def flow_helps(app: typer.Typer) -> None:
    """Join the lines of each paragraph in the helps of all commands: only the terminal's width breaks them."""
    for command in app.registered_commands:
        command.help = _join_paragraph_lines(command.help or inspect.getdoc(command.callback))
    if app.registered_callback is not None and app.registered_callback.callback is not None:
        app.registered_callback.help = _join_paragraph_lines(inspect.getdoc(app.registered_callback.callback))
    for group in app.registered_groups:
        if group.typer_instance is not None:
            flow_helps(group.typer_instance)


def _join_paragraph_lines(text: str | None) -> str:
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
