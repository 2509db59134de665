"""FastStream programs on a real broker, under the identities of policy.yaml."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bulkhead.faststream import Events, told
from bulkhead.faststream.broker import watch_connection
from bulkhead_contracts.event import TaskEndedEvent
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
