"""A step that an outside agent carries out: doors is given it, and doors alone ends it."""

import pytest

from bulkhead_contracts.budget import TaskHalted
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.plan import Plan, PlanStep
from bulkhead_contracts.result import Failure, Result, Usage
from bulkhead_contracts.step import StepAssigned, StepCancelRequested, StepExtended, StepFinished, StepPaused
from bulkhead_contracts.task import (
    RUN_ENDED,
    Progressed,
    StepEnded,
    TaskCancelRequested,
    TaskEnded,
    TaskLimits,
    TaskPaused,
    TaskStopped,
    TaskSubmitted,
)
from bulkhead_contracts.tool import ToolSpec
from bulkhead_contracts.verdict import VerdictReached
from bulkhead_services.planner.core import Planner
from bulkhead_services.planner.ending import TASK_TIMER
from tests.playbook import START_UNIX_MS, Playbook

ADOPTED = PlanStep(id="agent", title="support_bot", instruction="Hello", kind="noop", role="support_bot", adopted=True)
PLANNED = PlanStep(id="agent", title="", instruction="Hello", acceptance="says so")
HOUR_MS = 3_600_000
PLACE = {"step_id": "agent", "attempt": 1, "plan_version": 1}


def opened(step: PlanStep = ADOPTED, tools: tuple[ToolSpec, ...] = ()) -> Playbook:
    play = Playbook(Planner(), task="doors-1")
    body = TaskSubmitted(
        objective=play.add_content("Hello", "gateway"),
        limits=TaskLimits(deadline_ms=HOUR_MS),
        submitted_unix_ms=START_UNIX_MS,
        check=False,
        plan=Plan(steps=(step,)),
        replan="none",
        tools=tools,
    )
    play.hears(body, sender="gateway", grant="task-token")
    return play


def finished(play: Playbook, sender: str = "doors", **changes) -> StepFinished:
    body = StepFinished(**PLACE, result=Result(content=play.add_content("Bye", sender)), usage=Usage(model_calls=2))
    return body.model_copy(update=changes)


def test_doors_is_given_the_step_until_the_end_of_its_task() -> None:
    play = opened()
    play.says(StepAssigned, Progressed)
    send = play.send_of(StepAssigned)
    assert send.to == "doors" and send.grant == "task-token"
    assert send.step_grant is not None and (send.step_grant.role, send.step_grant.tools) == ("support_bot", ())
    assert play.only_output(StepAssigned).deadline_unix_ms == START_UNIX_MS + HOUR_MS
    assert list(play.timers) == [TASK_TIMER]


def test_its_grant_names_the_tools_that_its_plan_does_and_no_more() -> None:
    tools = tuple(
        ToolSpec(name=name, description="x" * 2_000, parameters_json="{" + " " * 8_000 + "}") for name in "abcdefgh"
    )
    play = opened(ADOPTED.model_copy(update={"tools": tuple("abcdefg")}), tools)
    send = play.send_of(StepAssigned)
    # All of them, though they are more than a prompt would show: its agent is shown them elsewhere.
    assert send.step_grant is not None and send.step_grant.tools == tuple("abcdefg")


def test_a_tool_that_was_not_granted_ends_it() -> None:
    play = opened(ADOPTED.model_copy(update={"tools": ("a",)}))
    assert {end.failure.code for end in play.outputs_of(TaskEnded) if end.failure} == {"plan_rejected"}


def test_its_result_is_the_tasks_as_it_is_and_doors_hears_of_the_end() -> None:
    play = opened()
    play.hears(finished(play), sender="doors")
    doors, gateway = (one for one in play.outputs if isinstance(one.body, TaskEnded))
    assert (doors.to, gateway.to) == ("doors", "gateway")
    for body in (doors.body, gateway.body):
        assert body.status == "succeeded" and body.result.standing == "ok" and body.usage.model_calls == 2
    assert [one.outcome for one in play.outputs_of(StepEnded)] == ["accepted"]
    assert [one.code for one in play.outputs_of(TaskStopped)] == [RUN_ENDED], "calls may be in flight all the same"
    play.replays()


@pytest.mark.parametrize(("step", "sender"), [(ADOPTED, "worker"), (PLANNED, "doors")])
def test_nobody_ends_a_step_that_another_carries_out(step: PlanStep, sender: str) -> None:
    play = opened(step)
    before = play.state
    for body in (finished(play, sender), StepPaused(**PLACE, code="halted", reason="no")):
        assert play.hears(body, sender=sender) == ()
    assert play.state == before


def test_a_verdict_does_not_end_it() -> None:
    play = opened()
    before = play.state
    body = VerdictReached(**PLACE, accepted=True, result=Result(content=play.add_content("Yes", "worker")))
    assert play.hears(body, sender="checker") == () and play.state == before


@pytest.mark.parametrize(("code", "status"), [("idle", "failed"), ("refused_by_budget", "halted")])
def test_a_failure_ends_the_task_by_its_name_at_once(code: str, status: str) -> None:
    play = opened()
    failure = Failure(code=code, message="the agent went away")
    play.hears(finished(play, result=Result(standing="failed"), failure=failure), sender="doors")
    assert play.outputs_of(StepAssigned) == []
    assert {(one.status, one.failure.code) for one in play.outputs_of(TaskEnded)} == {(status, code)}


def test_a_cancel_a_halt_and_the_deadline_reach_doors() -> None:
    for word, sender, code in (
        (TaskCancelRequested(reason="enough"), "gateway", "cancelled"),
        (TaskHalted(code="loop_stopped", reason="it loops"), "budget", "loop_stopped"),
        (None, "", "deadline_exceeded"),
    ):
        play = opened()
        play.fires(TASK_TIMER) if word is None else play.hears(word, sender=sender)
        play.says(StepCancelRequested, TaskStopped, TaskEnded, TaskEnded)
        assert [one.to for one in play.outputs] == ["doors", "budget", "doors", "gateway"]
        assert play.outputs_of(TaskEnded)[0].failure.code == code


def test_a_call_that_is_held_back_holds_the_task_back_and_doors_gets_a_grant_that_lasts() -> None:
    play = opened()
    play.hears(StepPaused(**PLACE, code="budget_exceeded", reason="its ceiling is reached"), sender="doors")
    play.says(StepExtended, TaskPaused)
    assert play.send_of(StepExtended).to == "doors" and play.only_output(TaskPaused).code == "budget_exceeded"
    play.hears(StepPaused(**PLACE, active=False), sender="doors")
    assert not play.only_output(TaskPaused).active and list(play.timers) == [TASK_TIMER]


def test_a_worker_that_asks_in_its_name_is_refused() -> None:
    play = opened()
    ask = AnswerRequested(ask_id="a", targets=("agent", "other"), mode="all", question="?", deadline_unix_ms=1, **PLACE)
    play.hears(ask, sender="worker")
    assert {one.outcome for one in play.outputs_of(AnswerGiven)} == {"refused"}
