"""Steps of a delegated role are handed to the worker with their delegation, its time and its one tool."""

import pytest

from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.plan import Delegation, Plan, PlanAdopted, PlanRejected, PlanStep, RoleSpec
from bulkhead_contracts.step import StepAssigned, StepCancelRequested
from bulkhead_contracts.task import TaskEnded, TaskLimits
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.planner.core import Planner
from tests.playbook import START_UNIX_MS, Playbook
from tests.unit.services.planner.test_playbook import CALC, accepts, answers, draft, rejects, submit

AGENT = ToolSpec(name="agent_partner", description="a remote agent", parameters_json="{}", effect="write")
OURS = Delegation(role="refunds", to="worker", name="wrk_demo", deadline_ms=300_000)
REMOTE = Delegation(role="partner", to="agent", name="partner", deadline_ms=5_000)


@pytest.fixture
def play() -> Playbook:
    return Playbook(Planner())


def handed(play: Playbook, role: str, **changes) -> StepAssigned:
    step = PlanStep(id="a", title="", instruction="do it", tools=("calculate",), acceptance="done", role=role)
    step = step.model_copy(update=changes)
    limits = TaskLimits(deadline_ms=900_000)
    submit(play, plan=Plan(steps=(step,)), tools=(CALC, AGENT), delegated=(REMOTE, OURS), limits=limits)
    return play.only_output(StepAssigned)


def test_a_program_outside_has_the_steps_tools_and_the_rows_time(play):
    assigned = handed(play, "refunds")
    assert play.send_of(StepAssigned).to == "worker" and assigned.delegated == OURS
    assert [tool.name for tool in assigned.tools] == ["calculate"]
    assert assigned.deadline_unix_ms == START_UNIX_MS + 300_000
    assert play.send_of(StepAssigned).step_grant.tools == ("calculate",)
    play.replays()


def test_a_remote_agent_has_its_own_tool_alone(play):
    assigned = handed(play, "partner")
    assert assigned.delegated == REMOTE and assigned.step.tools == ("calculate",)
    assert play.send_of(StepAssigned).step_grant.tools == ("agent_partner",)
    assert play.state.wrote, "its tool may write, so that the plan is not replaced by itself"
    assert assigned.deadline_unix_ms == START_UNIX_MS + 5_000


@pytest.mark.parametrize(
    ("role", "effect", "code"),
    [("partner", "write", "uncertain_effect"), ("partner", "read", ""), ("refunds", "write", "")],
)
def test_a_step_whose_time_is_up_is_not_sent_again_to_an_agent_that_may_have_done_it(play, role, effect, code):
    step = PlanStep(id="a", title="", instruction="do it", acceptance="done", role=role)
    tools = (AGENT.model_copy(update={"effect": effect}),)
    submit(
        play, plan=Plan(steps=(step,)), tools=tools, delegated=(REMOTE, OURS), limits=TaskLimits(deadline_ms=900_000)
    )
    play.fires(next(key for key in play.timers if key.startswith("steps-")))
    assert play.send_of(StepCancelRequested).body.attempt == 1
    if code:
        assert play.only_output(TaskEnded).failure.code == code and len(play.outputs_of(StepAssigned)) == 0
    else:
        assert play.only_output(StepAssigned).attempt == 2
    play.replays()


@pytest.mark.parametrize("changes", [{"role": "step"}, {"role": "refunds", "kind": "noop"}], ids=["step", "noop"])
def test_other_steps_stay_in_the_mesh(play, changes):
    assert handed(play, changes.pop("role"), **changes).delegated is None


# Plans that a model makes

ROLES = (RoleSpec(name="partner", description="Books hotels."), RoleSpec(name="refunds"))


def asked(play: Playbook, **changes) -> ModelCallRequested:
    """The call that drafts the plan of a task that is granted both roles."""
    submit(play, **{"tools": (CALC, AGENT), "delegated": (REMOTE, OURS), "roles": ROLES, **changes})
    return play.only_output(ModelCallRequested)


def test_the_model_is_told_the_roles_and_its_step_is_delegated(play):
    call = asked(play, limits=TaskLimits(deadline_ms=900_000))
    assert call.roles == ("partner", "refunds")
    assert [part.text for part in call.parts if part.title == "roles"] == ["partner: Books hotels.\nrefunds"]
    answers(play, draft({"id": "a", "role": "refunds", "tools": ["calculate"]}, {"id": "b", "role": "step"}))
    first, second = play.outputs_of(StepAssigned)
    assert (first.delegated, second.delegated) == (OURS, None)
    assert first.step.role == "refunds" and [tool.name for tool in first.tools] == ["calculate"]
    play.replays()


def test_an_agents_step_of_a_drafted_plan_has_its_one_tool(play):
    asked(play)
    answers(play, draft({"id": "a", "role": "partner", "tools": ["calculate"]}))
    assert play.only_output(StepAssigned).delegated == REMOTE
    assert play.send_of(StepAssigned).step_grant.tools == ("agent_partner",)


def test_a_task_without_roles_pays_for_none_and_what_its_model_says_of_roles_counts_for_nothing(play):
    call = asked(play, delegated=(), roles=())
    assert "roles" not in call.model_dump(mode="json")
    assert [part.kind for part in call.parts] == ["objective", "tools"]
    answers(play, draft({"id": "a", "role": "refunds"}))
    assert (
        play.only_output(PlanAdopted).plan.steps[0].role == "step" and play.only_output(StepAssigned).delegated is None
    )


def test_a_role_that_is_not_granted_is_refused_by_name_and_the_model_is_told(play):
    asked(play)
    answers(play, draft({"id": "a", "role": "Letter Writers"}))
    [note] = play.only_output(PlanRejected).notes
    said = "step a wants role letter_writers; granted are: partner, refunds; step stands for no role"
    assert (note.code, note.step_id, note.message) == ("role_not_granted", "a", said)
    again = play.only_output(ModelCallRequested)
    assert again.prompt_id == "planner.revise" and again.roles == ("partner", "refunds")
    assert said in next(part.text for part in again.parts if part.kind == "notes")
    answers(play, draft({"id": "a", "role": "refunds"}), again.call_id)
    assert play.only_output(StepAssigned).delegated == OURS
    play.replays()


def test_a_granted_delegation_that_the_model_was_not_told_of_is_refused(play):
    asked(play, roles=ROLES[:1])
    answers(play, draft({"id": "a", "role": "refunds"}))
    assert [note.code for note in play.only_output(PlanRejected).notes] == ["role_not_granted"]


@pytest.mark.parametrize(
    ("said", "role"),
    [
        ("", "step"),
        (None, "step"),
        ("step", "step"),
        ("Worker", "step"),
        ("N/A", "step"),
        ({"name": "refunds"}, "refunds"),
        (["refunds"], "refunds"),
        ("Refunds", "refunds"),
    ],
)
def test_a_role_is_read_as_models_write_it(play, said, role):
    asked(play)
    answers(play, draft({"id": "a", "role": said}))
    assert play.only_output(PlanAdopted).plan.steps[0].role == role


@pytest.mark.parametrize("said", [["refunds", "partner"], "3rd party", "???", "x" * 500, 7])
def test_a_role_that_leaves_open_what_is_meant_is_refused(play, said):
    asked(play)
    answers(play, draft({"id": "a", "role": said}))
    assert [note.code for note in play.only_output(PlanRejected).notes] == ["role_not_granted"]


def test_a_plan_in_a_submitted_ones_place_delegates_no_more_steps_and_keeps_what_is_done(play):
    steps = (
        PlanStep(id="a", title="", instruction="do it", acceptance="says so", role="refunds"),
        PlanStep(id="b", title="", instruction="do it", acceptance="says so", inputs=("a",)),
    )
    submit(play, plan=Plan(steps=steps), tools=(CALC,), delegated=(OURS,), roles=ROLES[1:])
    accepts(play, "a")
    for attempt in (1, 2, 3):
        rejects(play, "b", attempt)
    call = play.only_output(ModelCallRequested)
    assert '"role": "refunds"' in next(part.text for part in call.parts if part.kind == "notes")
    twice = draft({"id": "a", "role": "refunds"}, {"id": "b", "role": "refunds", "inputs": ["a"]})
    answers(play, twice, call.call_id)
    assert [note.code for note in play.only_output(PlanRejected).notes] == ["more_effects"]
    answers(
        play,
        draft({"id": "a", "role": "refunds"}, {"id": "b", "inputs": ["a"]}),
        play.only_output(ModelCallRequested).call_id,
    )
    assert [one.step.id for one in play.outputs_of(StepAssigned)] == ["b"], "the delegated step's result is taken over"
    play.replays()
