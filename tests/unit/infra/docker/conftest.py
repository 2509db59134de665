"""The provisioner over plain folders."""

from pathlib import Path

import pytest

from bulkhead_infra.docker import provisioner
from bulkhead_infra.docker.image_contents import KEY_OWNERS


@pytest.fixture
def volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders where the volumes are mounted in the provisioner's container."""
    for name in ("all", *KEY_OWNERS):
        (tmp_path / name).mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(provisioner, "KEYS", tmp_path)
    return tmp_path
