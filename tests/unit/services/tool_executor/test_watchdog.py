"""An async tool that blocks its process: it is interrupted where it stands, and where it cannot be, the process ends.

Each in a process of its own, as the service has it: the main thread, its signals, its event loop.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from bulkhead_services.tool_executor.watchdog import (
    BLOCKED_EXIT_CODE,
    INTERRUPT_SIGNAL,
    MAX_BLOCKED_PERIODS,
    ToolBlocked,
    Watchdog,
    mark_code_of,
)

pytestmark = pytest.mark.slow
PROGRAM = """
import asyncio, itertools, json, re, signal, sys, time
import uvloop
from dataclasses import replace
from bulkhead.tools.packs import Done
from bulkhead.telemetry import log
from bulkhead_services.tool_executor.effects import ToolRunner
from bulkhead_services.tool_executor.registry import load_registry
from bulkhead_services.tool_executor import watchdog
from bulkhead_services.tool_executor.settings import Settings
from bulkhead_services.tool_executor.watchdog import INTERRUPT_SIGNAL, Watchdog

log.setup("tool_executor", "0", as_json=True, level="error")
watchdog.LAST_RESORT_S = float(sys.argv[5])

async def sleeps(arguments, call):
    try:
        time.sleep(600)
    except Exception:
        time.sleep(600)

async def computes(arguments, call):
    while True:
        pass

async def matches(arguments, call):
    re.match(r"(a+)+$", "a" * 40 + "b")

async def in_a_task(arguments, call):
    return await asyncio.create_task(sleeps(arguments, call))

async def masks(arguments, call):
    signal.pthread_sigmask(signal.SIG_BLOCK, [INTERRUPT_SIGNAL])
    time.sleep(600)

async def sums(arguments, call):
    sum(itertools.repeat(1, 10 ** 13))  # Neither threads nor signals get a turn.

async def imports(arguments, call):
    import imported_late
    return Done(imported_late.READY)

async def waits(arguments, call):
    for _ in range(10):
        await asyncio.sleep(float(sys.argv[4]) / 10)
    return Done("done")

async def main():
    settings = Settings()
    bench, tool = ToolRunner(settings, watchdog=Watchdog(float(sys.argv[2]))), load_registry().tools["calculate"]
    beside = asyncio.create_task(bench.run(replace(tool, run=waits), {}, "k", 60, None))
    said = await bench.run(replace(tool, run=globals()[sys.argv[1]]), {}, "k", 60, None)
    other = await beside
    print(json.dumps([getattr(said, "code", "done"), getattr(said, "effect", ""), getattr(said, "transient", None),
                      getattr(said, "message", ""), getattr(other, "text", "")]))

runner = uvloop.run if sys.argv[3] == "uvloop" else asyncio.run
runner(main())
"""


def ran(
    tool: str, blocks_s: float, loop: str = "uvloop", waits_s: float = 1.0, holds_s: float = 10.0
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), tool, str(blocks_s), loop, str(waits_s), str(holds_s)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("tool", "loop"), [("sleeps", "uvloop"), ("computes", "uvloop"), ("matches", "uvloop"), ("in_a_task", "asyncio")]
)
def test_a_tool_that_blocks_is_interrupted_and_the_others_go_on(tool: str, loop: str) -> None:
    found = ran(tool, 0.5, loop)
    assert found.returncode == 0, found.stderr[-2000:]
    code, effect, transient, message, other = json.loads(found.stdout)
    assert (code, effect, transient) == ("tool_blocks", "unknown", False), "of a write nobody knows; it is not repeated"
    assert "calculate held up its whole process" in message and "line " in message
    assert other == "done", "what ran beside it goes on"
    assert '"tool_blocks"' in found.stderr and "def run" in found.stderr, "whoever owns it is to know, and what to do"


def test_an_import_is_let_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_late.py").write_text("import time\ntime.sleep(1.2)\nREADY = 'done'\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    found = ran("imports", 0.5)
    assert json.loads(found.stdout)[0] == "done", "interrupted, the next call would begin it anew"


def test_a_tool_that_awaits_is_left_alone_also_longer_than_any_wall() -> None:
    found = ran("waits", 0.4, waits_s=3.0, holds_s=0.6)
    assert json.loads(found.stdout)[0] == "done", found.stderr[-2000:]


async def test_a_signal_that_comes_when_the_loop_has_moved_hits_nobody() -> None:
    """The thread has looked, the loop moved, and now another tool runs as the task that was seen."""
    before = signal.getsignal(INTERRUPT_SIGNAL)
    dog = Watchdog(600)
    try:
        dog._loop, dog._cpu_s = asyncio.get_running_loop(), time.thread_time()
        with mark_code_of("waits"):
            dog._suspect = asyncio.current_task()
            dog._moved.set()
            signal.raise_signal(INTERRUPT_SIGNAL)
            dog._moved.clear()
            with pytest.raises(ToolBlocked):
                signal.raise_signal(INTERRUPT_SIGNAL)
    finally:
        signal.signal(INTERRUPT_SIGNAL, before)


def test_what_cannot_be_interrupted_ends_the_process() -> None:
    found = ran("masks", 0.2)
    assert found.returncode == BLOCKED_EXIT_CODE, found.stderr[-2000:]
    said = next(json.loads(line) for line in found.stderr.splitlines() if "process_blocked" in line)
    assert said["task"] == "tool calculate" and said["traceback"].endswith("in masks") and MAX_BLOCKED_PERIODS > 1


def test_what_lets_nothing_of_python_run_ends_the_process_too() -> None:
    found = ran("sums", 0.2, holds_s=0.4)
    assert found.returncode == 1 and "sums" in found.stderr, found.stderr[-2000:]
