"""What planted bugs showed to be untested: usage that comes too late, verdicts on failed results, a full plan."""

import pytest

from bulkhead_contracts import bounds
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanStep
from bulkhead_contracts.result import Completeness, Failure, Label, Omission, Result, Usage
from bulkhead_contracts.step import StepAssigned, StepFinished
from bulkhead_contracts.task import StepEnded, TaskEnded, TaskLimits
from bulkhead_contracts.verdict import VerdictReached
from bulkhead_services.planner.core import Planner
from tests.playbook import Playbook
from tests.samples import sample
from tests.unit.services.planner.test_playbook import accepts, answers, draft, submit


@pytest.fixture
def play() -> Playbook:
    return Playbook(Planner())


def spends(play: Playbook, attempt: int, tokens: int) -> None:
    play.hears(
        VerdictReached(
            step_id="a",
            attempt=attempt,
            plan_version=1,
            accepted=True,
            usage=Usage(input_tokens=tokens),
            result=Result(summary="done"),
        ),
        sender="checker",
    )


def test_what_comes_too_late_is_not_believed_and_yet_counted(play):
    submit(play, limits=TaskLimits(deadline_ms=600_000))
    answers(play, draft({"id": "a"}))
    before = play.state.usage.input_tokens
    play.fires(next(key for key in play.timers if key.startswith("steps-")))
    failure = Failure(code="cancelled", message="the step's time is up")
    play.hears(
        sample(
            StepFinished, step_id="a", failure=failure, result=Result(standing="failed"), usage=Usage(input_tokens=100)
        ),
        sender="worker",
    )
    play.says()
    spends(play, 1, 20)
    play.says()
    spends(play, 2, 3)
    assert play.only_output(TaskEnded).usage.input_tokens == before + 123


def test_a_verdict_that_comes_twice_is_paid_once(play):
    submit(play)
    answers(play, draft({"id": "a"}, {"id": "b"}))
    before = play.state.usage.input_tokens
    spends(play, 1, 20)
    assert play.hears_again() == ()
    assert play.state.usage.input_tokens == before + 20


def test_a_result_that_stands_as_failed_is_not_accepted_whatever_the_verdict(play):
    submit(play)
    answers(play, draft({"id": "a"}))
    accepts(play, "a", standing="failed", standing_reason="no source")
    assert play.only_output(StepEnded).outcome == "rejected" and play.only_output(StepAssigned).attempt == 2


def test_a_step_is_told_all_about_its_inputs(play):
    submit(play)
    answers(play, draft({"id": "a"}, {"id": "b", "inputs": ["a"]}))
    whole = Completeness.with_omissions(Omission(reason="pruned", what="two passages"))
    label = Label(sha256="ab" * 32, kind="passage", observed_by="rag")
    accepts(play, "a", standing="degraded", standing_reason="by a fallback", completeness=whole, provenance=(label,))
    given = play.only_output(StepAssigned).inputs[0].result
    assert (given.standing, given.completeness, given.provenance) == ("degraded", whole, (label,))
    assert given.standing_reason == "by a fallback"


@pytest.mark.parametrize("more", [0, 1])
def test_a_plan_may_have_as_many_steps_as_its_limit_says(play, more):
    names = [f"s{n}" for n in range(bounds.MAX_PLAN_STEPS + more)]
    steps = tuple(
        PlanStep(id=name, title="", instruction="do", acceptance="done", inputs=tuple(names[n - 1 : n]))
        for n, name in enumerate(names)
    )
    submit(play, plan=Plan.model_construct(steps=steps))
    assert len(play.outputs_of(PlanAdopted)) == 1 - more


def test_a_plan_that_fits_no_message_is_refused_with_what_takes_the_room(play):
    text = "x" * bounds.MAX_INSTRUCTION_CHARS
    steps = tuple(
        PlanStep(id=f"s{n}", title="", instruction=text, acceptance="done") for n in range(bounds.MAX_STEP_INPUTS)
    )
    submit(play, plan=Plan(steps=steps))
    failure = play.only_output(TaskEnded).failure
    assert failure.code == "plan_too_large" and "answer" in failure.message and "map" in failure.hint


def test_more_ends_than_a_step_can_compose_are_refused_with_the_last(play):
    steps = tuple(
        PlanStep(id=f"s{n}", title="", instruction="do", acceptance="done") for n in range(bounds.MAX_STEP_INPUTS + 1)
    )
    submit(play, plan=Plan(steps=steps))
    assert f"s{bounds.MAX_STEP_INPUTS} the last" in play.only_output(TaskEnded).failure.message
