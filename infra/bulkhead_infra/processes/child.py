"""One child process: started in its own group, dead when its parent is, its output line by line.

In: a command and an environment. Out: log lines, an exit code. Nothing here decides whether to start it again.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

LAST_LINES = 40
SHOWN_LINES = 8
LINE_MAX_BYTES = 64 * 1024
LOG_MAX_BYTES = 64 * 1024 * 1024
"""A log file that has grown so far is set aside as `<name>.1`; the one before is dropped."""
KILL_TIMEOUT_S = 30.0
"""Time within which a killed process is gone, on a busy machine."""
PRIVATE_UMASK = 0o077
_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

OnLine = Callable[[str], None]


class StartFailed(Exception):
    """The process could not be started, or ended before it was ready; says why and what to do."""


class NotReady(StartFailed):
    """The process runs and was not ready in time."""


class ChildProcess:
    """A running process. `exited` is set with its end; `last_lines` keeps the end of its output."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path, on_line: OnLine | None) -> None:
        self.name = name
        self.pid = process.pid
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self.exited = asyncio.Event()
        self._process = process
        self._log = log
        self._on_line = on_line
        self._killed = False
        self._pump = asyncio.create_task(self._pump_output())

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environ: Mapping[str, str],
        cwd: Path,
        on_line: OnLine | None = None,
        timer_slack_us: int = 0,
    ) -> "ChildProcess":
        """Start it. timer_slack_us: so late its short sleeps may end; 0: as usual. Raises StartFailed."""
        log.parent.mkdir(parents=True, exist_ok=True)
        loop = asyncio.get_running_loop()
        try:
            transport, protocol = await loop.subprocess_exec(
                lambda: _Protocol(LINE_MAX_BYTES, loop),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(environ),
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_child_preparation(os.getpid(), timer_slack_us),
            )
        except FileNotFoundError as error:
            raise StartFailed(f"{name}: there is no program {command[0]}; install it, see README") from error
        except OSError as error:
            raise StartFailed(f"{name}: cannot start {command[0]}: {error.strerror}; check its permissions") from error
        return cls(name, asyncio.subprocess.Process(transport, protocol, loop), log, on_line)

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.returncode

    @property
    def is_running(self) -> bool:
        return not self.exited.is_set()

    async def wait(self) -> int:
        """Its exit code, when it has ended and its output is read."""
        await self.exited.wait()
        code = self._process.returncode
        assert code is not None
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill_group(self) -> None:
        """End it and everything that it started, now and without waiting; `exited` tells when it is gone."""
        if self._process.returncode is None and not self._killed:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self._killed = True

    async def kill_and_wait(self) -> None:
        """End it and everything that it started, now."""
        self.send_signal(signal.SIGKILL)
        await self.wait()

    async def stop(self, timeout_s: float) -> bool:
        """Ask it to end; kill it after the timeout. Returns whether it ended by itself."""
        if not self._killed:
            # A signal to one that is dead takes its exit code from who waits for it, and asyncio complains.
            self.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.exited.wait(), timeout_s)
        except TimeoutError:
            await self.kill_and_wait()
            return False
        return True

    def describe_end(self) -> str:
        """Description of how it ended and the last things that it said, for an error message."""
        code = self._process.returncode
        ended = "is running"
        if code is not None:
            ended = f"ended by {_signal_name(-code)}" if code < 0 else f"exited with {code}"
        tail = "".join(f"\n  {line}" for line in list(self.last_lines)[-SHOWN_LINES:])
        return f"{self.name} {ended}; its last lines ({self._log}):{tail or ' none'}"

    async def _pump_output(self) -> None:
        assert self._process.stdout is not None
        log = _RotatingLogFile(self._log)
        try:
            while line := await _read_line(self._process.stdout):
                text = line.decode("utf-8", "replace").rstrip()
                self.last_lines.append(text)
                log.write(line)
                if self._on_line is not None:
                    self._on_line(text)
            await self._process.wait()
        finally:
            log.close()
            self.exited.set()


class _Protocol(asyncio.subprocess.SubprocessStreamProtocol):
    """Ends what a process has started as soon as it has ended itself; until then its output would stay open."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # No isinstance: uvloop's transports are of another family.
        self._group: int = transport.get_pid()  # type: ignore[attr-defined]

    def process_exited(self) -> None:
        super().process_exited()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._group, signal.SIGKILL)


class _RotatingLogFile:
    """Appends lines; on a full disk it drops them, since the process must not stop for its log."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._size = 0

    def write(self, line: bytes) -> None:
        try:
            if self._file is None or self._size > LOG_MAX_BYTES:
                self._open_anew()
            assert self._file is not None
            self._size += self._file.write(line if line.endswith(b"\n") else line + b"\n")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise

    def _open_anew(self) -> None:
        if self._file is not None:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._file = self._path.open("ab", buffering=0)
        self._size = self._path.stat().st_size

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


async def _read_line(stream: asyncio.StreamReader) -> bytes:
    """The next line; one that is too long comes in pieces. Empty at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError as over:
        return await stream.read(max(1, over.consumed))


def _child_preparation(parent: int, timer_slack_us: int) -> Callable[[], None]:
    """Runs in the child before its program: what it writes is its owner's alone, and it dies with its parent."""

    def prepare_child() -> None:
        os.umask(PRIVATE_UMASK)
        if _LIBC is None:
            return
        # The kernel ends it when the parent ends, however that happens.
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # The parent ended before the kernel was told.
        if timer_slack_us:
            _LIBC.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(timer_slack_us * 1000), 0, 0, 0)

    return prepare_child


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
