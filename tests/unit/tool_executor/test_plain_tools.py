"""Plain tools (`def run`): each call in a process of its own, which is ended with its time. Real processes."""

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from bulkhead.packs import Done, Failed
from infra.tools import rows
from services.tool_executor.effects import Workbench
from services.tool_executor.registry import Registry, load
from services.tool_executor.settings import Settings

ROW = """
{name}:
  description: Does what it is told.
  effect: write
  idempotent: true
  requires: [desk_url]
  parameters: {{type: object}}
"""
FUNCTION = """
import os, signal, subprocess, sys, time
from bulkhead.packs import Done, Failed

def run(arguments, call):
    what = arguments["do"]
    if what == "sleep":
        open(arguments["tell"], "w").write(str(os.getpid()))
        time.sleep(600)
    if what == "spawn":
        left = subprocess.Popen(["sleep", "600"])
        open(arguments["tell"], "w").write(str(left.pid))
        time.sleep(600)
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "raise":
        raise KeyError("token=hunter2")
    if what == "exit":
        sys.exit(3)
    if what == "print":
        print("noise on standard output", flush=True)
    if what == "nothing":
        return None
    if what == "world":
        call.world.get("http://x", "1.2.3.4", 5)
    if what == "fail":
        return Failed("sold_out", "none is left", "ask tomorrow", transient=False, effect="none")
    if what == "flood":
        return Done("\\u20ac" * 10_000_000)
    return Done(repr((os.getpid(), dict(call.settings), call.key, sorted(n for n in os.environ if "BULKHEAD" in n))))
"""


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(tmp_path)
    name = f"plain_{abs(hash(tmp_path))}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "tools.yaml").write_text(ROW.format(name="does") + ROW.format(name="does_too"))
    for tool in ("does", "does_too"):
        (folder / f"{tool}.py").write_text(FUNCTION)
    return name


class Desk:
    """A workbench with the pack's tools."""

    def __init__(self, pack: str, **knobs: object) -> None:
        given = {"desk_url": "http://desk", "password": "of another tool"}
        settings = Settings(packs=(pack,), tool_settings=given, **knobs)  # type: ignore[arg-type]
        self.tools: Registry = load(settings.configured(), rows(settings.packs))
        self.bench = Workbench(settings)

    async def run(self, do: str, tell: Path | str = "", timeout_s: float = 60, tool: str = "does",
                  cut: asyncio.Event | None = None) -> Done | Failed:  # fmt: skip
        return await self.bench.run(self.tools.tools[tool], {"do": do, "tell": str(tell)}, "k1", timeout_s, cut)


@pytest.fixture
async def desk(pack: str) -> AsyncIterator[Desk]:
    found = Desk(pack, tool_processes=2)
    yield found
    await found.bench.close()


async def _told(file: Path) -> int:
    async with asyncio.timeout(60):
        while not (file.exists() and file.read_text()):
            await asyncio.sleep(0.01)
    return int(file.read_text())


async def _gone(pid: int) -> bool:
    async with asyncio.timeout(15):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)
    return True


async def test_it_sees_its_settings_alone_and_its_process_is_kept_for_the_next_call(desk, monkeypatch) -> None:
    monkeypatch.setenv("BULKHEAD_TOOL_SETTINGS", '{"password": "of another tool"}')
    first = eval((await desk.run("tell")).text)
    assert first[1:] == ({"desk_url": "http://desk"}, "k1", []) and first[0] != os.getpid()
    assert eval((await desk.run("print")).text)[0] == first[0], "what it prints goes elsewhere"
    assert eval((await desk.run("tell", tool="does_too")).text)[0] != first[0], "another tool, another process"


async def test_what_blocks_there_holds_up_nobody_and_its_process_ends_with_its_time(desk, tmp_path) -> None:
    blocking = asyncio.create_task(desk.run("spawn", tmp_path / "pid", timeout_s=3_600))
    started = await _told(tmp_path / "pid")
    assert isinstance(await desk.run("tell"), Done), "the loop is free, and so is another process"
    blocking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await blocking
    assert await _gone(started), "also what the tool had started itself"
    late = await desk.run("sleep", tmp_path / "late", timeout_s=1)
    assert isinstance(late, Failed) and (late.code, late.effect, late.transient) == ("timeout", "unknown", True)
    if (tmp_path / "late").exists():
        assert await _gone(await _told(tmp_path / "late"))
    assert isinstance(await desk.run("tell"), Done), "the next call finds a process"


async def test_a_read_is_cut_by_a_halt(desk, tmp_path) -> None:
    cut = asyncio.Event()
    running = asyncio.create_task(desk.run("sleep", tmp_path / "pid", 3_600, cut=cut))
    pid = await _told(tmp_path / "pid")
    cut.set()
    assert (await running).code == "halted" and await _gone(pid)


@pytest.mark.parametrize(("do", "code", "says"), [
    ("crash", "tool_bug", "ended by signal 11 before it answered"),
    ("raise", "tool_bug", "does raised KeyError (does.py, line "),
    ("exit", "tool_bug", "does raised SystemExit (does.py, line "),
    ("nothing", "tool_bug", "returned a NoneType where Done or Failed is due"),
    ("world", "tool_bug", "does raised AttributeError"),
    ("fail", "sold_out", "none is left"),
])
async def test_what_goes_wrong_there_is_told_and_ends_nothing_else(desk, do: str, code: str, says: str) -> None:
    failed = await desk.run(do)
    assert isinstance(failed, Failed) and failed.code == code and says in failed.message, failed
    assert "hunter2" not in repr(failed), "what a tool raises may name secrets; agents do not read it"
    assert failed.effect == ("none" if do == "fail" else "unknown")
    assert isinstance(await desk.run("tell"), Done)


async def test_a_long_text_is_cut_before_it_comes_over(desk) -> None:
    done = await desk.run("flood")
    assert isinstance(done, Done) and done.truncated and len(done.text) == desk.tools.tools["does"].row.max_output_bytes


async def test_no_more_run_than_may_and_the_others_are_told(pack, tmp_path) -> None:
    desk = Desk(pack, tool_processes=1)
    running = asyncio.create_task(desk.run("sleep", tmp_path / "pid", 3_600))
    await _told(tmp_path / "pid")
    busy = await desk.run("tell", timeout_s=0.05, tool="does_too")
    assert isinstance(busy, Failed) and (busy.code, busy.effect, busy.transient) == ("busy", "none", True)
    running.cancel()
    assert isinstance(await desk.run("tell"), Done)
    assert isinstance(await desk.run("tell", tool="does_too"), Done), "an idle process of another tool makes room"
    await desk.bench.close()


async def test_a_pack_that_cannot_be_imported_there_says_so(desk, monkeypatch) -> None:
    monkeypatch.setattr("services.tool_executor.registry.Tool.module", "no_such_module_anywhere")
    failed = await desk.run("tell")
    assert isinstance(failed, Failed) and (failed.code, failed.effect) == ("not_started", "none")
    assert "it raised ModuleNotFoundError" in failed.message


async def test_it_dies_with_the_executor(pack, tmp_path) -> None:
    """kill -9 of the executor: a call that goes on would be done beside its repetition by the next replica."""
    program = textwrap.dedent(f"""
        import asyncio, sys
        sys.path.insert(0, {str(tmp_path)!r})
        from tests.unit.tool_executor.test_plain_tools import Desk
        asyncio.run(Desk({pack!r}).run("sleep", {str(tmp_path / "pid")!r}, 3600))
        """)
    executor = subprocess.Popen([sys.executable, "-c", program])
    try:
        pid = await _told(tmp_path / "pid")
        assert psutil.Process(pid).ppid() == executor.pid
    finally:
        executor.kill()
        executor.wait()
    assert await _gone(pid)
