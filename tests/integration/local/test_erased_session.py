"""A person's conversation on a whole mesh, erased: no byte of it is left in any file of the mesh, nor in Redis."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bulkhead.client import Mesh, Refused
from bulkhead_infra.local.supervisor import LocalMesh
from bulkhead_infra.nats import erasure
from bulkhead_infra.nats.purge import Retention, purge
from tests.eventually import until

MARKER = "Qzxwvut"
LONG = f"I was born in {MARKER}. " + "Nothing else matters here. " * 200
ENVIRON = {"budget": {"BULKHEAD_CHECKPOINT_S": "0.5", "BULKHEAD_CHECKPOINT_MESSAGES": "1"}}
"""Else what the turns cost is counted within the hour."""


def files_with(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and MARKER.encode() in path.read_bytes()
    )


async def redis_holds(url: str) -> bool:
    async with Redis.from_url(url) as redis:
        async for key in redis.scan_iter():
            if MARKER.encode() in key + await redis.dump(key):
                return True
    return False


@pytest.mark.slow
async def test_an_erased_person_leaves_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "QUIET_MS", 0)
    async with LocalMesh(tmp_path, durability="process", extra_env=ENVIRON) as mesh:
        ann, olga = mesh.add_api_key("demo", "ann", "submitter"), mesh.add_api_key("demo", "olga", "operator")
        async with Mesh(mesh.url, ann) as person:
            session = person.session(title=f"About {MARKER}", tools=("calculate",), check=False)
            for text in (LONG, f"What is 2 + 2, and where is {MARKER}?"):
                task = await session.say(text)
                await task.wait_until_ended(60)
            await session.pin("home", f"{MARKER} is home")
            await task.rate("good", f"knows {MARKER}")
            assert any(name.startswith("nats") for name in files_with(tmp_path))
            command = ["sessions", "erase", "--person", "ann", "--url", mesh.url, "--api-key", olga]
            run = [sys.executable, "-m", "bulkhead_cli.main", *command]
            done = await asyncio.to_thread(subprocess.run, run, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0 and "1 session of ann erased; 1 wait for the purge" in done.stdout, done
            with pytest.raises(Refused):
                await session.show()

        async def is_erased() -> bool:
            later_unix_ms = time.time_ns() // 1_000_000 + 2 * 24 * 3_600_000
            await purge(mesh.nats_url, mesh.nkey_seed, Retention(), now_unix_ms=later_unix_ms)
            return not files_with(tmp_path)

        await until(is_erased, "the marker is in no file", 90, 1.0)
        assert not await redis_holds(mesh.redis_url)
    assert not files_with(tmp_path)
