"""The tools that this service runs: rows of libs/bulkhead/tools/tools.yaml, and of packs, joined with their functions.

Enters: rows, names of configured settings. Leaves: tools that can check arguments and run. A row without a function
fails at start and not at the first call.
"""

import asyncio
import importlib
import inspect
import json
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path

import jsonschema_rs

from bulkhead.tools.api import Arguments, Failed, Run
from bulkhead.tools.catalog import ToolRow, row_of, tool_rows
from bulkhead.tools.decorator import check_of, declaration_of, run_of
from bulkhead_contracts.result import Failure
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.tool_executor.sandbox import wasm

HaltEvent = asyncio.Event | None
"""Ends an attempt at once when it is set; None: let it finish."""
StartRefusal = Callable[[], Failed | None]
"""Why an attempt must not begin any more; None when it may."""
WasSent = Callable[[str], Awaitable[bool]]
"""Key of a call; whether what it asks for may have been sent. Raises BusError."""
StopCall = Callable[[str, bool], None]
"""Key of the call; whether it is stopped for good, and not by a halt that may be lifted."""
MAX_ARGUMENT_ERRORS = 5
BEGUN_ELSEWHERE = "begun_elsewhere"
"""Code of a call that another replica may be at just now: of a tool that can stop, it goes back to the inbox."""
RUN_PYTHON, RUN_WASM = "run_python", "run_wasm"
"""Tools of this house that run code which a model wrote."""


@dataclass(frozen=True, slots=True)
class RegisteredTool:
    """A declared tool with its function."""

    row: ToolRow
    run: Run
    schema: jsonschema_rs.Draft202012Validator
    check: Run | None = None
    """Whether a call was made, where the tool can tell (decorator.check_of)."""
    stop_call: StopCall | None = None
    """Called with a call's key when nobody waits for it any more, where the tool can stop what it began elsewhere."""
    was_sent: WasSent | None = None
    """Of a write that is not claimed and begins elsewhere: what was sent is never told to be refused."""
    step_only_arguments: frozenset[str] = frozenset()
    """Arguments that only the call of a delegated step may carry."""

    @property
    def runs_in_own_process(self) -> bool:
        """True when it gets a process of its own (process_pool.py): a plain `def`, and an `async def` that declares an
        isolation; any other `async def` runs in the executor's loop, with the executor's rights.
        """
        return not inspect.iscoroutinefunction(self.run) or self.spec.isolation != "none"

    @property
    def wasm_file(self) -> Path | None:
        """The file of a tool that is WebAssembly."""
        return self.run.args[0] if isinstance(self.run, partial) else None

    @property
    def needs_fresh_process(self) -> bool:
        """True when each call has a new process: nothing that one call's code left behind meets the next."""
        return not self.row.pack and self.spec.name in (RUN_PYTHON, RUN_WASM)

    @property
    def is_wasm(self) -> bool:
        """True when what it runs for a caller is WebAssembly: its own file, or (of this house alone) what is sent."""
        return self.wasm_file is not None or (not self.row.pack and self.spec.name == RUN_WASM)

    @property
    def module_name(self) -> str:
        """The module of its function."""
        return _module_name(self.row)

    @property
    def function_name(self) -> str:
        """The name of a decorated function in it; "" for `run`."""
        return self.row.function.partition(":")[2]

    @property
    def spec(self) -> ToolSpec:
        """The declaration that models and policies see."""
        return self.row.spec

    def read_arguments(self, arguments_json: str) -> Arguments | Failure:
        """Arguments that fit the schema, or what is wrong with them, in words that a model can act on."""
        try:
            arguments = json.loads(arguments_json, parse_constant=_reject_constant)
            # JSON can name half a character (\ud800); no request, file or store that a tool uses can hold one.
            json.dumps(arguments, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return self._bad_arguments("the arguments hold half a character (a lone \\ud800 to \\udfff)")
        except (ValueError, RecursionError) as error:
            return self._bad_arguments(f"the arguments are not JSON: {error}")
        if not isinstance(arguments, dict):
            return self._bad_arguments("the arguments must be one JSON object")
        problems: list[str] = []
        for unfit in self.schema.iter_errors(arguments):
            where = ".".join(str(part) for part in unfit.instance_path) or "arguments"
            problems.append(f"{where}: {unfit.message[:200]}")
            if len(problems) == MAX_ARGUMENT_ERRORS:
                break
        return self._bad_arguments("; ".join(problems)) if problems else arguments

    def _bad_arguments(self, message: str) -> Failure:
        hint = f"send one JSON object that fits {self.spec.parameters_json}"
        return Failure.from_text("bad_arguments", message, hint)


@dataclass(frozen=True, slots=True)
class ToolRegistry:
    """tools: those that can run here, by name; refused: of these, those that may not be called now. Why the others
    cannot is told by `why_unavailable`. The tools of MCP servers change while it is used (mcp/tools.py).
    """

    tools: dict[str, RegisteredTool]
    unconfigured: dict[str, ToolRow]
    elsewhere: dict[str, str]
    refused: dict[str, Failure] = field(default_factory=dict)

    def find_tool(self, name: str) -> RegisteredTool | None:
        """The tool, if it can run here."""
        return self.tools.get(name) if name not in self.refused else None

    def why_unavailable(self, name: str) -> Failure:
        """Why a name is no tool here."""
        if name in self.refused:
            return self.refused[name]
        if name in self.elsewhere:
            message = f"{name} is not served here but by {self.elsewhere[name]}"
            return Failure.from_text("unknown_tool", message, f"send it to {self.elsewhere[name]}")
        if name in self.unconfigured:
            row = self.unconfigured[name]
            missing = f"{', '.join(row.requires)} in BULKHEAD_TOOL_SETTINGS"
            if not row.pack:
                missing = ", ".join(f"BULKHEAD_{name.upper()}" for name in row.requires)
            return Failure.from_text(
                "not_configured", f"{name} is switched off here", f"an operator must set {missing}"
            )
        return Failure.from_text(
            "unknown_tool", f"there is no tool {name!r}", f"use one of: {', '.join(sorted(self.tools))}"
        )


def load_registry(configured: Collection[str] = (), declared: Collection[ToolRow] | None = None) -> ToolRegistry:
    """All tools of this service. Raises ValueError when a row has no function."""
    tools: dict[str, RegisteredTool] = {}
    unconfigured: dict[str, ToolRow] = {}
    elsewhere: dict[str, str] = {}
    for row in tool_rows() if declared is None else declared:
        name = row.spec.name
        if row.built_in or row.spec.served_by != "tool_executor":
            elsewhere[name] = "worker" if row.built_in else row.spec.served_by
            continue
        schema = jsonschema_rs.Draft202012Validator(json.loads(row.spec.parameters_json), validate_formats=True)
        tool = RegisteredTool(row, _function_of_row(row), schema, _check_of_row(row))
        if set(row.requires) <= set(configured):
            tools[name] = tool
        else:
            unconfigured[name] = row
    return ToolRegistry(tools, unconfigured, elsewhere)


def _function_of_row(row: ToolRow) -> Run:
    name, module = row.spec.name, _module_name(row)
    if (code := _wasm_file(row)) is not None:
        return partial(wasm.run_file, code)
    try:
        imported = importlib.import_module(module)
        run: Run = (
            _declared_function(row, getattr(imported, row.function.partition(":")[2])) if row.function else imported.run
        )
    except ModuleNotFoundError as error:
        if row.pack and error.name != module:  # The tool is there; what it imports is not.
            raise ValueError(f"{module}: {error}; install what the pack needs where tool_executor runs") from error
        raise _missing_function_error(name, module, error) from error
    except AttributeError as error:
        raise _missing_function_error(name, module, error) from error
    if inspect.iscoroutinefunction(run):
        return run
    # A plain decorator around an `async def` hides it: its outcome would be a coroutine that is never awaited.
    hides = inspect.iscoroutinefunction(inspect.unwrap(run)) if callable(run) else False
    if not inspect.isfunction(run) or inspect.isgeneratorfunction(run) or inspect.isasyncgenfunction(run) or hides:
        kind = "a plain function around an `async def`" if hides else f"a {type(run).__name__}, or yields"
        raise _missing_function_error(name, module, TypeError(f"its run is {kind}"))
    return run


def _check_of_row(row: ToolRow) -> Run | None:
    if not row.check:
        return None
    imported = importlib.import_module(_module_name(row))
    return check_of(getattr(imported, row.function.partition(":")[2], None))


def _declared_function(row: ToolRow, function: object) -> Run:
    """The function of a row that was exported from it. Raises ValueError where the two say different things: what the
    signer and policies read of the tool would not be what runs."""
    declared = declaration_of(function)
    declared_row = row_of(row.spec.name, declared.row, row.pack) if declared is not None else None
    if declared_row != row:
        raise ValueError(
            f"{row.pack}: tools.yaml and the code of {row.spec.name} ({row.function}) say different things; run "
            f"`bulkhead tools export {row.pack}` and install the package again wherever it is used"
        )
    return run_of(function)


def _wasm_file(row: ToolRow) -> Path | None:
    folder = Path(str(files(row.pack or f"{__package__}.tools")))
    return next((file for kind in ("wasm", "wat") if (file := folder / f"{row.spec.name}.{kind}").is_file()), None)


def _module_name(row: ToolRow) -> str:
    if row.function:
        return row.function.partition(":")[0]
    return f"{row.pack or f'{__package__}.tools'}.{row.spec.name}"


def _missing_function_error(name: str, module: str, error: Exception) -> ValueError:
    return ValueError(
        f"tools.yaml declares {name!r}, but {module} has no `async def run(arguments, call)` and no "
        f"`def run(arguments, call)`: {error}"
    )


def _reject_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
