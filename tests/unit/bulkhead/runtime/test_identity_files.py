"""A service's key files: missing, damaged, or another's. What is wrong is told by its file, with what to do."""

import json
import shutil
from pathlib import Path

import pytest

from bulkhead.runtime.context import Identity
from bulkhead_infra.identity import keys, policy


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mesh")
    keys.ensure(folder / "all", policy.load())
    keys.hand_over(folder / "all", "worker", folder / "own")
    return folder / "own"


def test_its_own_files_fit(own: Path) -> None:
    assert Identity.load(own, "worker").nkey_seed


@pytest.mark.parametrize("name", ["worker.nkey", "worker.sign", "public.json"])
def test_a_missing_one(own: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(own, tmp_path / "i")
    (tmp_path / "i" / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"no key file .*{name}; start the mesh .* BULKHEAD_IDENTITY_DIR"):
        Identity.load(tmp_path / "i", "worker")


@pytest.mark.parametrize("content", ["garbage", "", "\x00", "A" * 43])
def test_a_signing_key_that_is_none_or_not_this_ones(own: Path, tmp_path: Path, content: str) -> None:
    """With another key everybody would take what it signs for a forgery, and nobody would say so."""
    shutil.copytree(own, tmp_path / "i")
    (tmp_path / "i" / "worker.sign").write_text(content)
    with pytest.raises(ValueError, match=r"worker\.sign (holds no signing key|is not the key).*hand it its own files"):
        Identity.load(tmp_path / "i", "worker")


def test_the_files_of_two_meshes(own: Path, tmp_path: Path) -> None:
    shutil.copytree(own, tmp_path / "i")
    public = json.loads((own / "public.json").read_text())
    (tmp_path / "i" / "public.json").write_text(json.dumps(public | {"worker": public["planner"]}))
    with pytest.raises(ValueError, match=r"is not the key that public\.json names"):
        Identity.load(tmp_path / "i", "worker")
