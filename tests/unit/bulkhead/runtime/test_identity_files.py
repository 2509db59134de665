"""Key files that are missing, damaged or another's are named with what to do; NAME_FILE gives a setting its secret."""

import json
import shutil
from pathlib import Path

import pytest
from pydantic import SecretStr

from bulkhead.runtime.context import ServiceIdentity
from bulkhead.runtime.settings import SecretFileMissing, ServiceSettings
from bulkhead_infra.identity import keys, policy


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mesh")
    keys.ensure_keys(folder / "all", policy.load_policy())
    keys.hand_over(folder / "all", "worker", folder / "own")
    return folder / "own"


def test_its_own_files_fit(own: Path) -> None:
    assert ServiceIdentity.load(own, "worker").nkey_seed


@pytest.mark.parametrize("name", ["worker.nkey", "worker.sign", "public.json"])
def test_a_missing_one(own: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(own, tmp_path / "i")
    (tmp_path / "i" / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"no key file .*{name}; start the mesh .* BULKHEAD_IDENTITY_DIR"):
        ServiceIdentity.load(tmp_path / "i", "worker")


@pytest.mark.parametrize("content", ["garbage", "", "\x00", "A" * 43])
def test_a_signing_key_that_is_none_or_not_this_ones(own: Path, tmp_path: Path, content: str) -> None:
    """With another key everybody would take what it signs for a forgery, and nobody would say so."""
    shutil.copytree(own, tmp_path / "i")
    (tmp_path / "i" / "worker.sign").write_text(content)
    with pytest.raises(ValueError, match=r"worker\.sign (holds no signing key|is not the key).*hand it its own files"):
        ServiceIdentity.load(tmp_path / "i", "worker")


def test_the_files_of_two_meshes(own: Path, tmp_path: Path) -> None:
    shutil.copytree(own, tmp_path / "i")
    public = json.loads((own / "public.json").read_text())
    (tmp_path / "i" / "public.json").write_text(json.dumps(public | {"worker": public["planner"]}))
    with pytest.raises(ValueError, match=r"is not the key that public\.json names"):
        ServiceIdentity.load(tmp_path / "i", "worker")


class Settings(ServiceSettings):
    """A secret, an object, and two settings of which one has the other's name with _file."""

    password: SecretStr = SecretStr("none")
    table: dict[str, int] = {}
    letters: str = ""
    letters_file: Path | None = None


def _write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_file_gives_its_setting_and_the_line_end_is_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BULKHEAD_PASSWORD_FILE", _write(tmp_path / "one", "s e-cret\n"))
    monkeypatch.setenv("BULKHEAD_TABLE_FILE", _write(tmp_path / "two", '{"a": 1}\n'))
    found = Settings()
    assert found.password.get_secret_value() == "s e-cret" and found.table == {"a": 1}


def test_the_environment_itself_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKHEAD_PASSWORD_FILE", _write(tmp_path / "one", "of the file"))
    monkeypatch.setenv("BULKHEAD_PASSWORD", "of the environment")
    assert Settings().password.get_secret_value() == "of the environment"


def test_a_setting_that_is_called_so_itself_is_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKHEAD_LETTERS_FILE", str(tmp_path / "not-there"))
    monkeypatch.setenv("BULKHEAD_TRACE_FILE", str(tmp_path / "traces"))
    found = Settings()
    assert found.letters_file == tmp_path / "not-there" and found.letters == ""
    assert found.trace_file == tmp_path / "traces" and found.trace is True


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named_with_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("BULKHEAD_PASSWORD_FILE", str(path))
    with pytest.raises(SecretFileMissing, match=rf"BULKHEAD_PASSWORD_FILE: {path} cannot be read"):
        Settings()
