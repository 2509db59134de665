"""A mesh is backed up with tasks in flight, lost, restored into an empty directory, and goes on.

The same answers, the same money, every write once; Redis gets nothing and knows everything. What is wrong with a file
is told before anything is made.
"""

import asyncio
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fixtures.gate import GatedCounter
from tests.e2e.fixtures.world import World
from tests.faults.fixtures.errand import TENANT, Errand, ingest, missing_in_journal, nothing_waits

pytestmark = pytest.mark.nightly

PASSPHRASE = "a passphrase for this test"
BEFORE, IN_FLIGHT = 2, 3


def command(*words: str, ok: bool = True) -> tuple[list[dict[str, Any]], str]:
    """A `bulkhead` command as a process: its JSON documents, and what it said on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "bulkhead_cli.main", *words, "--json"], capture_output=True, text=True, timeout=90
    )
    assert (done.returncode == 0) is ok, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


async def ask(*words: str, ok: bool = True) -> tuple[list[dict[str, Any]], str]:
    """The same while this mesh goes on."""
    return await asyncio.to_thread(command, *words, ok=ok)


async def shown(world: World, errands: list[Errand]) -> list[dict[str, Any]]:
    return [await world.client(TENANT).task(errand.task.id).show() for errand in errands if errand.task]


async def test_a_mesh_goes_on_from_its_backup(tmp_path: Path) -> None:
    sealed = tmp_path / "passphrase"
    sealed.write_text(PASSPHRASE)
    file, data = tmp_path / "mesh.bulkhead", tmp_path / "second" / "mesh"
    with GatedCounter() as counter:
        async with World(tmp_path / "first", counter=counter) as first:
            await ingest(first)
            done = [Errand(first) for _ in range(BEFORE)]
            for errand in done:
                await errand.run()
            before = await shown(first, done)
            async with counter.held() as arrived:
                # Their writes stand at the counter: sent, not answered, recorded by nobody.
                flying = [Errand(first) for _ in range(IN_FLIGHT)]
                for errand in flying:
                    await errand.submit()
                    await arrived()
                *_, made = (
                    await ask(
                        "backup", str(file), "--data", str(first.mesh.directory), "--keys-passphrase", str(sealed)
                    )
                )[0]
                # What comes after a backup is lost with the mesh, but for what it did outside.
                late = Errand(first)
                await late.submit()
                for unit in first.mesh.units.values():
                    await unit.kill_process(hold=True)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600 and made["keys"] and made["documents"] == [TENANT]
        assert not any(secret in file.read_bytes() for secret in _secrets(first.mesh.directory))
        [checked] = (await ask("restore", str(file), "--check", "--keys-passphrase", str(sealed)))[0]
        assert checked["messages"] == made["messages"] and checked["event"] == "checked"
        await ask("restore", str(file), "--data", str(data), "--keys-passphrase", str(sealed))
        # A bus key may be changed whenever nobody runs: the broker learns the new one at the start.
        old = (data / "identity" / "worker.nkey").read_text()
        (data / "identity" / "worker.nkey").unlink()
        async with World(tmp_path / "second", counter=counter) as second:
            assert second.mesh.nkey_seed("worker") != old
            for errand in (*done, *flying):
                assert errand.task is not None
                errand.world, errand.task = second, second.client(TENANT).task(errand.task.id)
            assert await shown(second, done) == before
            for errand in (*done, *flying):
                await errand.ends_rightly()
            await nothing_waits(second)
            assert not await missing_in_journal(second), "the journal is made of the inboxes"
            # Documents, keys of people and the line of new tasks are there too.
            await Errand(second).run()
            late.world = second
            await late.run()
            _, said = await ask("restore", str(file), "--data", str(data), ok=False)
            assert "belongs to a mesh that is running" in said


def _secrets(data: Path) -> list[bytes]:
    found = [path.read_bytes().strip() for path in (data / "identity").glob("*.[ns]*")]
    assert len(found) > 15
    return [*found, *(key.encode() for key in json.loads((data / "credentials.json").read_text()).values())]
