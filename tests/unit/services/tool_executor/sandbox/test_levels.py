"""Levels of isolation: which one a call has, what is refused below its own, and how honest the probe is."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bulkhead.tools.api import Done
from bulkhead.tools.catalog import tool_rows
from bulkhead_services.tool_executor.core import ToolExecutor
from bulkhead_services.tool_executor.effects import ToolRunner
from bulkhead_services.tool_executor.registry import load_registry
from bulkhead_services.tool_executor.sandbox.levels import MECHANISMS, WALL_DANGERS, SandboxFindings, isolation_refusal
from bulkhead_services.tool_executor.sandbox.probe import Sandbox
from bulkhead_services.tool_executor.settings import Settings
from tests.needs import need

WHOLE = SandboxFindings(
    dict.fromkeys(MECHANISMS, ""), dict.fromkeys(WALL_DANGERS, ""), wasm="", container="no image is configured"
)
ROW = """
{name}:
  description: Says something.
  effect: read
  idempotent: true
  isolation: {least}
  parameters: {{type: object}}
"""
PLAIN = "from bulkhead.tools.packs import Done\n\ndef run(arguments, call):\n    return Done('ran')\n"
AWAITED = PLAIN.replace("def run", "async def run")
ECHO = """
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 1000))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 20)))
    (i32.store (i32.const 4) (i32.load (i32.const 20)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 20)))))
"""
Make = Callable[..., ToolRunner]


def test_a_wall_that_does_not_hold_takes_the_level_and_is_named() -> None:
    assert WHOLE.available_levels == ("none", "process", "wasm") and WHOLE.describe_missing() == ""
    for name, could in WALL_DANGERS.items():
        found = replace(WHOLE, walls={**WHOLE.walls, name: "it did"})
        assert (
            found.available_levels == ("none", "wasm")
            and found.describe_missing() == f"a plain tool here could {could} (it did)"
        )
    assert SandboxFindings().available_levels == ("none",), "what was not looked at does not hold"


@pytest.mark.parametrize(
    ("least", "given", "says", "hint"),
    [
        ("process", "none", "a plain tool here could", "Landlock"),
        ("container", "process", "no image is configured", "BULKHEAD_TOOL_CONTAINER_IMAGE"),
        ("wasm", "process", "its code is Python", "ship it as pay.wasm beside its row"),
    ],
)
def test_below_its_level_a_tool_is_refused_with_what_is_missing(least, given, says, hint) -> None:
    found = WHOLE if given == "process" else replace(WHOLE, walls={**WHOLE.walls, "files": "it read a key"})
    low = isolation_refusal("pay", least, found, given)
    assert low is not None and low.code == "isolation_too_low" and low.effect == "none"
    assert f"accepts no isolation below `{least}`" in low.message and says in low.message and hint in low.hint


def test_at_its_level_and_above_it_runs() -> None:
    for least, given in (("none", "none"), ("process", "process"), ("process", "container"), ("container", "wasm")):
        assert isolation_refusal("pay", least, WHOLE, given) is None


def _pack(folder: Path, monkeypatch: pytest.MonkeyPatch, **tools: tuple[str, str, str]) -> str:
    """{name: (least, kind of file, content)}."""
    name = f"leveled_{abs(hash(folder))}"
    folder = folder / "packs"  # Others may read this one.
    (folder / name).mkdir(parents=True)
    monkeypatch.syspath_prepend(folder)
    (folder / name / "__init__.py").touch()
    (folder / name / "tools.yaml").write_text("".join(ROW.format(name=t, least=row[0]) for t, row in tools.items()))
    for tool, (_, kind, content) in tools.items():
        (folder / name / f"{tool}.{kind}").write_text(content)
    return name


@pytest.fixture
async def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_desk):
    """A desk whose tools run at each level."""
    need("sandbox")
    tools = {
        "walled": ("process", "py", PLAIN),
        "boxed": ("container", "py", PLAIN),
        "echo": ("wasm", "wat", ECHO),
        "snake": ("wasm", "py", PLAIN),
    }
    settings = Settings(packs=(_pack(tmp_path, monkeypatch, **tools),), run_python=True, run_wasm=True)
    desk = make_desk()
    desk.doer = ToolExecutor(
        load_registry(settings.configured_names(), tool_rows(settings.packs)), ToolRunner(settings), desk.doer._gate
    )
    await desk.doer.start()
    yield desk
    await desk.doer.stop()


async def test_every_outcome_says_how_far_its_call_was_walled_off(made) -> None:
    walled, echoed = await made.call("walled"), await made.call("echo", {"say": "hello"})
    assert (walled.outcome, walled.isolation) == ("succeeded", "process")
    assert (echoed.outcome, echoed.isolation) == ("succeeded", "wasm"), echoed.failure
    assert json.loads(made.text(echoed)) == {"say": "hello"}, "a tool in WebAssembly reads its arguments"
    assert (await made.call("calculate", {"expression": "1"})).isolation == "none"


@pytest.mark.parametrize("tool", ["boxed", "snake"])
async def test_a_tool_below_its_level_is_not_run(made, tool: str) -> None:
    reply = await made.call(tool)
    assert (reply.outcome, reply.failure.code, reply.isolation) == ("refused", "isolation_too_low", "none")
    assert made.reservations == [], "nothing was begun"
    assert tool in made.doer.describe_degradation() and "walled" not in made.doer.describe_degradation()


async def test_what_holds_is_told_to_readyz(made) -> None:
    told = made.doer.details()["isolation"]
    assert told["levels"] == ["none", "process", "wasm"] and set(told["walls"]) == {*WALL_DANGERS, "disk"}
    assert {told["walls"][name] for name in WALL_DANGERS} == {"held"} and set(told["mechanisms"]) == set(MECHANISMS)


async def test_an_executor_without_such_tools_tells_nothing_of_it(desk) -> None:
    assert desk.doer.details() == {} and desk.doer.describe_degradation() == ""


@pytest.mark.slow
async def test_run_python_tells_what_it_printed_and_its_last_value_and_remembers_nothing(made) -> None:
    said = await made.call("run_python", {"code": "print(input())\nx = 6\nx * 7", "input": "hi"})
    assert (made.text(said), said.isolation) == ("hi\n42\n", "process"), said.failure
    assert (await made.call("run_python", {"code": "open('/tmp/x', 'w')"})).failure.code == "code_failed"
    left = "import os, builtins\nbuiltins.kept = 1\nopen(os.environ['HOME'] + '/kept', 'w').close()"
    assert (await made.call("run_python", {"code": left})).outcome == "succeeded"
    looks = "import os, builtins\nhasattr(builtins, 'kept') or os.path.exists(os.environ['HOME'] + '/kept')"
    assert made.text(await made.call("run_python", {"code": looks})) == "False\n"
    long = await made.call("run_python", {"code": "print('x' * 1_000_000)"})
    assert long.completeness.omissions and len(made.text(long)) == 64 * 1024


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ('(module (func (export "_start") (loop (br 0))))', "out of fuel"),
        ('(module (memory 2000) (func (export "_start")))', "exceeds memory limits"),
        ('(module (func $f (call $f)) (func (export "_start") (call $f)))', "call stack exhausted"),
        ('(module (import "env" "system" (func)) (func (export "_start")))', "env.system, which is not there"),
        (
            '(module (import "wasi_snapshot_preview1" "path_open" (func)) (func (export "_start")))',
            "path_open, which is not there",
        ),
        ("(module)", "exports no function `_start`"),
        ("AAAA", "the module did not end well"),
    ],
)
async def test_a_module_has_no_more_than_its_fuel_its_memory_and_its_streams(made, module: str, says: str) -> None:
    reply = await made.call("run_wasm", {"module": module, "fuel": 1_000_000})
    assert (reply.outcome, reply.isolation) == ("failed", "wasm") and says in reply.failure.message


async def test_code_tools_are_off_until_they_are_asked_for(desk) -> None:
    for tool in ("run_python", "run_wasm"):
        reply = await desk.call(tool, {"code": "1"})
        assert (reply.outcome, reply.failure.code) == ("refused", "not_configured")
        assert f"BULKHEAD_{tool.upper()}" in reply.failure.hint


def test_without_its_mechanisms_the_probe_gets_through_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe that cannot fail would say nothing."""
    need("sandbox")
    sandbox = Sandbox(Settings())
    tried = sandbox._try_escapes
    off = dict.fromkeys(MECHANISMS, "switched off by this test")
    monkeypatch.setattr(sandbox, "_try_escapes", lambda without: tried(without | off))
    found = sandbox._probe_walls()
    assert found.process_level == "none" and set(found.open_walls) >= {
        "files",
        "network",
        "processes",
        "forks",
        "memory",
    }
    assert found.active_mechanisms == ()


@pytest.mark.needs("linux")
def test_the_probe_runs_wherever_it_may_find_nothing() -> None:
    """One that breaks would take every level away, and with it all tests of walls: limits work on any Linux."""
    found = Sandbox(Settings()).find_isolation()
    assert found.mechanisms["rlimits"] == "" and set(found.walls) >= set(WALL_DANGERS)


@pytest.mark.needs("sandbox")
async def test_an_async_tool_that_declares_an_isolation_has_a_process_of_its_own(tmp_path, monkeypatch) -> None:
    code = "import os\n" + AWAITED.replace("'ran'", "str(os.getpid())")
    pack = _pack(tmp_path, monkeypatch, walled=("process", "py", code), open_air=("none", "py", code))
    bench = ToolRunner(Settings(packs=(pack,)))
    tools = load_registry((), tool_rows((pack,))).tools
    said = {name: await bench.run(tools[name], {}, "acme.k", 20, None) for name in ("walled", "open_air")}
    await bench.close()
    assert said["open_air"] == Done(str(os.getpid())) and isinstance(said["walled"], Done)
    assert said["walled"] != said["open_air"] and bench.isolation_of(tools["open_air"]) == "none"
