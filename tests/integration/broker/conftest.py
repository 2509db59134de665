"""What the tests of a real broker share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.permissions.broker import Broker, running


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    """A broker with the policy's accounts and every stream."""
    async with running(tmp_path) as found:
        yield found
