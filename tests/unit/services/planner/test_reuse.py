"""Reuse of accepted results: a later plan or a fork takes them over instead of making them again."""

import json

import pytest

from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.plan import (
    ApprovalQuestion,
    Branch,
    BranchCase,
    Plan,
    PlanRejected,
    PlanStep,
    PropertyCheck,
    QualityGate,
)
from bulkhead_contracts.result import Label, Result
from bulkhead_contracts.step import StepAssigned, StepCancelRequested, StepInput
from bulkhead_contracts.task import Progressed, StepEnded, TaskEnded, TaskStopped
from bulkhead_services.planner.core import Planner
from tests.playbook import Playbook
from tests.unit.services.planner.test_playbook import DIAMOND, accepts, answers, draft, rejects, submit

CHAIN = Plan(
    steps=tuple(
        PlanStep(id=name, title="", instruction=f"do {name}", acceptance="done", inputs=inputs)
        for name, inputs in (("a", ()), ("b", ("a",)), ("c", ("b",)))
    )
)


@pytest.fixture
def play() -> Playbook:
    return Playbook(Planner())


def held(play: Playbook, name: str, **changes) -> StepInput:
    label = Label(sha256="a" * 64, kind="step_result", source=f"task told step {name}", observed_by="gateway")
    result = Result(content=play.add_content(f"old result of {name}"), provenance=(label,)).model_copy(update=changes)
    return StepInput(step_id=name, title="taken over from task told", result=result)


def replanned(play: Playbook) -> None:
    """A diamond whose step b is never accepted; a is. Then the same plan comes again."""
    submit(play)
    answers(play, DIAMOND)
    accepts(play, "a")
    for attempt in range(1, bounds.MAX_STEP_ATTEMPTS + 1):
        rejects(play, "b", attempt)
    play.says(StepEnded, ModelCallRequested)


def notes_of(play: Playbook) -> str:
    return next(part.text for part in play.only_output(ModelCallRequested).parts if part.kind == "notes")


def test_a_new_plan_takes_over_what_was_accepted(play):
    replanned(play)
    notes = notes_of(play)
    assert "will not run again" in notes and '"id": "a"' in notes and '"id": "b"' not in notes
    answers(play, DIAMOND, "plan-2-2")
    play.says(StepAssigned, Progressed)
    taken = play.only_output(StepEnded)
    assert (taken.step_id, taken.outcome, taken.attempt, taken.plan_version) == ("a", "accepted", 0, 2)
    assert taken.reasons == ("taken over from plan 1",) and taken.usage.model_calls == 0
    assert play.only_output(StepAssigned).step.id == "b"
    accepts(play, "b", version=2)
    assert play.only_output(StepAssigned).inputs[0].result.content == taken.result.content
    accepts(play, "c", version=2)
    assert play.only_output(TaskEnded).steps_done == 3
    play.replays()


@pytest.mark.parametrize(
    "changed",
    [{"instruction": "do it otherwise"}, {"tools": ["calculate"]}, {"acceptance": "stricter"}, {"inputs": ["b"]}],
)
def test_a_changed_step_runs(play, changed):
    replanned(play)
    answers(play, draft({"id": "a", **changed}, {"id": "b"}, {"id": "c", "inputs": ["a", "b"]}), "plan-2-2")
    assert play.outputs_of(StepEnded) == []
    assert {one.step.id for one in play.outputs_of(StepAssigned)} <= {"a", "b"}


def test_a_step_on_changed_inputs_runs(play):
    submit(play)
    answers(play, draft({"id": "a"}, {"id": "b", "inputs": ["a"]}, {"id": "c"}, {"id": "d", "inputs": ["b", "c"]}))
    accepts(play, "a")
    accepts(play, "b")
    for attempt in range(1, bounds.MAX_STEP_ATTEMPTS + 1):
        rejects(play, "c", attempt)
    new = draft({"id": "a", "instruction": "another"}, {"id": "b", "inputs": ["a"]}, {"id": "d", "inputs": ["b"]})
    answers(play, new, "plan-2-2")
    play.says(StepAssigned, Progressed)
    assert play.only_output(StepAssigned).step.id == "a"


def test_results_that_are_given_are_not_made_again(play):
    submit(play, plan=CHAIN, given=(held(play, "a"), held(play, "b")))
    play.says(StepAssigned, Progressed)
    assigned = play.only_output(StepAssigned)
    assert assigned.step.id == "c" and [one.step_id for one in assigned.inputs] == ["b"]
    assert assigned.inputs[0].result.provenance[0].source == "task told step b"
    assert {one.reasons for one in play.outputs_of(StepEnded)} == {("taken over from task told",)}
    accepts(play, "c")
    play.says(TaskEnded)
    assert play.only_output(TaskEnded).usage.model_calls == 0
    play.replays()


@pytest.mark.parametrize(
    ("names", "changes", "said"),
    [
        (("b",), {}, "would stand on a, which runs again"),
        (("a", "z"), {}, "z, which is no step"),
        (("a", "a"), {}, "two results are given for step a"),
        (("a",), {"standing": "failed"}, "stands as failed"),
    ],
)
def test_given_results_that_do_not_fit_end_the_task(play, names, changes, said):
    submit(play, plan=CHAIN, given=tuple(held(play, name, **changes) for name in names))
    play.says(Progressed, TaskStopped, TaskEnded)
    assert said in play.only_output(TaskEnded).failure.message


@pytest.mark.parametrize(
    "action",
    [
        {"question": ApprovalQuestion(text="Shall it be paid?")},
        {"gate": QualityGate(of="a", checks=(PropertyCheck(test="cites"),), on_fail="person")},
        {"branch": Branch(of="a", cases=(BranchCase(test="contains", text="yes", steps=("c",)),))},
    ],
)
def test_no_task_takes_over_what_a_person_said_or_a_branch_chose(play, action):
    asks = PlanStep(id="b", title="", instruction="", kind="noop", inputs=("a",), **action)
    submit(play, plan=Plan(steps=(CHAIN.steps[0], asks, CHAIN.steps[2])), given=(held(play, "a"), held(play, "b")))
    assert "chooses steps or asks a person" in play.only_output(TaskEnded).failure.message


def test_a_full_plan_of_misfits_stays_within_its_bounds(play):
    given = tuple(held(play, f"z{n}") for n in range(bounds.MAX_PLAN_STEPS))
    plan = Plan(steps=tuple(PlanStep(id=f"s{n}", title="", instruction="") for n in range(bounds.MAX_PLAN_STEPS)))
    submit(play, plan=plan, given=given)
    assert len(play.only_output(PlanRejected).notes) == bounds.MAX_PLAN_NOTES


def test_what_the_model_is_told_is_bounded(play):
    wide = [{"id": f"s{n}", "instruction": "x" * 2000} for n in range(12)]
    submit(play)
    answers(play, draft(*wide, {"id": "last", "inputs": [one["id"] for one in wide]}))
    for one in wide[:-1]:
        accepts(play, one["id"])
    for attempt in range(1, bounds.MAX_STEP_ATTEMPTS + 1):
        rejects(play, "s11", attempt)
    assert len(notes_of(play)) <= bounds.MAX_INSTRUCTION_CHARS and json.dumps("s0") in notes_of(play)


def test_a_deadline_in_a_taken_over_plan_stops_only_what_runs(play):
    submit(play, plan=CHAIN, given=(held(play, "a"),))
    play.fires("task-deadline")
    assert [one.step_id for one in play.outputs_of(StepCancelRequested)] == ["b"]
    assert "waiting for: b" in play.only_output(TaskEnded).failure.message
