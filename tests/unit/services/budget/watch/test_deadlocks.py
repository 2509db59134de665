"""The live wait graph: what a mesh's messages make of it, confirmed as in DESIGN 6, and broken.

A mesh in miniature says the messages: the planner's own books of leases, agents that take, hold and give back, and a
journal in which every inbox lags as it likes.
"""

import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead.health.thresholds import DEFAULT
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.agent import WaitRefused
from bulkhead_contracts.envelope import Envelope, derive_id
from bulkhead_contracts.lease import LeaseEnded, LeaseGranted, LeaseReleaseRequested, LeaseRequested, resource_token
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanStep
from bulkhead_contracts.result import Failure, Result, Usage
from bulkhead_contracts.step import StepCancelRequested, StepFinished
from bulkhead_contracts.task import TaskEnded
from bulkhead_services.budget.watch import deadlock_refusal
from bulkhead_services.budget.watch.fold import WatchFold, WatchMark
from tests.samples import sample

NOW = 1_700_000_000_000
CRM, ERP = "crm:account:42", "erp:order:7"


class Inboxes:
    """What was said, by inbox, and how much of each the journal has."""

    def __init__(self) -> None:
        self.said: dict[str, list[StoredMessage]] = {name: [] for name in catalog.INBOXES}
        self.read: dict[str, int] = dict.fromkeys(catalog.INBOXES, 0)
        self.watching = WatchFold(DEFAULT)
        self.count = 0
        self.now = NOW

    def say(self, sender: str, to: str, body, task: str = "t1", tenant: str = "demo") -> None:
        """Store it in an inbox."""
        self.count += 1
        head = Envelope(id=derive_id(sender, "x", self.count), type=body.ce_type(), source=sender, time_unix_ms=NOW)
        inbox = self.said[to]
        source = {"Nats-Stream-Source": f"{subjects.inbox_stream(to)} {len(inbox) + 1}"}
        inbox.append(
            StoredMessage(
                subjects.mesh_subject(sender, to, tenant, task),
                {**head.to_headers(), **source},
                body.encode(),
                self.count,
                NOW,
            )
        )

    def lags(self, inbox: str) -> int:
        """How many of an inbox are not yet in the journal."""
        return len(self.said[inbox]) - self.read[inbox]

    def copy(self, inbox: str) -> None:
        """The journal gets the next message of an inbox, and the watcher reads it."""
        self.watching.fold_message(self.said[inbox][self.read[inbox]])
        self.read[inbox] += 1

    def look(self) -> list:
        """As the watcher does between two pages: ask how far the inboxes are, judge, tell what is due."""
        if self.watching.needs_inbox_ends:
            self.watching.set_inbox_ends({name: len(inbox) for name, inbox in self.said.items()})
        self.watching.judge_suspicions(self.now)
        return self.watching.due_findings(NOW)

    def read_all(self, *order: str) -> list:
        """Everything, one inbox after the other."""
        found = []
        for inbox in (*order, *self.said):
            while self.lags(inbox):
                self.copy(inbox)
                found += self.look()
        return found or self.look()


@pytest.fixture
def mesh() -> Inboxes:
    return Inboxes()


def wants(mesh: Inboxes, task: str, resource: str, lease: str, step: str = "s", attempt: int = 1) -> None:
    mesh.say(
        "worker",
        "planner",
        LeaseRequested(lease_id=lease, task=task, step_id=step, attempt=attempt, plan_version=1, resource=resource),
        resource_token(resource),
    )


def has(mesh: Inboxes, task: str, resource: str, lease: str, step: str = "s", attempt: int = 1) -> None:
    mesh.say(
        "planner",
        "worker",
        LeaseGranted(
            lease_id=lease,
            step_id=step,
            attempt=attempt,
            plan_version=1,
            resource=resource,
            fencing_token=3,
            expires_unix_ms=NOW + 60_000,
        ),
        task,
    )


def returns(mesh: Inboxes, task: str, resource: str, lease: str, step: str = "s") -> None:
    body = LeaseReleaseRequested(lease_id=lease, task=task, step_id=step, resource=resource)
    mesh.say("worker", "planner", body, resource_token(resource))


def asks(mesh: Inboxes, who: str, *whom: str, ask: str = "", mode: str = "all", attempt: int = 1) -> None:
    mesh.say(
        "worker",
        "planner",
        AnswerRequested(
            ask_id=ask or f"q-{who}",
            step_id=who,
            attempt=attempt,
            plan_version=1,
            targets=whom,
            mode=mode,
            deadline_unix_ms=NOW,
        ),
    )


def spends(mesh: Inboxes, task: str, tokens: int, step: str = "s") -> None:
    mesh.say(
        "model_gateway",
        "worker",
        ModelCallReplied(
            call_id="c", step_id=step, outcome="answered", prompt_id="worker.step", usage=Usage(input_tokens=tokens)
        ),
        task,
    )


def crossed(mesh: Inboxes) -> None:
    """Two tasks, two leases, each wants the other's."""
    has(mesh, "t1", CRM, "a1")
    has(mesh, "t2", ERP, "b1")
    wants(mesh, "t1", ERP, "a2")
    wants(mesh, "t2", CRM, "b2")


@pytest.mark.parametrize("order", [("worker", "planner"), ("planner", "worker")])
def test_two_tasks_on_two_leases_and_who_has_spent_least_gives_way(mesh, order):
    crossed(mesh)
    spends(mesh, "t1", 500)
    spends(mesh, "t2", 400)
    [trip] = mesh.read_all(*order)
    tenant, task, refused = deadlock_refusal.build_refusal(trip)
    assert (tenant, task, refused.step_id, refused.wait_id) == ("demo", "t2", "s", "b2")
    assert set(refused.cycle) == {"t1/s", CRM, "t2/s", ERP}
    assert f"{CRM}, which is held by t1/s" in refused.reason or f"{ERP}, which is held by t2/s" in refused.reason
    assert trip.lineage == "demo/t2" and all(len(one) == 32 for one in trip.evidence), "ids of messages"


def test_other_tenants_resources_of_the_same_name_are_others(mesh):
    crossed(mesh)
    mesh.say(
        "planner",
        "worker",
        sample(LeaseGranted, lease_id="x", step_id="s", resource="r:1", fencing_token=1, expires_unix_ms=NOW + 60_000),
        "t9",
        "acme",
    )
    wants(mesh, "t9", "r:1", "y")
    assert len(mesh.read_all()) == 1


def test_nothing_is_said_before_every_inbox_was_read_as_far_as_it_was(mesh):
    crossed(mesh)
    for inbox in ("planner", "worker"):
        while mesh.lags(inbox):
            mesh.copy(inbox)
    mesh.say("checker", "planner", StepFinished(step_id="z", attempt=1, plan_version=1, result=Result()), "t5")
    assert mesh.look() == [] and mesh.watching._suspected
    mesh.copy("planner")
    assert len(mesh.look()) == 1


@pytest.mark.parametrize("act", ["release", "expiry", "cancel", "end", "refusal"])
def test_what_was_on_its_way_makes_it_a_phantom(mesh, act):
    """All was said when the suspicion is raised; the journal lags."""
    crossed(mesh)
    for inbox in ("worker", "planner"):
        while mesh.lags(inbox):
            mesh.copy(inbox)
    if act == "release":
        returns(mesh, "t1", CRM, "a1")
    elif act == "expiry":
        mesh.say("planner", "worker", LeaseEnded(lease_id="a1", step_id="s", resource=CRM, why="expired"), "t1")
    elif act == "cancel":
        mesh.say("planner", "worker", StepCancelRequested(step_id="s", attempt=1, plan_version=1), "t1")
    elif act == "refusal":
        mesh.say("budget", "worker", WaitRefused(trip="other", wait_id="a2", step_id="s", cycle=(), reason="x"), "t1")
    else:
        mesh.say("planner", "gateway", TaskEnded(status="cancelled"), "t1")
    assert mesh.look() == [], "not all of it was read"
    assert mesh.read_all() == [] and not mesh.watching._suspected


def test_a_cancelled_attempt_that_is_read_of_late_waits_for_nothing(mesh):
    """Its requests, and a grant that was on its way, come after its end: between inboxes there is no order."""
    mesh.say("planner", "worker", StepCancelRequested(step_id="s", attempt=1, plan_version=1), "t1")
    has(mesh, "t1", CRM, "a1")
    has(mesh, "t2", ERP, "b1")
    wants(mesh, "t1", ERP, "a2")
    wants(mesh, "t2", CRM, "b2")
    assert mesh.read_all("worker", "planner") == []
    has(mesh, "t1", CRM, "c1", attempt=2)  # Its next attempt is another matter.
    wants(mesh, "t1", ERP, "c2", attempt=2)
    assert len(mesh.read_all()) == 1


def test_a_circle_through_a_lease_whose_time_is_up_is_left_to_its_timer_unless_it_was_prolonged(mesh):
    crossed(mesh)
    mesh.now = NOW + 60_000
    assert mesh.read_all() == [] and mesh.watching._suspected
    has(mesh, "t1", CRM, "a1")  # Prolonged: but the other one's time is up as well.
    assert mesh.read_all() == []
    mesh.now = NOW + 59_999
    assert len(mesh.look()) == 1


def test_a_release_by_another_opens_nothing(mesh):
    crossed(mesh)
    returns(mesh, "t3", CRM, "a1")
    assert len(mesh.read_all()) == 1


def test_a_triangle_of_asks_and_a_tail(mesh):
    asks(mesh, "a", "b")
    asks(mesh, "b", "c")
    asks(mesh, "tail", "a")
    asks(mesh, "c", "a")
    [trip] = mesh.read_all()
    assert deadlock_refusal.build_refusal(trip)[2].step_id in ("a", "b", "c")


def test_an_any_wait_has_a_way_out_until_nobody_of_it_can_answer(mesh):
    asks(mesh, "a", "b", "d", mode="any")
    asks(mesh, "b", "a")
    assert mesh.read_all() == []
    mesh.say(
        "planner",
        "worker",
        AnswerGiven(
            ask_id="q-a", step_id="a", target="d", outcome="refused", failure=Failure(code="step_failed", message="x")
        ),
    )
    [trip] = mesh.read_all()
    assert set(deadlock_refusal.build_refusal(trip)[2].cycle) == {"t1/a", "t1/b"}


def test_who_has_answered_is_waited_for_no_longer(mesh):
    """The word of who was asked is enough: who hands it on may be slow, and that is no deadlock."""
    asks(mesh, "a", "b", "c")
    mesh.say("worker", "planner", AnswerGiven(ask_id="q-a", step_id="a", target="b", outcome="answered", text="yes"))
    asks(mesh, "b", "a")
    assert mesh.read_all() == []


def test_what_a_plan_builds_on_is_an_edge_that_cannot_be_refused(mesh):
    """a asks c, which is not assigned, for it needs b; b waits for the lease that a holds."""
    steps = tuple(
        PlanStep(id=name, title="", instruction="x", inputs=inputs)
        for name, inputs in (("a", ()), ("b", ()), ("c", ("b",)))
    )
    mesh.say("planner", "gateway", PlanAdopted(plan=Plan(steps=steps)))
    has(mesh, "t1", CRM, "a1", step="a")
    wants(mesh, "t1", CRM, "b1", step="b")
    asks(mesh, "a", "c")
    spends(mesh, "t1", 900, step="a")
    spends(mesh, "t1", 901, step="b")
    [trip] = mesh.read_all()
    assert deadlock_refusal.build_refusal(trip)[2].step_id == "a", (
        "neither c, which has spent nothing, nor the resource"
    )


def plans(mesh: Inboxes, version: int, **inputs: tuple[str, ...]) -> None:
    steps = tuple(PlanStep(id=name, title="", instruction="x", inputs=needed) for name, needed in inputs.items())
    mesh.say("planner", "gateway", PlanAdopted(plan=Plan(version=version, steps=steps)))


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_plan_that_was_made_anew_waits_for_what_it_builds_on_and_not_for_what_the_old_one_did(mesh, newest_first):
    old, new = {"a": (), "b": ("a",)}, {"b": (), "a": ("b",)}
    for version, steps in sorted(((1, old), (2, new)), reverse=newest_first):
        plans(mesh, version, **steps)
    asks(mesh, "b", "x")
    assert mesh.read_all() == [] and not mesh.watching.watch.graph.stuck
    asks(mesh, "x", "a", ask="q")
    [trip] = mesh.read_all()
    assert deadlock_refusal.build_refusal(trip)[2].step_id in ("b", "x"), (
        "a waits for b, which waits for x, which asks a"
    )


def test_two_cycles_through_one_step_are_broken_one_after_the_other(mesh):
    crossed(mesh)
    has(mesh, "t3", "x:1", "c1")
    wants(mesh, "t1", "x:1", "a3")  # It waits for both at once.
    wants(mesh, "t3", CRM, "c2")
    for task, tokens in (("t1", 1_000), ("t2", 5), ("t3", 7)):
        spends(mesh, task, tokens)
    [first] = {trip.id: trip for trip in mesh.read_all("worker", "planner")}.values()
    assert deadlock_refusal.build_refusal(first)[1] == "t2"
    mesh.say("budget", "worker", deadlock_refusal.build_refusal(first)[2], "t2")
    returns(mesh, "t2", ERP, "b1")
    mesh.watching.mark_told(first.id)
    [second] = {trip.id: trip for trip in mesh.read_all()}.values()
    assert deadlock_refusal.build_refusal(second)[1] == "t3"


def test_a_standby_that_sees_the_refusal_tells_the_fact_that_is_lacking(mesh):
    crossed(mesh)
    [trip] = mesh.read_all()
    standby = Inboxes()
    standby.said = mesh.said
    mesh.say("budget", "worker", deadlock_refusal.build_refusal(trip)[2], trip.lineage.partition("/")[2])
    assert [one.id for one in {one.id: one for one in standby.read_all()}.values()] == [trip.id]


def test_a_standby_tells_of_the_victim_that_was_refused_and_refuses_nobody_else(mesh):
    """When the circle closed, another one had spent least; who confirmed it knew better."""
    crossed(mesh)
    spends(mesh, "t1", 900)
    spends(mesh, "t2", 100)
    standby = Inboxes()
    standby.said = mesh.said
    for inbox in ("worker", "planner"):
        while standby.lags(inbox):
            standby.copy(inbox)
            if inbox == "worker" and standby.read[inbox] == 2:
                while standby.lags("planner"):
                    standby.copy("planner")
    [trip] = {one.id: one for one in mesh.read_all()}.values()
    refused = deadlock_refusal.build_refusal(trip)
    assert refused[1] == "t2" and [one.victim for one in standby.watching._suspected.values()] == ["demo/t1/s"]
    mesh.say("budget", "worker", refused[2], "t2")
    standby.copy("worker")
    [told] = standby.watching.due_findings(NOW)
    again = deadlock_refusal.build_refusal(told)
    assert told.id == trip.id and again[:2] == refused[:2] and again[2].wait_id == refused[2].wait_id
    assert "The wait of t2/s was refused" in told.what


def test_a_mark_keeps_how_far_the_inboxes_were_read(mesh):
    crossed(mesh)
    mesh.read_all()
    mark = WatchMark.decode(mesh.watching.make_mark().encode())
    assert mark == mesh.watching.make_mark() and mark.read["planner"] == 2
    later = Inboxes()
    later.watching.restore_living(mark.living, mark.read)
    assert later.watching.watch.confirmations._read == dict(mark.read)
