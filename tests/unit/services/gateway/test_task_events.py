"""Events for outside subscribers: which messages are one, that they are told once, and that they tell no content."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.runtime.edge.protocol import Received
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.approval import ApprovalRequested
from bulkhead_contracts.budget import NoticeRequested
from bulkhead_contracts.envelope import Envelope, rfc3339
from bulkhead_contracts.event import EventPostRequested
from bulkhead_contracts.result import ContentRef, Failure, Result, Usage
from bulkhead_contracts.task import Progressed, StepEnded, StepStarted, TaskAccepted, TaskEnded, TaskRejected
from bulkhead_contracts.types import Body
from bulkhead_services.gateway.app import _with_publishers
from bulkhead_services.gateway.settings import Settings, SubscriberPolicy
from bulkhead_services.gateway.task_events import TaskEvents, events_of

SECRET = "what the customer wrote"
SPENT = Usage(input_tokens=30, output_tokens=12, cost_usd_micros=77)
RESULT = Result(content=ContentRef(author="worker", sha256="0" * 64, size_bytes=3, summary=SECRET), summary=SECRET)
STEP = StepEnded(
    step_id="s1", attempt=1, plan_version=1, outcome="accepted", reasons=(SECRET,), result=RESULT, usage=SPENT
)
STARTED = StepStarted(step_id="s2", title=SECRET, attempt=1, plan_version=1)
ENDED = TaskEnded(
    status="failed", failure=Failure.of("no_answer", SECRET), result=RESULT, usage=SPENT, ended_steps=(STEP,)
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


def received(body: Body, sender: str = "planner", tenant: str = "demo") -> Received:
    head = Envelope(id="c" * 32, type=body.ce_type(), source=sender, time_unix_ms=5, traceparent="00-1-2-01")
    return Received(head, body, tenant, "t1", sender, 7, 5)


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
        assert catalog.decode(event.ce_type(), event.encode()) == event


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
    broker = MemoryBroker.mesh()
    bus = MemoryBus(broker, "gateway")
    rows = {"sub_crm": SubscriberPolicy(tenant="demo", events=("task.ended",))}
    for _ in range(2):  # Two replicas.
        events = TaskEvents(Publisher("gateway", bus, b"k" * 32, lambda: 1), rows)
        for message in (received(ENDED), received(ENDED), received(ENDED, tenant="acme")):
            await events.tell(message)
    [stored] = await bus.read(subjects.EVENTS_STREAM, "events.>")
    assert stored.subject == "events.demo.task.ended.t1"
    assert stored.headers["ce-type"] == "event.task.ended.v1" and stored.headers["traceparent"] == "00-1-2-01"
    assert not {"bulkhead-grant", "ce-actor"} & set(stored.headers)


async def test_a_webhook_is_told_the_event_of_the_stream_once_and_only_what_it_wants() -> None:
    broker = MemoryBroker.mesh()
    bus = MemoryBus(broker, "gateway")
    rows = {"sub_crm": SubscriberPolicy(tenant="demo", events=("task.ended",))}
    for _ in range(2):
        events = TaskEvents(Publisher("gateway", bus, b"k" * 32, lambda: 1), rows, {"demo": ("task.ended",)})
        for message in (received(ENDED), received(ENDED, tenant="acme")):
            await events.tell(message)
    [event] = await bus.read(subjects.EVENTS_STREAM, "events.>")
    [stored] = await bus.read(subjects.inbox_stream("tool_executor"), "mesh.>")
    asked = catalog.decode(stored.headers["ce-type"], stored.body)
    assert isinstance(asked, EventPostRequested) and stored.subject.startswith("mesh.gateway.tool_executor.")
    assert (asked.id, asked.event) == (event.headers["ce-id"], event.headers["ce-type"])
    assert rfc3339(asked.time_unix_ms) == event.headers["ce-time"] and asked.data_json.encode() == event.body


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
