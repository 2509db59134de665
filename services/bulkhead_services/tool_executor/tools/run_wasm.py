"""Run a WebAssembly module that a model wrote: it has its input, its output, and nothing else."""

import base64
import binascii

from bulkhead.tools.api import Arguments, Call, Done, Failed
from bulkhead_services.tool_executor.sandbox import wasm

MIB = 1024 * 1024
DEFAULT_FUEL = 100_000_000
DEFAULT_MEMORY_MIB = 16


def run(arguments: Arguments, call: Call) -> Done | Failed:
    """Text that the module wrote to standard output."""
    module = str(arguments["module"]).encode()
    if not module.lstrip().startswith((b"(", b";")):
        try:
            module = base64.b64decode(module, validate=True)
        except (binascii.Error, ValueError):
            hint = "send a module as text that begins with (module, or the bytes of one in base64"
            return Failed("bad_arguments", "the module is neither text nor base64", hint)
    stdin = str(arguments.get("input", "")).encode()
    fuel = arguments.get("fuel", DEFAULT_FUEL)
    memory = arguments.get("memory_mib", DEFAULT_MEMORY_MIB) * MIB
    return wasm.outcome_of_run(
        wasm.execute_module(module, stdin, fuel=fuel, memory_bytes=memory, output_bytes=call.max_output_bytes)
    )
