"""A judge's call that is held back sleeps until it is woken; the planner hears of both."""

import pytest

from bulkhead_contracts.control import CallDeferred, CallResumed
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.step import StepExtended, StepPaused
from bulkhead_contracts.verdict import VerdictReached
from bulkhead_services.checker.core import Checker
from tests.playbook import START_UNIX_MS, Playbook
from tests.unit.services.checker.test_core import judge, propose


@pytest.fixture
def play() -> Playbook:
    play = Playbook(Checker())
    propose(play)
    return play


def test_it_sleeps_is_woken_and_is_never_out_twice(play):
    call = play.only_output(ModelCallRequested).call_id
    play.hears(
        CallDeferred(call_id=call, after_ms=15_000, reason="used up", paused=True, code="budget_exceeded"),
        sender="model_gateway",
    )
    play.says(StepPaused)
    told = play.only_output(StepPaused)
    assert told.active and (told.code, told.reason) == ("budget_exceeded", "used up")
    until = START_UNIX_MS + 3_600_000
    play.hears(
        StepExtended(
            step_id=told.step_id, attempt=told.attempt, plan_version=told.plan_version, deadline_unix_ms=until
        ),
        sender="planner",
        grant="longer",
    )
    play.says()
    play.hears(CallResumed(call_id=call), sender="model_gateway")
    play.says(StepPaused, ModelCallRequested)
    again = play.send_of(ModelCallRequested)
    assert again.body.deadline_unix_ms == until and again.grant == "longer" and again.body.call_id == call
    play.fires(f"again-{call}")
    play.says()
    play.hears(CallResumed(call_id=call), sender="model_gateway")
    play.says()
    judge(play, '{"verdict": "accept"}')
    play.says(VerdictReached)
    play.hears(CallResumed(call_id=call), sender="model_gateway")
    play.says()
    play.replays()


def test_asked_by_its_timer_it_is_told_to_go_on_when_it_is_answered(play):
    call = play.only_output(ModelCallRequested).call_id
    play.hears(
        CallDeferred(call_id=call, after_ms=15_000, paused=True, code="halted_by_operator"), sender="model_gateway"
    )
    play.fires(f"again-{call}")
    play.says(ModelCallRequested)
    judge(play, "no verdict at all")
    play.says(StepPaused, ModelCallRequested)
    assert not play.only_output(StepPaused).active
    play.replays()
