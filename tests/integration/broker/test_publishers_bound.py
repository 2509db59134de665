"""A publisher's key that floods the gateway fills the publisher's own bound; a real broker holds it to that."""

import os
from pathlib import Path

import pytest

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import PublishRefused
from bulkhead.http_server.tcp_ports import free_port
from bulkhead_contracts import subjects
from bulkhead_contracts.task import TaskRequested
from bulkhead_infra.identity import keys, policy, render
from bulkhead_infra.nats.provision import provision
from bulkhead_infra.nats.server import NatsServer, ServerPlan
from bulkhead_infra.nats.streams import Layout, stream_configs
from tests.eventually import until

LAYOUT = Layout(store_gib=4)
PUBLISHER, INBOX = "pub_demo", subjects.inbox_stream("gateway")
HEADERS = {"ce-type": TaskRequested.ce_type(), "ce-id": "1", "ce-source": PUBLISHER}


async def test_a_publisher_that_fills_its_bound_shuts_nobody_else_out(tmp_path: Path) -> None:
    rules, identity = policy.load_policy(), tmp_path / "identity"
    keys.ensure_keys(identity, rules)
    plan = ServerPlan(tmp_path / "nats", free_port(), free_port(), durability="process", store_gib=4)
    server = NatsServer(plan, render.render_accounts(rules, keys.public_nkeys(identity, rules)), os.environ)
    await server.start()

    url = f"nats://127.0.0.1:{plan.port}"

    async def bus(name: str) -> JetStreamBus:
        return await JetStreamBus.connect(url, service=name, nkey_seed=keys.nkey_seed(identity, name))

    try:
        await provision(url, keys.nkey_seed(identity, policy.PROVISIONER), LAYOUT)
        outside, gateway = await bus(PUBLISHER), await bus("gateway")
        most = {one["name"]: one["max_bytes"] for one in stream_configs(LAYOUT)}
        share, size = most[subjects.published_stream(PUBLISHER)], 400_000
        assert share * 4 < most[INBOX]
        stored = 0
        with pytest.raises(PublishRefused, match="maximum bytes"):
            for _ in range(2 * most[INBOX] // size):
                subject = subjects.mesh_subject(PUBLISHER, "gateway", "demo", f"{PUBLISHER}-{stored}")
                await outside.publish(subject, b"x" * size, HEADERS, f"flood-{stored}")
                stored += 1
        assert stored * size <= share

        async def copied() -> bool:
            return len(await gateway.read(INBOX, f"mesh.{PUBLISHER}.>", limit=1_000)) == stored

        await until(copied, "what a publisher said lies in the gateway's inbox")
        person = subjects.mesh_subject("gateway", "gateway", "acme", "t1")
        ack = await gateway.publish(person, b"{}", HEADERS, "person")
        assert ack.sequence > stored
        await outside.close()
        await gateway.close()
    finally:
        await server.stop()
