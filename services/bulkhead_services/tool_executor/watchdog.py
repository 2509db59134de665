"""Watchdog against an async tool that blocks, and with it every other call of its process.

In: which tools run, by `watch_call`; the loop, asked twice a second from a thread whether it still moves.
Out: a tool's code that has not let go of the loop for `blocks_s` is interrupted where it stands
(`ToolBlocked`, by a signal); what cannot be interrupted ends the process, and its supervisor starts it again.
Only a real process has one: it needs the main thread.
"""

import asyncio
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Literal

from bulkhead.telemetry.log import Log

log = Log("tools")

MAX_TICK_S = 0.5
MAX_BLOCKED_PERIODS = 3
"""A process whose loop has stood still for so many times `blocks_s` ends."""
BLOCKED_EXIT_CODE = 70
"""Exit code."""
KERNEL_TIMER_FACTOR = 1.2
"""Multiple of `blocks_s` after which the kernel's timer fires, too: code that keeps even threads from running (a
regular expression that backtracks) looks at signals now and then."""
LAST_RESORT_S = 10.0
"""Time beyond MAX_BLOCKED_PERIODS after which a thread outside of Python ends the process."""
INTERRUPT_SIGNAL = signal.SIGALRM
IMPORT_SYSTEM = "<frozen importlib._bootstrap>"

_running: ContextVar[str] = ContextVar("tool", default="")
"""The tool whose code runs: set in its task, and inherited by all that it starts."""


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == IMPORT_SYSTEM:
            return True
        frame = frame.f_back
    return False


class ToolBlocked(BaseException):
    """Raised inside a tool that blocks. No Exception: a tool that catches those would go on blocking."""


@contextmanager
def mark_code_of(tool: str) -> Iterator[None]:
    """Mark the code that runs within as this tool's."""
    before = _running.set(tool)
    try:
        yield
    finally:
        _running.reset(before)


class Watchdog:
    """The watchdog of one process. Make it in the main thread."""

    def __init__(self, blocks_s: float) -> None:
        self.blocks_s = blocks_s
        self._tick_s = min(MAX_TICK_S, blocks_s / 4)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._busy = threading.Event()
        self._moved = threading.Event()
        self._calls = 0
        self._suspect: asyncio.Task[object] | Literal["nobody"] | None = "nobody"
        self._cpu_s = 0.0
        signal.signal(INTERRUPT_SIGNAL, self._interrupt_tool)

    @contextmanager
    def watch_call(self) -> Iterator[None]:
        """Watch the loop while a tool runs."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            threading.Thread(target=self._watch_loop, name="watchdog", daemon=True).start()
        if not self._calls:
            self._busy.set()
        self._calls += 1
        self._note_movement()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._busy.clear()
                signal.setitimer(signal.ITIMER_REAL, 0)
                faulthandler.cancel_dump_traceback_later()

    def _note_movement(self) -> None:
        """Note, in the main thread, that the loop moves."""
        self._suspect = "nobody"
        self._cpu_s = time.thread_time()
        self._moved.set()
        if self._calls:
            signal.setitimer(signal.ITIMER_REAL, KERNEL_TIMER_FACTOR * self.blocks_s, self.blocks_s)
            faulthandler.dump_traceback_later(MAX_BLOCKED_PERIODS * self.blocks_s + LAST_RESORT_S, exit=True, file=2)

    def _watch_loop(self) -> None:
        loop = self._loop
        assert loop is not None
        while not loop.is_closed():
            self._busy.wait()
            self._moved.clear()
            try:
                loop.call_soon_threadsafe(self._note_movement)
            except RuntimeError:
                return  # It was closed just now.
            self._wait_for_movement(loop)
            time.sleep(self._tick_s)

    def _wait_for_movement(self, loop: asyncio.AbstractEventLoop) -> None:
        """Until the loop moves. Counted in ticks: a process that was stopped, and goes on, has blocked nothing."""
        ticks_per_warning, ticks = round(self.blocks_s / self._tick_s), 0
        while not self._moved.wait(self._tick_s):
            ticks += 1
            if ticks % ticks_per_warning == 0:
                self._suspect = asyncio.current_task(loop)
                if ticks >= MAX_BLOCKED_PERIODS * ticks_per_warning:
                    self._end_process()
                # To the main thread: it alone runs handlers, and a call of the system that waits there is woken by it.
                signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT_SIGNAL)

    def _interrupt_tool(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, wherever it stands: only the code of a tool, and of that which was meant, is to raise.

        Where the kernel's timer speaks, nobody was meant: it was computing then, which a process that was stopped
        did not.
        """
        tool = _running.get()
        # An import is let finish: interrupted, the next call would begin it anew.
        if tool and self._loop is not None and not _is_importing(frame):
            # A signal may come when the loop has moved after all: who runs by then has held up nobody.
            is_suspect = not self._moved.is_set() and asyncio.current_task(self._loop) is self._suspect
            if is_suspect or time.thread_time() - self._cpu_s >= self.blocks_s / 2:
                raise ToolBlocked(tool)

    def _end_process(self) -> None:
        main = sys._current_frames().get(threading.main_thread().ident or 0)
        stack = "".join(traceback.format_stack(main)) if main is not None else ""
        name = self._suspect.get_name() if isinstance(self._suspect, asyncio.Task) else ""
        log.error(
            "process_blocked",
            task=name,
            traceback=stack,
            blocked_s=MAX_BLOCKED_PERIODS * self.blocks_s,
            meaning="the process ends itself and is started again; its calls are handed to a replica anew",
            todo="await what takes time, or write a plain `def run`: it gets a process of its own",
        )
        os._exit(BLOCKED_EXIT_CODE)
