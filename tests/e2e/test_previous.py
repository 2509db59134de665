"""N and N-1 side by side: every service of a mesh is taken back to the version before it and brought up again, as
docs/how-to/upgrade.md says, under load, while writes of tasks stand at the gate. Real processes of both trees.

In: the history of this repository. Out: each task ends rightly, each step changes the world once, whoever had it in
hand, and the money adds up. tests/e2e/containers/with_the_previous.py does the same with images.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bulkhead.client import Mesh
from bulkhead_contracts import catalog, envelope, subjects
from bulkhead_infra.composition import newest_logic
from bulkhead_infra.local.supervisor import BROKER
from tests.e2e.containers.field import Count, load
from tests.e2e.fixtures import previous
from tests.e2e.fixtures.world import World, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not previous.has_history(), reason=previous.WHY_NOT),
]

DECIDERS = tuple(catalog.DECIDERS)
ALONE = ("budget", "gateway")
"""One at a time: of two layouts of the ledger one stands; a port is opened once. Who asks waits so long."""
OTHERS = tuple(name for name in catalog.SERVICES if name not in (*DECIDERS, *ALONE))
HELD = 3
PROVISIONED_WITHIN_S = 120
"""The broker reads its accounts first. A machine with nothing else to do takes two seconds."""
PROVISION = """
import asyncio, json, os, signal, sys, time
from pathlib import Path
from urllib.request import urlopen
from bulkhead_infra.identity import keys, policy, render
from bulkhead_infra.nats.provision import provision
from bulkhead_infra.nats.streams import Layout

identity, conf, url, monitor, broker, shards = sys.argv[1:]
identity, shards, rules = Path(identity), json.loads(shards), policy.load()

def read_at():
    with urlopen(monitor + "/varz", timeout=30) as answer:
        return json.load(answer)["config_load_time"]

keys.ensure(identity, rules)
Path(conf).write_text(render.accounts(rules, keys.public_nkeys(identity, rules), shards))
before = read_at()
os.kill(int(broker), signal.SIGHUP)
while read_at() == before:
    time.sleep(0.05)
asyncio.run(provision(url, keys.nkey_seed(identity, policy.PROVISIONER), Layout(shards)))
"""
"""What `bulkhead up` does before it starts services, by the code of whichever tree runs it."""

READ = """
import json, sys
from bulkhead.bus.port import Stored
from bulkhead.runtime import inbound
from bulkhead_contracts import subjects
from bulkhead_contracts.envelope import Envelope

wrong = []
for kind, sender, receiver, body in json.load(sys.stdin):
    head = Envelope(id="a" * 32, type=kind, source=sender, time_unix_ms=1, cause="c", actor="p")
    subject = subjects.mesh(sender, receiver, "demo", "t1")
    try:
        inbound.read(Stored(subject, head.headers(), body.encode(), 1, 1), receiver)
    except Unreadable as error:
        if not error.later:
            wrong.append(f"{sender} says {kind} to {receiver}: {error.reason}")
print(json.dumps(wrong))
"""
"""What of the given messages a tree would give up, instead of reading it or waiting for a newer replica."""


class Roll:
    """A mesh whose services are of two versions."""

    def __init__(self, world: World, trees: Mapping[str, Path]) -> None:
        self.world, self.counter, self._trees = world, world.counter, trees

    def become(self, version: str, services: Sequence[str]) -> None:
        """What is started from now on is of this version."""
        for name in services:
            self.world.env[name]["PYTHONPATH"] = previous.import_path(self._trees[version])
        self.world.env["gateway"]["BULKHEAD_LOGIC"] = str(previous.LOGIC if version == "N-1" else newest_logic())

    async def replace(self, version: str, services: Sequence[str], client: Mesh) -> list[Count]:
        """The other version beside what runs, then alone: who had the writes at the gate in hand goes away."""
        mesh = self.world.mesh
        there = [name for name in mesh.units if name.rpartition("-")[0] in services]
        self.become(version, services)
        await asyncio.gather(*(mesh.start_replica(name) for name in services))
        async with self.counter.held() as arrived:
            tasks = [await Count(self, client).submit() for _ in range(HELD)]
            await arrived()
            await asyncio.gather(*(mesh.units.pop(name).stop() for name in there))
        return tasks

    async def renew(self, version: str, service: str) -> None:
        """The one replica drains, then the other version starts in its place."""
        self.become(version, [service])
        await self.world.mesh.restart(service)

    async def provision(self, version: str) -> None:
        """Accounts, streams and durables as this version has them; what else is there stays."""
        mesh = self.world.mesh
        arguments = (
            mesh.directory / "identity",
            mesh.directory / "nats" / "accounts.conf",
            mesh.nats_url,
            mesh.monitor_url,
            mesh.units[BROKER].pid,
            json.dumps(mesh.json["shards"]),
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-c",
            PROVISION,
            *map(str, arguments),
            cwd=mesh.directory,
            env={**os.environ, "PYTHONPATH": previous.import_path(self._trees[version])},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), PROVISIONED_WITHIN_S)
        assert process.returncode == 0, said.decode()[-2000:]

    def versions(self) -> dict[str, set[str]]:
        """Of which trees each service's processes are, as the kernel knows their environment."""
        found: dict[str, set[str]] = {}
        for unit in self.world.mesh.units.values():
            service = unit.name.rpartition("-")[0]
            if service in catalog.SERVICES and unit.pid:
                variables = Path(f"/proc/{unit.pid}/environ").read_bytes().decode().split("\0")
                path = next(one for one in variables if one.startswith("PYTHONPATH=")).partition("=")[2]
                found.setdefault(service, set()).update(
                    name for name, tree in self._trees.items() if previous.import_path(tree) == path
                )
        return found


@asynccontextmanager
async def rolling(folder: Path) -> AsyncIterator[Roll]:
    trees = {"N-1": previous.unpack(folder / "previous"), "N": previous.ROOT}
    extra = {name: {"PYTHONPATH": previous.import_path(previous.ROOT)} for name in catalog.SERVICES}
    # Checkpoints all the time: the version before builds its ledger beside those, and they are made of its facts.
    extra["budget"] |= {
        "BULKHEAD_CHECKPOINT_S": "3",
        "BULKHEAD_CHECKPOINT_MESSAGES": "1",
        "BULKHEAD_BESIDE_PREVIOUS": "true",
    }
    async with World(folder, extra_env=extra, shards={"worker": 2}, drain_timeout_s=1.0) as world:
        yield Roll(world, trees)


def test_the_version_before_gives_up_nothing_that_this_one_says(tmp_path: Path) -> None:
    """What it cannot read it hands back. A known type from a new author, a new value in an old field are dead letters
    to it: say them by a new type."""
    said = []
    for row in catalog.ROWS:
        kind = f"{row.body.TYPE}.v{row.body.VERSION}"
        body = (previous.ROOT / "contracts" / "examples" / f"{kind}.json").read_text()
        said += [(kind, sender, receiver, body) for sender, receiver in row.edges if row.plane == "mesh"]
    tree = previous.unpack(tmp_path / "previous")
    done = subprocess.run(
        [sys.executable, "-P", "-c", READ],
        input=json.dumps(said),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": previous.import_path(tree)},
        check=True,
    )
    assert len(said) > 50 and json.loads(done.stdout) == []


@pytest.mark.asyncio(loop_scope="session")
async def test_every_service_goes_back_and_forth_with_writes_in_flight(tmp_path: Path) -> None:
    async with rolling(tmp_path) as roll:
        client = roll.world.client()
        newest = await Count(roll, client).submit()
        # Back: the gateway first, so that no task starts under a logic that N-1 lacks; what did is let end.
        await roll.renew("N-1", "gateway")
        await newest.ends_rightly()
        await _say_what_comes_after(roll.world)
        async with load(roll, client, at_a_time=1) as loaded:
            tasks = [await _both(roll, "N-1", (DECIDERS, OTHERS), client)]
            await roll.renew("N-1", "budget")
            await roll.provision("N-1")
            assert roll.versions() == {name: {"N-1"} for name in catalog.SERVICES}
            await (await Count(roll, client).submit()).ends_rightly()
            before = len(loaded)
            # Up again, as docs/how-to/upgrade.md has it: rights and streams, doers, deciders, the gateway last.
            await roll.provision("N")
            await roll.renew("N", "budget")
            tasks.append(await _both(roll, "N", (OTHERS, DECIDERS), client))
            await roll.renew("N", "gateway")
        assert roll.versions() == {name: {"N"} for name in catalog.SERVICES}
        assert before and len(loaded) > before, "tasks went in all the time"
        for one in (newest, *tasks[0], *tasks[1], *loaded, await Count(roll, client).submit()):
            document = await one.ends_rightly()
            if one in (newest, tasks[0][0], tasks[1][0]):
                await _adds_up(roll.world, one, document["usage"]["cost_usd_micros"])


async def _both(roll: Roll, version: str, phases: Sequence[Sequence[str]], client: Mesh) -> list[Count]:
    return [one for services in phases for one in await roll.replace(version, services, client)]


async def _say_what_comes_after(world: World) -> None:
    """A fact of a type that neither version knows, as the budget of N+1 would say it."""
    head = envelope.Envelope(id="b" * 32, type="mesh.budget.forecast.v1", source="budget", time_unix_ms=1, actor="x")
    async with world.bus("budget") as bus:
        await bus.publish(subjects.mesh("budget", catalog.JOURNAL, "demo", "t1"), b"{}", head.headers(), "later")


async def _adds_up(world: World, one: Count, cost_usd_micros: int) -> None:
    """By the facts and by the ledger, which was built of them by either version in turns."""
    assert one.task is not None
    problems: list[str] = []

    async def settled() -> bool:
        money = await world.money("demo", one.task)
        problems[:] = money.problems()
        return not problems and sum(cost for _, cost in money.settled.values()) >= cost_usd_micros

    await until(settled, f"the money of {one.task.id} adds up: {problems}")
