"""The planner's playbooks: what it hears, what it says. Each row of its transition table, early, late and repeated."""

import base64
import json

import pytest

from bulkhead_contracts import bounds
from bulkhead_contracts.budget import TaskHalted
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.grant import TaskGrant
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanRejected, PlanStep
from bulkhead_contracts.result import Completeness, Failure, Omission, Result, Usage
from bulkhead_contracts.step import StepAssigned, StepCancelRequested, StepFinished
from bulkhead_contracts.task import (
    Progressed,
    StepEnded,
    TaskAccepted,
    TaskCancelRequested,
    TaskEnded,
    TaskLimits,
    TaskStopped,
    TaskSubmitted,
)
from bulkhead_contracts.tool import ToolSpec
from bulkhead_contracts.verdict import CheckNote, VerdictReached
from bulkhead_services.planner.core import Planner
from bulkhead_services.planner.ending import TASK_TIMER
from tests.playbook import START_UNIX_MS, Playbook

CALC = ToolSpec(name="calculate", description="decimal arithmetic", parameters_json="{}")
PAY = ToolSpec(name="pay", description="pays", parameters_json="{}", effect="write")


def draft(*steps: dict) -> str:
    return json.dumps({"steps": [{"acceptance": "says so", "instruction": "do it", **step} for step in steps]})


DIAMOND = draft({"id": "a"}, {"id": "b"}, {"id": "c", "inputs": ["a", "b"]})


@pytest.fixture
def play() -> Playbook:
    return Playbook(Planner())


def submit(play: Playbook, *, grant: str = "task-token", **changes) -> None:
    body = TaskSubmitted(
        objective=play.add_content("What is refunded?", "gateway"),
        limits=TaskLimits(deadline_ms=60_000),
        submitted_unix_ms=START_UNIX_MS,
        tools=(CALC, PAY),
    ).model_copy(update=changes)
    play.hears(body, sender="gateway", grant=grant)


def answers(play: Playbook, text: str, call: str = "plan-1-1") -> None:
    play.hears(
        ModelCallReplied(
            call_id=call,
            outcome="answered",
            content=play.add_content(text),
            prompt_id="planner.draft",
            usage=Usage(model_calls=1, input_tokens=10),
        ),
        sender="model_gateway",
    )


def fails(play: Playbook, code: str, call: str = "plan-1-1") -> None:
    play.hears(
        ModelCallReplied(
            call_id=call, outcome="failed", prompt_id="planner.draft", failure=Failure(code=code, message="no")
        ),
        sender="model_gateway",
    )


def accepts(play: Playbook, step: str, attempt: int = 1, version: int = 1, **result) -> None:
    play.hears(
        VerdictReached(
            step_id=step,
            attempt=attempt,
            plan_version=version,
            accepted=True,
            result=Result(content=play.add_content(f"result of {step}"), **result),
        ),
        sender="checker",
    )


def rejects(play: Playbook, step: str, attempt: int = 1, version: int = 1, *, stands: bool = False) -> None:
    note = CheckNote(code="no_citation", message="cite the passage")
    play.hears(
        VerdictReached(
            step_id=step,
            attempt=attempt,
            plan_version=version,
            accepted=False,
            notes=(note,),
            stands=stands,
            result=Result(content=play.add_content("bad")),
        ),
        sender="checker",
    )


def test_a_diamond_runs_in_parallel_and_ends_with_the_last_result(play):
    submit(play)
    play.says(TaskAccepted, ModelCallRequested)
    assert play.only_output(ModelCallRequested).response == "plan"
    assert play.send_of(ModelCallRequested).grant == "task-token"
    answers(play, DIAMOND)
    play.says(StepAssigned, StepAssigned, Progressed)
    assert [one.step.id for one in play.outputs_of(StepAssigned)] == ["a", "b"]
    accepts(play, "b")
    play.says(StepEnded)
    accepts(play, "a")
    play.says(StepAssigned, Progressed)
    last = play.only_output(StepAssigned)
    assert last.final and [one.step_id for one in last.inputs] == ["a", "b"]
    accepts(play, "c", completeness=Completeness.with_omissions(Omission(reason="pruned", what="two passages")))
    play.says(TaskEnded)
    ended = play.only_output(TaskEnded)
    assert ended.status == "succeeded" and ended.steps_done == ended.steps_total == 3
    assert not ended.result.completeness.complete, "what was left out must reach the answer"
    assert ended.usage.model_calls == 1
    play.replays()


def test_a_step_grant_is_narrowed_to_the_steps_tools_and_time(play):
    submit(play)
    answers(play, draft({"id": "a", "tools": ["calculate"]}))
    send = play.send_of(StepAssigned)
    assert send.grant == "task-token" and send.step_grant.tools == ("calculate",)
    assert send.step_grant.step_id == "a" and send.step_grant.expires_unix_ms < START_UNIX_MS + 10 * 60_000
    assert [tool.name for tool in send.body.tools] == ["calculate"]


@pytest.mark.parametrize(
    "text, code",
    [
        ("no json", "unreadable_plan"),
        (draft(), "unreadable_plan"),
        (draft({"id": "a", "inputs": ["zz"]}), "unknown_input"),
        (draft({"id": "a", "instruction": ""}), "no_instruction"),
        (draft({"id": "a", "instruction": " "}), "no_instruction"),
        (draft({"id": "a", "tools": ["rm_rf"]}), "tool_not_granted"),
        (draft(*({"id": f"s{n}"} for n in range(10_000))), "plan_too_large"),
        (draft(*({"id": f"s{n}"} for n in range(bounds.MAX_DRAFT_STEPS + 1))), "unreadable_plan"),
    ],
)
def test_a_bad_draft_goes_back_with_notes_and_is_bounded(play, text, code):
    submit(play)
    for number in range(1, bounds.MAX_PLAN_DRAFTS):
        answers(play, text, f"plan-1-{number}")
        rejected = play.only_output(PlanRejected)
        assert code in {note.code for note in rejected.notes if note.severity == "error"}
        assert play.only_output(ModelCallRequested).prompt_id == "planner.revise"
    answers(play, text, f"plan-1-{bounds.MAX_PLAN_DRAFTS}")
    assert play.only_output(PlanRejected).draft == bounds.MAX_PLAN_DRAFTS and not play.outputs_of(ModelCallRequested)
    assert [step.step.id for step in play.outputs_of(StepAssigned)] == ["answer"]
    play.replays()


def test_several_ends_get_one_composing_step(play):
    submit(play)
    answers(play, draft({"id": "a"}, {"id": "b"}))
    plan = play.only_output(PlanAdopted).plan
    assert plan.steps[-1].inputs == ("a", "b") and len(plan.steps) == 3


def test_a_rejected_step_is_tried_again_with_the_reasons_then_replanned_then_failed(play):
    submit(play)
    answers(play, draft({"id": "a"}))
    for attempt in (1, 2):
        rejects(play, "a", attempt)
        play.says(StepAssigned, Progressed)
        again = play.only_output(StepAssigned)
        assert again.attempt == attempt + 1 and "cite the passage" in again.notes
    rejects(play, "a", 3)
    play.says(StepEnded, ModelCallRequested)
    assert play.only_output(ModelCallRequested).prompt_id == "planner.revise"
    answers(play, draft({"id": "a"}), play.only_output(ModelCallRequested).call_id)
    assert play.only_output(PlanAdopted).plan.version == 2
    for attempt in (1, 2, 3):
        rejects(play, "a", attempt, version=2)
    play.says(TaskStopped, TaskEnded)
    ended = play.only_output(TaskEnded)
    assert ended.status == "failed" and ended.failure.code == "step_failed"
    assert "cite the passage" in ended.failure.message
    play.replays()


def test_a_result_that_may_stand_ends_the_step_degraded_when_no_attempt_is_left(play):
    submit(play)
    answers(play, draft({"id": "a"}))
    for attempt in (1, 2, 3):
        rejects(play, "a", attempt, stands=True)
    ended = play.only_output(TaskEnded)
    assert ended.status == "succeeded" and ended.result.standing == "degraded"
    assert "cite the passage" in ended.result.standing_reason and play.texts[ended.result.content.sha256] == "bad"
    play.replays()


def test_nothing_is_written_on_a_result_that_was_not_accepted(play):
    submit(play)
    answers(play, draft({"id": "a"}, {"id": "b", "inputs": ["a"], "tools": ["pay"]}))
    for attempt in (1, 2, 3):
        rejects(play, "a", attempt, stands=True)
    play.says(StepEnded, ModelCallRequested)


def test_a_new_plan_does_not_take_over_what_was_not_accepted(play):
    submit(play)
    answers(play, draft({"id": "a"}, {"id": "b", "inputs": ["a"]}))
    for attempt in (1, 2, 3):
        rejects(play, "a", attempt, stands=True)
    for attempt in (1, 2, 3):
        rejects(play, "b", attempt)
    call = play.only_output(ModelCallRequested).call_id
    answers(play, draft({"id": "a"}, {"id": "c", "inputs": ["a"], "tools": ["pay"]}), call)
    assert [one.step.id for one in play.outputs_of(StepAssigned)] == ["a"]


def test_no_replanning_after_a_step_that_may_have_written(play):
    submit(play)
    answers(play, draft({"id": "a", "tools": ["pay"]}))
    for attempt in (1, 2, 3):
        rejects(play, "a", attempt)
    play.says(TaskStopped, TaskEnded)
    assert "changed something outside" in play.only_output(TaskEnded).failure.hint


def test_an_uncertain_write_is_not_tried_again(play):
    submit(play)
    answers(play, draft({"id": "a", "tools": ["pay"]}))
    play.hears(
        StepFinished(
            step_id="a",
            attempt=1,
            plan_version=1,
            result=Result(standing="failed"),
            failure=Failure(code="uncertain_effect", message="may have been paid"),
        ),
        sender="worker",
    )
    play.says(TaskStopped, TaskEnded)
    assert play.only_output(TaskEnded).failure.code == "uncertain_effect"


def test_a_worker_that_skips_the_checker_is_not_believed(play):
    submit(play)
    answers(play, draft({"id": "a"}))
    play.hears(StepFinished(step_id="a", attempt=1, plan_version=1, result=Result(summary="trust me")), sender="worker")
    play.says(StepAssigned, Progressed)
    assert play.only_output(StepEnded).outcome == "rejected"


def test_with_checks_off_the_workers_word_is_enough_and_says_so(play):
    submit(play, check=False)
    answers(play, draft({"id": "a"}))
    play.hears(StepFinished(step_id="a", attempt=1, plan_version=1, result=Result(summary="done")), sender="worker")
    result = play.only_output(TaskEnded).result
    assert result.standing == "degraded" and result.standing_reason == "not checked, as the task asked"


def test_a_given_plan_needs_no_model(play):
    submit(play, plan=Plan(steps=(PlanStep(id="n", title="", instruction="echo", kind="noop"),)))
    play.says(StepAssigned, Progressed)
    play.hears(StepFinished(step_id="n", attempt=1, plan_version=1, result=Result(summary="echo")), sender="worker")
    play.says(TaskEnded)


def test_a_given_plan_with_a_cycle_is_refused_at_once(play):
    steps = (
        PlanStep(id="a", title="", instruction="x", acceptance="y", inputs=("b",)),
        PlanStep(id="b", title="", instruction="x", acceptance="y", inputs=("a",)),
    )
    submit(play, plan=Plan(steps=steps))
    play.says(Progressed, TaskStopped, TaskEnded)
    assert (
        "a -> b" in play.only_output(TaskEnded).failure.message
        or "b -> a" in play.only_output(TaskEnded).failure.message
    )


@pytest.mark.parametrize(
    "status, body",
    [
        ("cancelled", TaskCancelRequested(reason="changed my mind")),
        ("halted", TaskHalted(code="budget_exceeded", reason="the ceiling of $0.50 is reached")),
    ],
)
def test_cancel_and_halt_end_the_task_and_stop_its_steps(play, status, body):
    submit(play)
    answers(play, DIAMOND)
    play.hears(body, sender="gateway")
    stopped = [TaskStopped] if status == "cancelled" else []
    play.says(StepCancelRequested, StepCancelRequested, *stopped, TaskEnded)
    assert play.only_output(TaskEnded).status == status and play.only_output(TaskEnded).failure.message == body.reason
    accepts(play, "a")
    play.says()
    play.replays()


def test_a_task_with_a_release_names_it_and_who_asked_alike_however_it_ends(play):
    grants = [
        TaskGrant(
            tenant="demo",
            task="t",
            actor=actor,
            tools=(),
            document_scopes=(),
            limits=TaskLimits(),
            day_cost_usd_micros=1,
            day_tokens=1,
            expires_unix_ms=1,
            release="production.3.canary",
        )
        for actor in ("ann", "bob")
    ]
    submit(play, grant=token_of(grants[0]))
    accepted = play.only_output(TaskAccepted)
    play.hears(TaskHalted(code="loop_stopped", reason="it loops"), sender="budget")
    halted = play.only_output(TaskEnded)
    assert (accepted.release, accepted.asker) == (halted.release, halted.asker) == (grants[0].release, grants[0].asker)
    assert grants[0].asker != grants[1].asker and "ann" not in halted.model_dump_json()


def token_of(grant: TaskGrant) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"grant": grant.model_dump(mode="json")}).encode())
    return f"head.{claims.decode()}.signature"


def test_the_deadline_ends_the_task_and_names_what_it_waited_for(play):
    submit(play)
    answers(play, DIAMOND)
    play.fires(TASK_TIMER)
    ended = play.only_output(TaskEnded)
    assert ended.failure.code == "deadline_exceeded" and "a, b" in ended.failure.message
    assert ended.ended_unix_ms == START_UNIX_MS + 60_000


def test_a_steps_time_is_up(play):
    submit(play, limits=TaskLimits(deadline_ms=600_000))
    answers(play, draft({"id": "a"}))
    timer = next(key for key in play.timers if key.startswith("steps-"))
    play.fires(timer)
    play.says(StepCancelRequested, StepAssigned, Progressed)
    accepts(play, "a", attempt=1)
    play.says()
    accepts(play, "a", attempt=2)
    play.says(TaskEnded)


def test_one_timer_stands_for_all_running_steps(play):
    submit(play, limits=TaskLimits(deadline_ms=600_000))
    answers(play, draft({"id": "a"}, {"id": "b"}, {"id": "c", "inputs": ["a", "b"]}))
    first = [key for key in play.timers if key.startswith("steps-")]
    assert len(first) == 1
    accepts(play.at_second(30), "a")
    accepts(play.at_second(40), "b")
    play.says(StepAssigned, Progressed)
    assert [key for key in play.timers if key.startswith("steps-")] == first, "a later deadline needs no second timer"
    play.fires(first[0])
    play.says()
    second = next(key for key in play.timers if key.startswith("steps-") and key not in first)
    play.fires(second)
    play.says(StepCancelRequested, StepAssigned, Progressed)
    play.replays()


def test_late_timers_and_foreign_replies_change_nothing(play):
    submit(play)
    answers(play, draft({"id": "a"}), "plan-1-7")
    play.says()
    answers(play, draft({"id": "a"}))
    timer = next(key for key in play.timers if key.startswith("steps-"))
    accepts(play, "a", version=2)
    play.says()
    accepts(play, "nobody")
    play.says()
    accepts(play, "a")
    play.says(TaskEnded)
    play.fires(timer)
    play.says()


def test_a_message_that_comes_twice_counts_once(play):
    submit(play)
    answers(play, draft({"id": "a"}, {"id": "b", "inputs": ["a"]}))
    accepts(play, "a")
    before = play.state
    assert play.hears_again() == () and play.state == before


@pytest.mark.parametrize("code, status", [("refused_by_budget", "halted"), ("halted", "halted")])
def test_money_stops_planning(play, code, status):
    submit(play)
    fails(play, code)
    play.says(TaskEnded)
    assert play.only_output(TaskEnded).status == status


def test_a_failed_planning_call_is_tried_again_and_bounded(play):
    submit(play)
    for number in range(1, bounds.MAX_PLAN_DRAFTS):
        fails(play, "rate_limited", f"plan-1-{number}")
        play.says(ModelCallRequested)
    fails(play, "rate_limited", f"plan-1-{bounds.MAX_PLAN_DRAFTS}")
    play.says(TaskStopped, TaskEnded)
    assert play.only_output(TaskEnded).failure.code == "rate_limited"


def test_a_deferred_planning_call_is_asked_again_by_timer(play):
    submit(play)
    play.hears(CallDeferred(call_id="plan-1-1", after_ms=500), sender="model_gateway")
    play.says()
    play.fires("draft-again-plan-1-1")
    assert play.only_output(ModelCallRequested).call_id == "plan-1-1"
    for _ in range(bounds.MAX_CALL_DEFERRALS):
        play.hears(CallDeferred(call_id="plan-1-1", after_ms=500), sender="model_gateway")
    assert play.only_output(ModelCallRequested).call_id == "plan-1-2"


@pytest.mark.parametrize(("timeout_ms", "longer_s"), [(2_000, 0), (10_000, 0), (90_000, 80), (300_000, 290)])
def test_a_step_has_the_time_that_its_tools_need(play, timeout_ms, longer_s):
    slow = ToolSpec(name="report", description="takes long", parameters_json="{}", timeout_ms=timeout_ms)
    other = slow.model_copy(update={"name": "other", "timeout_ms": bounds.MAX_TOOL_TIMEOUT_MS})
    submit(play, tools=(slow, other), limits=TaskLimits(deadline_ms=600_000))
    answers(play, draft({"id": "a", "tools": ["report"]}))
    assert play.only_output(StepAssigned).deadline_unix_ms == START_UNIX_MS + (60 + longer_s) * 1000
    assert play.send_of(StepAssigned).step_grant.expires_unix_ms > play.only_output(StepAssigned).deadline_unix_ms


def test_no_tool_gives_a_step_more_time_than_its_task_has(play):
    slow = ToolSpec(name="report", description="takes long", parameters_json="{}", timeout_ms=300_000)
    submit(play, tools=(slow,), limits=TaskLimits(deadline_ms=100_000))
    answers(play, draft({"id": "a", "tools": ["report"]}))
    assert play.only_output(StepAssigned).deadline_unix_ms == START_UNIX_MS + 99_500


def test_a_task_whose_one_write_was_denied_is_not_answered(play):
    submit(play)
    answers(play, draft({"id": "a", "tools": ["pay"]}, {"id": "b", "inputs": ["a"]}))
    accepts(play, "a", answered="no", answered_reason="pay was not done: denied")
    accepts(play, "b", answered="yes")
    ended = play.only_output(TaskEnded)
    assert ended.status == "succeeded"
    assert (ended.result.answered, ended.result.answered_reason) == ("no", "pay was not done: denied")
    play.replays()


def test_a_result_that_stands_though_it_was_not_accepted_answers_partly_at_most(play):
    submit(play)
    answers(play, draft({"id": "a"}))
    for attempt in range(1, bounds.MAX_STEP_ATTEMPTS + 1):
        rejects(play, "a", attempt, stands=True)
    assert play.only_output(TaskEnded).result.answered == "partly"
