"""A drafted plan waits for a person's word, bound to its digest, where the task asks for that."""

import pytest

from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanDecided, PlanProposed, PlanRejected, PlanStep, StepCall
from bulkhead_contracts.provenance import PlannedCall
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.task import TaskEnded, TaskLimits, TaskPaused
from bulkhead_services.planner.core import Planner
from bulkhead_services.planner.ending import TASK_TIMER
from tests.playbook import START_UNIX_MS, Playbook
from tests.unit.services.planner.test_playbook import answers, draft, submit

HOUR_MS = 3_600_000
EDITED = PlanStep(id="z", title="", instruction="do it otherwise", tools=("calculate",), acceptance="done")


@pytest.fixture
def play() -> Playbook:
    play = Playbook(Planner())
    submit(play, approve_plan=True, limits=TaskLimits(deadline_ms=60_000, approval_wait_ms=HOUR_MS))
    return play


def proposed(play: Playbook, call: str = "plan-1-1") -> PlanProposed:
    answers(play, draft({"id": "a"}, {"id": "b", "inputs": ["a"]}), call)
    assert not play.outputs_of(StepAssigned)
    return play.only_output(PlanProposed)


def decides(play: Playbook, proposal: PlanProposed, decision: str, **more) -> None:
    fields = {"token": "as the shell has verified it", "person": "ann", "role": "approver", **more}
    body = PlanDecided(sha256=proposal.sha256, decision=decision, **fields)
    play.hears(body, sender="gateway")


def test_an_approved_plan_runs_and_the_clock_stands_still_until_then(play):
    proposal = proposed(play)
    assert proposal.plan.approval == "in_review" and proposal.until_unix_ms == START_UNIX_MS + HOUR_MS
    paused = play.only_output(TaskPaused)
    assert paused.code == "plan_review" and paused.deadline_unix_ms == START_UNIX_MS + 60_000 + HOUR_MS
    play.at_second(1_800)
    decides(play, proposal, "approve")
    assert [body.step.id for body in play.outputs_of(StepAssigned)] == ["a"]
    assert play.only_output(PlanAdopted).plan.approval == "approved"
    assert play.only_output(TaskPaused).deadline_unix_ms == START_UNIX_MS + 60_000 + 1_800_000
    decides(play, proposal, "reject")
    assert not play.outputs, "the first word counts"
    play.replays()


def test_a_word_on_another_plan_decides_nothing(play):
    proposal = proposed(play)
    decides(play, proposal.model_copy(update={"sha256": "0" * 64}), "approve")
    assert not play.outputs
    answers(play, draft({"id": "a"}))
    assert not play.outputs, "the same reply, once more"


def test_a_word_without_a_verified_token_decides_nothing(play):
    proposal = proposed(play)
    decides(play, proposal, "approve", token="")
    assert not play.outputs


def test_a_reference_of_an_edited_plan_is_no_flow(play):
    call = StepCall(tool="calculate", arguments_json='{"expression": {"$from": "z", "field": "/total"}}')
    first = PlanStep(id="z", title="", instruction="", kind="noop", call=StepCall(tool="calculate"))
    second = PlanStep(id="y", title="", instruction="", kind="noop", inputs=("z",), call=call)
    decides(play, proposed(play), "approve", plan=Plan(steps=(first, second)))
    assert play.send_of(StepAssigned).step_grant.flows == (), "an edit says nothing that nobody is asked about"


def test_a_rejected_plan_ends_the_task_with_the_reason(play):
    decides(play, proposed(play), "reject", reason="it pays twice")
    failure = play.only_output(TaskEnded).failure
    assert failure.code == "plan_not_approved" and failure.message == "ann did not approve the plan: it pays twice"


def test_another_draft_is_told_the_reason_so_many_times(play):
    for number in range(1, bounds.MAX_REVIEWED_DRAFTS):
        decides(play, proposed(play, f"plan-1-{number}"), "reject", reason="it pays twice", redraft=True)
        [notes] = [part.text for part in play.only_output(ModelCallRequested).parts if part.kind == "notes"]
        assert "it pays twice" in notes
    decides(play, proposed(play, f"plan-1-{bounds.MAX_REVIEWED_DRAFTS}"), "reject", redraft=True)
    assert play.only_output(TaskEnded).failure.code == "plan_not_approved"
    play.replays()


def test_an_edited_plan_runs_in_its_place(play):
    decides(play, proposed(play), "approve", plan=Plan(steps=(EDITED,)))
    assert play.only_output(StepAssigned).step == EDITED


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tools": ("steal",)}, "tool_not_granted"),
        ({"calls": (PlannedCall(tool="calculate"),)}, "bound_changed"),
        ({"adopted": True, "kind": "noop"}, "bound_changed"),
        ({"role": "lawyer"}, "role_not_granted"),
    ],
)
def test_an_edited_plan_can_do_no_more_than_a_draft_and_the_proposed_one_goes_on_waiting(play, changes, code):
    proposal = proposed(play)
    decides(play, proposal, "approve", plan=Plan(steps=(EDITED.model_copy(update=changes),)))
    assert code in [note.code for note in play.only_output(PlanRejected).notes]
    decides(play, proposal, "approve")
    assert play.only_output(StepAssigned).step.id == "a"


def test_a_plan_that_nobody_decides_about_ends_the_task_at_its_deadline(play):
    proposed(play)
    play.fires(f"{TASK_TIMER}-{START_UNIX_MS + 60_000 + HOUR_MS}")
    assert "the plan waits for a person" in play.only_output(TaskEnded).failure.message


def test_the_objective_as_one_step_waits_too_where_no_draft_can_be_used(play):
    for number in range(1, bounds.MAX_PLAN_DRAFTS + 1):
        answers(play, "no plan", f"plan-1-{number}")
    assert play.only_output(PlanProposed).plan.notes[0].code == "no_draft"


def test_a_submitted_plan_is_a_persons_already():
    play = Playbook(Planner())
    submit(play, approve_plan=True, plan=Plan(steps=(EDITED,)))
    assert play.only_output(StepAssigned).step == EDITED
