"""Leases: one holder at a time, in the order of the inbox; what ends a lease, and who may not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead.flow import Send, SetTimer
from bulkhead_contracts import bounds
from bulkhead_contracts.control import TimerFired
from bulkhead_contracts.lease import (
    LeaseEnded,
    LeaseGranted,
    LeaseQueued,
    LeaseRefused,
    LeaseReleaseRequested,
    LeaseRequested,
    resource_token,
)
from bulkhead_services.planner.core import Planner
from tests.playbook import START_UNIX_MS, Playbook

CRM = "crm:account:42"


@pytest.fixture
def play() -> Playbook:
    return Playbook(Planner(), task=resource_token(CRM))


def asks(play: Playbook, name: str, *, step: str = "s1", ttl_ms: int = 60_000, resource: str = CRM) -> None:
    body = LeaseRequested(
        lease_id=f"l-{name}", task=name, step_id=step, attempt=1, plan_version=1, resource=resource, ttl_ms=ttl_ms
    )
    play.hears(body, sender="worker")


def gives_back(play: Playbook, name: str, *, lease: str = "", step: str = "s1", call: str = "c1") -> None:
    body = LeaseReleaseRequested(lease_id=f"l-{lease or name}", call_id=call, task=name, step_id=step, resource=CRM)
    play.hears(body, sender="worker")


def told(play: Playbook) -> list[tuple[str, str]]:
    """To whose task what was said."""
    return [(one.task, type(one.body).__name__) for one in play.outputs if isinstance(one, Send)]


def test_who_asks_first_has_it_and_the_next_one_gets_it_in_turn(play):
    asks(play, "a")
    assert told(play) == [("a", "LeaseGranted")]
    first = play.only_output(LeaseGranted)
    asks(play, "b")
    queued = play.only_output(LeaseQueued)
    assert (queued.holder_task, queued.holder_step, queued.place) == ("a", "s1", 1)
    asks(play, "c")
    assert play.only_output(LeaseQueued).place == 2
    gives_back(play, "a")
    assert told(play) == [("a", "LeaseEnded"), ("b", "LeaseGranted")]
    assert play.only_output(LeaseGranted).fencing_token > first.fencing_token
    gives_back(play, "b")
    assert told(play) == [("b", "LeaseEnded"), ("c", "LeaseGranted")]
    gives_back(play, "c")
    assert told(play) == [("c", "LeaseEnded")] and play.state.lease_book.holder is None
    play.replays()


def test_a_holder_that_says_nothing_more_loses_it_by_the_timer_and_by_no_clock(play):
    asks(play, "a", ttl_ms=5_000)
    asks(play, "b")
    [timer] = list(play.timers)
    play.at_second(500)  # Time alone changes nothing: somebody asks long after, and the holder still has it.
    asks(play, "c")
    assert told(play) == [("c", "LeaseQueued")]
    play.hears(TimerFired(key=timer, due_unix_ms=START_UNIX_MS + 5_000), sender="planner")
    assert told(play) == [("a", "LeaseEnded"), ("b", "LeaseGranted")]
    assert play.only_output(LeaseEnded).why == "expired"


def test_the_timer_of_an_earlier_grant_ends_no_later_one(play):
    asks(play, "a", ttl_ms=5_000)
    [timer] = list(play.timers)
    gives_back(play, "a")
    asks(play, "b", ttl_ms=1_000)
    play.hears(TimerFired(key=timer, due_unix_ms=START_UNIX_MS + 5_000), sender="planner")
    play.says()
    assert play.state.lease_book.holder.task == "b"


def test_tokens_grow_also_when_the_book_was_purged_meanwhile(play):
    """At rest a book may be purged and begins anew; the inbox counts on."""
    for name in ("a", "b"):
        asks(play, name)
        last = play.only_output(LeaseGranted).fencing_token
        gives_back(play, name)
    later = Playbook(Planner(), task=resource_token(CRM))
    later.heard = list(play.heard)  # Their places in the inbox are taken; what they said is not folded.
    asks(later, "c")
    assert later.only_output(LeaseGranted).fencing_token > last


def test_asked_again_it_lasts_longer_under_the_same_token_and_the_first_timer_ends_nothing(play):
    asks(play, "a", ttl_ms=5_000)
    [timer], token = list(play.timers), play.only_output(LeaseGranted).fencing_token
    play.at_second(4)
    body = LeaseRequested(lease_id="l-a", task="a", step_id="s1", attempt=1, plan_version=1, resource=CRM, ttl_ms=5_000)
    play.hears(body, sender="worker")
    assert play.only_output(LeaseGranted).fencing_token == token
    assert play.only_output(LeaseGranted).expires_unix_ms == START_UNIX_MS + 9_000
    play.hears(TimerFired(key=timer, due_unix_ms=START_UNIX_MS + 5_000), sender="planner")
    play.says()
    [later] = [key for key in play.timers if key != timer]
    play.hears(TimerFired(key=later, due_unix_ms=START_UNIX_MS + 9_000), sender="planner")
    play.says(LeaseEnded)


def test_a_release_by_another_is_refused_and_says_who_holds_it(play):
    asks(play, "a")
    gives_back(play, "b")
    refused = play.only_output(LeaseRefused)
    assert refused.failure.code == "not_lease_holder" and "step s1 of task a" in refused.failure.message
    gives_back(play, "b", lease="a")  # Also under the holder's own lease id.
    assert told(play) == [("b", "LeaseRefused")]
    gives_back(play, "a", step="s2")  # Also by another step of the same task.
    assert told(play) == [("a", "LeaseRefused")]
    assert play.state.lease_book.holder.task == "a"


def test_who_waits_no_longer_is_passed_over(play):
    asks(play, "a")
    asks(play, "b")
    asks(play, "c")
    gives_back(play, "b", call="")
    gives_back(play, "a")
    assert told(play) == [("a", "LeaseEnded"), ("c", "LeaseGranted")]


def test_known_requests_and_releases_change_nothing(play):
    asks(play, "a")
    asks(play, "b")
    asks(play, "b")
    play.says()
    gives_back(play, "a", call="")
    gives_back(play, "a", call="")
    play.says()
    assert play.state.lease_book.holder.task == "b"


def test_a_full_queue_refuses_and_the_others_keep_their_places(play):
    for number in range(bounds.MAX_LEASE_QUEUE + 1):
        asks(play, f"t{number}")
    asks(play, "late")
    assert play.only_output(LeaseRefused).failure.code == "lease_queue_full"
    assert len(play.state.lease_book.queue) == bounds.MAX_LEASE_QUEUE


def test_another_resources_request_under_this_name_is_not_heeded(play):
    asks(play, "a", resource="crm:account:43")
    play.says()
    assert play.state.lease_book.holder is None


def test_a_resource_that_is_free_forgets_and_never_reaches_the_bound_of_messages(play, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_MESSAGES_PER_TASK", 100)
    for number in range(60):
        asks(play, f"t{number}")
        gives_back(play, f"t{number}", call="")
    assert play.state.lease_book.holder is None and len(play._fold.seen) == 1


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["ask", "back", "time", "late"]), st.integers(0, 3)), max_size=40))
def test_there_is_one_holder_tokens_grow_and_the_queue_keeps_its_order(script):
    play = Playbook(Planner(), task=resource_token(CRM))
    tokens, waiting, number = [0], [], 0
    owner: dict[int, str] = {}
    gives_back(play, "nobody", call="")
    for act, who in script:
        play.outputs = ()
        if act == "ask":
            number += 1
            owner[who] = f"t{number}"
            asks(play, owner[who], ttl_ms=1_000)
        elif act == "back":
            gives_back(play, owner.get(who, "nobody"), call="")
        elif act == "time" and play.timers:
            key = sorted(play.timers)[-1]
            play.hears(TimerFired(key=key, due_unix_ms=play.timers[key]), sender="planner")
        elif act == "late" and play.timers:
            key = sorted(play.timers)[0]
            play.hears(TimerFired(key=key, due_unix_ms=play.timers[key]), sender="planner")
        granted = play.outputs_of(LeaseGranted)
        assert len(granted) <= 1
        for one in granted:
            assert one.fencing_token > tokens[-1]
            tokens.append(one.fencing_token)
            assert play.state.lease_book.holder.lease_id == one.lease_id
            if waiting and one.lease_id in waiting:
                assert next(name for name in waiting if name in {*_queued(play), one.lease_id}) == one.lease_id
        waiting = _queued(play)
        held = play.state.lease_book.holder
        assert held is None or held.lease_id not in waiting
        assert held is not None or not waiting
    play.replays()


def _queued(play: Playbook) -> list[str]:
    return [one.lease_id for one in play.state.lease_book.queue]


def test_every_grant_has_a_timer_before_anybody_hears_of_it(play):
    asks(play, "a")
    assert isinstance(play.outputs[0], SetTimer)
