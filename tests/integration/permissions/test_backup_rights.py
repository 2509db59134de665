"""What the identity `backup` may do in the account that owns the streams: copy, hold back, and change nothing."""

import asyncio
import json

import pytest_asyncio

from tests.integration.permissions.broker import Broker, running

STREAM, DURABLE = "INBOX_WORKER", "worker-0"
MAY_NOT = (
    *(
        f"$JS.API.STREAM.{action}.{STREAM}"
        for action in ("CREATE", "UPDATE", "DELETE", "PURGE", "MSG.DELETE", "LEADER.STEPDOWN", "PEER.REMOVE")
    ),
    *(
        f"$JS.API.CONSUMER.{action}.{STREAM}.{DURABLE}"
        for action in ("CREATE", "DURABLE.CREATE", "DELETE", "MSG.NEXT", "RESET", "UNPIN", "LEADER.STEPDOWN")
    ),
    f"$JS.ACK.{STREAM}.{DURABLE}.1.1.1.1.0",
    "mesh.planner.worker.3.demo.t1.-",
    "mesh.backup.worker.3.demo.t1.-",
    f"blob.worker.demo.{'0' * 64}",
    "record.rag.demo.t1.k",
    "$KV.CONTROL.task.t1",
    "timer.planner.fired.3.demo.t1",
    "dead.worker.3.demo.t1",
    "live.gateway.demo.t1",
    "rpc.rag.budget.3.demo.t1",
    "$JS.API.ACCOUNT.PURGE.MESH",
)
MAY_NOT_HEAR = (">", "mesh.>", "$JS.>", "$KV.>", "blob.>", "live.>", "rpc.>", "_INBOX_provisioner.>", "_INBOX.>")


@pytest_asyncio.fixture
async def broker(tmp_path):
    async with running(tmp_path) as found:
        yield found


async def test_it_copies_and_changes_nothing(broker: Broker) -> None:
    async with broker.client("planner") as planner:
        assert "error" not in await planner.store("mesh.planner.worker.3.demo.t1.-")
    # The journal copies it a moment later.
    async with asyncio.timeout(30):
        while (before := await broker.contents())["JOURNAL"][0] == 0:
            await asyncio.sleep(0.05)
    async with broker.client("backup") as thief:
        assert json.loads((await (await thief.ask(f"$JS.API.STREAM.INFO.{STREAM}"))).data)["state"]["messages"] == 1
        for subject in MAY_NOT:
            await thief.nc.publish(subject, b"{}", reply=thief.prefix + "x")
        for subject in MAY_NOT_HEAR:
            await thief.nc.subscribe(subject)
        await thief.settle()
        left = [one for one in (*MAY_NOT, *MAY_NOT_HEAR) if one.lower() not in thief.denied]
        assert not left, f"the broker lets it: {left}"
        # A stream that is there is not replaced by a copy.
        request = json.dumps({"config": {"name": STREAM, "subjects": ["mesh.*.worker.>"]}, "state": {}}).encode()
        answer = json.loads((await (await thief.ask(f"$JS.API.STREAM.RESTORE.{STREAM}", request))).data)
        assert "error" in answer, answer
    assert await broker.contents() == before
