"""WebAssembly: code that has no system at all, within bounds of fuel, memory and text.

In: a module (WebAssembly, or its text form), what it reads on standard input. Out: what it wrote to standard output. It
sees no file, no clock of its own, no network, no argument and no variable. It runs in a tool's own process.
"""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from bulkhead.tools.api import Arguments, Call, Done, Failed

MAX_FUEL = 2_000_000_000
"""Some seconds of one core."""
MAX_MEMORY_BYTES = 64 * 1024 * 1024
MAX_MODULE_BYTES = 4 * 1024 * 1024
STACK_BYTES = 512 * 1024
ALLOWED_IMPORTS = frozenset({"fd_read", "fd_write", "proc_exit", "environ_get", "environ_sizes_get", "args_get"})
ALLOWED_IMPORTS |= {"args_sizes_get", "fd_close", "fd_fdstat_get", "fd_seek", "random_get", "clock_time_get"}
"""Of WASI: standard streams, and what compilers need to start a program. There are no files behind them."""
ENDLESS_MODULE = '(module (func (export "_start") (loop (br 0))))'


@dataclass(frozen=True, slots=True)
class WasmRun:
    """text: its standard output, cut at the bound. error: why it did not end well, or ""."""

    text: str
    error: str = ""
    truncated: bool = False


def execute_module(module: bytes, stdin: bytes, *, fuel: int, memory_bytes: int, output_bytes: int) -> WasmRun:
    """Run its `_start`. Whatever the module does is told in `error`."""
    import wasmtime

    store = _limited_store(min(fuel, MAX_FUEL), min(memory_bytes, MAX_MEMORY_BYTES))
    with tempfile.TemporaryDirectory() as folder:
        input_file, output_file = Path(folder, "in"), Path(folder, "out")
        input_file.write_bytes(stdin)
        output_file.touch()
        error = ""
        try:
            code = wasmtime.Module(store.engine, module if b"\0" in module else module.decode())
            unknown = {imported for imported in code.imports if imported.name not in ALLOWED_IMPORTS}
            if unknown_imports := sorted({f"{imported.module}.{imported.name}" for imported in unknown}):
                return WasmRun("", f"it imports {', '.join(unknown_imports[:5])}, which is not there")
            wasi = wasmtime.WasiConfig()
            wasi.stdin_file, wasi.stdout_file = str(input_file), str(output_file)
            store.set_wasi(wasi)
            linker = wasmtime.Linker(store.engine)
            linker.define_wasi()
            start = linker.instantiate(store, code).exports(store).get("_start")
            if not isinstance(start, wasmtime.Func):
                return WasmRun("", "it exports no function `_start`")
            start(store)
        except wasmtime.ExitTrap as ended:
            error = f"it ended with exit code {ended.code}" if ended.code else ""
        except (wasmtime.WasmtimeError, wasmtime.Trap, UnicodeDecodeError) as trapped:
            error = _describe_trap(str(trapped), store)
        store.close()
        size = os.stat(output_file).st_size
        text = output_file.read_bytes()[:output_bytes].decode("utf-8", "replace")
        return WasmRun(text, error, size > output_bytes)


def run_file(file: Path, arguments: Arguments, call: Call) -> Done | Failed:
    """A tool that is a module: it reads its arguments as JSON and writes its result."""
    with file.open("rb") as opened:
        module = opened.read(MAX_MODULE_BYTES)
    stdin = json.dumps(dict(arguments)).encode()
    return outcome_of_run(
        execute_module(module, stdin, fuel=MAX_FUEL, memory_bytes=MAX_MEMORY_BYTES, output_bytes=call.max_output_bytes)
    )


def tool_of(file: Path) -> Callable[[Arguments, Call], Done | Failed]:
    """The function of such a tool."""
    return partial(run_file, file)


def outcome_of_run(run: WasmRun) -> Done | Failed:
    """Outcome of a module's run, as a tool says it."""
    if not run.error:
        return Done(run.text, run.truncated)
    written = f"; before that it wrote: {run.text[:1_000]}" if run.text else ""
    return Failed("wasm_trap", f"the module did not end well: {run.error}{written}"[:2_000], "mend the module")


def _limited_store(fuel: int, memory_bytes: int):  # type: ignore[no-untyped-def]
    import wasmtime

    config = wasmtime.Config()
    config.consume_fuel = True
    config.max_wasm_stack = STACK_BYTES
    config.parallel_compilation = False
    config.memory_init_cow = False  # It would need memory that no limit of a process counts.
    # The whole of a memory is not reserved beforehand: the process has a bound on its addresses.
    config.memory_reservation = memory_bytes
    config.memory_guard_size = 64 * 1024
    config.memory_reservation_for_growth = 0
    store = wasmtime.Store(wasmtime.Engine(config))
    store.set_limits(memory_size=memory_bytes, instances=1, memories=1, tables=4, table_elements=10_000)
    store.set_fuel(fuel)
    return store


def _describe_trap(text: str, store) -> str:  # type: ignore[no-untyped-def]
    return f"out of fuel: {text}"[:1_000] if not store.get_fuel() else text[:1_000]


def find_problem() -> str:
    """Why no WebAssembly runs here; "" when it does: a module that never ends, ended by its fuel."""
    if find_spec("wasmtime") is None:
        return "the package wasmtime is not installed"
    probe_run = execute_module(ENDLESS_MODULE.encode(), b"", fuel=10_000, memory_bytes=1 << 16, output_bytes=1)
    return "" if "fuel" in probe_run.error else f"a module that never ends said: {probe_run.error or 'nothing'}"
