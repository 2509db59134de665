"""A service that is started with the wrong key, or for another layout: it ends with a reason, and says nothing.

The broker is a real one; the services are processes as an operator starts them.
"""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from bulkhead_infra.identity import keys, policy
from bulkhead_infra.local.rundir import DirectoryUnfit, RunDir
from bulkhead_infra.local.supervisor import LocalMesh
from bulkhead_infra.nats.configuration import ACCOUNTS_FILE

TIMEOUT_S = 40


async def ends(mesh: LocalMesh, identity: Path, **environ: str) -> str:
    """What a worker says that does not come up, on its way out."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bulkhead_services.worker.app",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={
            "PATH": os.environ["PATH"],
            "BULKHEAD_NATS_URL": mesh.nats_url,
            "BULKHEAD_DATA_DIR": str(mesh.directory),
            "BULKHEAD_IDENTITY_DIR": str(identity),
        }
        | environ,
    )
    said = (await asyncio.wait_for(process.communicate(), TIMEOUT_S))[0].decode()
    assert process.returncode in (1, 2) and "Traceback" not in said, said
    return said


async def test_a_wrong_key_and_another_layout(tmp_path: Path) -> None:
    async with LocalMesh(tmp_path / "mesh", services=(), durability="process") as mesh:
        everybody = mesh.directory / "identity"
        good, other, strange = (tmp_path / name for name in ("good", "other", "strange"))
        keys.hand_over(everybody, "worker", good)
        shutil.copytree(good, other)
        (other / "worker.nkey").write_text(keys.nkey_seed(everybody, "planner"))
        shutil.copytree(good, strange)
        keys.ensure_keys(tmp_path / "second", policy.load_policy())
        (strange / "worker.nkey").write_text(keys.nkey_seed(tmp_path / "second", "worker"))
        told = await asyncio.gather(
            ends(mesh, other), ends(mesh, strange), ends(mesh, good, BULKHEAD_SHARDS="2"), ends(mesh, tmp_path / "none")
        )
    assert "its key is another service's" in told[0] and "INBOX_WORKER" in told[0], told[0]
    assert "refuses this service's key" in told[1] and "render them again" in told[1], told[1]
    assert "worker-1" in told[2] and "render the accounts" in told[2], told[2]
    assert "has no key file" in told[3] and "BULKHEAD_IDENTITY_DIR" in told[3], told[3]


async def test_a_service_ends_when_the_broker_does_not_know_it_any_more(tmp_path: Path) -> None:
    """Its connection is gone for good: a process that lived on would look well and do nothing."""
    async with LocalMesh(tmp_path / "mesh", services=(), durability="process") as mesh:
        own = tmp_path / "own"
        keys.hand_over(mesh.directory / "identity", "worker", own)
        probe = tmp_path / "worker.json"
        ending = asyncio.create_task(ends(mesh, own, BULKHEAD_HEALTH_FILE=str(probe)))
        async with asyncio.timeout(TIMEOUT_S):
            while not probe.exists():
                assert not ending.done(), ending
                await asyncio.sleep(0.05)
        accounts = mesh.directory / "nats" / ACCOUNTS_FILE
        known = keys.public_nkeys(mesh.directory / "identity", policy.load_policy())["worker"]
        keys.ensure_keys(tmp_path / "second", policy.load_policy())
        another = keys.public_nkeys(tmp_path / "second", policy.load_policy())["worker"]
        accounts.write_text(accounts.read_text().replace(known, another))
        [broker] = [one.pid for one in mesh.rows() if one.name == "nats-server"]
        assert broker is not None
        os.kill(broker, signal.SIGHUP)
        said = await ending
    assert "connection_closed" in said and "authorization violation" in said.lower(), said


def test_a_directory_that_cannot_be_written() -> None:
    """As on a disk that was mounted read-only. Root writes everywhere: then it is tried as somebody else."""
    euid = os.geteuid()
    with tempfile.TemporaryDirectory() as found:
        os.chmod(found, 0o755)
        folder = Path(found, "theirs")
        folder.mkdir()
        folder.chmod(0o555)
        if euid == 0:
            os.seteuid(65534)
        try:
            for path in (folder / "mesh", folder):
                with pytest.raises(DirectoryUnfit, match="cannot be used: Permission denied; choose another"):
                    RunDir(path)
        finally:
            os.seteuid(euid)
        assert list(folder.iterdir()) == []
