"""Steps of a delegated role are handed to the worker with their delegation, its time and its one tool."""

import pytest

from bulkhead.testing.playbook import START_UNIX_MS, Playbook
from bulkhead_contracts.plan import Delegation, Plan, PlanStep
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.task import TaskLimits
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.planner.core import Planner
from tests.unit.services.planner.test_playbook import CALC, submit

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
    return play.said(StepAssigned)


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


@pytest.mark.parametrize("changes", [{"role": "step"}, {"role": "refunds", "kind": "noop"}], ids=["step", "noop"])
def test_other_steps_stay_in_the_mesh(play, changes):
    assert handed(play, changes.pop("role"), **changes).delegated is None
