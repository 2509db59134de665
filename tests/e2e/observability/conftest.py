"""One mesh for all runbooks, and a Prometheus that reads it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bulkhead_services.tool_executor.settings import POLICY_DIR
from tests.e2e.fixtures.world import LEASING, TOOLS, WAITS, World
from tests.e2e.observability.watched import Watched


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    (folder / "rules").mkdir()
    own = (POLICY_DIR / "demo.cedar").read_text()
    only_keyed = own.replace(
        'action in [Action::"counter_increment", Action::"counter_increment_unkeyed"]',
        'action == Action::"counter_increment"',
    )
    for name in ("t1", "t7", LEASING):
        (folder / "rules" / f"{name}.cedar").write_text(own)
    (folder / "rules" / "default.cedar").write_text((POLICY_DIR / "default.cedar").read_text())
    (folder / "rules" / "demo.cedar").write_text(only_keyed)
    extra = {
        "budget": {"BULKHEAD_STALL_AFTER_S": "1", "BULKHEAD_BREAKER_OPEN_S": "600"},
        "tool_executor": {"BULKHEAD_POLICY_DIR": str(folder / "rules"), "BULKHEAD_RETRY_BACKOFF_S": "0.01"},
    }
    world = World(folder, extra_env=extra)
    world.change_tenants(**{LEASING: {"tools": [*TOOLS, *WAITS]}})
    async with world, Watched(world, folder) as found:
        yield found
