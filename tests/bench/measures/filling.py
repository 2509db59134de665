"""History that is there already: many stored messages of other tasks, which no service has to work on.

In: a broker's folder that nobody uses yet, and how many messages each inbox is to hold. Out: its streams and durables,
made and filled; the durables begin behind the filling. It runs before the mesh, with a user that may do anything and
without fsync, so that a million messages take a minute and not an hour.
"""

import asyncio
import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import nats
from nats.aio.client import Client

from bulkhead_contracts import subjects
from bulkhead_infra.nats.configuration import ServerPlan
from bulkhead_infra.nats.server import NatsServer
from bulkhead_infra.nats.streams import Layout, durable_configs, stream_configs
from tests.bench.figures import say

BODY = b"x" * 512
MESSAGES_PER_TASK = 200
PENDING = 1_000
SENDER = {"planner": "worker", "worker": "planner", "gateway": "planner"}
"""Whose words fill an inbox."""
ACCOUNTS = """accounts { MESH { jetstream: enabled, users: [ { user: "filler", password: "filler" } ] } }\n"""
ACK_TIMEOUT_S = 60.0
JOURNAL_TIMEOUT_S = 300.0


async def fill(plan: ServerPlan, counts: Mapping[str, int], layout: Layout | None = None) -> None:
    """Make the streams, store so many messages in the inboxes named, make the durables behind them."""
    wanted = layout or Layout()
    server = NatsServer(replace(plan, durability="process"), ACCOUNTS, dict(os.environ))
    await server.start()
    try:
        client = await nats.connect(plan.url, user="filler", password="filler")
        for config in stream_configs(wanted):
            await _api(client, f"STREAM.CREATE.{config['name']}", config)
        began = time.perf_counter()
        for inbox, count in counts.items():
            await _store(client, inbox, count)
        seconds = time.perf_counter() - began
        say(f"  stored {sum(counts.values()):,} messages in {seconds:.1f} s")
        await _journal_has(client, sum(counts.values()))
        for stream, config in durable_configs(wanted):
            behind = {"stream_name": stream, "config": config | {"deliver_policy": "new"}}
            await _api(client, f"CONSUMER.CREATE.{stream}.{config['name']}", behind)
        await client.close()
    finally:
        await server.stop()


async def _store(client: Client, inbox: str, count: int) -> None:
    stream = client.jetstream(publish_async_max_pending=PENDING)
    for first in range(0, count, MESSAGES_PER_TASK):
        subject = subjects.mesh_subject(SENDER[inbox], inbox, "demo", f"fill-{first // MESSAGES_PER_TASK}")
        for _ in range(min(MESSAGES_PER_TASK, count - first)):
            await stream.publish_async(subject, BODY, wait_stall=ACK_TIMEOUT_S)
        me = asyncio.current_task()
        if me is not None and me.cancelling():
            # nats-py waits by wait_for, which before Python 3.12 swallows a cancellation that comes with the answer.
            raise asyncio.CancelledError
    await asyncio.wait_for(stream.publish_async_completed(), ACK_TIMEOUT_S)
    held = (await _api(client, f"STREAM.INFO.{subjects.inbox_stream(inbox)}", {}))["state"]["messages"]
    assert held == count, f"{inbox} holds {held} of {count} messages: the filling lost some"


async def _journal_has(client: Client, count: int) -> None:
    """It sources the inboxes and lags: what it has not written yet would be written during the measurement."""
    deadline = time.monotonic() + JOURNAL_TIMEOUT_S
    while (await _api(client, "STREAM.INFO.JOURNAL", {}))["state"]["messages"] < count:
        assert time.monotonic() < deadline, f"the journal has not caught up within {JOURNAL_TIMEOUT_S:g} s"
        await asyncio.sleep(0.2)


async def _api(client: Client, what: str, body: object) -> dict[str, Any]:
    reply = await client.request(f"$JS.API.{what}", json.dumps(body).encode(), timeout=30)
    answer: dict[str, Any] = json.loads(reply.data)
    assert "error" not in answer, f"{what}: {answer['error']}"
    return answer
