"""Meshes that tests may break, and where to look when one did not mend."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.fixtures.world import World
from tests.faults.fixtures.errand import Errand, ingest
from tests.faults.fixtures.standing import Standing, short_waits


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Standing]:
    """A mesh of this module's own, to be broken; an errand has run on it undisturbed."""
    with short_waits():
        async with Standing(tmp_path_factory.mktemp("standing")) as world:
            await ingest(world)
            await Errand(world).run()
            yield world


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    report = yield
    if call.when == "call" and report.failed:
        for found in getattr(item, "funcargs", {}).values():
            if isinstance(found, World):
                logs = found.mesh.directory / "logs"
                report.sections.append(("the mesh", "\n".join([f"logs: {logs}", *found.said[-20:]])))
    return report
