"""A task that is held back waits where it stands: its steps' time stands still, its own goes on, and all is told."""

import pytest

from bulkhead_contracts import bounds
from bulkhead_contracts.budget import TaskHalted
from bulkhead_contracts.control import CallDeferred, CallResumed, TimerFired
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.step import StepAssigned, StepCancelRequested, StepExtended, StepPaused
from bulkhead_contracts.task import Progressed, TaskCancelRequested, TaskEnded, TaskLimits, TaskPaused, TaskStopped
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.planner.assignments import STEP_TIMER
from bulkhead_services.planner.core import Planner
from bulkhead_services.planner.ending import TASK_TIMER
from tests.playbook import START_UNIX_MS, Playbook
from tests.unit.services.planner.test_playbook import DIAMOND, accepts, answers, draft, submit

WHY = "The budget of task t1 of tenant demo is used up. An operator gives it more: `bulkhead topup t1 --usd 0.01`"
HOUR_MS = 3_600_000


@pytest.fixture
def play() -> Playbook:
    play = Playbook(Planner())
    submit(play, limits=TaskLimits(deadline_ms=HOUR_MS))
    answers(play, DIAMOND)
    return play


def pauses(
    play: Playbook,
    step: str,
    *,
    active: bool = True,
    code: str = "budget_exceeded",
    attempt: int = 1,
    sender: str = "worker",
) -> None:
    play.hears(
        StepPaused(
            step_id=step,
            attempt=attempt,
            plan_version=1,
            active=active,
            code=code if active else "",
            reason=WHY if active else "",
        ),
        sender=sender,
    )


def time_is_up(play: Playbook) -> None:
    play.fires(TASK_TIMER)


def test_a_step_that_is_held_back_is_not_tried_again_however_long_that_lasts(play):
    pauses(play, "a")
    play.says(StepExtended, TaskPaused)
    extended = play.send_of(StepExtended)
    assert extended.to == "worker" and extended.grant == "task-token"
    assert extended.body.deadline_unix_ms == START_UNIX_MS + HOUR_MS - 500
    assert extended.step_grant.expires_unix_ms > START_UNIX_MS + HOUR_MS and extended.step_grant.step_id == "a"
    told = play.only_output(TaskPaused)
    assert told.active and told.code == "budget_exceeded" and told.reason == WHY and told.step_id == "a"
    pauses(play, "b", sender="checker")
    play.says(StepExtended)
    assert play.send_of(StepExtended).to == "checker"
    play.fires(next(name for name in play.timers if name.startswith(STEP_TIMER)))
    play.says()
    pauses(play, "a", active=False)
    play.says()
    pauses(play, "b", active=False)
    play.says(TaskPaused)
    assert not play.only_output(TaskPaused).active
    accepts(play, "a")
    accepts(play, "b")
    play.says(StepAssigned, Progressed)
    accepts(play, "c")
    assert play.only_output(TaskEnded).status == "succeeded"
    assert {one.plan_step.id: one.attempt for one in play.state.steps} == {"a": 1, "b": 1, "c": 1}, (
        "nothing was repeated"
    )
    play.replays()


def test_from_when_it_goes_on_it_has_as_long_as_one_that_begins(play):
    pauses(play, "a")
    play.at_second(1_800)
    pauses(play, "a", active=False)
    due = START_UNIX_MS + 1_800_000 + bounds.DEFAULT_STEP_TIMEOUT_MS
    assert play.state.step("a").deadline_unix_ms == due
    play.fires(f"{STEP_TIMER}-{START_UNIX_MS + bounds.DEFAULT_STEP_TIMEOUT_MS}")
    play.at_second(1_900).fires(f"{STEP_TIMER}-{due}")
    assert play.outputs_of(StepCancelRequested), "a step that says nothing is stopped, as ever"


def test_whoever_gives_it_nothing_finds_it_halted_at_its_deadline_with_the_reason(play):
    pauses(play, "a")
    time_is_up(play)
    play.says(StepCancelRequested, StepCancelRequested, TaskEnded, TaskStopped)
    ended = play.only_output(TaskEnded)
    assert ended.status == "halted" and ended.failure.code == "budget_exceeded"
    assert "nobody gave it more" in ended.failure.message and WHY in ended.failure.message
    assert "submit it again" in ended.failure.hint and "fork" not in ended.failure.hint, "nothing is done yet"
    assert play.only_output(TaskStopped).code == "budget_exceeded", "what it cost in all is told"
    for late in (StepPaused(step_id="a", attempt=1, plan_version=1, active=False), CallResumed(call_id="plan-1-1")):
        play.hears(late, sender="worker")
        play.says()


def test_a_fork_is_advised_where_there_is_something_to_take_over(play):
    accepts(play, "a")
    pauses(play, "b")
    time_is_up(play)
    assert "bulkhead replay t1 --from-step" in play.only_output(TaskEnded).failure.hint


def test_a_step_that_is_held_back_outlasts_the_margin_before_the_tasks_end(play):
    pauses(play, "a")
    pauses(play, "b")
    play.at_second(3_599.9).hears(
        TimerFired(key=f"{STEP_TIMER}-1", due_unix_ms=START_UNIX_MS + HOUR_MS - 100), sender="planner"
    )
    play.says()
    time_is_up(play)
    assert play.only_output(TaskEnded).status == "halted" and play.only_output(TaskEnded).plan_versions == 1


def test_what_a_person_holds_back_until_its_deadline_says_so(play):
    pauses(play, "a", code="halted_by_operator")
    time_is_up(play)
    ended = play.only_output(TaskEnded)
    assert ended.status == "failed" and ended.failure.code == "deadline_exceeded" and WHY in ended.failure.message


def test_a_task_that_goes_on_again_ends_at_its_deadline_as_any(play):
    pauses(play, "a")
    pauses(play, "a", active=False)
    time_is_up(play)
    assert (
        play.only_output(TaskEnded).failure.code == "deadline_exceeded"
        and WHY not in play.only_output(TaskEnded).failure.message
    )


def test_the_draft_sleeps_until_it_is_woken_and_is_asked_once():
    play = Playbook(Planner())
    submit(play, limits=TaskLimits(deadline_ms=HOUR_MS))
    held = CallDeferred(call_id="plan-1-1", after_ms=15_000, reason=WHY, paused=True, code="budget_exceeded")
    play.hears(held, sender="model_gateway")
    play.says(TaskPaused)
    assert play.only_output(TaskPaused).step_id == ""
    play.at_second(600).hears(CallResumed(call_id="plan-1-1"), sender="model_gateway")
    play.says(ModelCallRequested, TaskPaused)
    assert (
        play.only_output(ModelCallRequested).deadline_unix_ms == play.now_unix_ms + bounds.DEFAULT_MODEL_CALL_TIMEOUT_MS
    )
    play.fires("draft-again-plan-1-1")
    play.says()
    play.hears(CallResumed(call_id="plan-1-1"), sender="model_gateway")
    play.says()
    play.hears(held, sender="model_gateway")
    play.fires("draft-again-plan-1-1")
    play.says(ModelCallRequested)
    answers(play, draft({"id": "a"}))
    assert not play.only_output(TaskPaused).active
    play.replays()


def test_of_late_and_foreign_words_nothing_follows(play):
    for body in (
        StepPaused(step_id="a", attempt=2, plan_version=1),
        StepPaused(step_id="c", attempt=1, plan_version=1),
        StepPaused(step_id="a", attempt=1, plan_version=7),
        StepPaused(step_id="x", attempt=1, plan_version=1),
        StepPaused(step_id="a", attempt=1, plan_version=1, active=False),
        CallResumed(call_id="plan-1-1"),
        TimerFired(key="draft-again-plan-1-1", due_unix_ms=START_UNIX_MS),
    ):
        play.hears(body, sender="worker")
        play.says()
    pauses(play, "a")
    accepts(play, "a")
    assert not play.only_output(TaskPaused).active, "its verdict came: it is held back no longer"


@pytest.mark.parametrize("how", [TaskCancelRequested(reason="enough"), TaskHalted(code="loop", reason="it loops")])
def test_a_runaway_and_a_cancel_end_it_for_good(play, how):
    pauses(play, "a")
    play.hears(how, sender="gateway")
    assert (
        play.only_output(TaskEnded).status in ("cancelled", "halted")
        and play.only_output(TaskStopped).code != "budget_exceeded"
    )
    pauses(play, "a", active=False)
    play.says()


def test_a_longer_grant_is_no_wider_one():
    play = Playbook(Planner())
    tools = tuple(ToolSpec(name=name, description=name, parameters_json="{}") for name in ("calculate", "pay"))
    submit(play, tools=tools, limits=TaskLimits(deadline_ms=HOUR_MS))
    answers(play, draft({"id": "a", "tools": ["calculate"], "role": "reader"}))
    first = play.send_of(StepAssigned).step_grant
    pauses(play, "a")
    longer = play.send_of(StepExtended).step_grant
    assert longer == first.model_copy(update={"expires_unix_ms": longer.expires_unix_ms})
