"""A tool in a container of its own: it runs there, bounded and without network, and one that hangs is ended with it."""

import ast
import asyncio
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from bulkhead.tools.catalog import tool_rows
from bulkhead.tools.packs import Done, Failed
from bulkhead_services.tool_executor.effects import ToolRunner
from bulkhead_services.tool_executor.registry import load_registry
from bulkhead_services.tool_executor.settings import Settings
from tests.eventually import until

PACK = "contained"
IMAGE = "bulkhead/tool-executor:contained-test"
ROW = "boxed:\n  description: Runs what it is told.\n  effect: read\n  idempotent: true\n  isolation: container\n"
TOOL = """
import os, socket, time
from bulkhead.tools.packs import Done

def tried(act):
    try:
        return f"did: {act()!r}"
    except BaseException as error:
        return type(error).__name__

def bomb():
    started = 0
    try:
        while started < 500:
            if os.fork() == 0:
                time.sleep(600)
            started += 1
    except OSError:
        return started

def run(arguments, call):
    return Done(repr(eval(arguments["do"])))
"""


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=300).stdout


@pytest.fixture
async def bench(built: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ToolRunner]:
    """As an operator makes it: the image of tool_executor with his packs in it."""
    folder = tmp_path / PACK
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "tools.yaml").write_text(f"{ROW}  parameters: {{type: object}}\n")
    (folder / "boxed.py").write_text(TOOL)
    (tmp_path / "Dockerfile").write_text(f"FROM {built['tool_executor']}\nCOPY {PACK} /bulkhead/packs/{PACK}\n")
    _docker("build", "-q", "-t", IMAGE, str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    found = ToolRunner(Settings(packs=(PACK,), tool_container_image=IMAGE, tool_memory_mib=128, tool_disk_mib=4))
    yield found
    await found.close()
    _docker("rmi", "-f", IMAGE)


async def _run(bench: ToolRunner, do: str, timeout_s: float = 60) -> Done | Failed:
    tool = load_registry((), tool_rows((PACK,))).tools["boxed"]
    assert bench.isolation_refusal(tool) is None and bench.isolation_of(tool) == "container"
    return await bench.run(tool, {"do": do}, "acme.t1.c1", timeout_s, None)


async def test_it_runs_walled_off_and_each_call_has_a_new_one(bench: ToolRunner) -> None:
    async def said(do: str) -> object:
        done = await _run(bench, do)
        assert isinstance(done, Done), done
        return ast.literal_eval(done.text)

    assert await said("tried(lambda: socket.create_connection(('1.1.1.1', 53), 2))") == "OSError"
    assert await said("tried(lambda: open('/escape', 'w'))") in ("OSError", "PermissionError")
    assert await said("os.getuid()") == 65534
    assert await said("open('/tmp/left', 'w').write('x')") == 1
    assert await said("os.path.exists('/tmp/left')") is False
    assert await said("tried(lambda: open('/tmp/full', 'wb').write(bytes(8 << 20)))") == "OSError"
    started = await said("bomb()")
    assert isinstance(started, int) and started < 100
    ended = await _run(bench, "bytearray(400 << 20)[::4096]")
    assert isinstance(ended, Failed) and ended.effect == "unknown"


async def test_one_that_hangs_is_ended_with_its_time(bench: ToolRunner) -> None:
    ended = await _run(bench, "time.sleep(600)", timeout_s=3)
    assert isinstance(ended, Failed) and ended.code == "timeout"
    await until(lambda: not _docker("ps", "-q", "--filter", "label=bulkhead.tool"), timeout_s=60)
    assert isinstance(await asyncio.wait_for(_run(bench, "1"), 60), Done)
