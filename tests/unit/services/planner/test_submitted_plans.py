"""A plan that came with the task: replaced only as the submission lets it be, and by nothing that can do more."""

import pytest

from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanRejected, PlanStep
from bulkhead_contracts.provenance import Flow, PlannedCall, PlannedValue
from bulkhead_contracts.result import Label
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.task import TaskEnded
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.planner.core import Planner
from tests.playbook import Playbook
from tests.unit.services.planner.test_playbook import CALC, PAY, answers, draft, rejects, submit

FETCH = ToolSpec(name="fetch", description="gets a URL", parameters_json="{}", egress=True)
GRANTED = (CALC, FETCH, PAY)
READS = Plan(steps=(PlanStep(id="a", title="", instruction="read it", tools=("calculate",), acceptance="says so"),))
PAYS_LATER = Plan(
    steps=(
        *READS.steps,
        PlanStep(id="b", title="", instruction="pay", tools=("pay",), inputs=("a",), acceptance="paid"),
    )
)
FLOW = Flow(tool="pay", argument="/to", step_id="a", from_tool="calculate", field="/n")


@pytest.fixture
def play() -> Playbook:
    return Playbook(Planner())


def failed_three_times(play: Playbook, plan: Plan, **more) -> None:
    submit(play, plan=plan, tools=GRANTED, **more)
    for attempt in (1, 2, 3):
        rejects(play, "a", attempt)


def test_no_text_adds_a_tool_to_a_submitted_plan(play):
    failed_three_times(play, READS)
    asked = play.only_output(ModelCallRequested)
    assert [part.text for part in asked.parts if part.kind == "tools"] == ["calculate: decimal arithmetic (read)"]
    answers(play, draft({"id": "a", "tools": ["fetch"]}), asked.call_id)
    assert "wants tool fetch; granted are: calculate" in play.only_output(PlanRejected).notes[0].message
    answers(
        play, draft({"id": "a", "tools": ["calculate", "fetch", "pay"]}), play.only_output(ModelCallRequested).call_id
    )
    assert play.only_output(PlanAdopted).plan.steps[0].tools == ("calculate",)
    assert [tool.name for tool in play.only_output(StepAssigned).tools] == ["calculate"]
    play.replays()


def test_no_plan_writes_in_more_steps_than_the_submitted_one(play):
    failed_three_times(play, PAYS_LATER)
    twice = draft({"id": "a", "tools": ["pay"]}, {"id": "b", "tools": ["pay"], "inputs": ["a"]})
    answers(play, twice, play.only_output(ModelCallRequested).call_id)
    assert [note.code for note in play.only_output(PlanRejected).notes] == ["more_effects"]
    once = draft({"id": "a"}, {"id": "b", "tools": ["pay"], "inputs": ["a"]})
    answers(play, once, play.only_output(ModelCallRequested).call_id)
    assert play.only_output(PlanAdopted).plan.version == 2


@pytest.mark.parametrize(
    ("trusts", "flows"), [(("user",), (FLOW,)), (("untrusted",), ()), (("user", "untrusted"), ()), ((), ())]
)
def test_a_plan_lets_values_flow_only_where_a_person_wrote_the_objective(play, trusts, flows):
    labels = tuple(
        Label(sha256=f"{number}" * 64, kind="objective", trust=trust, observed_by="gateway")
        for number, trust in enumerate(trusts)
    )
    flowing = Plan(steps=(PAYS_LATER.steps[0], PAYS_LATER.steps[1].model_copy(update={"flows": (FLOW,)})))
    submit(play, plan=flowing, tools=GRANTED, labels=labels)
    assert play.send_of(StepAssigned).step_grant.flows == flows


def test_the_calls_that_a_submitted_plan_foresees_bound_the_plan_in_its_place(play):
    fetches = PlannedCall(tool="fetch", values=(PlannedValue(argument="/url", text="https://a.example"),))
    step = READS.steps[0].model_copy(update={"tools": ("calculate", "fetch"), "calls": (fetches,)})
    failed_three_times(play, Plan(steps=(step,)))
    other = draft({"id": "z", "tools": ["fetch"]})
    answers(play, other, play.only_output(ModelCallRequested).call_id)
    assert play.send_of(StepAssigned).step_grant.calls == (fetches,)


def test_a_plan_foresees_calls_of_a_steps_own_tools(play):
    step = READS.steps[0].model_copy(update={"calls": (PlannedCall(tool="pay"),)})
    submit(play, plan=Plan(steps=(step,)), tools=GRANTED)
    assert "unknown_call" in str(play.outputs)


@pytest.mark.parametrize("trust", ["user", "untrusted"])
def test_a_figure_is_a_persons_to_give(play, trust):
    label = Label(sha256="0" * 64, kind="objective", trust=trust, observed_by="gateway")
    literal = PlannedValue(argument="/to", text="anna")
    figures = (PlannedValue(argument="/amount", at_most="9"), PlannedValue(argument="/day", calculate="2026-01-01 + 1"))
    paying = PlannedCall(tool="pay", values=(literal, *figures))
    step = READS.steps[0].model_copy(update={"tools": ("pay",), "calls": (paying,)})
    submit(play, plan=Plan(steps=(step,)), tools=GRANTED, labels=(label,))
    [granted] = play.send_of(StepAssigned).step_grant.calls
    assert granted.values == ((literal, *figures) if trust == "user" else (literal,))


def test_a_rule_that_can_state_no_value_is_refused_with_the_plan(play):
    paying = PlannedCall(tool="pay", values=(PlannedValue(argument="/amount", calculate="net * 2"),))
    step = READS.steps[0].model_copy(update={"tools": ("pay",), "calls": (paying,)})
    submit(play, plan=Plan(steps=(step,)), tools=GRANTED)
    assert "unfit_rule" in str(play.outputs) and "'net' is not a number" in str(play.outputs)


def test_a_plan_that_nothing_may_replace_ends_with_its_reason(play):
    failed_three_times(play, READS, replan="none")
    ended = play.only_output(TaskEnded)
    assert ended.status == "failed" and "cite the passage" in ended.failure.message
    assert "replan" in ended.failure.hint
    assert not play.outputs_of(ModelCallRequested)
    play.replays()
