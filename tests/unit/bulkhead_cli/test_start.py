"""A command starts fast: it imports what it uses. Modules are counted, since no clock is the same on two machines."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from bulkhead_cli.main import PANELS, app
from tests.unit.bulkhead_cli.actors import Running
from tests.unit.services.gateway.harness import OPERATOR

FOREIGN = ("nats", "opentelemetry", "redis", "uvicorn", "starlette", "cryptography", "mcp", "a2a", "cedarpy", "psutil")
"""Never of use to a command that asks a gateway."""
OWN = ("bulkhead_services", "bulkhead_infra", "bulkhead.bus", "bulkhead.journal", "bulkhead.runtime")
MODELS = ("bulkhead.gateway_api", "bulkhead_contracts.task", "bulkhead_contracts.result")
MAX_CPU_S = 1.5
"""Generous: about a fifth of a second on the machine that this was written on, where it was two before."""
PROGRAM = """
import json, resource, sys
from bulkhead_cli.main import app
try:
    app()
except SystemExit as end:
    assert not end.code, end
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([sorted(sys.modules), used.ru_utime + used.ru_stime]), file=sys.stderr)
"""


def started(*words: str) -> tuple[set[str], float]:
    """Modules that a command has imported at its end, and the time of the processor that it took."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    modules, cpu_s = json.loads(done.stderr.splitlines()[-1])
    return set(modules), cpu_s


def imported(modules: set[str], names: tuple[str, ...]) -> set[str]:
    return {module for module in modules if any(module == name or module.startswith(f"{name}.") for name in names)}


def test_help_imports_no_command() -> None:
    modules, cpu_s = started("--help")
    assert imported(modules, (*FOREIGN, *OWN, *MODELS, "httpx", "pydantic", "asyncio")) == set()
    ours = {module for module in modules if module.startswith("bulkhead_cli.")}
    assert ours <= {
        f"bulkhead_cli.{name}" for name in ("main", "invocation", "options", "output", "target", "completion")
    }
    assert cpu_s < MAX_CPU_S


@pytest.mark.parametrize("words", [("tasks",), ("watch",), ("open",), ("halts",), ("spend",), ("up",), ("completion",)])
def test_the_help_of_a_command_imports_its_arguments_alone(words: tuple[str, ...]) -> None:
    modules, cpu_s = started(*words, "--help")
    assert imported(modules, (*FOREIGN, *OWN, *MODELS, "httpx", "pydantic")) == set()
    assert cpu_s < MAX_CPU_S


@pytest.mark.slow
def test_a_command_that_asks_a_gateway_imports_no_model_and_no_text_for_people(tmp_path: Path) -> None:
    mesh = Running(tmp_path)
    mesh.start()
    try:
        where = ("--url", f"http://127.0.0.1:{mesh.port}", "--api-key", OPERATOR)
        for words in (("tasks", "--json"), ("open", "--json")):
            modules, cpu_s = started(*words, *where)
            assert imported(modules, (*FOREIGN, *OWN, *MODELS, "rich", "click")) == set(), words
            assert cpu_s < MAX_CPU_S, words
    finally:
        mesh.stop()


def test_the_table_says_what_the_commands_say() -> None:
    """`bulkhead --help` shows the table, and imports no docstring."""
    commands = typer.main.get_command(app).commands
    for rows in PANELS.values():
        for row in rows:
            assert commands[row.name].help.partition("\n\n")[0] == row.summary
            assert row.name == commands[row.name].name
