"""Drafts as weak models write them: what does no harm is put right; without a plan the objective runs as one step."""

import json

import pytest

from bulkhead.plans import plans
from bulkhead_contracts import bounds
from bulkhead_contracts.control import CallDeferred
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanRejected, PlanStep
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.task import TaskEnded, TaskStopped
from bulkhead_services.planner import drafts
from bulkhead_services.planner.core import Planner
from tests.playbook import Playbook
from tests.unit.services.planner.test_playbook import CALC, PAY, accepts, answers, draft, fails, rejects, submit


@pytest.fixture
def play() -> Playbook:
    return Playbook(Planner())


def read(*rows: object) -> tuple[tuple[PlanStep, ...], dict[str, str]]:
    """Steps of a draft, and its notes: severity by code."""
    reply = ModelCallReplied(call_id="c", outcome="answered", prompt_id="planner.draft")
    steps, notes = drafts.read_reply(reply, json.dumps({"steps": rows, "reasoning": "because"}), (CALC, PAY))
    return steps, {note.code: note.severity for note in notes}


A = {"id": "a", "instruction": "do it", "acceptance": "done"}


@pytest.mark.parametrize(
    ("rows", "inputs", "code"),
    [
        ([A | {"inputs": ["a"]}], [()], "self_input"),
        ([A | {"inputs": ["b"]}, A | {"id": "b", "inputs": ["a"]}], [(), ("a",)], "later_input"),
        (
            [A | {"inputs": ["c"]}, A | {"id": "b", "inputs": ["a"]}, A | {"id": "c", "inputs": ["b"]}],
            None,
            "later_input",
        ),
        ([A | {"inputs": ["b"]}, A | {"id": "b"}], [("b",), ()], ""),
        ([A, A | {"inputs": ["a"]}], [(), ("a",)], "renamed_step"),
        ([A | {"inputs": ["objective"]}], [()], ""),
        ([A, A | {"id": "b", "inputs": "a"}], [(), ("a",)], ""),
        ([A | {"id": 1}, A | {"id": 2, "inputs": [1]}], [(), ("1",)], ""),
        ([A | {"id": "step one"}, A | {"id": "b", "depends_on": [{"id": "step one"}]}], [(), ("step_one",)], ""),
        (["Find it.", "Say it."], [(), ("s1",)], "plain_step"),
        ([A, A | {"id": "b", "inputs": ["a", "a", None]}], [(), ("a",)], ""),
        ([A | {"inputs": None, "tools": None, "title": None}], [()], ""),
    ],
)
def test_inputs_that_do_no_harm_are_put_right_and_said(rows, inputs, code):
    steps, notes = read(*rows)
    assert "error" not in notes.values(), notes
    assert plans.find_cycle(steps) == ()
    if inputs is not None:
        assert [step.inputs for step in steps] == inputs
    assert not code or notes[code] == "warning"


@pytest.mark.parametrize(
    ("row", "field", "value", "code"),
    [
        (A | {"acceptance": " "}, "acceptance", drafts.ACCEPTANCE, "default_acceptance"),
        ({"id": "a", "description": "do it"}, "instruction", "do it", "default_acceptance"),
        (A | {"acceptance": ["x", "y"]}, "acceptance", "x; y", ""),
        (A | {"acceptance": "y" * 9_000}, "acceptance", "y" * bounds.MAX_ACCEPTANCE_CHARS, ""),
        (A | {"tools": ["calculate", "web_browser"]}, "tools", ("calculate",), "tool_left_out"),
        (A | {"tools": ["functions.calculate"]}, "tools", ("calculate",), ""),
        (A | {"tools": [{"name": "calculate"}]}, "tools", ("calculate",), ""),
        (A | {"tools": ["none"]}, "tools", (), ""),
        (A | {"status": "pending", "priority": 1}, "instruction", "do it", ""),
        ({"instruction": "do it", "acceptance": "done"}, "id", "s1", ""),
        (A | {"id": "Größe/1"}, "id", "Gr_e_1", ""),
        (A | {"id": "x" * 300}, "id", "x" * 48, ""),
        (A | {"title": "払い戻し"}, "title", "払い戻し", ""),
    ],
)
def test_a_field_that_can_be_meant_one_way_only_is_taken(row, field, value, code):
    (step,), notes = read(row)
    assert getattr(step, field) == value and "error" not in notes.values()
    assert not code or notes[code] == "warning"


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([A | {"tools": ["web_browser"]}], "tool_not_granted"),
        ([A | {"inputs": ["b"]}], "unknown_input"),
        ([{"id": "a", "acceptance": "done"}], "no_instruction"),
        ([7], "unreadable_plan"),
        ([[A]], "unreadable_plan"),
        ([A | {"instruction": "x" * 9_000}], "unreadable_plan"),
    ],
)
def test_what_leaves_open_what_is_meant_is_refused(rows, code):
    _, notes = read(*rows)
    assert notes[code] == "error"


def test_warnings_stand_in_the_plan_that_runs(play):
    submit(play)
    answers(play, draft({"id": "a", "inputs": ["a"]}))
    (note,) = play.only_output(PlanAdopted).plan.notes
    assert (note.severity, note.code, note.step_id) == ("warning", "self_input", "a")


# The objective as one step


def give_up(play: Playbook, text: str = "I am sorry, I cannot do that.") -> None:
    for number in range(1, bounds.MAX_PLAN_DRAFTS + 1):
        answers(play, text, f"plan-1-{number}")


def test_without_a_draft_the_objective_runs_as_one_step_and_says_so(play):
    submit(play)
    give_up(play)
    (rejected,) = play.outputs_of(PlanRejected)
    plan, assigned = play.only_output(PlanAdopted).plan, play.only_output(StepAssigned)
    assert rejected.draft == bounds.MAX_PLAN_DRAFTS == 2
    (step,), (note,) = plan.steps, plan.notes
    assert step.instruction == "What is refunded?" and step.tools == ("calculate", "pay") and assigned.final
    assert (note.severity, note.code) == ("warning", "no_draft") and "not JSON" in note.message
    accepts(play, "answer")
    ended = play.only_output(TaskEnded)
    assert (ended.status, ended.result.standing) == ("succeeded", "degraded")
    assert ended.result.standing_reason.startswith("no draft could be used; the objective was run as one step")
    play.replays()


def test_a_long_objective_is_referred_to(play):
    submit(play, objective=play.add_content("Find out. " * 100, "gateway"))
    give_up(play)
    said = play.only_output(StepAssigned).step.instruction
    assert said.startswith("Do all that the objective asks. It begins: Find out.") and len(said) < 300


def test_an_objective_that_failed_as_one_step_is_not_drafted_again(play):
    submit(play, tools=())
    give_up(play)
    for attempt in range(1, bounds.MAX_STEP_ATTEMPTS + 1):
        assert not play.outputs_of(ModelCallRequested)
        rejects(play, "answer", attempt)
    play.says(TaskStopped, TaskEnded)
    assert play.only_output(TaskEnded).failure.code == "step_failed"


def test_drafts_are_counted_anew_for_a_plan_that_ran(play):
    submit(play)
    answers(play, draft({"id": "a"}))
    for attempt in range(1, bounds.MAX_STEP_ATTEMPTS + 1):
        rejects(play, "a", attempt)
    answers(play, "no", "plan-2-2")
    assert play.only_output(ModelCallRequested).call_id == "plan-2-3"
    answers(play, "no", "plan-2-3")
    assert play.only_output(PlanAdopted).plan.version == 2 and play.only_output(StepAssigned).step.id == "answer"


@pytest.mark.parametrize("code", ["provider_error", "timeout", "no_answer", "context_overflow"])
def test_a_draft_that_cannot_be_had_does_not_end_the_task(play, code):
    submit(play)
    fails(play, code)
    fails(play, code, "plan-1-2")
    assert play.only_output(StepAssigned).step.id == "answer"


def test_a_draft_that_is_put_off_too_often_does_not_end_the_task(play):
    submit(play)
    for number in (1, 2):
        for _ in range(bounds.MAX_CALL_DEFERRALS + 1):
            play.hears(CallDeferred(call_id=f"plan-1-{number}", after_ms=500), sender="model_gateway")
    assert play.only_output(StepAssigned).step.id == "answer"


def test_a_submitters_own_plan_is_not_replaced_by_the_objective(play):
    submit(play, plan=Plan(steps=(PlanStep(id="n", title="", instruction="x", acceptance="y"),)))
    for attempt in range(1, bounds.MAX_STEP_ATTEMPTS + 1):
        rejects(play, "n", attempt)
    for number in (1, 2):
        answers(play, "no", f"plan-2-{number}")
    assert play.only_output(TaskEnded).failure.code == "plan_rejected"


@pytest.mark.parametrize("code", ["refused_by_budget", "halted"])
def test_money_ends_the_task_at_the_second_draft_too(play, code):
    submit(play)
    answers(play, "no")
    fails(play, code, "plan-1-2")
    assert play.only_output(TaskEnded).status == "halted"
