"""Real meshes for the end-to-end tests, and where to look when one fails."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.fixtures.stranger import Stranger
from tests.e2e.fixtures.world import LEASING, TOOLS, WAITS, World

collect_ignore = ["external"]
"""Somebody else's repository: test_external.py runs it as such."""
SHOWN_TASKS = 3
REPORT_TIMEOUT_S = 30


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    """Who uses us from another repository."""
    return Stranger(tmp_path_factory.mktemp("stranger"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One mesh for all tests that leave broker and Redis alone."""
    folder = tmp_path_factory.mktemp("world")
    extra = {
        "model_gateway": {"BULKHEAD_STALL_TIMEOUT_S": "3"},
        # Longer than a test takes anywhere: a person lets an agent go on, not time.
        "budget": {"BULKHEAD_BREAKER_OPEN_S": "600"},
    }
    found = World(folder, extra_env=extra, scale={"budget": 2})
    found.change_tenants(**{LEASING: {"tools": [*TOOLS, *WAITS]}})
    async with found:
        yield found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    report = yield
    if call.when == "call" and report.failed:
        for found in getattr(item, "funcargs", {}).values():
            if isinstance(found, World):
                report.sections.append(("the mesh", _where_to_look(found)))
    return report


def _where_to_look(world: World) -> str:
    """Paths, and the timelines of the last tasks: the services go on while the test's loop stands still."""
    folder = world.mesh.directory
    lines = [f"logs: {folder / 'logs'}", f"traces: {folder / 'traces'}", f"broker's store: {folder / 'nats'}"]
    for task in world.submitted[-SHOWN_TASKS:]:
        for what in ("timeline", "replay"):
            path = folder / f"{what}-{task}.json"
            command = [sys.executable, "-m", "bulkhead_cli.main", what, task, "--data", str(folder), "--json"]
            try:
                done = subprocess.run(command, capture_output=True, timeout=REPORT_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                lines.append(f"{what} of {task}: no answer within {REPORT_TIMEOUT_S} s")
                continue
            path.write_bytes(done.stdout)
            lines.append(f"{what} of {task}: {path}" if done.stdout else f"{what} of {task}: {done.stderr.decode()}")
    return "\n".join([*lines, "the supervisor said:", *world.said[-20:]])
