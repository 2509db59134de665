"""Waits for events from outside: events that come in time, twice, early, late, never, and after the task's end."""

import pytest

from bulkhead.flow import Send
from bulkhead_contracts import bounds
from bulkhead_contracts.outside_event import EventAwaited, EventMatched, EventOccurred, event_channel
from bulkhead_contracts.plan import AwaitedEvent, Plan, PlanStep, TimedWait
from bulkhead_contracts.result import Label, Result
from bulkhead_contracts.step import StepAssigned, StepFinished
from bulkhead_contracts.task import StepEnded, StepStarted, TaskCancelRequested, TaskEnded, TaskLimits
from bulkhead_services.planner.core import Planner
from tests.playbook import START_UNIX_MS, Playbook
from tests.unit.services.planner.test_playbook import submit

CHANNEL = event_channel("order.paid", "42")
HOUR_MS = 3_600_000


def wait_step(id: str = "paid", *inputs: str, **changes) -> PlanStep:
    event = AwaitedEvent(name="order.paid", key="42", **changes)
    wait = TimedWait(duration_ms=HOUR_MS, event=event)
    return PlanStep(id=id, title="", instruction="", kind="noop", inputs=inputs, wait=wait)


def ship(*inputs: str) -> PlanStep:
    return PlanStep(id="ship", title="", instruction="ship it", acceptance="done", inputs=inputs)


@pytest.fixture
def play() -> Playbook:
    return Playbook(Planner())


@pytest.fixture
def channel() -> Playbook:
    return Playbook(Planner(), task=CHANNEL)


def begin(play: Playbook, *steps: PlanStep) -> EventAwaited:
    submit(play, plan=Plan(steps=steps), limits=TaskLimits(deadline_ms=24 * HOUR_MS))
    send = play.send_of(EventAwaited)
    assert (send.to, send.task) == ("planner", CHANNEL)
    return play.only_output(EventAwaited)


def occurred(play: Playbook, event: str = "e1", source: str = "shop", at_s: float | None = None) -> EventOccurred:
    content = play.add_content('{"amount": 12}', author="gateway")
    at_unix_ms = play.now_unix_ms if at_s is None else START_UNIX_MS + round(at_s * 1000)
    return EventOccurred(
        name="order.paid", key="42", event=event, source=source, content=content, occurred_unix_ms=at_unix_ms
    )


def hear_match(play: Playbook, matched: EventMatched, sender: str = "gateway") -> None:
    """As the gateway hands it on, with its label."""
    assert matched.content is not None
    label = Label(
        sha256=matched.content.sha256, kind="document", source="event order.paid of shop", observed_by="gateway"
    )
    play.hears(matched.model_copy(update={"label": label}), sender=sender)


def matches(channel: Playbook) -> list[tuple[str, str, str]]:
    """(task, step, event) of each match that was just said."""
    sends = [send for send in channel.outputs if isinstance(send, Send) and isinstance(send.body, EventMatched)]
    assert all(send.to == "gateway" for send in sends)
    return [(send.task, send.body.step_id, send.body.event) for send in sends]


def test_an_event_ends_the_wait_for_it_and_is_handed_on_untrusted(play, channel):
    awaited = begin(play, wait_step(), ship("paid"))
    assert play.only_output(StepStarted).until_unix_ms == START_UNIX_MS + HOUR_MS
    channel.hears(awaited, sender="planner")
    assert channel.outputs == ()
    channel.at_second(60).hears(occurred(channel), sender="gateway")
    assert matches(channel) == [("t1", "paid", "e1")]
    hear_match(play.at_second(60), channel.only_output(EventMatched))
    [paid] = play.only_output(StepAssigned).inputs
    assert paid.result.content == channel.add_content('{"amount": 12}', author="gateway")
    assert [(label.trust, label.observed_by) for label in paid.result.provenance] == [("untrusted", "gateway")]
    play.replays()
    channel.replays()


def test_an_event_that_comes_twice_is_one(play, channel):
    awaited = begin(play, wait_step(), wait_step("again", "paid"), ship("again"))
    channel.hears(awaited, sender="planner")
    channel.hears(occurred(channel), sender="gateway")
    first = channel.only_output(EventMatched)
    hear_match(play, first)
    again = play.only_output(EventAwaited)
    assert again.after == first.place
    channel.hears(again, sender="planner")
    channel.hears(occurred(channel), sender="gateway")
    assert channel.outputs == ()
    hear_match(play, first)
    assert play.outputs == ()
    channel.hears(occurred(channel, "e2"), sender="gateway")
    assert matches(channel) == [("t1", "again", "e2")]
    channel.replays()


@pytest.mark.parametrize(("early_s", "counts"), [(59, True), (61, False)])
def test_an_event_that_came_before_the_wait_counts_within_its_time(play, channel, early_s, counts):
    channel.hears(occurred(channel), sender="gateway")
    play.at_second(early_s)
    channel.at_second(early_s).hears(begin(play, wait_step(early_ms=60_000), ship("paid")), sender="planner")
    assert bool(matches(channel)) == counts
    channel.hears(occurred(channel, "e2"), sender="gateway")
    assert bool(matches(channel)) != counts


@pytest.mark.parametrize("on_timeout", ["fail", "continue"])
def test_an_event_that_never_comes_is_waited_for_no_longer_than_said(play, channel, on_timeout):
    awaited = begin(play, wait_step(on_timeout=on_timeout), ship("paid"))
    channel.hears(awaited, sender="planner")
    play.fires(next(key for key in play.timers if key.startswith("step")))
    if on_timeout == "fail":
        ended = play.only_output(TaskEnded)
        assert ended.status == "failed" and "no event order.paid of 42 came" in ended.failure.message
        assert play.only_output(StepEnded).outcome == "failed"
    else:
        [paid] = play.only_output(StepAssigned).inputs
        assert paid.result.standing == "degraded" and "no event order.paid" in paid.result.standing_reason
    # Late: nobody waits any more, neither there nor here.
    channel.at_second(3_601).hears(occurred(channel), sender="gateway")
    assert channel.outputs == () and channel.decider.is_at_rest(channel.state)
    matched = EventMatched(
        step_id="paid", attempt=1, plan_version=1, name="order.paid", key="42", content=play.add_content("late")
    )
    hear_match(play, matched)
    assert play.outputs == ()
    play.replays()


def test_an_event_after_the_tasks_end_wakes_nobody(play, channel):
    channel.hears(begin(play, wait_step(), ship("paid")), sender="planner")
    play.hears(TaskCancelRequested(), sender="gateway")
    channel.hears(occurred(channel), sender="gateway")
    hear_match(play, channel.only_output(EventMatched))
    assert play.outputs == ()


def test_a_wait_counts_the_events_of_its_sources_alone_and_all_that_wait_are_told(play, channel):
    waits = [
        EventAwaited(
            task=task,
            step_id="paid",
            attempt=1,
            plan_version=1,
            name="order.paid",
            key="42",
            sources=sources,
            since_unix_ms=0,
            until_unix_ms=START_UNIX_MS + HOUR_MS,
        )
        for task, sources in (("t1", ("shop",)), ("t2", ("shop", "bank")), ("t3", ()))
    ]
    for wait in waits:
        channel.hears(wait, sender="planner")
    channel.hears(occurred(channel, source="mallory"), sender="gateway")
    assert matches(channel) == [("t3", "paid", "e1")]
    channel.hears(occurred(channel, "e2", source="bank"), sender="gateway")
    assert matches(channel) == [("t2", "paid", "e2")]


def test_words_of_others_end_no_wait(play, channel):
    awaited = begin(play, wait_step(), ship("paid"))
    matched = EventMatched(
        step_id="paid", attempt=1, plan_version=1, name="order.paid", key="42", content=play.add_content("x")
    )
    hear_match(play, matched, sender="planner")
    assert play.outputs == ()
    play.hears(StepFinished(step_id="paid", attempt=1, plan_version=1, result=Result()), sender="worker")
    assert play.outputs_of(StepAssigned) == []
    # An event of another key does not belong into this fold, whoever put it there.
    channel.hears(awaited, sender="planner")
    channel.hears(occurred(channel).model_copy(update={"key": "43"}), sender="gateway")
    assert channel.outputs == ()


def test_what_waits_and_what_is_kept_is_bounded(channel):
    fields = {"step_id": "s", "attempt": 1, "plan_version": 1, "name": "order.paid", "key": "42"}
    until = START_UNIX_MS + HOUR_MS
    for number in range(bounds.MAX_EVENT_WAITERS + 1):
        wait = EventAwaited(task=f"t{number}", since_unix_ms=0, until_unix_ms=until, **fields)
        channel.hears(wait, sender="planner")
    failure = channel.only_output(EventMatched).failure
    assert failure is not None and failure.code == "too_many_waits"
    assert channel.send_of(EventMatched).task == f"t{bounds.MAX_EVENT_WAITERS}"
    for number in range(bounds.MAX_KEPT_EVENTS + 3):
        channel.hears(occurred(channel, f"e{number}"), sender="gateway")
    assert len(channel.state.event_channel.events) == bounds.MAX_KEPT_EVENTS
    for number in range(bounds.MAX_EVENT_SOURCES):
        channel.hears(occurred(channel, f"of{number}", source=f"source{number}"), sender="gateway")
    events = [event.event for _, event in channel.state.event_channel.events]
    assert events == [f"of{number}" for number in range(bounds.MAX_EVENT_SOURCES)]


def test_a_strangers_events_drive_out_none_of_another_source(play, channel):
    awaited = begin(play, wait_step(sources=("bank",)), ship("paid"))
    channel.hears(occurred(channel, "real", "bank"), sender="gateway")
    for number in range(2 * bounds.MAX_KEPT_EVENTS):
        channel.hears(occurred(channel, f"junk{number}", "mallory"), sender="gateway")
    channel.hears(awaited, sender="planner")
    assert matches(channel) == [("t1", "paid", "real")]


def test_however_many_events_come_the_awaited_one_is_heard(play, channel, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_MESSAGES_PER_TASK", 50)
    awaited = begin(play, wait_step(sources=("bank",)), ship("paid"))
    channel.hears(awaited, sender="planner")
    for number in range(60):
        channel.hears(occurred(channel, f"junk{number}", "mallory"), sender="gateway")
    channel.hears(awaited, sender="planner")  # Again: it waits once.
    channel.hears(occurred(channel, "real", "bank"), sender="gateway")
    assert matches(channel) == [("t1", "paid", "real")]


@pytest.mark.parametrize("comes_first", [True, False])
def test_two_waits_side_by_side_take_two_events_in_their_order(play, channel, comes_first):
    steps = (wait_step("a", early_ms=60_000), wait_step("b", early_ms=60_000), ship("a", "b"))
    if comes_first:
        channel.hears(occurred(channel), sender="gateway")
    submit(play.at_second(30), plan=Plan(steps=steps), limits=TaskLimits(deadline_ms=24 * HOUR_MS))
    matched = []
    channel.at_second(30)
    for awaited in play.outputs_of(EventAwaited):
        channel.hears(awaited, sender="planner")
        matched += channel.outputs_of(EventMatched)
    if not comes_first:
        channel.hears(occurred(channel), sender="gateway")
        matched += channel.outputs_of(EventMatched)
    for match in matched:
        hear_match(play, match)
    # The second wait goes on, behind the event that the first one took.
    again = play.only_output(EventAwaited)
    assert (again.step_id, again.after) == ("b", matched[0].place)
    # What comes before the channel knows that counts, too.
    channel.hears(occurred(channel, "e2"), sender="gateway")
    channel.hears(again, sender="planner")
    assert matches(channel) == [("t1", "b", "e2")]
    hear_match(play, channel.only_output(EventMatched))
    assert len(play.only_output(StepAssigned).inputs) == 2
    play.replays()


def test_a_wait_that_cannot_be_fails_with_the_reason(play):
    begin(play, wait_step(), ship("paid"))
    failure = {"code": "too_many_waits", "message": "64 steps wait already"}
    matched = EventMatched(step_id="paid", attempt=1, plan_version=1, name="order.paid", key="42", failure=failure)
    play.hears(matched, sender="gateway")
    assert "64 steps wait already" in play.only_output(TaskEnded).failure.message
