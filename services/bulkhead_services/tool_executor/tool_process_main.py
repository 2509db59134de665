"""The program of a process that runs one plain tool (`def run`), one call after another; process_pool.py starts it.

In: frames (four bytes of length, then JSON) on the socket whose number is its argument: where modules lie and which
one it is, then a call each. Out: a frame that it is ready, then one per call. It ends when the socket does, and when
the process that started it has died, since its outcome could not be reported any more. Processes that it starts stay
below it, also those that lose their parent, so that all are found when they have to end. It puts up its own walls
(sandbox/confine.py) before it imports anything of the tool.
"""

import ctypes
import importlib
import io
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CoroutineType
from typing import Any

PROGRAM = Path(__file__)
FRAME_HEAD = struct.Struct(">I")
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PARENT_CHECK_S = 0.5
STDIO_WIRE = "-"
"""In place of a socket's number: standard input and output are it (in a container)."""


def main(socket_number: str, parent: str) -> None:
    """See the module's docstring."""
    _end_with_parent(int(parent))
    wire = _open_wire(socket_number)
    start_frame = read_frame(wire)
    if start_frame is None:
        return
    sys.path[:] = start_frame["path"] or sys.path  # Of a container, what its image says.
    report: dict[str, str] = {}
    if "confine" in start_frame:
        from bulkhead_services.tool_executor.sandbox.confine import (
            NotConfined,
            confine_process,
        )  # Lies where the first frame says.

        try:
            report = confine_process(start_frame["confine"])
        except NotConfined as error:
            return write_frame(wire, {"unconfined": f"{error}"})
        _end_with_parent(int(parent))  # A process that changes its user forgets with whom it dies.
    loaded = _run_contained(lambda: _load_functions(start_frame))
    write_frame(wire, {"raised": loaded["raised"]} if "raised" in loaded else {"ready": True, "report": report})
    while "raised" not in loaded and (call := read_frame(wire)) is not None:
        write_frame(wire, _answer_call(loaded["value"][bool(call.get("check"))], call))


def _import_functions(module: str, name: str) -> tuple[Any, Any]:
    """Function that makes a call, and one that tells whether a call was made."""
    function = getattr(importlib.import_module(module), name or "run")
    if not name:
        return function, None
    from bulkhead.tools.decorator import check_of, run_of  # As below.

    return run_of(function), check_of(function)


def _load_functions(start_frame: dict[str, Any]) -> tuple[Any, Any]:
    if not start_frame.get("wasm"):
        return _import_functions(start_frame["module"], start_frame.get("function", ""))
    from bulkhead_services.tool_executor.sandbox.wasm import tool_of

    return tool_of(Path(start_frame["wasm"])), None


def _answer_call(run: Any, frame: dict[str, Any]) -> dict[str, Any]:
    from bulkhead.tools.process_frames import call_of, frame_of  # Lies where the first frame says.

    with _redact_output(frame["call"].get("credentials") or {}):
        result = _run_contained(lambda: _await_result(run(frame["arguments"], call_of(frame["call"]))))
    return result if "raised" in result else frame_of(result["value"], frame["call"]["max_output_bytes"])


def _await_result(result: Any) -> Any:
    """Return value of an `async def`, run in a loop of its own."""
    if not isinstance(result, CoroutineType):
        return result
    import asyncio  # Most tools do without, and start sooner.

    return asyncio.run(result)


@contextmanager
def _redact_output(secrets: dict[str, str]) -> Iterator[None]:
    """Output of the tool goes to the executor's log: without the credentials of its call."""
    if not secrets:
        yield
        return
    from bulkhead.tools.results import SecretGuard  # As above.

    guard, before = SecretGuard(secrets), (sys.stdout, sys.stderr)

    class RedactedOutput(io.TextIOBase):
        """Whole lines, since a secret may be printed in pieces."""

        def __init__(self) -> None:
            self.left = ""

        def write(self, text: str) -> int:
            *lines, self.left = (self.left + text).split("\n")
            before[1].write("".join(f"{guard.redact_text(line)}\n" for line in lines))
            return len(text)

    guarded = RedactedOutput()
    sys.stdout = sys.stderr = guarded
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        before[1].write(guard.redact_text(guarded.left))
        before[1].flush()


def _open_wire(socket_number: str) -> io.BufferedIOBase:
    """Stream on which frames come and go, for this process alone: a copy that the tool makes of it by fork() reads
    no call and answers none.
    """
    if socket_number != STDIO_WIRE:
        _keep_from_forks(int(socket_number))
        return socket.socket(fileno=int(socket_number)).makefile("rwb")
    read_end, write_end = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # What the tool prints must not be taken for an answer.
    _keep_from_forks(read_end)
    _keep_from_forks(write_end)
    return io.BufferedRWPair(open(read_end, "rb", 0), open(write_end, "wb", 0))


def _keep_from_forks(descriptor: int) -> None:
    os.set_inheritable(descriptor, False)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.register_at_fork(after_in_child=lambda: os.dup2(nothing, descriptor, inheritable=False))


def _run_contained(work: Any) -> dict[str, Any]:
    process, code = os.getpid(), 0
    try:
        result = {"value": work()}
    except BaseException as error:  # Also what calls exit(): the executor tells it, and the next call finds a process.
        tool_frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
        error_line = f"{Path(tool_frames[0].filename).name}, line {tool_frames[0].lineno}" if tool_frames else ""
        failure = {"kind": type(error).__name__, "text": f"{error}"[:500], "where": error_line}
        result = {"raised": failure | {"trace": traceback.format_exc()[-8_000:]}}
        code = 1
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
    if os.getpid() != process:
        os._exit(code)  # The call is not its own: it is of the process that made it, and so is the answer.
    return result


def read_frame(wire: io.BufferedIOBase) -> dict[str, Any] | None:
    """The next frame; None at the end."""
    head = wire.read(FRAME_HEAD.size)
    if len(head) < FRAME_HEAD.size:
        return None
    frame: dict[str, Any] = json.loads(wire.read(FRAME_HEAD.unpack(head)[0]))
    return frame


def write_frame(wire: io.BufferedIOBase, frame: dict[str, Any]) -> None:
    """Send one frame."""
    body = json.dumps(frame).encode()
    wire.write(FRAME_HEAD.pack(len(body)) + body)
    wire.flush()


def _end_with_parent(parent: int) -> None:
    if not parent:
        return  # It is the first process of its container, which ends with it.
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(0)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
