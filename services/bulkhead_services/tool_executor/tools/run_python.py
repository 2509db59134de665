"""Run Python that a model wrote: in a process of its own behind the sandbox's walls, without network, once."""

import subprocess
import sys
import tempfile
from pathlib import Path

from bulkhead.tools.api import Arguments, Call, Done, Failed

MAX_STDERR_CHARS = 1_500
DRIVER = """
import ast, sys
source = open(sys.argv[1], encoding="utf-8").read()
tree = ast.parse(source, "code")
last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
names = {"__name__": "__main__"}
exec(compile(tree, "code", "exec"), names)
if last is not None:
    value = eval(compile(ast.Expression(last.value), "code", "eval"), names)
    if value is not None:
        print(repr(value))
"""
"""Runs the statements and prints the value of the last one, as an interactive Python does."""


def run(arguments: Arguments, call: Call) -> Done | Failed:
    """Text that the code printed, and the value of its last expression."""
    with tempfile.TemporaryDirectory() as folder:
        code, out_file, err_file = (Path(folder, name) for name in ("code.py", "out", "err"))
        code.write_text(arguments["code"], encoding="utf-8")
        stdin = arguments.get("input", "").encode()
        try:
            with out_file.open("wb") as out, err_file.open("wb") as err:
                finished = subprocess.run(  # noqa: S603 - behind the sandbox's walls
                    [sys.executable, "-I", "-c", DRIVER, str(code)],
                    input=stdin,
                    stdout=out,
                    stderr=err,
                    check=False,
                    cwd=folder,
                )
        except BlockingIOError:
            # All calls that run as the sandbox's user share its number of processes.
            reason = "the sandbox's user has as many processes as it may; other calls hold them"
            return Failed("sandbox_busy", reason, "try again in a moment", transient=True)
        text, cut = _read_bounded(out_file, call.max_output_bytes)
        if finished.returncode == 0:
            return Done(text, cut)
        stderr_tail = err_file.read_bytes()[-4 * MAX_STDERR_CHARS :].decode("utf-8", "replace")[-MAX_STDERR_CHARS:]
        ending = (
            f"by signal {-finished.returncode}" if finished.returncode < 0 else f"with exit code {finished.returncode}"
        )
        return Failed(
            "code_failed", f"the code ended {ending}: {stderr_tail}", "mend the code; it has no network and few files"
        )


def _read_bounded(file: Path, max_bytes: int) -> tuple[str, bool]:
    with file.open("rb") as opened:
        raw = opened.read(max_bytes + 1)
    return raw[:max_bytes].decode("utf-8", "replace"), len(raw) > max_bytes
