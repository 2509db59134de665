"""Brokers in a cluster of three and a Redis with a replica: one of them goes for good, and the mesh goes on.

Every stream has three copies, every acknowledged message is on two disks at least: that is what "never lost" rests on.
"""

from pathlib import Path

import pytest

from bulkhead.bus.port import BusUnavailable
from bulkhead_contracts import subjects
from bulkhead_infra.identity.policy import PROVISIONER
from bulkhead_infra.local.external_services import ExternalServices
from bulkhead_infra.nats import provision as provisioning
from bulkhead_infra.nats.provision import ProvisionError
from bulkhead_infra.nats.streams import Layout
from tests.e2e.fixtures.world import World, until
from tests.faults.fixtures.cluster import SIZE, Cluster, Pair
from tests.faults.fixtures.errand import Errand, ingest, missing_in_journal, nothing_waits
from tests.faults.fixtures.standing import short_waits

pytestmark = pytest.mark.nightly
LED = [subjects.inbox_stream(name) for name in ("worker", "planner", "tool_executor")]
LOOKED_AT = [*LED, "RECORDS_TOOL_EXECUTOR", subjects.BLOBS_STREAM]


async def test_a_broker_is_lost_with_its_disk_and_leaders_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that led the tools' inbox goes with two writes under way; wiped, it comes back and is needed again."""
    async with Cluster(tmp_path / "cluster", tmp_path / "world" / "mesh" / "identity") as cluster:
        with short_waits():
            async with World(tmp_path / "world", external=ExternalServices(cluster.url, replicas=SIZE)) as world:
                await ingest(world)
                await Errand(world).run()
                flying = [Errand(world) for _ in range(2)]
                async with world.counter.held() as arrived:
                    for errand in flying:
                        await errand.submit()
                        await arrived()
                    lost = cluster.node(await cluster.leader(LED[-1]))
                    lost.kill(wipe=True)
                    # Nobody is asked to wait for it: two of three are enough, for the provisioner as for a client.
                    assert not (await _provisioned(world, cluster)).changed
                    late = Errand(world)
                    await late.submit_until_taken()
                before = [*flying, late]
                for errand in before:
                    await errand.world.finish(errand.task)
                lost.start()
                await until(lost.healthy, "the wiped broker has fetched everything", 30)
                await until(lambda: cluster.complete(LOOKED_AT), "every copy is current", 30)
                flying = [Errand(world) for _ in range(2)]
                for errand in flying:
                    await errand.submit()
                for stream in LED:
                    await cluster.move_leader(stream)
                # Now what was wiped counts: without it there would be no majority.
                next(node for node in cluster.nodes if node is not lost).kill()
                for errand in (*before, *flying):
                    await _ends_rightly(errand)
                monkeypatch.setattr(provisioning, "PATIENCE_S", 1.0)
                lost.kill()
                with pytest.raises(ProvisionError, match=r"more than half of its brokers must run.*nothing is lost"):
                    await _provisioned(world, cluster)


async def _provisioned(world: World, cluster: Cluster) -> provisioning.ProvisionReport:
    """What `up` does at every start."""
    return await provisioning.provision(cluster.url, world.mesh.nkey_seed(PROVISIONER), Layout(replicas=SIZE))


async def _ends_rightly(errand: Errand) -> None:
    """Money and replay are read from the journal, which finds the new leader of an inbox after a while of its own."""
    assert errand.task is not None
    await errand.world.finish(errand.task)

    async def whole() -> bool:
        try:
            return not await missing_in_journal(errand.world)
        except BusUnavailable:
            return False  # It has no leader itself.

    await until(whole, "the journal has everything", 60)
    await errand.ends_rightly()


async def test_redis_fails_over_to_its_replica(tmp_path: Path) -> None:
    """A replica may lack what was written last: the ledger is made anew of the facts, and no money is lost."""
    pair = Pair(tmp_path)
    async with pair.running() as url:
        with short_waits():
            async with World(tmp_path / "world", external=ExternalServices(redis_url=url)) as world:
                await ingest(world)
                await Errand(world).run()
                errand = Errand(world)
                async with world.counter.held() as arrived:
                    await errand.submit()
                    await arrived()
                    log = world.mesh.directory / "logs" / "budget-0.log"
                    before = log.read_text().count("ledger_rebuilt")
                    await pair.fail_over()
                await errand.ends_rightly()
                assert log.read_text().count("ledger_rebuilt") > before, "what a replica has is not believed"
                await Errand(world).run()
                await nothing_waits(world)
