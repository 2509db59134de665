"""Escapes tried by a hostile tool behind the real walls: each fails, and calls beside it go on. Real processes."""

import ast
import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from bulkhead.tools.catalog import tool_rows
from bulkhead.tools.packs import Done, Failed
from bulkhead_services.tool_executor.effects import ToolRunner
from bulkhead_services.tool_executor.registry import load_registry
from bulkhead_services.tool_executor.settings import Settings
from tests.eventually import until
from tests.needs import need

SECRET = "the executor's key"
TOOL = """
{name}:
  description: Tries to escape.
  effect: read
  idempotent: true
  isolation: process
  parameters: {{type: object}}
"""
HOSTILE = """
import ctypes, os, signal, socket, subprocess, sys, time
from bulkhead.tools.packs import Done

def tried(act):
    try:
        return f"did: {act()!r}"[:200]
    except BaseException as error:
        return type(error).__name__

def connect(family, address, kind=socket.SOCK_STREAM):
    with socket.socket(family, kind) as wire:
        wire.settimeout(1)
        if kind == socket.SOCK_DGRAM:
            return wire.sendto(b"x", address)
        wire.connect(address)

def bomb():
    started = 0
    while True:
        if os.fork() == 0:
            while True:
                try:
                    os.fork()
                except OSError:
                    pass
        started += 1

def fill(folder):
    written = 0
    try:
        for number in range(1_000):
            with open(f"{folder}/fill{number}", "wb", buffering=0) as file:
                while written < 1 << 31:
                    done = file.write(bytes(1 << 20))
                    written += done
                    if done < 1 << 20:
                        break
    except OSError:
        pass
    return written

def run(arguments, call):
    return Done(repr(eval(arguments["do"], globals() | {"given": arguments})))
"""
PEACEFUL = """
from bulkhead.tools.packs import Done

def run(arguments, call):
    return Done("well")
"""


class Desk:
    """A workbench with a hostile tool and a peaceful one."""

    def __init__(self, folder: Path, pack: str) -> None:
        identity = folder / "identity"
        identity.mkdir()
        self.key = identity / "tool_executor.sign"
        self.key.write_text(SECRET)
        self.key.chmod(0o600)
        settings = Settings(packs=(pack,), identity_dir=identity, tool_memory_mib=256, tool_disk_mib=8)
        self.tools = load_registry(settings.configured_names(), tool_rows(settings.packs)).tools
        self.bench = ToolRunner(settings)

    async def outcome(self, do: str, tool: str = "hostile", timeout_s: float = 20, **given: Any) -> Done | Failed:
        return await self.bench.run(self.tools[tool], {"do": do, **given}, "acme.t1.c1", timeout_s, None)

    async def said(self, do: str, **given: Any) -> Any:
        """What the hostile tool tells, while another tool answers beside it."""
        mine, theirs = await asyncio.gather(self.outcome(do, **given), self.outcome("", "peaceful"))
        assert theirs == Done("well"), theirs
        assert isinstance(mine, Done), mine
        return ast.literal_eval(mine.text)


@pytest.fixture
async def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    need("sandbox")
    pack = f"hostile_{abs(hash(tmp_path))}"
    folder = tmp_path / "packs" / pack
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(folder.parent)
    (folder / "__init__.py").touch()
    (folder / "tools.yaml").write_text(TOOL.format(name="hostile") + TOOL.format(name="peaceful"))
    (folder / "hostile.py").write_text(HOSTILE)
    (folder / "peaceful.py").write_text(PEACEFUL)
    found = Desk(tmp_path, pack)
    yield found
    await found.bench.close()


def _ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def _below() -> int:
    return len([one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE])


@pytest.mark.slow
async def test_a_fork_bomb_is_bounded_and_ends_with_its_call(desk: Desk) -> None:
    assert await desk.said("1") == 1
    before = _below()
    bomb = asyncio.create_task(desk.outcome("bomb()", timeout_s=3))
    most, others = 0, 0
    while not bomb.done():
        others += await desk.outcome("", "peaceful") == Done("well")
        most = max(most, _below())
        await asyncio.sleep(0.1)
    ended = await bomb
    assert isinstance(ended, Failed) and ended.code in ("timeout", "tool_bug", "sandbox_limit")
    # On a busy machine nobody may have looked while its processes were there.
    assert others and most <= before + 70
    await until(lambda: _below() <= before, timeout_s=20)


async def test_memory_has_a_bound(desk: Desk) -> None:
    assert await desk.said("tried(lambda: len(bytearray(300 << 20)))") == "MemoryError"
    assert await desk.said("tried(lambda: len(bytearray(10 << 20)))") == f"did: {10 << 20}"


async def test_memory_of_all_that_it_starts_is_counted_together(desk: Desk) -> None:
    hoard = "[os.fork() for _ in range(3)] and bytearray(b'x') * (90 << 20) and time.sleep(60)"
    for _ in range(5):  # A fork bomb of another test may take the processes of the same user for a moment.
        ended = await desk.outcome(hoard)
        if not (isinstance(ended, Failed) and "BlockingIOError" in ended.message):
            break
    assert isinstance(ended, Failed) and ended.code == "sandbox_limit", ended
    assert "MiB of memory, and may take 256" in ended.message and "BULKHEAD_TOOL_MEMORY_MIB" in ended.hint


async def test_its_folder_has_a_bound_and_goes_with_its_process(desk: Desk) -> None:
    ended = await desk.outcome("(fill('.'), os.getcwd())")
    if isinstance(ended, Failed):
        assert ended.code == "sandbox_limit"  # Where nothing but its files' lengths is bounded by the kernel.
        return
    written, folder = ast.literal_eval((ended).text)
    assert 1 << 20 < written <= 8 << 20
    await desk.bench.close()
    assert not os.path.exists(folder)


@pytest.mark.parametrize("folder", ["/tmp", "/var/tmp", "/dev/shm", "/", "/etc", "/proc/self", "/sys"])
async def test_it_writes_nowhere_else(desk: Desk, folder: str) -> None:
    said = await desk.said(f"tried(lambda: open({folder!r} + '/escape', 'w').close())")
    assert said in ("PermissionError", "OSError", "FileNotFoundError"), said


async def test_it_has_no_network(desk: Desk, tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        addresses = {"tcp": tcp.getsockname(), "udp": udp.getsockname()}
        for do in (
            "connect(socket.AF_INET, tuple(given['tcp']))",
            "connect(socket.AF_INET, tuple(given['udp']), socket.SOCK_DGRAM)",
            "connect(socket.AF_INET6, ('::1', given['tcp'][1]))",
            "socket.socket(socket.AF_PACKET, socket.SOCK_RAW).send(b'x')",
            "socket.socket(socket.AF_INET, socket.SOCK_STREAM).bind(('0.0.0.0', 0))",
            "socket.socket(40, socket.SOCK_STREAM).connect((2, 1))",
        ):
            said = await desk.said(f"tried(lambda: {do})", **addresses)
            assert said in ("PermissionError", "OSError"), (do, said)
        with pytest.raises(BlockingIOError):
            udp.recv(10)


async def test_it_reaches_no_local_socket_of_the_executor(desk: Desk, tmp_path: Path) -> None:
    abstract = f"\0bulkhead-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as named, socket.socket(socket.AF_UNIX) as hidden:
        named.bind(path := str(tmp_path / "s"))
        hidden.bind(abstract)
        for wire in (named, hidden):
            wire.listen()
        os.chmod(path, 0o777)
        for address in (path, abstract, "/var/run/docker.sock"):
            said = await desk.said("tried(lambda: connect(socket.AF_UNIX, given['at']))", at=address)
            assert said in ("PermissionError", "FileNotFoundError"), said


async def test_no_path_and_no_link_leads_to_the_executors_files(desk: Desk) -> None:
    key = str(desk.key)
    for do in (
        "open(given['key']).read()",
        "open('../' * 40 + given['key'].lstrip('/')).read()",
        "os.symlink(given['key'], 'link') or open('link').read()",
        "os.link(given['key'], 'hard') or open('hard').read()",
        "os.listdir(os.path.dirname(given['key']))",
        "open('/etc/shadow').read()",
        "open(f'/proc/{os.getppid()}/root' + given['key']).read()",
        "open('/proc/self/root' + given['key']).read()",
        "subprocess.run(['cat', given['key']], check=True, capture_output=True).stdout",
    ):
        said = await desk.said(f"tried(lambda: {do})", key=key)
        assert not said.startswith("did") and SECRET not in said, (do, said)


async def test_a_link_in_its_folder_makes_the_executor_delete_nothing_else(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    await desk.said("os.symlink(given['to'], 'link')", to=str(tmp_path / "kept"))
    await desk.bench.close()
    assert (tmp_path / "kept" / "file").exists()


async def test_it_sees_nothing_of_the_executor_in_proc(desk: Desk) -> None:
    for name in ("environ", "mem", "maps", "fd", "cwd", "root"):
        said = await desk.said(f"tried(lambda: os.listdir('/proc/{os.getpid()}/{name}'))")
        opened = await desk.said(f"tried(lambda: open('/proc/{os.getpid()}/{name}', 'rb').read(1))")
        assert not said.startswith("did") and not opened.startswith("did"), (name, said, opened)


async def test_its_environment_holds_nothing_of_the_executors(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-executor")
    monkeypatch.setenv("BULKHEAD_IDENTITY_DIR", "/keys")
    names = await desk.said("sorted(os.environ)")
    assert set(names) <= {"HOME", "LANG", "LC_CTYPE", "PATH", "PYTHONDONTWRITEBYTECODE", "TMPDIR", "TZ"}
    assert "sk-executor" not in await desk.said("open('/proc/self/environ').read()")


async def test_it_signals_traces_and_limits_nobody_else(desk: Desk) -> None:
    pid = os.getpid()
    for do in (
        f"os.kill({pid}, 0)",
        f"os.kill({pid}, signal.SIGKILL)",
        f"os.killpg({os.getpgrp()}, 0)",
        "os.kill(os.getppid(), signal.SIGSTOP)",
        f"signal.pidfd_send_signal(os.pidfd_open({pid}), 0)",
        f"__import__('resource').prlimit({pid}, 7)",
        f"os.sched_setaffinity({pid}, [0])",
        f"os.setpriority(os.PRIO_PROCESS, {pid}, 19)",
    ):
        said = await desk.said(f"tried(lambda: {do})")
        assert said in ("PermissionError", "ProcessLookupError"), (do, said)
    assert await desk.said(f"ctypes.CDLL(None).ptrace(16, {pid}, None, None)") == -1
    other = await desk.outcome("os.getpid()", "peaceful")
    assert other == Done("well")


async def test_it_gains_no_rights(desk: Desk) -> None:
    assert await desk.said("os.getuid() == 0 or os.geteuid() == 0") is False
    for do in ("os.setuid(0)", "os.chroot('.')", "os.mknod('node', 0o600 | 0o60000, 0x700)"):
        assert await desk.said(f"tried(lambda: {do})") in ("PermissionError", "OSError"), do
    libc = "ctypes.CDLL(None, use_errno=True)"
    for call in ("unshare(0x10000000)", "mount(b'x', b'/', b'tmpfs', 0, None)", "syscall(425, 1, 0)"):
        assert await desk.said(f"{libc}.{call}") == -1, call
    su = "subprocess.run(['su', '-c', 'id -u'], capture_output=True, stdin=subprocess.DEVNULL).stdout"
    assert not (await desk.said(f"tried(lambda: {su})")).startswith("did: b'0")


async def test_what_it_leaves_behind_stands_still_and_ends_with_its_process(desk: Desk) -> None:
    daemon = "['sh', '-c', 'setsid sh -c \"while :; do :; done\" >/dev/null 2>&1 & echo $!']"
    pid = int(await desk.said(f"subprocess.run({daemon}, capture_output=True).stdout"))
    await until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    used = psutil.Process(pid).cpu_times().user
    time.sleep(0.3)
    assert psutil.Process(pid).cpu_times().user == used, "no work goes on after the answer"
    await desk.bench.close()
    await until(lambda: _ended(pid))


async def test_what_it_prints_without_end_is_cut(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    assert await desk.said("[os.write(2, b'noise' * 1000) for _ in range(1000)][-1]") == 5_000
    assert len(capfd.readouterr().err) < 200_000
