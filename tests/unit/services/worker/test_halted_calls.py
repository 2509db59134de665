"""What is held back sleeps until it is woken: asked again once, with time of its own; the planner hears of both."""

import pytest

from bulkhead.flow import SetTimer
from bulkhead_contracts.control import CallDeferred, CallResumed
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.step import StepCancelRequested, StepExtended, StepFinished, StepPaused, StepProposed
from bulkhead_contracts.tool import ToolCallRequested
from bulkhead_services.worker.core import Worker
from tests.playbook import START_UNIX_MS, Playbook
from tests.unit.services.worker.test_playbook import assign, computes, current_call, thinks

WHY = "The budget of task t1 of tenant demo is used up"


@pytest.fixture
def play() -> Playbook:
    play = Playbook(Worker())
    assign(play)
    return play


def holds(play: Playbook, call: str, *, paused: bool = True) -> None:
    play.hears(
        CallDeferred(
            call_id=call,
            step_id="s1",
            after_ms=15_000,
            reason=WHY,
            paused=paused,
            code="budget_exceeded" if paused else "",
        ),
        sender="model_gateway",
    )


def wakes(play: Playbook, call: str) -> None:
    play.hears(CallResumed(call_id=call, step_id="s1"), sender="model_gateway")


def extends(play: Playbook, seconds: float) -> None:
    play.hears(
        StepExtended(step_id="s1", attempt=1, plan_version=1, deadline_unix_ms=START_UNIX_MS + round(seconds * 1000)),
        sender="planner",
        grant="longer",
    )


def test_a_call_that_is_held_back_is_told_slept_through_and_asked_again_when_woken(play):
    call = current_call(play)
    holds(play, call)
    play.says(StepPaused)
    told = play.only_output(StepPaused)
    assert told.active and told.code == "budget_exceeded" and told.reason == WHY and told.attempt == 1
    extends(play, 3_600)
    play.says()
    play.at_second(1_800)
    wakes(play, call)
    play.says(StepPaused, ModelCallRequested)
    assert not play.only_output(StepPaused).active
    again = play.send_of(ModelCallRequested)
    assert again.body.call_id == call, "the same call: what was done of it is not done again"
    assert again.grant == "longer" and again.body.deadline_unix_ms > play.now_unix_ms, "its time had stood still"
    thinks(play, text="The fee is 40.")
    play.says(StepProposed)
    play.replays()


def test_no_call_is_ever_out_twice(play):
    """Its timer, when it was woken before; being woken, when its timer was first; both, when it was answered."""
    call = current_call(play)
    wakes(play, call)
    play.says()
    holds(play, call)
    wakes(play, call)
    play.says(StepPaused, ModelCallRequested)
    wakes(play, call)
    play.says()
    play.fires(f"again-{call}")
    play.says()
    holds(play, call)
    play.fires(f"again-{call}")
    play.says(ModelCallRequested)
    wakes(play, call)
    play.says()
    thinks(play, text="The fee is 40.")
    play.fires(f"again-{call}")
    play.says()
    wakes(play, call)
    play.says()


def test_asking_by_itself_is_no_news_until_there_is_an_answer(play):
    """What asks by its timer may be held back still: whoever watches is told once, and of the end when there is one."""
    call = current_call(play)
    for told in ((StepPaused,), (), ()):
        holds(play, call)
        play.says(*told)
        assert any(isinstance(one, SetTimer) for one in play.outputs), "woken or not, it asks again"
        play.fires(f"again-{call}")
        play.says(ModelCallRequested)
    thinks(play, calls=(("calculate", '{"expression": "1+1"}'),))
    play.says(StepPaused, ToolCallRequested)
    assert not play.only_output(StepPaused).active
    play.replays()


def test_of_two_calls_the_last_one_lets_the_step_go_on(play):
    thinks(play, calls=(("calculate", '{"expression": "1+1"}'), ("calculate", '{"expression": "2+2"}')))
    one, two = (body.call_id for body in play.outputs_of(ToolCallRequested))
    holds(play, one)
    play.says(StepPaused)
    holds(play, two)
    play.says()
    wakes(play, one)
    play.says(ToolCallRequested)
    computes(play, one)
    play.says()
    wakes(play, two)
    play.says(StepPaused, ToolCallRequested)
    computes(play, two)
    play.says(ModelCallRequested)
    play.replays()


def test_what_is_over_is_not_woken(play):
    call = current_call(play)
    holds(play, call)
    play.hears(StepCancelRequested(step_id="s1", attempt=1, plan_version=1), sender="planner")
    play.says(StepPaused, StepFinished)
    extends(play, 3_600)
    wakes(play, call)
    play.says()
    play.fires(f"again-{call}")
    play.says()


def test_being_busy_is_no_halt(play):
    call = current_call(play)
    holds(play, call, paused=False)
    play.says()
    before = play.state.running[1, "s1", 1].outstanding[call][0]
    play.fires(f"again-{call}")
    assert play.only_output(ModelCallRequested) == before, "nobody held it back: its time went on"
    holds(play, call)
    play.says(StepPaused)
    holds(play, call, paused=False)
    play.says(StepPaused)
    assert not play.only_output(StepPaused).active


def test_the_latest_word_about_its_time_counts_also_where_it_is_less(play):
    for seconds in (3_600, 30):
        extends(play, seconds)
        assert play.state.running[1, "s1", 1].assigned.deadline_unix_ms == START_UNIX_MS + seconds * 1_000
    assert play.state.running[1, "s1", 1].grant == "longer"
