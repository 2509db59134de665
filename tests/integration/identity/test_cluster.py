"""Three brokers, two replicas of identity: each broker asks whichever replica there is, and one of each may go."""

import asyncio

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import BusError
from bulkhead_infra.identity import keys, policy
from bulkhead_infra.nats.provision import provision
from bulkhead_infra.nats.streams import Layout
from tests.eventually import until
from tests.faults.fixtures.cluster import SIZE, Cluster
from tests.integration.identity.world import Issuer, World, write_permissions


async def test_a_broker_and_a_replica_that_die_keep_nobody_out(tmp_path):
    async with Cluster(tmp_path / "brokers", tmp_path / "identity", tokens=True) as brokers:
        write_permissions(tmp_path / "identity", policy.load_policy(kubernetes=True))
        await provision(brokers.url, keys.nkey_seed(tmp_path / "identity", policy.PROVISIONER), Layout(replicas=SIZE))
        world = World(tmp_path, brokers.url, Issuer(tmp_path / "keys.json"))
        path = tmp_path / "worker.token"
        path.write_text(world.issuer.token("worker"))
        try:
            await asyncio.gather(*(world.start(number) for number in range(2)))
            buses = [await JetStreamBus.connect(node.url, service="worker", token_file=path) for node in brokers.nodes]
            assert all([await bus.is_ready() for bus in buses])
            bus = await JetStreamBus.connect(brokers.url, service="worker", token_file=path)
            await world.stop(0, kill=True)
            brokers.nodes[0].kill()

            async def stored() -> bool:
                try:
                    await bus.publish("mesh.worker.planner.3.demo.t1.-", b"{}", {}, "after")
                except BusError:
                    return False  # Another broker is about to lead the stream.
                return True

            assert await until(stored, "the rest of the mesh takes it", timeout_s=60)
            late = await JetStreamBus.connect(brokers.url, service="worker", token_file=path)
            assert await late.is_ready()
            for one in (*buses[1:], bus, late):
                await one.close()
        finally:
            for number in list(world.replicas):
                await world.stop(number)
