"""A process that has imported a tree once, and forks for every command: most of a short run is importing.

In, on stdin: a JSON line per command, `{"module", "arguments", "forget", "out"}`; what a bug changed, and all that
stands on it, is forgotten in the fork and imported anew. Out, on stdout: `{"pid"}` when it runs, `{"code"}` when it has
ended; what it says goes to the file `out`.
"""

import gc
import importlib
import json
import os
import runpy
import sys
import traceback
from collections.abc import Iterable

PRELOADED = (
    "pytest", "_pytest.assertion.rewrite", "pytest_asyncio.plugin", "pytest_timeout", "hypothesis.stateful", "uvloop",
    "bulkhead_contracts.catalog", "bulkhead.testing.plugin", "bulkhead.cli.main", "infra.local",
    *(f"services.{name}.app" for name in (
        "gateway", "signer", "planner", "worker", "checker", "model_gateway", "rag", "tool_executor", "budget")),
    "tests.simulation.schedule",
)  # fmt: skip
ALL = ("bulkhead_contracts", "bulkhead", "services", "infra", "tests")
ABOVE = ("infra", "tests", "bulkhead.cli")
"""What may import services."""
BELOW = ("infra", "infra.tools")
"""What services import; kept as long as they are."""


def forgotten(files: Iterable[str]) -> list[str]:
    """The packages that are imported anew when these files have changed: their own and those that may import them
    (import-linter's rules: no service imports another); of anything but Python, all."""
    found: set[str] = set()
    for file in files:
        layer, _, rest = file.partition("/")
        if not file.endswith(".py") or layer == "contracts":
            return sorted(ALL)
        match layer:
            case "libs":
                found |= set(ALL) - {"bulkhead_contracts"}
            case "services":
                found |= {f"services.{rest.partition('/')[0]}", *ABOVE}
            case "tests":
                found.add("tests")
            case _:
                found |= {"services", *ABOVE}
    return sorted(found)


def serve() -> None:
    """See the module, until stdin ends."""
    commands = os.fdopen(os.dup(0), closefd=True)
    answers = os.fdopen(os.dup(1), "w", closefd=True)
    os.dup2(2, 1)  # Whatever prints while it is imported must not be taken for an answer.
    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in commands:
        command = json.loads(line)
        pid = os.fork()
        if pid == 0:
            commands.close()
            answers.close()
            _run(command)
        print(json.dumps({"pid": pid}), file=answers, flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), file=answers, flush=True)


def _run(command: dict[str, object]) -> None:
    """As `python -m module arguments` would, in a session of its own. Does not return."""
    code: object = 70
    try:
        os.setsid()
        out = os.open(str(command["out"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number, stream in enumerate((os.open(os.devnull, os.O_RDONLY), out, out)):
            os.dup2(stream, number)
        packages = tuple(command["forget"])  # type: ignore[arg-type]
        kept = () if "services" in packages else BELOW
        within = tuple(f"{package}." for package in packages)
        for name in [name for name in sys.modules if name in packages or name.startswith(within)]:
            if name not in kept:
                del sys.modules[name]
        sys.argv = [str(command["module"]), *command["arguments"]]  # type: ignore[misc]
        runpy.run_module(str(command["module"]), run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    serve()
