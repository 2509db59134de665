"""Processes for plain tools (`def run`): one that blocks there blocks no other call, and can be killed.

Enters: a tool and its call. Leaves: what it said. A process runs one call at a time and is kept for the next
of the same tool and tenant; it is killed, with all that it started, when its call is over before it is.
Between calls it stands still. The caller of `acquire_process` holds a place for it (`ToolRunner.process_slots`): idle
processes end before there are more of them than places. Each is behind the walls of the sandbox (sandbox/).
"""

import asyncio
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from bulkhead.telemetry.log import Log
from bulkhead.tools.api import Arguments, Call, Done, Failed
from bulkhead.tools.process_frames import frame_of_call
from bulkhead_services.tool_executor.registry import RegisteredTool
from bulkhead_services.tool_executor.sandbox import container
from bulkhead_services.tool_executor.sandbox.plan import SandboxCell
from bulkhead_services.tool_executor.sandbox.probe import Sandbox
from bulkhead_services.tool_executor.sandbox.watch import ToolOutputPipe, measure_usage
from bulkhead_services.tool_executor.tool_process_main import FRAME_HEAD, PROGRAM

log = Log("tools")

TOOL_BUG = "tool_bug"
"""The code of a call whose tool raised, or returned no outcome."""
START_S = 30.0
"""Time that the import of a pack may take."""
MAX_FRAME_BYTES = 1024 * 1024
"""A text of MAX_TOOL_OUTPUT_BYTES characters, each written as JSON writes the longest."""
LIMIT_CHECK_S = 0.25
PR_SET_DUMPABLE = 4
PROCESS_LOST = (asyncio.IncompleteReadError, ConnectionError)
MAX_TREE_SWEEPS = 64
"""How often descendants of a process are looked for, while those that are found start more."""


def hide_from_tools() -> None:
    """Keep this process's environment, memory and files (/proc/PID, ptrace) from its tools' processes, which run as the
    same user. Root sees them all the same, where it has CAP_SYS_PTRACE, CAP_SYS_ADMIN or CAP_PERFMON."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


class ToolProcess:
    """One process. tenant: it runs calls of this tenant alone, since a tool keeps globals, cookies and files."""

    def __init__(self, tool: RegisteredTool, tenant: str, cell: SandboxCell, image: str = "") -> None:
        """Raises OSError: no process, or no file, can be had."""
        self.tool, self.tenant, self.cell = tool, tenant, cell
        self.exceeded = ""
        ours, theirs = socket.socketpair()
        read_end, write_end = os.pipe()
        self._output_pipe = ToolOutputPipe(read_end)
        try:
            # -P: the folder of the program is none of the tool's. A session of its own: what it starts ends with it.
            program = [sys.executable, "-P", str(PROGRAM), str(theirs.fileno()), str(os.getpid())]
            if cell.container:
                program = container.start_command(image, cell.container, cell.plan)
            self._popen = subprocess.Popen(  # noqa: S603 - our own program
                program,
                pass_fds=() if cell.container else [theirs.fileno()],
                stdin=theirs.fileno() if cell.container else subprocess.DEVNULL,
                stdout=theirs.fileno() if cell.container else write_end,
                stderr=write_end,
                start_new_session=True,
                env=container.client_environment() if cell.container else cell.build_environment(),
                cwd=cell.folder.parent,
            )
        except OSError:
            ours.close()
            self._output_pipe.close()
            raise
        finally:
            theirs.close()
            os.close(write_end)
        self._socket = ours
        self._swept = False
        self._writer: asyncio.StreamWriter | None = None
        self.pid = self._popen.pid

    async def open(self) -> dict[str, Any]:
        """Its first word, once the tool is imported. Raises what PROCESS_LOST names."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._socket)
        self._output_pipe.start()
        code = str(self.tool.wasm_file) if self.tool.wasm_file else ""
        frame = {
            "path": sys.path,
            "module": self.tool.module_name,
            "function": self.tool.function_name,
            "wasm": code,
            "confine": self.cell.plan,
        }
        if self.cell.container:
            # Where it lies is told by its image.
            frame = {"path": [], "module": self.tool.module_name, "function": self.tool.function_name}
        return await self.exchange_frame(frame)

    async def exchange_frame(self, frame: dict[str, Any]) -> dict[str, Any]:
        """The answer to one frame. Raises what PROCESS_LOST names."""
        assert self._writer is not None
        self._output_pipe.reset_allowance()
        body = json.dumps(frame).encode()
        self._writer.write(FRAME_HEAD.pack(len(body)) + body)
        await self._writer.drain()
        size = FRAME_HEAD.unpack(await self._reader.readexactly(FRAME_HEAD.size))[0]
        if size > MAX_FRAME_BYTES:
            raise ConnectionError(f"it answered with {size} bytes")
        try:
            answer = json.loads(await self._reader.readexactly(size))
        except ValueError as error:
            raise ConnectionError(f"it answered with what is no JSON: {error}") from error
        if not isinstance(answer, dict):
            raise ConnectionError("it answered with what is no frame")
        return answer

    def poll_exit_code(self) -> int | None:
        """Its exit code, if it has ended; then what it has started ends, too."""
        code = self._popen.poll()
        if code is not None:
            self._kill_group()
        return code

    def reap(self) -> int:
        """Wait for its end, which is near: its exit code."""
        return self._popen.wait()

    def kill_tree(self) -> None:
        """End it, and all that it started."""
        if self._popen.returncode is None:  # Else its number may be another's by now.
            for pid in self.freeze_tree():
                _send_signal(pid, signal.SIGKILL)
            if self.cell.container:
                container.end_container(self.cell.container)
        self._kill_group()
        self._output_pipe.close()
        if self._writer is not None:
            self._writer.close()
        else:
            self._socket.close()

    def freeze_tree(self) -> set[int]:
        """StopCall it and all that it started: what stands still starts no more, and keeps its place below this process
        when it loses its parent. Returns what it started."""
        _send_signal(self.pid, signal.SIGSTOP)
        frozen: set[int] = set()
        for _ in range(MAX_TREE_SWEEPS):
            if not (started := _descendants(self.pid) - frozen):
                break
            for pid in started:
                _send_signal(pid, signal.SIGSTOP)
            frozen |= started
        return frozen

    def thaw_tree(self) -> None:
        """Let it go on, with all that it left behind."""
        for pid in (*_descendants(self.pid), self.pid):
            _send_signal(pid, signal.SIGCONT)

    async def enforce_limits(self) -> None:
        """End it when it, with all that it started, takes more memory or disk than it may."""
        plan = self.cell.plan
        while not self.exceeded and not self.cell.container:
            await asyncio.sleep(LIMIT_CHECK_S)
            memory, disk = await asyncio.to_thread(measure_usage, {self.pid, *_descendants(self.pid)}, self.cell.folder)
            for name, used, limit in (("memory", memory, plan["memory_bytes"]), ("disk", disk, plan["disk_bytes"])):
                if used > limit:
                    self.exceeded = f"{used >> 20} MiB of {name}, and may take {limit >> 20}"
                    self.kill_tree()
                    return

    def _kill_group(self) -> None:
        if not self._swept:  # Once: later its number may be another's.
            self._swept = True
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


def _send_signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _descendants(pid: int) -> set[int]:
    """All descendants of a process; none where the kernel does not tell (it is not Linux)."""
    pids: set[int] = set()
    pending = [pid]
    while pending:
        for file in Path(f"/proc/{pending.pop()}/task").glob("*/children"):
            with suppress(OSError):
                children = {int(child) for child in file.read_text().split()} - pids
                pids |= children
                pending += children
    return pids


class ToolProcessPool:
    """The processes of this replica."""

    def __init__(self, max_processes: int, sandbox: Sandbox) -> None:
        self._most, self._used, self._sandbox = max_processes, 0, sandbox
        self._idle: list[ToolProcess] = []
        self._dying: list[ToolProcess] = []

    async def acquire_process(self, tool: RegisteredTool, tenant: str) -> ToolProcess | Failed:
        """A process for one call of this tool: give it back. Nothing has been done where there is none."""
        self._used += 1
        process: ToolProcess | Failed | None = None
        try:
            process = self._take_idle(tool, tenant) or await self._start_process(tool, tenant)
            return process
        finally:
            if not isinstance(process, ToolProcess):
                self._used -= 1

    def release_process(self, child: ToolProcess, *, reuse: bool) -> None:
        """It is not used any more. reuse: its call is over, and it waits for the next."""
        if reuse and not child.cell.container and child.poll_exit_code() is None:
            child.freeze_tree()
            self._idle.append(child)
        else:
            self._kill_process(child)
        self._used -= 1

    async def close(self) -> None:
        """End them all."""
        while self._idle:
            self._kill_process(self._idle.pop())
        await asyncio.gather(*(asyncio.to_thread(child.reap) for child in self._dying))
        for child in self._dying:
            child.cell.close()

    def _take_idle(self, tool: RegisteredTool, tenant: str) -> ToolProcess | None:
        for child in [
            candidate
            for candidate in self._idle
            if (candidate.tool.spec.name, candidate.tenant) == (tool.spec.name, tenant)
        ]:
            self._idle.remove(child)
            if child.poll_exit_code() is None:
                child.thaw_tree()
                return child
            self._kill_process(child)
        return None

    async def _start_process(self, tool: RegisteredTool, tenant: str) -> ToolProcess | Failed:
        while self._idle and self._used + len(self._idle) > self._most:
            self._kill_process(self._idle.pop(0))  # One of another tool or tenant, idle the longest.
        self._reap_ended()
        cell: SandboxCell | None = None
        try:
            cell = await asyncio.to_thread(self._sandbox.make_cell, tool.row)
            child = ToolProcess(tool, tenant, cell, self._sandbox.image)
        except OSError as error:
            if cell is not None:
                cell.close()
            return self._unready_failure(tool, f"cannot be had: {error.strerror}", transient=True)
        first_frame: dict[str, Any] = {}
        try:
            async with asyncio.timeout(START_S):
                first_frame = await child.open()
        except TimeoutError:
            return self._unready_failure(tool, f"was not ready within {START_S:.0f} s", transient=True)
        except PROCESS_LOST:
            return self._unready_failure(tool, "ended before it was ready", transient=True)
        finally:
            if not first_frame.get("ready"):
                self._kill_process(child)
        if "unconfined" in first_frame:
            return self._unready_failure(
                tool, f"could not put up its walls: {first_frame['unconfined']}", transient=True
            )
        if "raised" in first_frame:
            log.error("tool_not_imported", tool=tool.spec.name, traceback=first_frame["raised"]["trace"])
            return self._unready_failure(
                tool, f"could not be imported: it raised {first_frame['raised']['kind']}", transient=False
            )
        return child

    @staticmethod
    def _unready_failure(tool: RegisteredTool, reason: str, *, transient: bool) -> Failed:
        log.error("tool_process_unready", tool=tool.spec.name, why=reason)
        hint = "whoever owns the tool must look at the log of tool_executor"
        return Failed("not_started", f"the process of {tool.spec.name} {reason}", hint, transient=transient)

    def _kill_process(self, child: ToolProcess) -> None:
        child.kill_tree()
        self._dying.append(child)

    def _reap_ended(self) -> None:
        for one in [child for child in self._dying if child.poll_exit_code() is not None]:
            self._dying.remove(one)
            one.cell.close()


async def call_process(child: ToolProcess, arguments: Arguments, call: Call, *, check: bool = False) -> dict[str, Any]:
    """The process's answer to a call, or whether it was made; `{"ended": how}` when it ends instead."""
    watching = asyncio.ensure_future(child.enforce_limits())
    try:
        frame = {"arguments": dict(arguments), "call": frame_of_call(call)}
        return await child.exchange_frame(frame | ({"check": True} if check else {}))
    except PROCESS_LOST:
        child.kill_tree()  # A process that closed only its socket is of no use any more.
        code = await asyncio.to_thread(child.reap)
        if child.exceeded:
            return {"exceeded": child.exceeded}
        return {"ended": f"by signal {-code}" if code < 0 else f"with exit code {code}"}
    finally:
        watching.cancel()


def raised_failure(tool: RegisteredTool, kind: str, where: str) -> Failed:
    """The failure of a tool that raised. Its exception may name secrets: the agent reads its kind and line alone."""
    message = f"{tool.spec.name} raised {kind}{f' ({where})' if where else ''}"
    hint = "its traceback is in the log of tool_executor; a tool returns Failed for what it can expect"
    return Failed(TOOL_BUG, message, hint, transient=True, effect="unknown")


def invalid_outcome_failure(tool: RegisteredTool, returned: str) -> Failed:
    """The failure of a tool that returned something else than an outcome."""
    hint = "whoever wrote the tool must mend it: `return Done(text)`, from bulkhead.tools.packs"
    return Failed(TOOL_BUG, f"{tool.spec.name} returned {returned}", hint, effect="unknown")


def outcome_of_answer(tool: RegisteredTool, answer: dict[str, Any]) -> Done | Failed:
    """The outcome in a process's answer."""
    name = tool.spec.name
    if "done" in answer:
        return Done(answer["done"], truncated=bool(answer["truncated"]), missing=str(answer.get("missing", "")))
    if "failed" in answer:
        return Failed(**answer["failed"])
    if "raised" in answer:
        error = answer["raised"]
        where, traceback = error["where"], error["trace"]
        log.error("tool_raised", tool=name, error=f"{error['kind']}: {error['text']}", where=where, traceback=traceback)
        return raised_failure(tool, error["kind"], error["where"])
    if "exceeded" in answer:
        log.error("tool_exceeded", tool=name, what=answer["exceeded"])
        hint = "ask for less; an operator may raise BULKHEAD_TOOL_MEMORY_MIB or BULKHEAD_TOOL_DISK_MIB"
        return Failed("sandbox_limit", f"{name} was ended: it took {answer['exceeded']}", hint, effect="unknown")
    if "ended" in answer:
        log.error("tool_process_ended", tool=name, how=answer["ended"])
        message = f"the process of {name} ended {answer['ended']} before it answered"
        hint = "whoever wrote the tool must look why; other calls went on"
        return Failed(TOOL_BUG, message, hint, transient=True, effect="unknown")
    return invalid_outcome_failure(tool, f"a {answer.get('returned', '?')} where Done or Failed is due")
