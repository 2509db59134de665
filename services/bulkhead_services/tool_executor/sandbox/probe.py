"""Probe of the sandbox at start: a child puts up the walls and tries to get through them.

In: settings. Out: what is in force and what holds (levels.SandboxFindings). It blocks for some tenths of a
second; its child runs the program that tools run in, behind the same walls.
"""

import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from bulkhead.telemetry.log import Log
from bulkhead.tools.api import Call
from bulkhead.tools.catalog import ToolRow
from bulkhead.tools.process_frames import frame_of_call
from bulkhead_contracts import bounds
from bulkhead_services.tool_executor.sandbox import container, escapes, wasm
from bulkhead_services.tool_executor.sandbox.levels import MECHANISMS, SandboxFindings
from bulkhead_services.tool_executor.sandbox.plan import MIB, PREFIX, SandboxCell, SandboxCells
from bulkhead_services.tool_executor.settings import Settings
from bulkhead_services.tool_executor.tool_process_main import PROGRAM, read_frame, write_frame

log = Log("tools")

PROBE_TIMEOUT_S = 30.0
PROBE_VARIABLE = "BULKHEAD_ESCAPE"
PROBE_DISK_MIB = 4
MAX_PROBE_PROCESSES = 24
RETRY_S = 60.0
SHARED_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - tried, not used
CHILD_ENDED = "the child that tried ended before it told"


class Sandbox:
    """The sandbox of this replica: what it can do, and cells for processes."""

    _known: dict[tuple[Any, ...], tuple[SandboxFindings, float]] = {}
    """By all that it depends on, and when it was looked at: a machine does not change under a running process, but a
    busy one may have kept the child from its tries."""
    _lock = threading.Lock()

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cells = SandboxCells(settings)
        self.image = settings.tool_container_image

    def find_isolation(self) -> SandboxFindings:
        """Findings of what holds here; looked at once, and again after a while where something does not."""
        settings = self._settings
        key = (os.getpid(), os.getuid(), settings.tool_memory_mib, settings.tool_container_image)
        with self._lock:
            cached = self._known.get(key)
            if cached is None or (cached[0].open_walls and time.monotonic() - cached[1] > RETRY_S):
                cached = self._known[key] = self._probe_walls(), time.monotonic()
            return cached[0]

    @classmethod
    def forget_findings(cls) -> None:
        """Look anew next time."""
        cls._known.clear()

    def runs_in_container(self, row: ToolRow) -> bool:
        """True when this tool runs in a container of its own."""
        return row.spec.isolation == "container" and not self.find_isolation().container

    def make_cell(self, row: ToolRow) -> SandboxCell:
        """A place for a process of this tool. Raises OSError."""
        if not self.runs_in_container(row):
            return self._cells.make_cell(row, self.find_isolation().active_mechanisms)
        cell = self._cells.make_cell(row, ())
        cell.container = f"{PREFIX}{uuid4().hex}"
        return cell

    def _probe_walls(self) -> SandboxFindings:
        mechanisms: dict[str, str] = {}
        walls: dict[str, str] = {}
        for _ in MECHANISMS:  # A mechanism that fails half-way distorts what follows: it is tried anew without it.
            failed = {name: reason for name, reason in mechanisms.items() if reason}
            answer = self._try_escapes(failed)
            mechanisms = {**answer.get("report", {}), **failed}
            walls = answer.get("walls", {})
            if {name for name, reason in mechanisms.items() if reason} == set(failed):
                break
        findings = SandboxFindings(mechanisms, walls, wasm.find_problem(), self._container_problem())
        if "disk" not in findings.walls:
            findings = replace(findings, walls={**walls, "disk": "not looked at"})
        log.info(
            "isolation",
            levels=list(findings.available_levels),
            in_force=list(findings.active_mechanisms),
            missing=findings.describe_missing(),
        )
        return findings

    def _container_problem(self) -> str:
        if not (image := self._settings.tool_container_image):
            return container.find_problem("", {})
        cell = self._cells.make_cell(None, ())
        cell.close()
        return container.find_problem(image, cell.plan)

    def _try_escapes(self, without: dict[str, str]) -> dict[str, Any]:
        try:
            cell = self._cells.make_cell(None, None, without)
        except OSError as error:
            return {"walls": {}, "report": dict.fromkeys(MECHANISMS, f"{error}")}
        cell.plan |= {"disk_bytes": PROBE_DISK_MIB * MIB, "processes": MAX_PROBE_PROCESSES}
        try:
            with _escape_targets(cell) as targets:
                return _run_probe_child(cell, targets)
        except (OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            log.error("isolation_not_tried", error=f"{type(error).__name__}: {error}"[:300])
            return {"report": {name: CHILD_ENDED for name in MECHANISMS if name not in without}}
        finally:
            cell.close()


def _run_probe_child(cell: SandboxCell, targets: dict[str, Any]) -> dict[str, Any]:
    """Answer of the child: of its mechanisms, and of each wall that it ran against."""
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rwb") as wire:
        ours.settimeout(PROBE_TIMEOUT_S)
        child = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", str(PROGRAM), str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=2,
            start_new_session=True,
            env=cell.build_environment(),
        )
        theirs.close()
        try:
            ready = _exchange_frame(
                wire, {"path": sys.path, "module": escapes.__name__, "function": "", "confine": cell.plan}
            )
            if "ready" not in ready:
                raise ValueError(f"the child said {str(ready)[:300]}")
            call = frame_of_call(Call(key="probe", world=None, max_output_bytes=bounds.MAX_TOOL_OUTPUT_BYTES))  # type: ignore[arg-type]
            answer = _exchange_frame(wire, {"arguments": targets, "call": call})
            if "done" not in answer:  # A mechanism that failed half-way may keep it from its tries.
                log.info("escapes_not_tried", said=f"{answer}"[:1000])
            return {"report": ready["report"], "walls": json.loads(answer.get("done", "{}"))}
        finally:
            child.kill()
            child.wait()


def _exchange_frame(wire: io.BufferedIOBase, frame: dict[str, Any]) -> dict[str, Any]:
    write_frame(wire, frame)
    if (answer := read_frame(wire)) is None:
        raise ConnectionError(CHILD_ENDED)
    return answer


@contextmanager
def _escape_targets(cell: SandboxCell) -> Iterator[dict[str, Any]]:
    """Things of the executor for the child to try: a file, a variable, sockets, processes."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bulkhead-escape-")))
        folder.chmod(0o755)
        secret = folder / "secret"
        secret.touch(0o600)
        local, hidden = str(folder / "socket"), f"bulkhead-{uuid4().hex}"
        wires = [socket.socket(kind) for kind in (socket.AF_UNIX, socket.AF_UNIX, socket.AF_INET)]
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        addresses: list[Any] = [local, f"\0{hidden}", ("127.0.0.1", 0), ("127.0.0.1", 0)]
        for wire, address in zip((*wires, udp), addresses, strict=True):
            stack.enter_context(wire)
            wire.bind(address)
        for wire in wires:
            wire.listen()
        (folder / "socket").chmod(0o777)
        sleeper = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
        victim = subprocess.Popen(sleeper, env={PROBE_VARIABLE: "seen"})  # noqa: S603 - our own program
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        yield {
            "secret": str(secret),
            "folders": [*SHARED_FOLDERS, os.getcwd(), str(folder)],
            "unix": local,
            "abstract": hidden,
            "tcp": wires[2].getsockname()[1],
            "udp": udp.getsockname()[1],
            "network": cell.plan["network"],
            "pid": os.getpid(),
            "victims": [victim.pid],
            "memory_bytes": cell.plan["memory_bytes"],
            "disk_bytes": cell.plan["disk_bytes"],
            "forks": 4 * MAX_PROBE_PROCESSES,
            "variable": PROBE_VARIABLE,
        }
