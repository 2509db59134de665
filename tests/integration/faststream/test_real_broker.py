"""FastStream programs on a real broker, under the identities of policy.yaml."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bulkhead.faststream import Events, NotStored, Requests, told
from bulkhead.faststream import requests as asked
from bulkhead.faststream.broker import watch_connection
from bulkhead_contracts import subjects
from bulkhead_contracts.event import TaskEndedEvent
from bulkhead_contracts.task import TaskRequested
from bulkhead_contracts.types import Body
from bulkhead_infra.identity import keys, policy, render
from bulkhead_infra.nats.server import NatsServer
from tests.eventually import until
from tests.integration.permissions.broker import Broker, Client, running


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with running(tmp_path) as found:
        yield found


def ended(task: str) -> TaskEndedEvent:
    return TaskEndedEvent(tenant="demo", task=task, status="succeeded", url=f"/v1/tasks/{task}")


async def tell(gateway: Client, event: Body) -> None:
    sent = told(event)
    assert "error" not in await gateway.store(sent["subject"], event.encode(), sent["headers"])


async def test_events_come_until_they_are_handled_also_after_the_broker_was_away(broker: Broker) -> None:
    events = Events(broker.url, broker.identity / "sub_demo.nkey", tenant="demo")
    seen: list[str] = []

    @events.on(TaskEndedEvent)
    async def take(event: TaskEndedEvent) -> None:
        seen.append(event.task)
        if event.task == "fails-once" and seen.count(event.task) == 1:
            raise ValueError("the CRM is away")

    async def came(*tasks: str) -> bool:
        return sorted(seen) == sorted(tasks)

    async with events.broker:
        await events.broker.start()
        async with broker.client("gateway") as gateway:
            await tell(gateway, ended("t1"))
            await tell(gateway, ended("fails-once"))
            await until(lambda: came("t1", "fails-once", "fails-once"), "the one that failed has come again")
        await broker.server.stop()
        await broker.server.start()
        async with broker.client("gateway") as gateway:
            await tell(gateway, ended("t2"))
        await until(lambda: came("t1", "fails-once", "fails-once", "t2"), "it has connected again", timeout_s=20)


async def test_a_subscriber_that_sets_itself_back_gets_its_events_again_and_doubles_once(broker: Broker) -> None:
    events = Events(broker.url, broker.identity / "sub_demo.nkey", tenant="demo", at_once=1)
    seen: list[str] = []

    @events.on(TaskEndedEvent)
    async def take(event: TaskEndedEvent) -> None:
        seen.append(event.task)
        if seen == ["t1", "t2", "t1"]:
            raise ValueError("the CRM is away")

    async def came(*tasks: str) -> bool:
        return sorted(seen) == sorted(tasks)

    async with events.broker, broker.client("gateway") as gateway, broker.client("sub_demo") as client:
        await events.broker.start()
        # The first one is told twice.
        for event in (ended("t1"), ended("t1"), ended("t2")):
            await tell(gateway, event)
        await until(lambda: came("t1", "t2"), "both have come")
        await client.ask(f"JSMESH.API.CONSUMER.RESET.{subjects.EVENTS_STREAM}.sub_demo", b'{"seq": 1}')
        # The one that failed comes again before or after the other: a redelivery has no place in the order.
        await until(lambda: came("t1", "t2", "t1", "t2", "t1"), "both come again, and once more the one that failed")
        await tell(gateway, ended("t3"))
        await until(lambda: came("t1", "t2", "t1", "t2", "t1", "t3"), "what comes after them")
    assert seen[:3] == ["t1", "t2", "t1"]
    assert seen[-1] == "t3"


async def test_a_program_ends_with_an_error_when_a_broker_that_is_back_does_not_know_it(broker: Broker) -> None:
    events = Events(broker.url, broker.identity / "sub_demo.nkey", tenant="demo")
    await events.broker.start()
    await broker.server.stop()
    rules = policy.load_policy().model_copy(update={"subscribers": {}})
    other = render.render_accounts(rules, keys.public_nkeys(broker.identity, rules))
    server = NatsServer(broker.server.plan, other, os.environ)
    await server.start()
    try:
        async with asyncio.timeout(30):
            with pytest.raises(SystemExit, match="does not let sub_demo in any more"):
                await watch_connection(events.broker)
    finally:
        await server.stop()


async def test_a_request_is_stored_once_and_one_of_another_tenant_is_none(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, request = broker.identity / "pub_demo.nkey", TaskRequested(objective="Hello")
    mine = Requests(broker.url, key, tenant="demo")
    async with mine.broker:
        await mine.broker.start()
        tasks = await asyncio.gather(*(mine.submit(request, "ticket-7") for _ in range(3)))
    assert len(set(tasks)) == 1
    assert (await broker.contents())[subjects.published_stream("pub_demo")][0] == 1
    monkeypatch.setattr(asked, "ATTEMPTS", 1)
    foreign = Requests(broker.url, key, tenant="acme")
    async with foreign.broker:
        await foreign.broker.start()
        with pytest.raises(NotStored, match="outside this identity's rights"):
            await foreign.submit(request, "ticket-7")
