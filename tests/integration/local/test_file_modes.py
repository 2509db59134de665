"""Nobody else on the machine reads what lies in the data directory, however loose the umask of who starts the mesh."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from bulkhead.client import Mesh
from bulkhead_infra.local import rundir
from bulkhead_infra.local.rundir import DirectoryInUse, DirectoryUnfit, RunDir
from bulkhead_infra.local.supervisor import LocalMesh
from bulkhead_infra.nats import server

OTHERS = 0o077


@pytest.fixture
def loose(monkeypatch) -> Iterator[None]:
    """The loosest umask there is, as if no other mesh of this test run stood in this process."""
    monkeypatch.setattr(rundir, "_PRIVATE", rundir._PrivateUmask())
    before = os.umask(0)
    yield
    left = os.umask(before)
    assert left == 0, "the umask is given back"


def open_to_others(folder: Path) -> list[str]:
    """Everything in a folder, and itself, that group or others have any right to."""
    found = []
    for path in (folder, *folder.rglob("*")):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue  # The broker works there, and has renamed it.
        if not stat.S_ISLNK(mode) and stat.S_IMODE(mode) & OTHERS:
            found.append(f"{stat.S_IMODE(mode):04o} {path.relative_to(folder)}")
    return found


async def test_a_run_leaves_nothing_that_others_can_read(tmp_path, loose):
    async with LocalMesh(tmp_path / "data", durability="process") as mesh:
        async with Mesh(mesh.url, api_key=mesh.credentials["operator"]) as client:
            await client.add_document(b"The refund of a cancelled ticket is 80 percent of the fare.", "fares.md")
            task = await client.submit("What is the refund of a cancelled ticket?")
            assert (await task.wait_until_ended(30))["status"] in ("succeeded", "failed")
        assert open_to_others(mesh.directory) == []
    found = {path.name for path in mesh.directory.rglob("*")}
    # Every kind of writer has left something: broker, Redis, services, telemetry, the documents, the supervisor.
    assert {"nats-server.conf", "redis.conf", "gateway-0.log", "mesh.json", "planner-0.jsonl"} <= found
    assert any(name.endswith((".blk", ".db", ".sqlite", ".sqlite3")) for name in found)
    assert open_to_others(mesh.directory) == []


def test_what_an_older_version_left_open_is_closed(tmp_path, loose):
    RunDir(tmp_path / "data").close()
    loose_file = tmp_path / "data" / "nats" / "store" / "1.blk"
    loose_file.parent.mkdir(parents=True, mode=0o777)
    loose_file.write_text("x")
    (tmp_path / "data" / "link").symlink_to(tmp_path)
    assert len(open_to_others(tmp_path / "data")) == 3
    RunDir(tmp_path / "data").close()
    assert open_to_others(tmp_path / "data") == []
    assert loose_file.read_text() == "x" and stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_other_peoples_files_in_a_directory_are_left_as_they_are(tmp_path, loose):
    (tmp_path / "home").mkdir(mode=0o755)
    (tmp_path / "home" / "letter.txt").write_text("dear")
    before = open_to_others(tmp_path / "home")
    run = RunDir(tmp_path / "home")
    run.ensure_api_keys("demo")
    run.close()
    assert open_to_others(tmp_path / "home") == before and len(before) == 2


def test_the_umask_is_given_back_when_the_directory_cannot_be_had(tmp_path, loose, monkeypatch):
    first = RunDir(tmp_path / "data")
    with pytest.raises(DirectoryInUse):
        RunDir(tmp_path / "data")
    second = RunDir(tmp_path / "other")
    first.close()
    assert os.umask(OTHERS) == OTHERS, "as long as one is owned"
    second.close()
    second.close()
    (tmp_path / "file").write_text("")
    with pytest.raises(DirectoryUnfit):
        RunDir(tmp_path / "file")
    monkeypatch.setattr(server, "MIN_FREE_BYTES", 2**62)
    with pytest.raises(DirectoryUnfit):
        RunDir(tmp_path / "data")
