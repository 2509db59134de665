"""What the tests of the simulation share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation import world


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A data directory for the runs of one module, whose services log nothing."""
    world.quiet_logs()
    with world.Folder() as path:
        yield path
