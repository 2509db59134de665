"""Who runs next: playbooks of the queue and its decisions, and what must hold for any of them."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.quota import Quota
from bulkhead_contracts.task import (
    Dropped,
    PlaceReturned,
    PlacesGiven,
    PlaceTaken,
    TaskEnded,
    TaskQueued,
    TaskRejected,
    TaskReleased,
)
from bulkhead_services.gateway.admission.run_queue import (
    SNAPSHOT_EVERY,
    RunQueueState,
    RunQuotas,
    WaitingTask,
    decide_places,
    queued_notice,
    starts_at_once,
)

LATER = 10**12


class Inbox:
    """The gateway's inbox as far as places go: what is said is stored, and the state reads it."""

    def __init__(self, quotas: dict[str, Quota], running: int = 1_000) -> None:
        self.quotas = RunQuotas(lambda tenant: quotas.get(tenant, Quota()), running)
        self.stored: list[tuple[int, tuple[str, str], object]] = []
        self.state = RunQueueState()
        self.sequence = 0
        self.order: list[str] = []

    def say(self, body: object, task: str = "places", tenant: str = "places") -> None:
        self.sequence += 1
        self.stored.append((self.sequence, (tenant, task), body))
        self.state.apply_fact(self.sequence, (tenant, task), body)

    def decide(self, now: int = 0, **more: object) -> PlacesGiven | None:
        found = decide_places(self.state, self.quotas, now, **more)
        if found is not None:
            self.order += [one.task for one in found.given]
            self.say(found)
        return found

    def ask(self, tenant: str, task: str, person: str = "ada", until: int = LATER) -> bool:
        """A request comes; whether it runs at once."""
        self.sequence += 1
        newcomer = WaitingTask(tenant, task, person, self.sequence, 0, until)
        found = decide_places(self.state, self.quotas, 0, newcomer=newcomer)
        if found is not None and starts_at_once(found, newcomer):
            self.order += [one.task for one in found.given]
            self.say(found)
            return True
        self.say(queued_notice(self.state, self.quotas, newcomer), task, tenant)
        return False

    def end(self, tenant: str, task: str) -> None:
        self.say(TaskEnded(status="succeeded"), task, tenant)
        self.decide()

    def read_anew(self) -> RunQueueState:
        """As a replica that starts now, from the newest decision that tells who runs."""
        told = [body for _, _, body in self.stored if isinstance(body, PlacesGiven) and body.running is not None]
        state = RunQueueState.from_snapshot(told[-1] if told else None)
        for sequence, key, body in self.stored:
            if sequence > state.sequence:
                state.apply_fact(sequence, key, body)
        return state


def test_what_fits_runs_at_once_and_the_rest_waits_for_an_end():
    inbox = Inbox({"acme": Quota(running=2)})
    assert [inbox.ask("acme", name) for name in "abcd"] == [True, True, False, False]
    told = [body for _, _, body in inbox.stored if isinstance(body, TaskQueued)]
    assert [(one.ahead, one.full, one.running, one.limit) for one in told] == [(0, "tenant", 2, 2), (1, "tenant", 2, 2)]
    inbox.end("acme", "b")
    assert inbox.order == ["a", "b", "c"] and inbox.state.standing_of(("acme", "d"), 0) == "unknown"
    inbox.end("acme", "a")
    inbox.end("acme", "c")
    inbox.end("acme", "d")
    assert inbox.order == ["a", "b", "c", "d"] and not inbox.state.running and not inbox.state.waiting


def test_one_tenants_flood_takes_no_place_from_another():
    inbox = Inbox({"acme": Quota(running=3)})
    assert sum(inbox.ask("acme", f"a{number}") for number in range(500)) == 3
    assert inbox.ask("demo", "d0") and inbox.ask("demo", "d1")


def test_when_the_mesh_is_full_tenants_take_turns_by_weight():
    inbox = Inbox({"heavy": Quota(weight=3), "light": Quota(weight=1)}, running=1)
    inbox.ask("other", "first")
    for number in range(12):
        inbox.ask("heavy", f"h{number}")
        inbox.ask("light", f"l{number}")
    running = ("other", "first")
    while inbox.state.waiting:
        inbox.end(*running)
        running = next(iter(inbox.state.running))
    assert "".join(name[0] for name in inbox.order[1:17]) == "hhhl" * 4
    assert Counter(name[0] for name in inbox.order) == {"f": 1, "h": 12, "l": 12}


def test_people_of_a_tenant_share_its_places():
    inbox = Inbox({"acme": Quota(running=2)})
    for number in range(20):
        inbox.ask("acme", f"ada{number}", "ada")
    inbox.ask("acme", "bob0", "bob")
    inbox.end("acme", "ada0")
    assert inbox.order == ["ada0", "ada1", "bob0"]


def test_a_newcomer_does_not_pass_those_who_wait():
    quotas = {"acme": Quota(running=1)}
    inbox = Inbox(quotas)
    inbox.ask("acme", "a")
    inbox.ask("acme", "b")
    inbox.say(TaskEnded(status="succeeded"), "a", "acme")  # And nobody has decided since.
    assert not inbox.ask("acme", "c")
    inbox.decide()
    assert inbox.order == ["a", "b"]


def test_a_lower_limit_stops_nothing_and_a_higher_one_gives_places():
    quotas = {"acme": Quota(running=3)}
    inbox = Inbox(quotas)
    for name in "abcde":
        inbox.ask("acme", name)
    quotas["acme"] = Quota(running=1)
    inbox.end("acme", "a")
    inbox.end("acme", "b")
    assert inbox.order == ["a", "b", "c"]
    quotas["acme"] = Quota(running=4)
    inbox.decide()
    assert inbox.order == ["a", "b", "c", "d", "e"]


def test_a_cancelled_task_and_one_that_waited_too_long_never_run():
    inbox = Inbox({"acme": Quota(running=1)})
    inbox.ask("acme", "a")
    inbox.ask("acme", "b", until=50)
    inbox.ask("acme", "c", until=60)
    inbox.ask("acme", "d")
    gone = Dropped(tenant="acme", task="c", request=inbox.state.waiting["acme", "c"].request, code="cancelled")
    found = inbox.decide(now=55, cancelled=gone)
    assert [(one.task, one.code) for one in found.dropped] == [("c", "cancelled"), ("b", "queue_timeout")]
    inbox.end("acme", "a")
    assert inbox.order == ["a", "d"]


def test_an_end_that_nobody_will_tell_frees_the_place():
    """Of a task that was refused, and of one whose beginning was buried as a dead letter."""
    inbox = Inbox({"acme": Quota(running=1)})
    inbox.ask("acme", "a")
    inbox.ask("acme", "b")
    inbox.say(TaskRejected(code="no", message="no"), "a", "acme")
    inbox.decide()
    released = TaskReleased(request=inbox.state.running["acme", "b"].request)
    inbox.say(released, "b", "acme")
    inbox.say(MessageRejected(sequence=inbox.sequence, code="bug", reason="", dead_letter_id="d"), "b", "acme")
    assert not inbox.state.running


def test_an_id_that_is_used_again_after_a_purge_is_another_task():
    inbox = Inbox({})
    inbox.ask("acme", "a")
    first = inbox.state.running["acme", "a"].request
    inbox.end("acme", "a")
    assert inbox.state.standing_of(("acme", "a"), first) == "over"
    assert inbox.ask("acme", "a") and inbox.state.running["acme", "a"].request > first


STEPS = st.lists(
    st.tuples(st.sampled_from(("ask", "ask", "ask", "end", "cancel", "limit", "decide")), st.integers(0, 5)),
    max_size=120,
)


@settings(max_examples=150)
@given(STEPS, st.integers(1, 6))
def test_whatever_happens_nothing_is_lost_doubled_or_over_the_limits(steps, room):
    quotas = {name: Quota(running=number + 1, weight=number + 1) for number, name in enumerate(("t0", "t1", "t2"))}
    inbox = Inbox(quotas, running=room)
    asked: list[tuple[str, str]] = []
    cancelled: set[str] = set()
    for step, (kind, which) in enumerate(steps):
        tenant = f"t{which % 3}"
        if kind == "ask":
            asked.append((tenant, f"{tenant}-{step}"))
            inbox.ask(tenant, f"{tenant}-{step}", f"p{which % 2}")
        elif kind == "end" and inbox.state.running:
            inbox.end(*sorted(inbox.state.running)[which % len(inbox.state.running)])
        elif kind == "cancel" and inbox.state.waiting:
            one = list(inbox.state.waiting.values())[which % len(inbox.state.waiting)]
            inbox.decide(cancelled=Dropped(tenant=one.tenant, task=one.task, request=one.request, code="cancelled"))
            cancelled.add(one.task)
        elif kind == "limit":
            quotas[tenant] = Quota(running=which + 1)
            inbox.quotas = RunQuotas(inbox.quotas.quota_of, room)
            inbox.decide()
        else:
            inbox.decide()
        assert len(inbox.state.running) <= room
        # Nobody waits where there is room.
        for name in inbox.state.lines:
            assert inbox.state.count_running(name) >= quotas[name].running or len(inbox.state.running) == room
        anew = inbox.read_anew()
        assert anew.running == inbox.state.running and anew.waiting == inbox.state.waiting
        assert (anew.turn, anew.credit, anew.last) == (inbox.state.turn, inbox.state.credit, inbox.state.last)
    while inbox.state.running:
        inbox.end(*next(iter(inbox.state.running)))
    assert sorted(inbox.order) == sorted(task for _, task in asked if task not in cancelled)
    assert not inbox.state.waiting


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from("abcde"), st.integers(1, 7), min_size=2), st.integers(1, 9))
@pytest.mark.slow
def test_in_the_long_run_every_tenant_begins_by_its_weight(weights, room):
    """Never more than one turn ahead of or behind its share, as deficit round robin promises."""
    inbox = Inbox({name: Quota(weight=weight, running=2_000) for name, weight in weights.items()}, running=room)
    for number in range(room):
        inbox.ask("z", f"z{number}")
    for name, weight in weights.items():
        for number in range(8 * weight):
            assert not inbox.ask(name, f"{name}{number}")
    for _ in range(8 * sum(weights.values())):
        inbox.end(*next(iter(inbox.state.running)))
        begun = Counter(name[0] for name in inbox.order if name[0] != "z")
        rounds = [begun[name] / weight for name, weight in weights.items()]
        assert max(rounds) - min(rounds) <= 1 + 1e-9
    assert {name: 8 * weight for name, weight in weights.items()} == Counter(
        name[0] for name in inbox.order if name[0] != "z"
    )


@pytest.mark.parametrize("count", [SNAPSHOT_EVERY - 1, SNAPSHOT_EVERY, 3 * SNAPSHOT_EVERY])
def test_now_and_then_a_decision_tells_who_runs(count):
    inbox = Inbox({})
    for number in range(count):
        inbox.ask("acme", f"a{number}")
        inbox.say(TaskEnded(status="succeeded"), f"a{number}", "acme")
    told = [
        number
        for number, (_, _, body) in enumerate(inbox.stored)
        if isinstance(body, PlacesGiven) and body.running is not None
    ]
    assert len(told) == 1 + (count - 1) // SNAPSHOT_EVERY
    assert inbox.read_anew().running == {}


def test_a_start_reads_from_the_oldest_that_waits_and_takes_nobody_for_running_who_has_ended():
    inbox = Inbox({"held": Quota(running=0)})
    inbox.ask("held", "h")
    for number in range(SNAPSHOT_EVERY + 3):
        inbox.ask("acme", f"a{number}")
        inbox.end("acme", f"a{number}")
    inbox.ask("acme", "last")
    anew = inbox.read_anew()
    assert set(anew.running) == {("acme", "last")} and set(anew.waiting) == {("held", "h")}


def test_a_place_that_was_given_back_is_for_others_and_its_run_waits_for_the_next_one():
    inbox = Inbox({"a": Quota(running=1)})
    assert inbox.ask("a", "run") and not inbox.ask("a", "waits")
    inbox.say(PlaceReturned(), "run", "a")
    assert [place.task for place in inbox.decide().given] == ["waits"]
    assert inbox.state.standing_of(("a", "run"), 1) == "runs", "it begins no second time"
    inbox.say(PlaceTaken(until_unix_ms=LATER), "run", "a")
    assert inbox.decide() is None and inbox.state.count_running("a") == 1
    assert inbox.state.standing_of(("a", "run"), 1) == "waits" and not inbox.ask("a", "behind")
    assert queued_notice(inbox.state, inbox.quotas, inbox.state.waiting["a", "run"]).ahead == 0
    inbox.say(TaskEnded(status="succeeded"), "waits", "a")
    [place] = inbox.decide(now=10).given
    assert (place.task, place.again) == ("run", True), "its caller hears of it, and it is not begun anew"
    inbox.say(PlaceReturned(), "run", "a")
    assert [place.task for place in inbox.decide().given] == ["behind"]


def test_a_run_that_waits_again_is_never_dropped_and_gets_no_place_beyond_the_quota():
    inbox = Inbox({"a": Quota(running=1)})
    inbox.ask("a", "run")
    inbox.say(PlaceReturned(), "run", "a")
    inbox.ask("a", "holds")
    inbox.say(PlaceTaken(until_unix_ms=100), "run", "a")
    assert not inbox.ask("a", "behind", until=200)
    decision = inbox.decide(now=LATER)
    assert not decision.given and [drop.task for drop in decision.dropped] == ["behind"]
    inbox.say(TaskEnded(status="succeeded"), "holds", "a")
    assert [place.task for place in inbox.decide(now=LATER).given] == ["run"]


def test_a_place_is_free_when_the_last_replica_that_uses_it_says_so():
    inbox = Inbox({"a": Quota(running=1)})
    assert inbox.ask("a", "run")
    inbox.say(PlaceTaken(replica="d2"), "run", "a")
    inbox.say(PlaceReturned(replica="d1"), "run", "a")
    assert not inbox.ask("a", "waits"), "a call is in flight at another replica"
    inbox.say(PlaceReturned(replica="d3"), "run", "a")
    assert inbox.decide() is None, "a replica that does not use it gives nothing back"
    inbox.say(PlaceReturned(replica="d2"), "run", "a")
    assert [place.task for place in inbox.decide().given] == ["waits"]


def test_a_replica_that_waits_no_longer_leaves_the_others_in_the_line():
    inbox = Inbox({"a": Quota(running=1)})
    inbox.ask("a", "run")
    inbox.say(PlaceReturned(replica="d1"), "run", "a")
    inbox.ask("a", "holds")
    for replica in ("d1", "d2", "d1"):
        inbox.say(PlaceTaken(replica=replica), "run", "a")
    inbox.ask("a", "behind")
    inbox.say(PlaceReturned(replica="d1"), "run", "a")
    inbox.say(TaskEnded(status="succeeded"), "holds", "a")
    decision = decide_places(inbox.state, inbox.quotas, 0)
    inbox.say(PlaceTaken(replica="d3"), "run", "a")
    inbox.say(decision)
    [place] = inbox.state.running.values()
    assert (place.task, place.holders) == ("run", ("d2", "d3")), "also who came after the decider had read"


def test_a_place_that_a_killed_replica_held_is_returned_for_all():
    inbox = Inbox({"a": Quota(running=1)})
    inbox.ask("a", "run")
    inbox.say(PlaceTaken(replica="d2"), "run", "a")
    inbox.say(PlaceReturned(), "run", "a")
    assert inbox.ask("a", "next")


def test_a_gateway_that_starts_from_a_snapshot_knows_which_replicas_use_a_place():
    inbox = Inbox({"a": Quota(running=1)})
    inbox.ask("a", "run")
    inbox.say(PlaceTaken(replica="d2"), "run", "a")
    inbox.say(PlaceReturned(replica="d1"), "run", "a")
    for number in range(SNAPSHOT_EVERY):
        inbox.ask("b", f"t{number}")
        inbox.end("b", f"t{number}")
    assert inbox.read_anew().running == inbox.state.running
    inbox.say(PlaceReturned(replica="d2"), "run", "a")
    assert inbox.read_anew().running == inbox.state.running == {}


def test_a_run_that_leaves_its_line_waits_no_longer_and_ends_as_any_other():
    inbox = Inbox({"a": Quota(running=1)})
    inbox.ask("a", "run")
    inbox.say(PlaceReturned(), "run", "a")
    inbox.ask("a", "holds")
    inbox.say(PlaceTaken(until_unix_ms=LATER), "run", "a")
    inbox.say(PlaceReturned(), "run", "a")
    assert not inbox.state.waiting and inbox.state.standing_of(("a", "run"), 1) == "runs"
    inbox.say(PlaceTaken(until_unix_ms=LATER), "run", "a")
    inbox.end("a", "run")
    assert not inbox.state.waiting and inbox.state.standing_of(("a", "run"), 1) == "over"


def test_a_gateway_that_starts_from_a_snapshot_counts_a_run_that_wants_its_place_again():
    inbox = Inbox({"a": Quota(running=1)})
    inbox.ask("a", "run")
    inbox.say(PlaceReturned(), "run", "a")
    for number in range(SNAPSHOT_EVERY):
        inbox.ask("a", f"t{number}")
        inbox.end("a", f"t{number}")
    inbox.state = inbox.read_anew()
    assert inbox.state.standing_of(("a", "run"), 1) == "unknown"
    inbox.say(PlaceTaken(person="ada", until_unix_ms=LATER), "run", "a")
    assert [place.task for place in inbox.decide().given] == ["run"]
    assert not inbox.ask("a", "waits"), "it counts"
    for number in range(SNAPSHOT_EVERY):
        inbox.ask("b", f"t{number}")
        inbox.end("b", f"t{number}")
    anew = inbox.read_anew()
    assert (anew.running, anew.waiting) == (inbox.state.running, inbox.state.waiting)


def test_a_run_that_has_ended_takes_no_place_again():
    inbox = Inbox({"a": Quota(running=1)})
    assert inbox.ask("a", "run")
    inbox.say(PlaceReturned(), "run", "a")
    inbox.end("a", "run")
    inbox.say(PlaceTaken(), "run", "a")
    assert inbox.state.count_running("a") == 0 and inbox.state.standing_of(("a", "run"), 1) == "over"
