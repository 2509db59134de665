"""Copies of document stores, as an operator takes them out of rag's container and puts them into another one."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from unittest.mock import patch

import pytest

from bulkhead_services.rag import copies
from bulkhead_services.rag.index import DocumentStore
from tests.paths import ROOT

ENDED = subprocess.CompletedProcess[bytes]


def run(command: str, data: Path, given: bytes = b"") -> ENDED:
    """The command line, in this process."""
    out, errors = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
    with (
        patch.dict(os.environ, BULKHEAD_DATA_DIR=str(data)),
        patch.multiple(sys, stdin=io.TextIOWrapper(io.BytesIO(given)), stdout=out, stderr=errors),
    ):
        code = copies.main([command])
    return ENDED([command], code, out.buffer.getvalue(), errors.buffer.getvalue())


def run_alone(command: str, data: Path, given: bytes = b"") -> ENDED:
    """The same in a process of its own, through pipes."""
    program = [sys.executable, "-P", "-m", "bulkhead_services.rag.copies", command]
    environ = {**os.environ, "BULKHEAD_DATA_DIR": str(data)}
    return subprocess.run(program, input=given, capture_output=True, timeout=60, check=False, env=environ, cwd=ROOT)


@pytest.fixture
def saved(tmp_path: Path) -> bytes:
    """A tar of two tenants' stores, taken while one of them is open."""
    folder = tmp_path / "one" / "rag"
    folder.mkdir(parents=True)
    DocumentStore(folder / "acme.sqlite").close()
    store = DocumentStore(folder / "demo.sqlite")
    done = run("save", tmp_path / "one")
    store.close()
    assert done.returncode == 0, done.stderr
    assert {path.name.partition("-")[0] for path in folder.iterdir()} == {"acme.sqlite", "demo.sqlite"}
    return done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("saved")
def test_stores_are_whole_after_a_way_through_a_pipe(tmp_path: Path) -> None:
    done = run_alone("load", tmp_path / "two", run_alone("save", tmp_path / "one").stdout)
    assert done.returncode == 0 and b"documents of 2 tenants" in done.stderr, done.stderr
    folder = tmp_path / "two" / "rag"
    assert sorted(path.name for path in folder.iterdir()) == ["acme.sqlite", "demo.sqlite"]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    DocumentStore(folder / "demo.sqlite").close()


def test_documents_that_are_there_are_not_replaced(saved: bytes, tmp_path: Path) -> None:
    done = run("load", tmp_path / "one", saved)
    assert done.returncode == 1 and b"acme has documents here already; its file" in done.stderr
    assert not list((tmp_path / "one" / "rag").glob("*.copy*"))


def test_no_documents_are_an_empty_tar(tmp_path: Path) -> None:
    done = run("save", tmp_path)
    assert done.returncode == 0
    assert run("load", tmp_path / "two", done.stdout).returncode == 0


def _tar(name: str, content: bytes = b"x" * 5_000, kind: bytes = tarfile.REGTYPE) -> bytes:
    to = io.BytesIO()
    with tarfile.open(fileobj=to, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        member.size = len(content) if kind == tarfile.REGTYPE else 0
        tar.addfile(member, io.BytesIO(content))
    return to.getvalue()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (_tar("../demo.sqlite"), b"which is no store"),
        (_tar("/bulkhead/identity/x.sqlite"), b"which is no store"),
        (_tar("demo.sqlite", kind=tarfile.SYMTYPE), b"which is no store"),
        (_tar("demo.txt"), b"which is no store"),
        (_tar("demo.sqlite"), b"not a database"),
        (b"no tar at all" * 100, b"no whole tar of `save`"),
        (b"", b"no whole tar of `save`"),
    ],
)
def test_what_is_no_copy_is_refused_and_leaves_nothing(given: bytes, said: bytes, tmp_path: Path) -> None:
    done = run("load", tmp_path, given)
    assert done.returncode == 1 and said in done.stderr, done.stderr
    assert not list((tmp_path / "rag").iterdir()) and list(tmp_path.iterdir()) == [tmp_path / "rag"]


def test_a_tar_that_was_cut_off_is_told(saved: bytes, tmp_path: Path) -> None:
    done = run("load", tmp_path / "two", saved[: len(saved) // 2])
    assert done.returncode == 1 and b"no whole tar of `save`" in done.stderr
    assert not list((tmp_path / "two" / "rag").glob("*.copy*"))


def test_wrong_words_are_wrong_usage(tmp_path: Path) -> None:
    assert run("both", tmp_path).returncode == 2
