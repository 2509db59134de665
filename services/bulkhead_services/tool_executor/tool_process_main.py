"""The program of a process that runs one plain tool (`def run`), one call after another; process_pool.py starts it.

In: frames (four bytes of length, then JSON) on the socket whose number is its argument: where modules lie and which
one it is, then a call each. Out: a frame that it is ready, then one per call. It ends when the socket does, and when
the process that started it has died, since its outcome could not be reported any more. Processes that it starts stay
below it, also those that lose their parent, so that all are found when they have to end.
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
from pathlib import Path
from typing import Any

HEAD = struct.Struct(">I")
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LOOKS_EVERY_S = 0.5


def main(number: str, parent: str) -> None:
    """See the module's docstring."""
    _end_with(int(parent))
    wire = _own(int(number)).makefile("rwb")
    start = _read(wire)
    if start is None:
        return
    sys.path[:] = start["path"]
    run = _kept_in(lambda: getattr(importlib.import_module(start["module"]), "run"))  # noqa: B009 - not of a type
    _write(wire, {"raised": run["raised"]} if "raised" in run else {"ready": True})
    while "raised" not in run and (call := _read(wire)) is not None:
        _write(wire, _said(run["value"], call))


def _said(run: Any, frame: dict[str, Any]) -> dict[str, Any]:
    from bulkhead.tools.process_frames import call_of, frame_of  # Lies where the first frame says.

    found = _kept_in(lambda: run(frame["arguments"], call_of(frame["call"])))
    return found if "raised" in found else frame_of(found["value"], frame["call"]["max_output_bytes"])


def _own(number: int) -> socket.socket:
    """The socket, for this process alone: a copy that the tool makes of it by fork() reads no call and answers none."""
    os.set_inheritable(number, False)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.register_at_fork(after_in_child=lambda: os.dup2(nothing, number, inheritable=False))
    return socket.socket(fileno=number)


def _kept_in(work: Any) -> dict[str, Any]:
    process, code = os.getpid(), 0
    try:
        found = {"value": work()}
    except BaseException as error:  # Also what calls exit(): the executor tells it, and the next call finds a process.
        where = [one for one in traceback.extract_tb(error.__traceback__) if one.filename != __file__]
        place = f"{Path(where[0].filename).name}, line {where[0].lineno}" if where else ""
        told = {"kind": type(error).__name__, "text": f"{error}"[:500], "where": place}
        found = {"raised": told | {"trace": traceback.format_exc()[-8_000:]}}
        code = 1
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
    if os.getpid() != process:
        os._exit(code)  # The call is not its own: it is of the process that made it, and so is the answer.
    return found


def _read(wire: io.BufferedIOBase) -> dict[str, Any] | None:
    head = wire.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    found: dict[str, Any] = json.loads(wire.read(HEAD.unpack(head)[0]))
    return found


def _write(wire: io.BufferedIOBase, frame: dict[str, Any]) -> None:
    body = json.dumps(frame).encode()
    wire.write(HEAD.pack(len(body)) + body)
    wire.flush()


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(0)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOKS_EVERY_S)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
