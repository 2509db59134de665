"""NAME_FILE gives the setting NAME a file's content: so that a secret stands in no environment."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from bulkhead.runtime.settings import SecretFileMissing, ServiceSettings


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
