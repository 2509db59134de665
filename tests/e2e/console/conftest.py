"""One mesh and one browser for all tests of the console."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.e2e.console.browser import PICTURES, Pictures, chromium
from tests.e2e.fixtures.world import World
from tests.needs import need


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of this run's pictures of pages."""
    found = Path(os.environ.get(PICTURES) or tmp_path_factory.mktemp("screenshots", numbered=False))
    found.mkdir(parents=True, exist_ok=True)
    Pictures.folder = found
    yield found
    Pictures.folder = None


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(pictures: Path) -> AsyncIterator[Browser]:
    need("chromium")
    async with chromium() as found:
        yield found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A mesh whose gateway these tests may kill."""
    async with World(
        tmp_path_factory.mktemp("console"), extra_env={"budget": {"BULKHEAD_WATCH_COUNTS_S": "1"}}
    ) as found:
        yield found
