"""A publisher's key that floods the gateway fills the publisher's own bound; a real broker holds it to that."""

from pathlib import Path

import pytest

from bulkhead.bus.port import PublishRefused
from bulkhead_contracts import subjects
from bulkhead_contracts.task import TaskRequested
from bulkhead_infra.identity import keys, policy
from bulkhead_infra.nats.provision import provision
from bulkhead_infra.nats.streams import Layout, stream_configs
from tests.eventually import until
from tests.integration.broker.bare_broker import bare_broker, bus_of

LAYOUT = Layout(store_gib=4)
PUBLISHER, INBOX = "pub_demo", subjects.inbox_stream("gateway")
HEADERS = {"ce-type": TaskRequested.ce_type(), "ce-id": "1", "ce-source": PUBLISHER}


async def test_a_publisher_that_fills_its_bound_shuts_nobody_else_out(tmp_path: Path) -> None:
    identity = tmp_path / "identity"
    async with bare_broker(tmp_path, store_gib=4) as server:
        url = server.plan.url
        await provision(url, keys.nkey_seed(identity, policy.PROVISIONER), LAYOUT)
        async with bus_of(url, identity, PUBLISHER) as outside, bus_of(url, identity, "gateway") as gateway:
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
