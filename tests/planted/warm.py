"""A process that has imported a tree once, and forks for every command: most of a short run is importing.

In, on stdin: a JSON line per command, `{"module", "arguments", "changed", "out"}`; what a bug changed, and all that
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
from pathlib import Path
from typing import Any

from . import standing

PRELOADED = (
    "pytest",
    "_pytest.assertion.rewrite",
    "pytest_asyncio.plugin",
    "pytest_timeout",
    "hypothesis.stateful",
    "uvloop",
    "bulkhead_contracts.catalog",
    "bulkhead.testing.plugin",
    "bulkhead_cli.main",
    "bulkhead_infra.local",
    "tests.simulation.schedule",
)
ALWAYS = "tests"
"""What tests hold is not known from what they import."""


def loaded(tree: Path) -> dict[str, Path]:
    """The modules of the tree that have been imported."""
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(tree) and name != "__main__":
            found[name] = Path(file)
    return found


def serve() -> None:
    """See the module, until stdin ends."""
    commands = os.fdopen(os.dup(0), closefd=True)
    answers = os.fdopen(os.dup(1), "w", closefd=True)
    os.dup2(2, 1)  # Whatever prints while it is imported must not be taken for an answer.
    roots = [f"bulkhead_services.{app.parent.name}.app" for app in sorted(Path("services").glob("*/app.py"))]
    for name in (*PRELOADED, *roots):
        importlib.import_module(name)
    graph = standing.importers(loaded(Path.cwd()))
    gc.freeze()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in commands:
        command = json.loads(line)
        pid = os.fork()
        if pid == 0:
            commands.close()
            answers.close()
            _run(command, graph)
        print(json.dumps({"pid": pid}), file=answers, flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), file=answers, flush=True)


def forget(names: Iterable[str]) -> None:
    """Have these modules imported anew by whoever asks next."""
    for name in names:
        gone = sys.modules.pop(name, None)
        parent, _, own = name.rpartition(".")
        above = sys.modules.get(parent)
        # `from package import module` asks the package first.
        if gone is not None and getattr(above, own, None) is gone:
            delattr(above, own)


def _run(command: dict[str, Any], graph: standing.Graph) -> None:
    """As `python -m module arguments` would, in a session of its own. Does not return."""
    code: object = 70
    try:
        os.setsid()
        out = os.open(command["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number, stream in enumerate((os.open(os.devnull, os.O_RDONLY), out, out)):
            os.dup2(stream, number)
        tests = {name for name in sys.modules if name == ALWAYS or name.startswith(f"{ALWAYS}.")}
        forget(standing.on(command["changed"], graph) | tests)
        sys.argv = [command["module"], *command["arguments"]]
        runpy.run_module(command["module"], run_name="__main__", alter_sys=True)
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
