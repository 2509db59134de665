"""Events from outside at the gateway: who may publish them, which runs they begin, and what is told where none does."""

from dataclasses import replace
from typing import Any

import pytest

from bulkhead.bus.port import BusUnavailable, StoredMessage
from bulkhead.runtime.consume import inbound
from bulkhead_contracts import subjects
from bulkhead_contracts.outside_event import EventMatched, EventOccurred, EventPublished, event_channel
from bulkhead_contracts.task import RequesterClaim, TaskAccepted, TaskRejected, TaskRequested, TaskSubmitted
from bulkhead_contracts.workflow import WorkflowTransition, WorkflowTrigger, WorkflowVersion
from tests.unit.services.gateway.harness import AGENT, AUDITOR, OPERATOR, SUBMITTER, Mesh
from tests.unit.services.gateway.test_workflow_runs import VERSION

TRIGGER = WorkflowTrigger(event="order.paid", sources=("shop",), fields={"topic": "/item"})
EVENT = EventPublished(name="order.paid", id="p-1", key="42", body_json='{"item": "tea"}')


def add_trigger(mesh: Mesh, tenant: str = "acme", trigger: WorkflowTrigger = TRIGGER, **changes: Any) -> None:
    """A published version of a tenant, on a trigger that ada set."""
    _store(mesh, tenant, 0, VERSION)
    add_fact(mesh, tenant, 1, **{"trigger": trigger} | changes)


def add_fact(mesh: Mesh, tenant: str, place: int, **changes: Any) -> None:
    fact = WorkflowTransition(
        workflow="looks",
        number=3,
        place=place,
        action="schedule",
        state="published",
        sha256=VERSION.sha256,
        reason="on each order",
        person="ada",
        role="operator",
        via="api_key",
        act="act-2",
        act_sha256="0" * 64,
        moved_unix_ms=2,
    ).model_copy(update=changes)
    _store(mesh, tenant, place, fact)


def _store(mesh: Mesh, tenant: str, place: int, body: WorkflowVersion | WorkflowTransition) -> None:
    subject, number = subjects.workflow_subject(tenant, "looks", 3, place), 1 + len(mesh.bus.stored)
    mesh.bus.stored.append(
        (subjects.PROMPTS_STREAM, StoredMessage(subject, {}, body.model_dump_json().encode(), number, 1))
    )


async def tell(mesh: Mesh, event: EventPublished = EVENT, sender: str = "pub_shop", **more: Any) -> str:
    token = subjects.published_event(sender, "acme", event.id)
    await mesh.say(sender, event, more.pop("token", token), **more)
    return token


def read(mesh: Mesh, kind: type[Any], inbox: str = "gateway") -> list[Any]:
    rows = [row for row in mesh.sent(inbox) if row.ce_type == kind.ce_type()]
    return [kind.model_validate_json(row.body) for row in rows]


async def test_an_event_begins_one_run_however_often_it_comes_and_is_told_to_who_waits(mesh):
    add_trigger(mesh)
    token = await tell(mesh)
    await tell(mesh, index=1)  # Long after the broker has forgotten its message id.
    [request] = read(mesh, TaskRequested)
    assert (request.objective, request.workflow, request.written_by) == ("Look for tea", "looks.3", "model")
    assert (request.requester.person, request.requester.role) == ("ada", "operator")
    [submitted] = read(mesh, TaskSubmitted, "planner")
    # What the event says has nobody's trust; the texts that people approved keep theirs.
    assert {label.source: label.trust for label in submitted.labels} == {
        "": "untrusted",
        "plan step look": "untrusted",
        "plan step tell": "user",
    }
    [occurred] = read(mesh, EventOccurred, "planner")
    assert (occurred.event, occurred.source) == (token, "shop")
    [stored] = [row for row in mesh.sent("planner") if row.ce_type == EventOccurred.ce_type()]
    assert stored.task == event_channel("order.paid", "42")


@pytest.mark.parametrize(
    ("event", "trigger"),
    [
        (EVENT.model_copy(update={"name": "order.placed"}), TRIGGER),
        (EVENT, TRIGGER.model_copy(update={"key": "43"})),
        (EVENT, TRIGGER.model_copy(update={"sources": ("bank",)})),
    ],
)
async def test_a_trigger_heeds_its_events_alone(mesh, event, trigger):
    add_trigger(mesh, trigger=trigger)
    await tell(mesh, event)
    assert read(mesh, TaskRequested) == [] and len(read(mesh, EventOccurred, "planner")) == 1


async def test_another_tenants_event_begins_nothing(mesh):
    add_trigger(mesh, "other")
    await tell(mesh)
    assert read(mesh, TaskRequested) == []
    # A publisher whose tenant in the subject is not its policy's is refused, whatever the broker let it say.
    token = subjects.published_event("pub_shop", "other", EVENT.id)
    await mesh.say("pub_shop", EVENT, token, tenant="other")
    assert [row.code for row in read(mesh, TaskRejected)] == ["foreign_tenant"] and read(mesh, TaskRequested) == []


async def test_what_came_before_the_trigger_was_set_begins_nothing(mesh):
    add_trigger(mesh, moved_unix_ms=2_000_000)
    await tell(mesh)
    assert read(mesh, TaskRequested) == []


@pytest.mark.parametrize(
    ("body_json", "changes", "code", "reason"),
    [
        ("{}", {}, "unfit_event", "topic: there is nothing at /item"),
        ('{"item": null}', {}, "unfit_event", "is no text, number or boolean"),
        ('{"item": "a\\u0007"}', {}, "unfit_event", "topic is one line of text"),
        ('{"item": "tea"}', {"person": "gone"}, "lapsed_authority", "gone, who set the trigger as operator"),
        ('{"item": "tea"}', {"via": "jwt"}, "lapsed_authority", "without an API key"),
    ],
)
async def test_an_event_that_cannot_begin_its_run_is_seen_as_a_rejected_one(mesh, body_json, changes, code, reason):
    add_trigger(mesh, **changes)
    await tell(mesh, EVENT.model_copy(update={"body_json": body_json}))
    [request], [rejected] = read(mesh, TaskRequested), read(mesh, TaskRejected)
    assert request.workflow == "looks.3" and rejected.code == code and reason in rejected.message
    assert read(mesh, TaskSubmitted, "planner") == []


async def test_a_trigger_begins_no_more_runs_a_minute_than_it_may(mesh):
    add_trigger(mesh, trigger=TRIGGER.model_copy(update={"runs_per_minute": 2}))
    for number in range(3):
        await tell(mesh, EVENT.model_copy(update={"id": f"p-{number}"}))
    assert len(read(mesh, TaskSubmitted, "planner")) == 2
    assert "2 runs a minute" in read(mesh, TaskRejected)[0].message


@pytest.mark.parametrize(("changes", "begun"), [({"runs_per_minute": 1}, 1), ({"runs_per_minute": 2}, 2)])
async def test_an_event_that_comes_again_is_counted_once_and_refused_again(mesh, monkeypatch, changes, begun):
    add_trigger(mesh, trigger=TRIGGER.model_copy(update=changes))
    await tell(mesh)
    append = mesh.bus.publish

    async def lose_request(subject: str, *words: Any, **more: Any) -> Any:
        if subject.startswith("mesh.gateway.gateway."):
            raise BusUnavailable("down")
        return await append(subject, *words, **more)

    monkeypatch.setattr(mesh.bus, "publish", lose_request)
    token = await tell(mesh, EVENT.model_copy(update={"id": "p-2"}))
    assert len(read(mesh, TaskRequested)) == 1
    monkeypatch.undo()
    [stored] = [row for row in mesh.sent("gateway") if row.task == token]
    await mesh.gateways[0].handle_message(replace(inbound.read_message(stored, "gateway"), attempts=2))
    mesh.handled = stored.sequence
    await mesh.pump()
    assert len(read(mesh, TaskSubmitted, "planner")) == begun and len(read(mesh, TaskRequested)) == 2


@pytest.mark.parametrize(
    ("event", "more", "code"),
    [
        (EVENT.model_copy(update={"body_json": "{"}), {}, "bad_event"),
        (EVENT, {"sender": "pub_stranger"}, "unknown_publisher"),
    ],
)
async def test_an_event_that_cannot_be_taken_is_rejected_with_the_reason(mesh, event, more, code):
    add_trigger(mesh)
    await tell(mesh, event, **more)
    assert [row.code for row in read(mesh, TaskRejected)] == [code]
    assert read(mesh, TaskRequested) == [] and read(mesh, EventOccurred, "planner") == []


@pytest.mark.parametrize("event", [EVENT, EVENT.model_copy(update={"body_json": "{"})])
async def test_an_event_under_the_id_of_a_task_changes_nothing_there(mesh, http, event):
    add_trigger(mesh)
    headers = {"X-API-Key": SUBMITTER, "Idempotency-Key": "k1"}
    task = (await http.post("/v1/tasks", json={"objective": "look"}, headers=headers)).json()["task_id"]
    await mesh.say("planner", TaskAccepted(deadline_unix_ms=10**13), task)
    await tell(mesh, event, token=task)
    assert (await http.get(f"/v1/tasks/{task}", headers=headers)).json()["status"] == "running"
    assert read(mesh, TaskRejected) == [] and read(mesh, EventOccurred, "planner") == []
    assert len(read(mesh, TaskRequested)) == 1


async def test_a_gateway_that_knows_no_unfit_requests_runs_none_either(mesh):
    add_trigger(mesh, person="gone")
    await tell(mesh)
    [request] = read(mesh, TaskRequested)
    await mesh.say("gateway", request.model_copy(update={"unfit": None}), "t-older")
    assert [row.code for row in read(mesh, TaskRejected)] == ["lapsed_authority", "forbidden"]
    assert read(mesh, TaskSubmitted, "planner") == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"trigger": TRIGGER.model_copy(update={"sources": ("bank",)})}, ""),
        ({"trigger": None, "action": "unschedule"}, "its trigger was taken away"),
        ({"trigger": None, "action": "retire", "state": "retired"}, "its trigger was taken away"),
    ],
)
async def test_an_event_counts_for_the_trigger_that_stood_when_it_came(mesh, change, reason):
    add_trigger(mesh)
    add_fact(mesh, "acme", 2, moved_unix_ms=2_000_000, **change)
    await tell(mesh)
    assert len(read(mesh, TaskRequested)) == 1 and len(read(mesh, TaskSubmitted, "planner")) == (not reason)
    assert all(reason in row.message for row in read(mesh, TaskRejected))
    assert len(read(mesh, TaskRejected)) == bool(reason)


async def test_nobody_outside_says_who_he_is(mesh):
    add_trigger(mesh, trigger=TRIGGER.model_copy(update={"sources": ("ada",)}))
    claim = RequesterClaim(tenant="acme", person="ada", role="operator", via="api_key")
    await tell(mesh, EVENT.model_copy(update={"requester": claim}))
    assert read(mesh, TaskRequested) == []


async def test_people_publish_by_http_under_ids_of_their_own(mesh, http):
    add_trigger(mesh, trigger=TRIGGER.model_copy(update={"sources": ("sue",)}))
    body = {"name": "order.paid", "id": "p-1", "key": "42", "body": {"item": "tea"}}

    async def post(key: str, **changes: Any) -> Any:
        return await http.post("/v1/events", json=body | changes, headers={"X-API-Key": key})

    first, again = await post(SUBMITTER), await post(SUBMITTER)
    assert (first.status_code, first.json()["repeated"]) == (202, False)
    assert again.json() == first.json() | {"repeated": True}
    assert (await post(SUBMITTER, body={"item": "ale"})).json()["code"] == "idempotency_reused"
    # The same id of another person is another event.
    assert (await post(OPERATOR)).json()["event"] != first.json()["event"]
    await mesh.pump()
    assert [row.objective for row in read(mesh, TaskRequested)] == ["Look for tea"]
    for key in (AUDITOR, AGENT):
        assert (await post(key, id="p-2")).status_code == 403
    assert (await post(SUBMITTER, body="x" * 40_000)).json()["code"] == "event_too_large"
    assert (await post(SUBMITTER, name="Order Paid")).status_code == 422


async def test_a_match_is_handed_on_with_a_label_for_the_task_that_waits(mesh):
    content = await mesh.blob("gateway", EVENT.body_json)
    fields = {"step_id": "paid", "attempt": 1, "plan_version": 1, "name": "order.paid", "key": "42"}
    await mesh.say("planner", EventMatched(**fields, event="e1", source="shop", place=7, content=content), "t1")
    [matched] = read(mesh, EventMatched, "planner")
    assert matched.label.trust == "untrusted" and matched.label.sha256 == content.sha256
    verifier = mesh.gateways[0]._context.verifier
    assert verifier.verify_label(matched.label, "acme", "t1") and not verifier.verify_label(matched.label, "acme", "t2")
