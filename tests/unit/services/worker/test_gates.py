"""Gates and branches in the worker: it reads the one result that they look at, and says what it finds."""

import pytest

from bulkhead_contracts import bounds
from bulkhead_contracts.plan import Branch, BranchCase, GateJudge, PlanStep, PropertyCheck, QualityGate
from bulkhead_contracts.result import Result
from bulkhead_contracts.step import StepFinished, StepInput
from bulkhead_services.worker.core import Worker
from tests.playbook import Playbook
from tests.unit.services.worker.test_playbook import assign

GATE = QualityGate(of="a", checks=(PropertyCheck(test="contains", text="fee"),))
BRANCH = Branch(of="a", field="/n", cases=(BranchCase(test="is", text="1", steps=("x",)),), otherwise=("y",))


@pytest.fixture
def play() -> Playbook:
    return Playbook(Worker())


def looks(play: Playbook, text: str, size_bytes: int = 0, **action) -> StepFinished:
    content = play.add_content(text)
    if size_bytes:
        content = content.model_copy(update={"size_bytes": size_bytes})
    inputs = (
        StepInput(step_id="b", result=Result(content=play.add_content("the fee of another"))),
        StepInput(step_id="a", result=Result(content=content)),
    )
    step = PlanStep(id="s1", title="", instruction="", kind="noop", inputs=("b", "a"), **action)
    assign(play, step=step, inputs=inputs, tools=())
    finished = play.only_output(StepFinished)
    play.replays()
    return finished


def test_a_gate_says_why_a_result_does_not_pass(play):
    finished = looks(play, "the fee is 40", gate=GATE)
    assert (finished.reasons, finished.chosen) == ((), ("a",))


def test_a_gate_looks_at_its_own_step_alone(play):
    assert "does not stand in the answer" in looks(play, "nothing", gate=GATE).reasons[0]


@pytest.mark.parametrize(("text", "chosen"), [('{"n": 1}', "x"), ('{"n": 2}', "y"), ('{"n": 3}', "a")])
def test_a_branch_says_which_steps_it_begins_and_what_it_looked_at_where_none(play, text, chosen):
    nothing = BranchCase(test="is", text="3", steps=())
    branch = BRANCH.model_copy(update={"cases": (*BRANCH.cases, nothing)})
    assert looks(play, text, branch=branch).chosen == (chosen,)


@pytest.mark.parametrize(
    ("text", "size_bytes", "code"),
    [("no JSON", 0, "no_such_field"), ("a" * 400, bounds.MAX_GATE_BYTES + 1, "input_too_large")],
)
def test_a_result_that_cannot_be_looked_at_fails_the_step(play, text, size_bytes, code):
    assert looks(play, text, size_bytes, branch=BRANCH).failure.code == code


def test_a_gate_with_a_judge_looks_at_the_verdict_alone(play):
    gate = QualityGate(of="a", judge=GateJudge(question="right?", step="b"))
    passed, failed = '{"verdict": "pass", "reasons": []}', '{"verdict": "fail", "reasons": ["no fee"]}'
    for verdict, reasons, chosen in ((passed, (), ("a", "b")), (failed, ("the judge: no fee",), ())):
        inputs = tuple(
            StepInput(step_id=name, result=Result(content=play.add_content(text)))
            for name, text in (("a", '{"verdict": "pass", "reasons": []}'), ("b", verdict))
        )
        step = PlanStep(id=f"s{len(reasons)}", title="", instruction="", kind="noop", inputs=("a", "b"), gate=gate)
        assign(play, step=step, inputs=inputs, tools=())
        finished = play.only_output(StepFinished)
        assert (finished.reasons, finished.chosen) == (reasons, chosen)
