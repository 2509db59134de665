"""The tools that this service runs: rows of libs/bulkhead/tools/tools.yaml, and of packs, joined with their functions.

Enters: rows, names of configured settings. Leaves: tools that can check arguments and run. A row without a function
fails at start and not at the first call.
"""

import asyncio
import importlib
import inspect
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass

import jsonschema_rs

from bulkhead.tools.api import Arguments, Failed, Run
from bulkhead.tools.catalog import ToolRow, rows
from bulkhead_contracts.result import Failure
from bulkhead_contracts.tool import ToolSpec

Cut = asyncio.Event | None
"""Ends an attempt at once when it is set; None: let it finish."""
TooLate = Callable[[], Failed | None]
"""Why an attempt must not begin any more; None when it may."""
MAX_ARGUMENT_ERRORS = 5


@dataclass(frozen=True, slots=True)
class Tool:
    """A declared tool with its function."""

    row: ToolRow
    run: Run
    schema: jsonschema_rs.Draft202012Validator

    @property
    def plain(self) -> bool:
        """Whether it is a plain `def run`, which gets a process of its own (process_pool.py)."""
        return not inspect.iscoroutinefunction(self.run)

    @property
    def module(self) -> str:
        """The module of its function."""
        return _module(self.row)

    @property
    def spec(self) -> ToolSpec:
        """The declaration that models and policies see."""
        return self.row.spec

    def read_arguments(self, arguments_json: str) -> Arguments | Failure:
        """Arguments that fit the schema, or what is wrong with them, in words that a model can act on."""
        try:
            arguments = json.loads(arguments_json, parse_constant=_no_constant)
            # JSON can name half a character (\ud800); no request, file or store that a tool uses can hold one.
            json.dumps(arguments, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return self._unfit("the arguments hold half a character (a lone \\ud800 to \\udfff)")
        except (ValueError, RecursionError) as error:
            return self._unfit(f"the arguments are not JSON: {error}")
        if not isinstance(arguments, dict):
            return self._unfit("the arguments must be one JSON object")
        found: list[str] = []
        for unfit in self.schema.iter_errors(arguments):
            where = ".".join(str(part) for part in unfit.instance_path) or "arguments"
            found.append(f"{where}: {unfit.message[:200]}")
            if len(found) == MAX_ARGUMENT_ERRORS:
                break
        return self._unfit("; ".join(found)) if found else arguments

    def _unfit(self, message: str) -> Failure:
        hint = f"send one JSON object that fits {self.spec.parameters_json}"
        return Failure.of("bad_arguments", message, hint)


@dataclass(frozen=True, slots=True)
class Registry:
    """tools: those that can run here, by name. Why the others cannot is told by `why_not`."""

    tools: dict[str, Tool]
    unconfigured: dict[str, ToolRow]
    elsewhere: dict[str, str]

    def find(self, name: str) -> Tool | None:
        """The tool, if it can run here."""
        return self.tools.get(name)

    def why_not(self, name: str) -> Failure:
        """Why a name is no tool here."""
        if name in self.elsewhere:
            what = f"{name} is not served here but by {self.elsewhere[name]}"
            return Failure.of("unknown_tool", what, f"send it to {self.elsewhere[name]}")
        if name in self.unconfigured:
            row = self.unconfigured[name]
            missing = f"{', '.join(row.requires)} in BULKHEAD_TOOL_SETTINGS"
            if not row.pack:
                missing = ", ".join(f"BULKHEAD_{name.upper()}" for name in row.requires)
            return Failure.of("not_configured", f"{name} is switched off here", f"an operator must set {missing}")
        return Failure.of("unknown_tool", f"there is no tool {name!r}", f"use one of: {', '.join(sorted(self.tools))}")


def load(configured: Collection[str] = (), declared: Collection[ToolRow] | None = None) -> Registry:
    """All tools of this service. Raises ValueError when a row has no function."""
    tools: dict[str, Tool] = {}
    unconfigured: dict[str, ToolRow] = {}
    elsewhere: dict[str, str] = {}
    for row in rows() if declared is None else declared:
        name = row.spec.name
        if row.built_in or row.spec.served_by != "tool_executor":
            elsewhere[name] = "worker" if row.built_in else row.spec.served_by
            continue
        schema = jsonschema_rs.Draft202012Validator(json.loads(row.spec.parameters_json), validate_formats=True)
        tool = Tool(row, _function(row), schema)
        if set(row.requires) <= set(configured):
            tools[name] = tool
        else:
            unconfigured[name] = row
    return Registry(tools, unconfigured, elsewhere)


def _function(row: ToolRow) -> Run:
    name, module = row.spec.name, _module(row)
    try:
        run: Run = importlib.import_module(module).run
    except ModuleNotFoundError as error:
        if row.pack and error.name != module:  # The tool is there; what it imports is not.
            raise ValueError(f"{module}: {error}; install what the pack needs where tool_executor runs") from error
        raise _no_function(name, module, error) from error
    except AttributeError as error:
        raise _no_function(name, module, error) from error
    if inspect.iscoroutinefunction(run):
        return run
    # A plain decorator around an `async def` hides it: its outcome would be a coroutine that is never awaited.
    hides = inspect.iscoroutinefunction(inspect.unwrap(run)) if callable(run) else False
    if not inspect.isfunction(run) or inspect.isgeneratorfunction(run) or inspect.isasyncgenfunction(run) or hides:
        what = "a plain function around an `async def`" if hides else f"a {type(run).__name__}, or yields"
        raise _no_function(name, module, TypeError(f"its run is {what}"))
    return run


def _module(row: ToolRow) -> str:
    return f"{row.pack or f'{__package__}.tools'}.{row.spec.name}"


def _no_function(name: str, module: str, error: Exception) -> ValueError:
    return ValueError(
        f"tools.yaml declares {name!r}, but {module} has no `async def run(arguments, call)` and no "
        f"`def run(arguments, call)`: {error}"
    )


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
