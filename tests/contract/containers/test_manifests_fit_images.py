"""Each container in the manifests fits its image."""

from pathlib import Path

import pytest

from tests.contract.containers.installations import broken
from tests.unit.infra.kubernetes.rendered import INSTALLATIONS


@pytest.mark.parametrize("name", INSTALLATIONS)
@pytest.mark.slow
def test_every_container_fits_its_image(name: str, tmp_path: Path) -> None:
    assert broken(name, tmp_path) == []
