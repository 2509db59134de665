"""A registry per module, on a free port; a shop in it per test."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkhead_infra.promotion.registry import local
from tests.integration.promotion.shop import Shop

NUMBERS = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a registry, and skopeo to look at it."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.needs("registry"))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A registry's address, and the folder of its files."""
    folder = tmp_path_factory.mktemp("registry")
    with local.local_registry(folder) as address:
        yield address, folder


@pytest.fixture
def shop(host: tuple[str, Path], tmp_path: Path) -> Iterator[Shop]:
    address, folder = host
    (tmp_path / "data").symlink_to(folder / "data")
    shop = Shop(f"{address}/shop{next(NUMBERS)}/bulkhead", tmp_path)
    with shop.registry:
        yield shop
