"""One mesh for all outside agents."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.fixtures.world import World


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def agents(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A mesh of two doors that are quick to refuse what is held back; agents call one of them."""
    doors = {"BULKHEAD_HOLD_S": "1", "BULKHEAD_CALL_TIMEOUT_S": "60", "BULKHEAD_ABANDON_S": "1"}
    extra = {"doors": {**doors, "BULKHEAD_STEP_SILENT_S": "3"}}
    world = World(Path(tmp_path_factory.mktemp("agents")), extra_env=extra, scale={"doors": 2})
    refunds = {name: {"refunds": {"to": "worker", "identity": f"wrk_{name}"}} for name in ("t1", "demo")}
    world.change_tenants(**{name: {"delegated_roles": roles} for name, roles in refunds.items()})
    async with world as found:
        yield found
