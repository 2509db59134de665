"""Handlers under FastStream's own test broker: typed, once, again after an error, dead after too many; the document."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from faststream.nats import NatsMessage, TestNatsBroker
from faststream.specification import AsyncAPI
from nats.errors import ConnectionClosedError

from bulkhead.faststream import Events, Requests, broker, told
from bulkhead.faststream.delivery import DeadEvent
from bulkhead_contracts import envelope, subjects
from bulkhead_contracts.event import BudgetAlertEvent, TaskEndedEvent
from bulkhead_contracts.task import TaskAccepted, TaskRequested

URL = "nats://nowhere.invalid:4222"
ENDED = TaskEndedEvent(tenant="demo", task="t1", status="succeeded", url="/v1/tasks/t1")


@pytest.fixture
def dead() -> list[DeadEvent]:
    return []


@pytest.fixture
def events(dead: list[DeadEvent]) -> Events:
    async def bury(one: DeadEvent) -> None:
        dead.append(one)

    return Events(URL, "sub_demo.nkey", tenant="demo", attempts=1, dead=bury)


async def test_a_handler_takes_its_event_once_and_events_that_nobody_wants_are_done(events: Events) -> None:
    seen: list[TaskEndedEvent] = []

    @events.on(TaskEndedEvent)
    async def ended(event: TaskEndedEvent) -> None:
        seen.append(event)

    unwanted = BudgetAlertEvent(
        tenant="demo", task="t1", kind="share", account="a", unit="tokens", percent=80, spent=8, limit=10
    )
    async with TestNatsBroker(events.broker) as broker:
        for event, cause in ((ENDED, "1"), (ENDED, "1"), (unwanted, "1"), (ENDED, "2")):
            await broker.publish(**told(event, cause))
    assert seen == [ENDED, ENDED], "of two with one id the second is dropped"


async def test_a_failed_event_is_dead_after_its_attempts_and_may_be_told_again(
    events: Events, dead: list[DeadEvent]
) -> None:
    fails = AsyncMock(side_effect=[ValueError("the CRM is away"), None])

    @events.on(TaskEndedEvent)
    async def ended(event: TaskEndedEvent) -> None:
        await fails(event)

    async with TestNatsBroker(events.broker) as broker:
        await broker.publish(**told(ENDED))
        [one] = dead
        assert (one.type, one.subject, one.attempts) == ("event.task.ended.v1", "events.demo.task.ended.t1", 1)
        assert json.loads(one.body)["task"] == "t1" and "the CRM is away" in str(one.error)
        await broker.publish(**told(ENDED))
    assert fails.await_count == 2 and len(dead) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": {"ce-type": "event.task.ended.v1"}},
        {"message": {"task": "t1"}},
        {"message": b"no json"},
        {"message": b""},
    ],
    ids=["no envelope", "fields missing", "no json", "empty"],
)
async def test_what_cannot_be_read_is_dead_and_never_reaches_a_handler(
    events: Events, dead: list[DeadEvent], changes: dict[str, Any]
) -> None:
    handled = AsyncMock()

    @events.on(TaskEndedEvent)
    async def ended(event: TaskEndedEvent) -> None:
        await handled(event)

    async with TestNatsBroker(events.broker) as broker:
        await broker.publish(**{**told(ENDED), **changes})
    assert len(dead) == 1 and not handled.await_count


async def test_a_closed_connection_does_not_keep_the_loop_from_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "LOOK_S", 0.01)

    async def fetch() -> None:
        raise ConnectionClosedError

    subscription = SimpleNamespace(fetch=fetch)
    broker.slow_retries(subscription)

    async def consume() -> None:
        """As FastStream does."""
        while True:
            with suppress(ConnectionClosedError):
                await subscription.fetch()

    consuming = asyncio.create_task(consume())
    await asyncio.sleep(0)
    await asyncio.wait_for(asyncio.sleep(0.02), 5)
    consuming.cancel()


def test_only_events_have_handlers_and_a_key_bears_its_name(events: Events) -> None:
    with pytest.raises(ValueError, match="TaskAccepted is no event; there are"):
        events.on(TaskAccepted)
    with pytest.raises(ValueError, match=r"named after its identity"):
        Events(URL, "key.txt", tenant="demo")


def test_the_programs_own_asyncapi_has_its_events_with_their_schemas(events: Events) -> None:
    @events.on(TaskEndedEvent)
    async def ended(event: TaskEndedEvent) -> None: ...

    document = json.dumps(AsyncAPI(events.broker).to_specification().to_jsonable())
    assert "cost_usd_micros" in document and "events.demo.>" in document
    assert (
        "TaskRequested" in AsyncAPI(Requests(URL, "pub_demo.nkey", tenant="demo").broker).to_specification().to_json()
    )


async def test_a_request_has_its_envelope_and_ids_of_its_key(tmp_path: Path) -> None:
    key = tmp_path / "pub_demo.nkey"
    key.write_text("SUAAA")
    requests = Requests(URL, key, tenant="demo")
    heard: list[tuple[str, str]] = []

    @requests.broker.subscriber("mesh.pub_demo.gateway.>", stream="PUBLISHED_DEMO")
    async def hear(body: TaskRequested, message: NatsMessage) -> None:
        head = envelope.parse(message.headers)
        assert (head.type, head.source, body.objective) == (TaskRequested.ce_type(), "pub_demo", "Hello")
        heard.append((subjects.parse(message.raw_message.subject).task, message.headers["Nats-Msg-Id"]))

    async with TestNatsBroker(requests.broker):
        tasks = [await requests.submit(TaskRequested(objective="Hello"), "ticket-7") for _ in range(2)]
    assert tasks == [subjects.published_task("pub_demo", "demo", "ticket-7")] * 2
    assert heard[0] == heard[1] and heard[0][0] == tasks[0]
