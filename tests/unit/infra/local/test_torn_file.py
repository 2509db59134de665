"""What a power cut takes away, and that only caches and views are dropped for it."""

from pathlib import Path

import pytest

from bulkhead_infra.nats.server import drop_torn_journal
from bulkhead_infra.processes.redis import CONF_FILE, RedisServerProcess
from bulkhead_infra.processes.torn_file import is_torn, torn_files


@pytest.mark.parametrize(
    "found, torn",
    [(b"", True), (b"\0" * 4096, True), (b"{}" + b"\0" * 16, True), (b"{}", False), (b"{}\0\0", False), (None, False)],
)
def test_a_file_without_its_end(tmp_path: Path, found: bytes | None, torn: bool) -> None:
    path = tmp_path / "file"
    if found is not None:
        path.write_bytes(found)
    assert is_torn(path) is torn


@pytest.mark.parametrize(
    "stream, name, dropped",
    [("JOURNAL", "meta.inf", True), ("JOURNAL", "meta.sum", True), ("INBOX_WORKER", "meta.inf", False)],
)
def test_only_the_journal_is_made_again(tmp_path: Path, stream: str, name: str, dropped: bool) -> None:
    streams = tmp_path / "store" / "jetstream" / "MESH" / "streams"
    for one in ("JOURNAL", "INBOX_WORKER"):
        (streams / one / "msgs").mkdir(parents=True)
        for file in ("meta.inf", "meta.sum"):
            (streams / one / file).write_text("whole")
    assert not drop_torn_journal(tmp_path)
    (streams / stream / name).write_bytes(b"")
    assert drop_torn_journal(tmp_path) is dropped
    assert (streams / "JOURNAL").exists() is not dropped and (streams / "INBOX_WORKER").exists()
    assert not drop_torn_journal(tmp_path / "no-mesh-yet")


@pytest.mark.parametrize(
    "name, data, starts_empty",
    [
        ("appendonly.aof.1.incr.aof", b"*1\r\n$4\r\nEXEC\r\n" + b"\0" * 900, True),
        ("appendonly.aof.1.incr.aof", b"", False),
        ("appendonly.aof.1.incr.aof", b"*1\r\n$4\r\nEX", False),
        ("appendonly.aof.1.base.rdb", b"", True),
        ("appendonly.aof.manifest", b"", True),
    ],
)
async def test_redis_starts_without_torn_files(tmp_path: Path, name: str, data: bytes, starts_empty: bool) -> None:
    folder = tmp_path / "redis"
    (folder / "appendonlydir").mkdir(parents=True)
    (folder / "appendonlydir" / name).write_bytes(data)
    assert bool(torn_files(folder, kept=CONF_FILE)) is starts_empty
    if starts_empty:
        RedisServerProcess(folder, 1, {"PATH": ""}).forget_data()
        assert not (folder / "appendonlydir").exists() and not torn_files(folder, kept=CONF_FILE)
    else:
        (folder / CONF_FILE).write_bytes(b"")
        assert not torn_files(folder, kept=CONF_FILE), "its configuration is written at every start"
