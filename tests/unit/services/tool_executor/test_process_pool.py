"""Plain tools (`def run`): each call in a process of its own, which is ended with its time. Real processes."""

import asyncio
import ctypes
import importlib
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead.tools.catalog import tool_rows
from bulkhead.tools.packs import Done, Failed
from bulkhead_services.tool_executor.effects import ToolRunner
from bulkhead_services.tool_executor.registry import ToolRegistry, load_registry
from bulkhead_services.tool_executor.settings import Settings
from tests.eventually import until

PR_CAPBSET_DROP = 24
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
from dataclasses import dataclass
from bulkhead.tools.packs import Done, Failed
from bulkhead.runtime.fair_semaphore import FairSemaphore

kept = []

@dataclass(frozen=True)
class MoreThanFailed(Failed):
    more: str = "more"

def run(arguments, call):
    what = arguments["do"]
    if what == "keep":
        kept.append(call.key)
        return Done(repr((os.getpid(), kept)))
    if what == "fork":
        copy = os.fork()
        if not copy:
            return Done("of the copy")
        ended = os.fork()
        if not ended:
            sys.exit(3)
        codes = [os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]) for one in (copy, ended)]
        return Done(f"of the call {codes}")
    if what == "daemon":
        found = subprocess.run(["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"], capture_output=True)
        open(arguments["tell"], "w").write(found.stdout.decode())
        time.sleep(600)
    if what == "spy":
        found = {}
        for name in ("environ", "maps", "mem", "fd/0"):
            try:
                with open(f"/proc/{os.getppid()}/{name}", "rb") as file:
                    file.seek(id(found) if name == "mem" else 0)
                    found[name] = "seen" if name == "mem" or file.read(1) else "empty"
            except (PermissionError, FileNotFoundError):
                found[name] = "denied"
        return Done(repr(found))
    if what == "leave":
        left = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
        return Done(f"{os.getpid()} {left.pid}")
    if what == "more":
        return MoreThanFailed("sold_out", "none is left", "ask tomorrow")
    if what == "error":
        return Failed("sold_out", ValueError("none"), "ask tomorrow")
    if what == "maybe":
        return Failed("sold_out", "none is left", "ask tomorrow", effect="maybe")
    if what == "scribble":
        for number in map(int, os.listdir("/proc/self/fd")):
            link = f"/proc/self/fd/{number}"
            if os.path.islink(link) and os.readlink(link).startswith("socket:"):
                os.write(number, b"\\0\\0\\0\\3{x}")
        time.sleep(600)
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
    tmp_path.chmod(0o777)  # A tool has another user, where the tests are root's.
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
        (folder,) = importlib.import_module(pack).__path__
        granted = dict.fromkeys(("does", "does_too"), (str(Path(folder).parent),))
        settings = Settings(packs=(pack,), tool_settings=given, tool_folders=granted, **knobs)  # type: ignore[arg-type]
        self.tools: ToolRegistry = load_registry(settings.configured_names(), tool_rows(settings.packs))
        self.bench = ToolRunner(settings)

    async def run(
        self,
        do: str,
        tell: Path | str = "",
        timeout_s: float = 60,
        tool: str = "does",
        cut: asyncio.Event | None = None,
        key: str = "k1",
        wait_s: float = 60,
        **more: Any,
    ) -> Done | Failed | None:
        """As the executor runs it: by who has a place. None where there was none."""
        given, tenant = {"do": do, "tell": str(tell)}, key.partition(".")[0]
        if not await self.bench.process_slots.acquire_slot(tenant, wait_s):
            return None
        try:
            return await self.bench.run(self.tools.tools[tool], given, key, timeout_s, cut, **more)
        finally:
            self.bench.process_slots.release_slot(tenant)


@pytest.fixture
async def desk(pack: str) -> AsyncIterator[Desk]:
    found = Desk(pack, tool_processes=2)
    yield found
    await found.bench.close()


async def _told(file: Path) -> int:
    await until(lambda: file.exists() and file.read_text(), timeout_s=60)
    return int(file.read_text())


async def _gone(pid: int) -> bool:
    await until(lambda: not (psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE))
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


async def test_what_a_tool_keeps_is_seen_by_no_other_tenant(desk) -> None:
    pid, kept = eval((await desk.run("keep", key="acme.t1.c1")).text)
    assert kept == ["acme.t1.c1"]
    assert eval((await desk.run("keep", key="other.t1.c1")).text)[1] == ["other.t1.c1"], "globals, cookies, files"
    assert eval((await desk.run("keep", key="acme.t2.c1")).text) == (pid, ["acme.t1.c1", "acme.t2.c1"])


async def test_a_copy_that_the_tool_forks_answers_nothing_and_takes_no_call(desk) -> None:
    for _ in range(3):
        assert (await desk.run("fork")).text == "of the call [0, 3]"
        assert eval((await desk.run("keep")).text)[1][-1] == "k1", "each call has its own answer, not that of the last"


async def test_what_has_left_its_session_ends_with_its_time_too(desk, tmp_path) -> None:
    running = asyncio.create_task(desk.run("daemon", tmp_path / "pid", 3_600))
    pid = await _told(tmp_path / "pid")
    await until(lambda: os.getsid(pid) == pid, "a session of its own, and no parent")
    running.cancel()
    await asyncio.wait({running})
    assert await _gone(pid)


async def test_what_a_process_left_ends_when_it_is_found_dead(desk) -> None:
    pid, left = map(int, (await desk.run("leave")).text.split())
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert isinstance(await desk.run("tell"), Done) and await _gone(left)


async def test_without_a_process_or_a_file_the_call_says_that_nothing_was_done(desk) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Whoever started the tests may have left gaps between the open files.
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
    fillers = list[int]()
    try:
        with suppress(OSError):
            while True:
                fillers.append(os.open(os.devnull, os.O_RDONLY))
        failed = await desk.run("tell")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in fillers:
            os.close(one)
    assert isinstance(failed, Failed) and failed.transient
    assert (failed.code, failed.effect) == ("not_started", "none")
    assert "Too many open files" in failed.message and isinstance(await desk.run("tell"), Done)


async def test_what_came_too_late_while_it_waited_for_a_process_is_not_begun(pack, tmp_path) -> None:
    desk = Desk(pack, tool_processes=1)
    first = asyncio.create_task(desk.run("sleep", tmp_path / "pid", 3_600))
    await _told(tmp_path / "pid")
    never = Failed("halted", "the task was halted", "lift it")
    second = asyncio.create_task(desk.run("sleep", tmp_path / "second", 3_600, start_refusal=lambda: never))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == never and not (tmp_path / "second").exists()
    assert isinstance(await desk.run("tell"), Done)
    await desk.bench.close()


WRONG = (
    ("more", "sold_out", "none is left"),
    ("error", "tool_bug", "returned Failed whose code is no short name, or whose message or hint is no text"),
    ("maybe", "tool_bug", "returned Failed whose effect is neither `none` nor `unknown`"),
    ("scribble", "tool_bug", "ended by signal 9 before it answered"),
    ("crash", "tool_bug", "ended by signal 11 before it answered"),
    ("raise", "tool_bug", "does raised KeyError (does.py, line "),
    ("exit", "tool_bug", "does raised SystemExit (does.py, line "),
    ("nothing", "tool_bug", "returned a NoneType where Done or Failed is due"),
    ("world", "tool_bug", "does raised AttributeError"),
    ("fail", "sold_out", "none is left"),
)


async def test_what_goes_wrong_there_is_told_and_ends_nothing_else(desk) -> None:
    for do, code, says in WRONG:
        failed = await desk.run(do)
        assert isinstance(failed, Failed) and failed.code == code and says in failed.message, (do, failed)
        assert "hunter2" not in repr(failed), "what a tool raises may name secrets; agents do not read it"
        assert failed.effect == ("none" if do in ("fail", "more") else "unknown"), do
        assert isinstance(await desk.run("tell"), Done), do


async def test_a_long_text_is_cut_before_it_comes_over(desk) -> None:
    done = await desk.run("flood")
    assert isinstance(done, Done) and done.truncated and len(done.text) == desk.tools.tools["does"].row.max_output_bytes


async def test_no_more_run_than_may(pack, tmp_path) -> None:
    desk = Desk(pack, tool_processes=1)
    running = asyncio.create_task(desk.run("sleep", tmp_path / "pid", 3_600))
    await _told(tmp_path / "pid")
    assert await desk.run("tell", wait_s=0.05, tool="does_too") is None
    running.cancel()
    assert isinstance(await desk.run("tell"), Done)
    assert isinstance(await desk.run("tell", tool="does_too"), Done), "an idle process of another tool makes room"
    await desk.bench.close()


async def test_slow_tools_of_one_tenant_leave_places_for_the_others(pack, tmp_path) -> None:
    desk = Desk(pack, tool_processes=4)
    slow = [asyncio.create_task(desk.run("sleep", tmp_path / f"pid{n}", 3_600, key=f"acme.t{n}.c1")) for n in range(4)]
    for one in range(3):
        await _told(tmp_path / f"pid{one}")
    assert isinstance(await desk.run("tell", timeout_s=30, key="bolt.t1.c1"), Done), "before one more of acme"
    assert await desk.run("tell", wait_s=0.05, key="acme.t5.c1") is None
    assert not (tmp_path / "pid3").exists()
    slow[0].cancel()
    await _told(tmp_path / "pid3")
    for task in slow:
        task.cancel()
    await asyncio.wait(slow)
    await desk.bench.close()


async def test_a_place_goes_to_the_tenant_that_holds_the_fewest_and_there_to_who_waited_longest() -> None:
    places, begun = FairSemaphore(4, kept=1), []

    async def begin(tenant: str, name: str) -> None:
        await places.acquire_slot(tenant, 60)
        begun.append(name)

    names = ["a1", "a2", "a3", "a4", "b1", "b2", "c1", "b3"]
    tasks = {name: asyncio.create_task(begin(name[0], name)) for name in names}
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert begun == ["a1", "a2", "a3", "b1"], "three quarters at most, and the others in order"
    tasks["b2"].cancel()
    for left, came in (("a", "c1"), ("a", "a4"), ("b", "b3")):
        places.release_slot(left)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert begun[-1] == came
    for tenant in ("a", "a", "b", "c"):
        places.release_slot(tenant)
    assert places.used == 0


async def test_a_place_that_is_given_when_nobody_wants_it_any_more_goes_on() -> None:
    places = FairSemaphore(1)
    assert await places.acquire_slot("a", 0)
    waits = asyncio.create_task(places.acquire_slot("b", 60))
    await asyncio.sleep(0)
    places.release_slot("a")
    waits.cancel()
    await asyncio.wait({waits})
    assert waits.cancelled() and places.used == 0


async def test_a_pack_that_cannot_be_imported_there_says_so(desk, monkeypatch) -> None:
    monkeypatch.setattr(
        "bulkhead_services.tool_executor.registry.RegisteredTool.module_name", "no_such_module_anywhere"
    )
    failed = await desk.run("tell")
    assert isinstance(failed, Failed) and (failed.code, failed.effect) == ("not_started", "none")
    assert "it raised ModuleNotFoundError" in failed.message


@pytest.mark.needs("linux")
@pytest.mark.slow
def test_a_tool_cannot_look_into_the_executor_that_started_it(pack, tmp_path) -> None:
    """As it is started; as root, without root's capabilities, which no other user has either."""
    program = textwrap.dedent(f"""
        import asyncio, sys, types
        sys.path.insert(0, {str(tmp_path)!r})
        from bulkhead_services.tool_executor.app import build_watched
        from bulkhead_services.tool_executor.settings import Settings
        settings = Settings(packs=({pack!r},), tool_settings={{"desk_url": "x"}})
        doer = build_watched(types.SimpleNamespace(clock=None, service="tool_executor"), settings)
        tool = doer._registry.tools["does"]
        print(asyncio.run(doer._runner.run(tool, {{"do": "spy"}}, "acme.t1.c1", 60, None)).text)
        """)

    def powerless() -> None:
        for capability in range(64):
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)

    said = subprocess.run([sys.executable, "-c", program], preexec_fn=powerless, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert set(eval(said.stdout).values()) == {"denied"}, said.stdout


@pytest.mark.slow
async def test_it_dies_with_the_executor(pack, tmp_path) -> None:
    """kill -9 of the executor: a call that goes on would be done beside its repetition by the next replica."""
    program = textwrap.dedent(f"""
        import asyncio, sys
        sys.path.insert(0, {str(tmp_path)!r})
        from tests.unit.services.tool_executor.test_process_pool import Desk
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
