"""Runs in the copied tree: signer, budget and echo as processes on a real broker. Argument: a folder."""

import asyncio
import os
import sys
from pathlib import Path

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.runtime.context import ServiceIdentity, make_context
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.echo import EchoReplied, EchoRequested
from bulkhead_infra.local.supervisor import LocalMesh
from tests.integration.tenth_service.granting import grant

POLL_S = 0.02


async def ask(folder: Path) -> None:
    """Print the answer, and which processes run."""
    environ = {**os.environ, "BULKHEAD_ECHO_PREFIX": "heard: "}
    async with LocalMesh(folder, services=("signer", "budget", "echo"), environ=environ, durability="process") as mesh:
        identities = {name: ServiceIdentity.load(folder / "identity", name) for name in ("gateway", "signer")}
        seed = identities["gateway"].nkey_seed
        bus = await JetStreamBus.connect(mesh.nats_url, service="gateway", nkey_seed=seed, name="test")
        gateway = make_context("gateway", "test", bus, identities["gateway"])
        token = grant(make_context("signer", "test", bus, identities["signer"]), "t1")
        body = EchoRequested(call_id="c1", text="hello")
        await gateway.publisher.send("echo", body, tenant="demo", task="t1", cause="t1", grant=token)
        subject = subjects.mesh_subject("echo", "gateway", "demo", "t1", "c1")
        while not (stored := await bus.read(subjects.inbox_stream("gateway"), subject)):
            await asyncio.sleep(POLL_S)
        reply = catalog.decode_body(EchoReplied.ce_type(), stored[0].body)
        assert isinstance(reply, EchoReplied)
        print(f"{sorted(row.name for row in mesh.rows())}; {reply.text}")
        await bus.close()


asyncio.run(asyncio.wait_for(ask(Path(sys.argv[1])), 50))
