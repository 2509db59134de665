"""The route that a task names reaches the planner's own calls and every step; one that nobody serves ends the task."""

import pytest

from bulkhead_contracts.model import UNKNOWN_ROUTE, ModelCallRequested
from bulkhead_contracts.result import Failure, Result
from bulkhead_contracts.step import StepAssigned, StepFinished
from bulkhead_contracts.task import TaskEnded
from bulkhead_services.planner.core import Planner
from tests.playbook import Playbook
from tests.unit.services.planner.test_playbook import answers, draft, fails, submit


@pytest.fixture
def play() -> Playbook:
    return Playbook(Planner())


@pytest.mark.parametrize(("route", "tier"), [("", "default"), ("small", "small")])
def test_the_route_is_taken_by_the_draft_and_handed_to_the_steps(play: Playbook, route: str, tier: str) -> None:
    submit(play, route=route)
    assert play.only_output(ModelCallRequested).tier == tier
    answers(play, draft({"id": "a"}))
    assert play.only_output(StepAssigned).route == route
    play.replays()


def test_a_draft_of_an_unknown_route_is_not_asked_for_again(play: Playbook) -> None:
    submit(play, route="nowhere")
    fails(play, UNKNOWN_ROUTE)
    ended = play.only_output(TaskEnded)
    assert (ended.status, ended.failure.code) == ("failed", UNKNOWN_ROUTE) and not play.outputs_of(ModelCallRequested)


def test_a_step_of_an_unknown_route_is_not_tried_again(play: Playbook) -> None:
    submit(play, route="nowhere")
    answers(play, draft({"id": "a"}))
    failure = Failure(code=UNKNOWN_ROUTE, message="the model gateway has no route nowhere")
    play.hears(
        StepFinished(step_id="a", attempt=1, plan_version=1, result=Result(standing="failed"), failure=failure),
        sender="worker",
    )
    assert play.only_output(TaskEnded).failure == failure and not play.outputs_of(StepAssigned)
