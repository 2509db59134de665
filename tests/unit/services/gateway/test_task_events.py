"""Events for outside subscribers: which messages are one, that they are told once, and that they tell no content."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from bulkhead.bus.memory.broker import mesh_streams
from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.bus.memory.streams import StreamConfig
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import HandBack
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.approval import ApprovalRequested
from bulkhead_contracts.budget import NoticeRequested
from bulkhead_contracts.envelope import Envelope, format_rfc3339
from bulkhead_contracts.event import EventPostRequested
from bulkhead_contracts.result import ContentRef, Failure, Result, Usage
from bulkhead_contracts.task import Progressed, StepEnded, StepStarted, TaskAccepted, TaskEnded, TaskRejected
from bulkhead_contracts.types import Body
from bulkhead_services.gateway import task_events
from bulkhead_services.gateway.app import _with_publishers
from bulkhead_services.gateway.settings import Settings, SubscriberSettings
from bulkhead_services.gateway.task_events import TaskEvents, events_of

SECRET = "what the customer wrote"
SPENT = Usage(input_tokens=30, output_tokens=12, cost_usd_micros=77)
RESULT = Result(content=ContentRef(author="worker", sha256="0" * 64, size_bytes=3, summary=SECRET), summary=SECRET)
STEP = StepEnded(
    step_id="s1", attempt=1, plan_version=1, outcome="accepted", reasons=(SECRET,), result=RESULT, usage=SPENT
)
STARTED = StepStarted(step_id="s2", title=SECRET, attempt=1, plan_version=1)
ENDED = TaskEnded(
    status="failed", failure=Failure.from_text("no_answer", SECRET), result=RESULT, usage=SPENT, ended_steps=(STEP,)
)
APPROVAL = ApprovalRequested(
    approval_id="a1",
    call_id="c1",
    step_id="s1",
    tool="send_email",
    arguments_json=f'{{"to": "{SECRET}"}}',
    arguments_sha256="0" * 64,
    preview=SECRET,
    risk="high",
    rule="r",
    policy_sha256="0" * 64,
    asked_for="ann",
    requested_unix_ms=1,
    expires_unix_ms=2,
)


def received(body: Body, sender: str = "planner", tenant: str = "demo") -> ReceivedMessage:
    head = Envelope(id="c" * 32, type=body.ce_type(), source=sender, time_unix_ms=5, traceparent="00-1-2-01")
    return ReceivedMessage(head, body, tenant, "t1", sender, 7, 5)


def notice(kind: str, account: str = "task:demo:t1") -> NoticeRequested:
    figures = {"unit": "tokens", "percent": 80, "spent": 8, "limit": 10}
    return NoticeRequested(notice="n1", kind=kind, account=account, what="it is", told_unix_ms=1, **figures)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (TaskAccepted(deadline_unix_ms=9), ["task.accepted"]),
        (Progressed(accepted=TaskAccepted(deadline_unix_ms=9), started=(STARTED,)), ["task.accepted"]),
        (Progressed(ended=(STEP, STEP)), ["step.ended", "step.ended"]),
        (ENDED, ["step.ended", "task.ended"]),
        (TaskRejected(code="forbidden", message=SECRET), ["task.ended"]),
        (APPROVAL, ["approval.requested"]),
        (notice("share"), ["budget.alert"]),
        (notice("rate", "day:demo:2026-11-23"), ["budget.alert"]),
        (notice("halted"), ["task.halted"]),
        (notice("halted", "tool:demo:http_get"), []),
        (notice("stalled"), []),
    ],
)
def test_a_message_is_these_events_and_they_tell_no_content(body: Body, names: list[str]) -> None:
    found = list(events_of(received(body)))
    assert [one.TYPE for one in found] == [f"event.{name}" for name in names]
    for event in found:
        assert SECRET not in event.encode().decode()
        assert catalog.decode_body(event.ce_type(), event.encode()) == event


def test_the_end_says_how_what_it_cost_and_where_the_answer_is() -> None:
    [_, end] = events_of(received(ENDED))
    assert end.model_dump(include={"task", "status", "code", "cost_usd_micros", "tokens", "url"}) == {
        "task": "t1",
        "status": "failed",
        "code": "no_answer",
        "cost_usd_micros": 77,
        "tokens": 42,
        "url": "/v1/tasks/t1",
    }


async def test_an_event_is_stored_once_however_often_its_message_comes_and_only_where_somebody_listens() -> None:
    broker = MemoryBroker.for_mesh()
    bus = MemoryBus(broker, "gateway")
    rows = {"sub_crm": SubscriberSettings(tenant="demo", events=("task.ended",))}
    for _ in range(2):  # Two replicas.
        events = TaskEvents(Publisher("gateway", bus, b"k" * 32, lambda: 1), rows, {}, lambda: 1)
        for message in (received(ENDED), received(ENDED), received(ENDED, tenant="acme")):
            await events.store_events(message)
    [stored] = await bus.read(subjects.EVENTS_STREAM, "events.>")
    assert stored.subject == "events.demo.task.ended.t1"
    assert stored.headers["ce-type"] == "event.task.ended.v1" and stored.headers["traceparent"] == "00-1-2-01"
    assert not {"bulkhead-grant", "ce-actor"} & set(stored.headers)


async def test_a_webhook_is_told_the_event_of_the_stream_once_and_only_what_it_wants() -> None:
    broker = MemoryBroker.for_mesh()
    bus = MemoryBus(broker, "gateway")
    rows = {"sub_crm": SubscriberSettings(tenant="demo", events=("task.ended",))}
    for _ in range(2):
        events = TaskEvents(Publisher("gateway", bus, b"k" * 32, lambda: 1), rows, {"demo": ("task.ended",)}, lambda: 1)
        for message in (received(ENDED), received(ENDED, tenant="acme")):
            await events.store_events(message)
    [event] = await bus.read(subjects.EVENTS_STREAM, "events.>")
    [stored] = await bus.read(subjects.inbox_stream("tool_executor"), "mesh.>")
    asked = catalog.decode_body(stored.headers["ce-type"], stored.body)
    assert isinstance(asked, EventPostRequested) and stored.subject.startswith("mesh.gateway.tool_executor.")
    assert (asked.id, asked.event) == (event.headers["ce-id"], event.headers["ce-type"])
    assert format_rfc3339(asked.time_unix_ms) == event.headers["ce-time"] and asked.data_json.encode() == event.body


class OlderBroker:
    """A broker whose provisioner has not run yet for this version, and a gateway's events at it. now: Unix ms."""

    def __init__(self) -> None:
        self.broker = MemoryBroker([one for one in mesh_streams() if one.name != subjects.EVENTS_STREAM])
        self.bus, self.now = MemoryBus(self.broker, "gateway"), 0
        rows = {"sub_crm": SubscriberSettings(tenant="demo", events=("task.ended",))}
        publisher = Publisher("gateway", self.bus, b"k" * 32, lambda: self.now)
        self.events = TaskEvents(publisher, rows, {"demo": ("step.ended",)}, lambda: self.now)

    async def tell(self, sequence: int = 7) -> bool:
        """Whether it is done with; otherwise it comes again."""
        try:
            await self.events.store_events(replace(received(ENDED), sequence=sequence))
        except HandBack as back:
            assert "run the provisioner" in back.reason and 1 <= back.delay_s <= task_events.AGAIN_MS / 1000
            return False
        return True


async def test_where_the_stream_is_missing_events_wait_for_it_and_others_are_told_meanwhile(
    caplog: pytest.LogCaptureFixture,
) -> None:
    older = OlderBroker()
    assert not await older.tell() and not await older.tell(8)
    assert caplog.messages.count("events_not_stored") == 1, "one that waits asks for all"
    older.broker.add_stream(StreamConfig(subjects.EVENTS_STREAM, ("events.>",)))
    older.now += task_events.AGAIN_MS
    assert await older.tell() and await older.tell(8)
    assert len(await older.bus.read(subjects.EVENTS_STREAM, "events.>")) == 1, "they have one cause here"
    assert len(await older.bus.read(subjects.inbox_stream("tool_executor"), "mesh.>")) == 1


async def test_no_more_messages_than_the_inbox_can_bear_wait_for_the_stream(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_events, "MAX_WAITING", 2)
    older = OlderBroker()
    assert [await older.tell(number) for number in range(4)] == [False, False, True, True]
    assert caplog.messages.count("events_lost") == 2
    older.now += task_events.SEEN_ELSEWHERE_MS
    assert not await older.tell(4), "those that waited were taken by another replica"


def test_an_event_that_there_is_not_is_told_at_the_start() -> None:
    with pytest.raises(ValidationError, match=r"task\.endet' is no event; there are approval\.requested"):
        Settings(webhook_events={"demo": ("task.endet",)})


@pytest.mark.parametrize(
    "beside", ['"publishers": {"pub_a": {"tenant": "demo", "person": "p"}}, ', '"publishers": {}, ']
)
def test_subscribers_stand_in_the_file_of_publishers(tmp_path: Path, beside: str) -> None:
    path = tmp_path / "publishers.json"
    path.write_text("{" + beside + '"subscribers": {"sub_a": {"tenant": "demo", "events": ["task.ended"]}}}')
    found = _with_publishers(Settings(publishers_file=path))
    assert found.subscribers["sub_a"].events == ("task.ended",)
    assert set(found.publishers) == ({"pub_a"} if "pub_a" in beside else set())
