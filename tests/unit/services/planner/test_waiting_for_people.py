"""While a person decides about a call, the task's deadline stands still, for as long as people may take."""

import pytest

from bulkhead_contracts.control import TimerFired
from bulkhead_contracts.step import StepCancelRequested, StepExtended, StepPaused
from bulkhead_contracts.task import TaskEnded, TaskLimits, TaskPaused
from bulkhead_services.planner.core import Planner
from bulkhead_services.planner.ending import TASK_TIMER
from tests.playbook import START_UNIX_MS, Playbook
from tests.unit.services.planner.test_playbook import DIAMOND, accepts, answers, submit

MINUTE, HOUR = 60_000, 3_600_000
OWN = START_UNIX_MS + 10 * MINUTE
"""The task's deadline, without anybody's thinking."""


@pytest.fixture
def play() -> Playbook:
    play = Playbook(Planner())
    submit(play, limits=TaskLimits(deadline_ms=10 * MINUTE, approval_wait_ms=2 * HOUR))
    answers(play, DIAMOND)
    return play


def waits(play: Playbook, step: str = "a", *, until_ms: int = HOUR, code: str = "approval_wanted") -> None:
    """until_ms: from the beginning; 0 for a halt."""
    until = START_UNIX_MS + until_ms if until_ms else 0
    body = StepPaused(step_id=step, attempt=1, plan_version=1, code=code, reason="bob is asked", until_unix_ms=until)
    play.hears(body, sender="worker")


def goes_on(play: Playbook, step: str = "a") -> None:
    play.hears(StepPaused(step_id=step, attempt=1, plan_version=1, active=False), sender="worker")


def fires(play: Playbook, due_unix_ms: int, key: str = "") -> None:
    """The timer of the task's deadline that was set for this time."""
    name = key or (TASK_TIMER if due_unix_ms == OWN else f"{TASK_TIMER}-{due_unix_ms}")
    play.hears(TimerFired(key=name, due_unix_ms=due_unix_ms), sender="planner")


def test_the_deadline_moves_by_the_time_for_which_a_person_was_waited_for(play):
    play.at_second(60)
    waits(play)
    latest = OWN + HOUR - MINUTE
    assert play.only_output(TaskPaused).until_unix_ms == START_UNIX_MS + HOUR
    assert play.only_output(TaskPaused).deadline_unix_ms == latest, "as if all of that time were taken"
    extended = play.send_of(StepExtended)
    assert extended.body.deadline_unix_ms == latest - 500 and extended.step_grant.expires_unix_ms > latest
    play.at_second(600)
    fires(play, OWN)
    play.says()
    play.at_second(1_800)
    goes_on(play)
    due = OWN + 29 * MINUTE
    assert play.only_output(TaskPaused).deadline_unix_ms == due and not play.only_output(TaskPaused).active
    again = play.send_of(StepExtended)
    assert again.body.deadline_unix_ms == START_UNIX_MS + 31 * MINUTE, "a step that goes on has minutes, not an hour"
    for name in ("a", "b", "c"):
        accepts(play, name)
    assert play.only_output(TaskEnded).status == "succeeded"
    play.replays()


def test_time_goes_on_where_it_stood(play):
    waits(play)
    play.at_second(600)
    goes_on(play)
    fires(play, OWN + HOUR, f"{TASK_TIMER}-{OWN + HOUR}")
    assert play.only_output(TaskEnded).failure.code == "deadline_exceeded", "a later timer is late in any case"


def test_what_waits_beside_what_waits_is_waited_for_once(play):
    waits(play, "a", until_ms=HOUR)
    play.at_second(600)
    waits(play, "b", until_ms=HOUR + 10 * MINUTE)
    assert play.only_output(TaskPaused).deadline_unix_ms == OWN + HOUR + 10 * MINUTE
    assert {send.step_id for send in play.outputs_of(StepExtended)} == {"a", "b"}, (
        "all that wait have the later deadline"
    )
    play.at_second(1_200)
    goes_on(play, "a")
    assert not play.outputs_of(TaskPaused), "b is waited for as long as ever"
    play.at_second(1_800)
    goes_on(play, "b")
    assert play.state.deadline_unix_ms == OWN + 30 * MINUTE


def test_a_halt_beside_it_stops_no_clock(play):
    waits(play, "b", until_ms=0, code="halted")
    waits(play, "a")
    assert {send.step_id for send in play.outputs_of(StepExtended)} == {"a", "b"}
    play.at_second(600)
    goes_on(play, "a")
    told = play.only_output(TaskPaused)
    assert told.active and told.code == "halted" and told.until_unix_ms == 0 and told.deadline_unix_ms == OWN + 600_000
    play.at_second(1_200)
    fires(play, OWN + 600_000)
    assert "held back" in play.only_output(TaskEnded).failure.message and play.outputs_of(StepCancelRequested)


def test_nobody_makes_a_task_live_for_longer_than_its_limits_say(play):
    waits(play, until_ms=10_000 * HOUR)
    latest = OWN + 2 * HOUR
    assert play.state.deadline_unix_ms == latest
    play.at_second(2 * 3_600 + 600)
    fires(play, latest)
    failure = play.only_output(TaskEnded).failure
    assert failure.code == "deadline_exceeded"
    assert "of 600000 ms and 7200000 ms more, in which people could decide, passed" in failure.message


def test_a_word_that_is_repeated_moves_nothing(play):
    waits(play)
    play.at_second(300)
    waits(play)
    assert not play.outputs_of(TaskPaused) and play.state.deadline_unix_ms == OWN + HOUR
    play.at_second(600)
    goes_on(play)
    goes_on(play)
    play.says()
    assert play.state.deadline_unix_ms == OWN + 600_000


def test_a_task_ends_while_a_person_is_waited_for(play):
    waits(play)
    play.at_second(3_599)
    fires(play, OWN + HOUR)
    assert (
        play.only_output(TaskEnded).status == "failed" and "bob is asked" in play.only_output(TaskEnded).failure.message
    )
    goes_on(play)
    play.says()
