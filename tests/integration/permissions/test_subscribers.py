"""An outside subscriber on a real broker: its tenant's events of its row, again when it asks, and nothing else."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from bulkhead_contracts import subjects
from tests.integration.permissions import expected
from tests.integration.permissions.broker import Broker, Client, running

SUBSCRIBER = "sub_demo"
ROW = expected.POLICY["subscribers"][SUBSCRIBER]
DURABLE = f"{subjects.EVENTS_STREAM}.{SUBSCRIBER}"
NEXT, RESET = f"JSMESH.API.CONSUMER.MSG.NEXT.{DURABLE}", f"JSMESH.API.CONSUMER.RESET.{DURABLE}"
ANSWER_S = 30.0


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with running(tmp_path) as found:
        yield found


async def _told(gateway: Client, *stored: str) -> None:
    for subject in stored:
        assert "error" not in await gateway.store(subject)


async def _next(client: Client) -> Msg:
    return await asyncio.wait_for(await client.ask(NEXT, b'{"batch": 1, "no_wait": true}'), ANSWER_S)


async def _all(client: Client) -> list[str]:
    """Subjects of what is handed out now; each is acked."""
    found = []
    while (message := await _next(client)).reply:
        found.append(message.subject)
        await client.nc.publish(message.reply, b"+ACK")
        await client.settle()
    return found


async def test_it_is_told_its_tenants_events_of_its_row_and_has_them_again_from_where_it_asks(broker: Broker) -> None:
    assert "step.ended" not in ROW["events"]
    mine = [subjects.event_subject(ROW["tenant"], name, "t1") for name in ROW["events"]]
    others = [
        subjects.event_subject("acme", "task.ended", "t1"),
        subjects.event_subject(ROW["tenant"], "step.ended", "t1"),
    ]
    async with broker.client("gateway") as gateway, broker.client(SUBSCRIBER) as client:
        await _told(gateway, *others, *mine)
        assert await _all(client) == mine
        answer = await asyncio.wait_for(await client.ask(RESET, b'{"seq": 1}'), ANSWER_S)
        assert "error" not in json.loads(answer.data)
        assert await _all(client) == mine


async def test_it_widens_nothing_by_what_it_asks(broker: Broker) -> None:
    wider = {"filter_subject": "events.>", "filter_subjects": ["events.>"], "deliver_subject": "mesh.gateway.planner.x"}
    other = subjects.event_subject("acme", "task.ended", "t1")
    async with broker.client("gateway") as gateway, broker.client(SUBSCRIBER) as client:
        await _told(gateway, other)
        before = await broker.contents()
        for request in (NEXT, RESET, f"JSMESH.API.CONSUMER.INFO.{DURABLE}"):
            body = json.dumps({"batch": 1, "no_wait": True, "seq": 1, "config": wider, **wider}).encode()
            await asyncio.wait_for(await client.ask(request, body), ANSWER_S)
        assert await _all(client) == []
        refused = [
            f"JSMESH.API.CONSUMER.CREATE.{DURABLE}",
            f"JSMESH.API.CONSUMER.CREATE.{DURABLE}.events.{ROW['tenant']}.task.ended.*",
            f"JSMESH.API.CONSUMER.DURABLE.CREATE.{DURABLE}",
            f"JSMESH.API.CONSUMER.MSG.NEXT.{subjects.EVENTS_STREAM}.sub_other",
            f"JSMESH.API.DIRECT.GET.{subjects.EVENTS_STREAM}",
            subjects.event_subject(ROW["tenant"], "task.ended", "t1"),
            f"dead.{SUBSCRIBER}.3.{ROW['tenant']}.t1",
        ]
        for subject in refused:
            await client.ask(subject, b"{}")
        await client.settle()
        assert {one.lower() for one in refused} <= client.denied
        assert await broker.contents() == before
