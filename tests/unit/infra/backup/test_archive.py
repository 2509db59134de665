"""The backup file: whole or not there; torn, damaged, foreign and hostile files are told apart, none is believed."""

import json
import os
import stat
import tarfile
from pathlib import Path

import pytest

from bulkhead_infra.backup import backup, key_sealing
from bulkhead_infra.backup.archive import (
    BLOCK,
    FORMAT,
    ArchiveReader,
    ArchiveWriter,
    BackupError,
    BackupManifest,
    DocumentsCopy,
    DurablePosition,
    StreamCopy,
)

CONTENT = bytes(range(256)) * 9


def manifest(file: ArchiveWriter, **changes) -> BackupManifest:
    stream = StreamCopy(name="BLOBS", messages=3, bytes=9, first_seq=1, last_seq=3)
    return BackupManifest(
        **{
            "format": FORMAT,
            "store_format": 1,
            "version": "0.1.0",
            "created_unix_ms": 1,
            "shards": {},
            "streams": (stream,),
            "positions": (DurablePosition(stream="INBOX_WORKER", durable="worker-0", floor=7),),
            "documents": (DocumentsCopy(tenant="demo"),),
            "has_documents": True,
            "has_keys": False,
            "parts": dict(file.parts),
            **changes,
        }
    )


def make(path: Path, **changes) -> Path:
    with ArchiveWriter(path) as file:
        with file.open("streams/BLOBS") as part:
            part.write(CONTENT[:100])
            part.write(CONTENT[100:])
        file.put("documents/0", [b"documents"])
        file.finish(manifest(file, **changes))
    return path


def broken(path: Path) -> str:
    """What is said about it."""
    with pytest.raises(BackupError) as caught:
        ArchiveReader(path)
    return str(caught.value)


def test_what_was_put_in_comes_out_and_only_its_owner_may_read_it(tmp_path):
    path = make(tmp_path / "a.bulkhead")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    with ArchiveReader(path) as file:
        assert b"".join(file.read_chunks("streams/BLOBS")) == CONTENT
        assert file.read_small_part("documents/0") == b"documents"
        assert file.manifest.positions[0].floor == 7
    # Other programs can look into it too.
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["format.json", "streams/BLOBS", "documents/0", "manifest.json"]


def test_a_backup_that_is_not_finished_is_not_there(tmp_path):
    with pytest.raises(RuntimeError), ArchiveWriter(tmp_path / "a") as file:
        file.put("documents/0", [b"x"])
        raise RuntimeError
    with pytest.raises(RuntimeError), ArchiveWriter(tmp_path / "a") as file, file.open("documents/0"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    path = make(tmp_path / "a")
    before = path.read_bytes()
    with pytest.raises(BackupError, match="never overwritten"):
        make(path)
    with pytest.raises(BackupError, match="was created meanwhile"), ArchiveWriter(tmp_path / "b") as file:
        file.put("streams/BLOBS", [CONTENT])
        file.put("documents/0", [b""])
        (tmp_path / "b").write_text("somebody was faster")
        file.finish(manifest(file))
    assert path.read_bytes() == before and (tmp_path / "b").read_text() == "somebody was faster"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "b"]


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(BackupError, match=r"cannot be written: .*choose another place"):
        make(tmp_path / "nowhere" / "a")


def test_every_length_at_which_a_copy_can_end_is_told_as_torn(tmp_path):
    whole = make(tmp_path / "a").read_bytes()
    end = len(whole) - 2 * BLOCK  # Only the tar's own end mark may be missing.
    cut = tmp_path / "cut"
    for length in [*range(BLOCK, end - BLOCK, 97), end - BLOCK]:
        cut.write_bytes(whole[:length])
        assert "is truncated" in broken(cut), length
    for length in (0, 1, BLOCK - 1):
        cut.write_bytes(whole[:length])
        assert "truncated" in broken(cut) or "no backup" in broken(cut)


def test_a_changed_byte_is_found_wherever_it_is(tmp_path):
    path = make(tmp_path / "a")
    whole = bytearray(path.read_bytes())
    used = len(whole) - 2 * BLOCK
    for place in range(0, used, 61):
        if not whole[place]:
            continue  # Padding carries nothing.
        changed = bytearray(whole)
        changed[place] ^= 0x40
        path.write_bytes(changed)
        assert "restore another" in broken(path) or "name a file" in broken(path) or "fetch it" in broken(path), place


@pytest.mark.parametrize("content", [b"", b"text", b"\0" * 4096, os.urandom(4096), b"PK\x03\x04" + bytes(2000)])
def test_what_is_no_backup(tmp_path, content):
    path = tmp_path / "a"
    path.write_bytes(content)
    assert "no backup of a mesh" in broken(path) or "truncated" in broken(path)


def test_a_missing_file_and_a_folder(tmp_path):
    assert "cannot be read" in broken(tmp_path / "none")
    assert "cannot be read" in broken(tmp_path)


@pytest.mark.parametrize("step", [-1, 1])
def test_another_format_names_the_way_out(tmp_path, step):
    path = tmp_path / "a"
    member(path, "format.json", json.dumps({"bulkhead_backup": FORMAT + step}).encode())
    assert f"has format {FORMAT + step}" in broken(path) and "the version that made it" in broken(path)


def member(path: Path, name: str, data: bytes = b"", **header) -> None:
    """Add a part as an attacker would."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in header.items():
        setattr(info, key, value)
    with path.open("ab") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + data + b"\0" * (-len(data) % BLOCK))


HEAD = ("format.json", json.dumps({"bulkhead_backup": FORMAT}).encode())


@pytest.mark.parametrize(
    "name, header",
    [
        ("../../etc/passwd", {}),
        ("/etc/passwd", {}),
        ("streams/../../x", {}),
        ("documents/../0", {}),
        ("documents/0", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("documents/0", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}),
        ("documents/0", {"type": tarfile.CHRTYPE}),
        ("documents", {"type": tarfile.DIRTYPE}),
        ("format.json", {}),
        ("pax", {"type": tarfile.XHDTYPE}),
        ("long", {"type": tarfile.GNUTYPE_LONGNAME}),
        ("streams/" + "A" * 80, {}),
    ],
)
def test_paths_links_and_devices_are_refused(tmp_path, name, header):
    path = tmp_path / "a"
    member(path, *HEAD)
    member(path, name, b"", **header)
    assert "which no backup does" in broken(path)


def test_a_part_that_says_it_is_huge_allocates_nothing(tmp_path):
    path = tmp_path / "a"
    member(path, *HEAD)
    member(path, "streams/BLOBS", b"", size=2**50)
    assert "truncated" in broken(path)
    path.unlink()
    member(path, "format.json", b"[" * (17 * 1024 * 1024))
    assert "larger than any" in broken(path)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"parts": {}}, "not in its manifest"),
        ({"streams": ()}, None),
        ({"streams": (StreamCopy(name="INBOX_RAG", messages=0, bytes=0, first_seq=0, last_seq=0),)}, "s/INBOX_RAG"),
    ],
)
def test_a_manifest_that_disagrees(tmp_path, change, told):
    path = make(tmp_path / "a", **change)
    if told is None:
        ArchiveReader(path)
    else:
        assert told in broken(path)


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"[]", b"\xff", b'{"format": 1}', b"[" * 100_000, b'{"parts": {"x": {"size": -1, "sha256": ""}}}'],
)
def test_a_manifest_that_does_not_hold(tmp_path, text):
    path = tmp_path / "a"
    member(path, *HEAD)
    member(path, "manifest.json", text)
    assert "its manifest is not valid" in broken(path)


# Keys


def test_keys_come_back_with_the_passphrase_alone():
    files = {"worker.nkey": "SU" + "A" * 56, "credentials.json": "{}"}
    sealed = key_sealing.seal_files(files, "correct horse battery")
    assert key_sealing.unseal_files(sealed, "correct horse battery") == files
    assert b"worker" not in sealed and sealed != key_sealing.seal_files(files, "correct horse battery")
    with pytest.raises(BackupError, match="passphrase does not open"):
        key_sealing.unseal_files(sealed, "correct horse batterx")
    for place in (20, 40, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(BackupError, match="does not open"):
            key_sealing.unseal_files(bytes(changed), "correct horse battery")
    with pytest.raises(BackupError, match="use a newer one"):
        key_sealing.unseal_files(b"bulkhead-keys-9\n" + sealed[16:], "correct horse battery")


@pytest.mark.parametrize("name", ["../x.nkey", "/etc/x", "a/b", "", ".hidden", "x" * 200])
def test_sealed_names_are_no_paths(name, monkeypatch):
    monkeypatch.setattr(key_sealing, "COST", 2**4)  # Nobody guesses here.
    sealed = key_sealing.seal_files({name: "x"}, "correct horse battery")
    with pytest.raises(BackupError, match="no key file"):
        key_sealing.unseal_files(sealed, "correct horse battery")


@pytest.mark.parametrize("content", [b"short", b"two lines\nof passphrase", b"\xff\xfe" * 20])
def test_a_passphrase_that_is_none(tmp_path, content):
    path = tmp_path / "p"
    path.write_bytes(content)
    with pytest.raises(BackupError, match="one line"):
        key_sealing.read_passphrase(path)
    with pytest.raises(BackupError, match="one line"):
        key_sealing.read_passphrase(tmp_path / "none")


def test_what_is_sealed_are_this_meshes_keys_and_not_its_brokers_certificates(tmp_path):
    """Another broker has a CA of its own: with this one nobody would trust it."""
    for name in ("worker.nkey", "public.json", "ca.pem", ".lock"):
        (tmp_path / name).write_text(name)
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "ca.pem").write_text("ca")
    sealed = backup._seal_keys(backup.BackupOptions(identity=tmp_path, passphrase="a passphrase for this"))
    assert set(key_sealing.unseal_files(sealed, "a passphrase for this")) == {"worker.nkey", "public.json"}
