"""How a tenant's tasks hang together, told to who may see it: waits, findings, windows of breakers."""

import json
from types import SimpleNamespace

import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead.health.breakers.registry import BreakerRegistry
from bulkhead.health.events import CallEnded
from bulkhead.health.thresholds import DEFAULT
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead_contracts import bounds
from bulkhead_contracts.budget import CoordinationRequested, Tripped
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.budget.watch import deadlock_refusal
from bulkhead_services.budget.watch.coordination import CoordinationQuery, breaker_windows
from bulkhead_services.budget.watch.fold import RecentTrips
from bulkhead_services.budget.watch.open_waits import WaitMinutes, open_waits
from tests.unit.services.budget.watch.test_deadlocks import CRM, ERP, NOW, Inboxes, asks, crossed, has, wants

BREAKERS = DEFAULT.breakers


def trip(number: int, task: str = "t1", tenant: str = "demo") -> StoredMessage:
    body = Tripped(trip=f"x{number}", detector="loop.repeat", level="stop", what="w", tripped_unix_ms=number)
    return StoredMessage(f"mesh.budget.journal.1.{tenant}.{task}.-", {}, body.encode(), number, NOW)


def ask(role: str = "operator", tenant: str = "demo") -> ReceivedMessage:
    body = CoordinationRequested(requester=RequesterClaim(tenant=tenant, person="ann", role=role, via="api_key"))
    return ReceivedMessage(None, body, "demo", "x", "gateway", 1, NOW, receiver="budget")  # type: ignore[arg-type]


def test_a_circle_is_told_with_who_holds_what_and_others_wait_beside_it():
    mesh = Inboxes()
    crossed(mesh)
    asks(mesh, "a", "b", "c", mode="any")
    has(mesh, "t9", "r:1", "z1")
    mesh.read_all()
    rows, more = open_waits(mesh.watching.watch.graph, "demo")
    told = {(one.kind, one.waiter, one.targets, one.stuck) for one in rows}
    assert told == {
        ("held", CRM, ("t1/s",), True),
        ("held", ERP, ("t2/s",), True),
        ("want", "t1/s", (ERP,), True),
        ("want", "t2/s", (CRM,), True),
        ("ask", "t1/a", ("t1/b", "t1/c"), False),
        ("held", "r:1", ("t9/s",), False),
    }
    assert more == 0 and [one.stuck for one in rows] == [True] * 4 + [False] * 2
    assert {one.until_unix_ms for one in rows if one.kind == "held"} == {NOW + 60_000}
    assert open_waits(mesh.watching.watch.graph, "dem") == ((), 0), "another tenant's"


def test_a_minute_is_told_by_its_fullest_moment_after_its_waits_are_over():
    mesh = Inboxes()
    minutes = WaitMinutes()
    crossed(mesh)
    mesh.read_all()
    graph = mesh.watching.watch.graph
    minute = NOW - NOW % 60_000
    minutes.note_waits(graph, NOW)
    for key in list(graph.waits):
        graph.close_wait(key)
    minutes.note_waits(graph, NOW)
    minutes.note_waits(graph, NOW + 60_000)
    [row] = minutes.minutes_of("demo")
    assert (row.start_unix_ms, row.waits, row.stuck) == (minute, 4, 4)
    rows, more = minutes.waits_at("demo", minute + 1)
    assert {wait.waiter for wait in rows} == {CRM, ERP, "t1/s", "t2/s"} and more == 0
    assert minutes.waits_at("demo", minute + 60_000) == ((), 0)
    assert minutes.minutes_of("other") == () and minutes.waits_at("other", minute) == ((), 0)


def test_a_fold_keeps_the_minutes_of_what_it_reads():
    mesh = Inboxes()
    crossed(mesh)
    mesh.read_all()
    assert [row.stuck for row in mesh.watching.wait_minutes.minutes_of("demo")][-1:] == [4]


def test_many_waits_are_cut_and_counted():
    mesh = Inboxes()
    for number in range(bounds.MAX_WAITS_LISTED + 5):
        wants(mesh, f"t{number}", CRM, "a")
    mesh.read_all()
    rows, more = open_waits(mesh.watching.watch.graph, "demo")
    assert (len(rows), more) == (bounds.MAX_WAITS_LISTED, 5)


def test_the_last_findings_of_a_tenant_are_told_once_the_newest_first():
    recent = RecentTrips()
    for number in (1, 2, 2, 3):
        recent.fold_tripped(trip(number))
    recent.fold_tripped(trip(9, tenant="other"))
    recent.fold_tripped(StoredMessage("mesh.budget.journal.1.demo.t1.-", {}, b"{", 9, NOW))
    assert [one.trip.trip for one in recent.trips_of("demo")] == ["x3", "x2", "x1"]
    for number in range(10, 10 + bounds.MAX_TRIPS_LISTED):
        recent.fold_tripped(trip(number))
    assert len(recent.trips_of("demo")) == bounds.MAX_TRIPS_LISTED and recent.trips_of("demo")[-1].trip.trip == "x10"


def test_a_fold_remembers_findings_that_it_reads():
    mesh = Inboxes()
    one = trip(1)
    head = Envelope(id="x", type=Tripped.ce_type(), source="budget", time_unix_ms=NOW)
    source = {"Nats-Stream-Source": "INBOX_JOURNAL 1"}
    mesh.watching.fold_message(StoredMessage(one.subject, head.to_headers() | source, one.body, 1, NOW))
    assert [one.task for one in mesh.watching.recent.trips_of("demo")] == ["t1"]


def test_windows_count_what_a_breaker_looks_at_and_no_older_call():
    breakers = BreakerRegistry(BREAKERS)
    for number, (at, failed) in enumerate(((NOW, True), (NOW + 1, False), (NOW + 2, True))):
        breakers.fold_call(
            CallEnded(
                id=str(number),
                lineage="demo/t1",
                agent="a",
                tenant="demo",
                kind="tool",
                name="search",
                failed=failed,
                latency_ms=1,
                time_unix_ms=at,
            )
        )
    [tool] = [one for one in breaker_windows(breakers, "demo", NOW + 10, BREAKERS) if one.scope == "tool"]
    assert (tool.name, tool.phase, tool.calls, tool.failed) == ("search", "closed", 3, 2)
    assert breaker_windows(breakers, "demo", NOW + 2 * BREAKERS.window_ms, BREAKERS) == ()
    assert breaker_windows(breakers, "other", NOW + 10, BREAKERS) == ()


@pytest.mark.parametrize(
    ("message", "code"), [(ask("submitter"), "forbidden"), (ask(tenant="other"), "forbidden"), (ask(), "unavailable")]
)
async def test_who_may_not_see_it_or_asks_too_early_hears_why(message, code):
    early = SimpleNamespace(caught_up=False)
    for watcher in (None, early):
        reply = await CoordinationQuery(watcher, lambda: NOW, BREAKERS).answer_coordination(message)  # type: ignore[arg-type]
        assert reply.failure is not None and reply.failure.code == code and reply.failure.hint


def test_a_broken_deadlock_tells_its_round_its_victim_and_where_its_evidence_stands():
    mesh = Inboxes()
    crossed(mesh)
    [found] = mesh.read_all()
    told = deadlock_refusal.circle_fields(found)
    at = told["cycle"].index("t1/s")
    assert told["cycle"][at:] + told["cycle"][:at] == ("t1/s", ERP, "t2/s", CRM)
    assert told["victim"] in ("t1/s", "t2/s") and told["victim"].startswith(found.lineage.removeprefix("demo/"))
    said = {one.headers["ce-id"]: one for inbox in mesh.said.values() for one in inbox}
    assert len(told["tasks"]) == len(found.evidence) == 4
    for name, task in zip(found.evidence, told["tasks"], strict=True):
        of = said[name].task
        assert task == (of if of in ("t1", "t2") else ""), "a resource's book is no task that anybody may open"
    assert set(told["tasks"]) == {"", "t1", "t2"}
    fact = Tripped(trip="x", detector="deadlock", level="stop", what="w", tripped_unix_ms=1, **told)
    assert Tripped.model_validate_json(fact.encode()) == fact
    assert "cycle" not in json.loads(trip(1).body), "other findings are written as they were"
