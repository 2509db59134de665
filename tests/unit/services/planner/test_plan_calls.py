"""Steps whose plan makes the call: the doer's labelled word is their result, without a verdict; what they may, and when
they are not tried again."""

import json

import pytest

from bulkhead_contracts.plan import ASK_PERSON, PLAN_CALL_SOURCE, ApprovalQuestion, MapOver, Plan, PlanStep, StepCall
from bulkhead_contracts.provenance import Flow
from bulkhead_contracts.result import Failure, Label, Result, digest_of
from bulkhead_contracts.step import StepAssigned, StepFinished
from bulkhead_contracts.task import StepEnded, TaskEnded
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.planner.assignments import _referred_flows
from bulkhead_services.planner.core import Planner
from tests.playbook import Playbook
from tests.unit.services.planner.test_playbook import CALC, PAY, accepts, rejects, submit

ASK = ToolSpec(name=ASK_PERSON, description="asks", parameters_json="{}", effect="write")
SUM = PlanStep(
    id="sum",
    title="",
    instruction="",
    kind="noop",
    tools=("calculate", "pay"),
    call=StepCall(tool="calculate", arguments_json="{}"),
)
PAYS = PlanStep(
    id="pays",
    title="",
    instruction="",
    kind="noop",
    inputs=("sum",),
    call=StepCall(tool="pay", arguments_json='{"amount": {"$from": "sum", "field": "/total"}, "to": {"$from": "sum"}}'),
)
ASKS = PlanStep(id="sum", title="", instruction="", kind="noop", question=ApprovalQuestion(text="Well?"))
FLOW = Flow(tool="pay", argument="/amount", step_id="sum", from_tool="calculate", field="/total")


@pytest.fixture
def play() -> Playbook:
    return Playbook(Planner())


def begin(play: Playbook, *steps: PlanStep, trust: str = "user") -> None:
    labels = tuple(
        Label(sha256=sha256, kind="objective", source=source, trust=trust, observed_by="gateway")
        for sha256, source in (
            (digest_of("What is refunded?"), ""),
            *((digest_of(step.call.text_in(step.id)), f"{PLAN_CALL_SOURCE}{step.id}") for step in steps if step.call),
        )
    )
    submit(play, plan=Plan(steps=steps), tools=(CALC, PAY, ASK), labels=labels)


def finish(play: Playbook, step: str, attempt: int = 1, failure: Failure | None = None, **changes) -> None:
    ref = play.add_content("granted" if step == "release" else "2", "tool_executor")
    tool = {"sum": "calculate", "pays": "pay", "release": ASK_PERSON}[step]
    label = Label(sha256=ref.sha256, kind="tool_result", source=tool, observed_by="tool_executor", step_id=step)
    result = Result(content=ref, provenance=(label.model_copy(update=changes),))
    if failure is not None:
        result = Result(standing="failed")
    finished = StepFinished(step_id=step, attempt=attempt, plan_version=1, result=result, failure=failure)
    play.hears(finished, sender="worker")


def test_the_doers_word_is_the_result_as_it_stands(play):
    begin(play, SUM, PAYS)
    assert [tool.name for tool in play.only_output(StepAssigned).tools] == ["calculate"], "what it calls, and no more"
    assert [label.source for label in play.only_output(StepAssigned).labels] == ["", f"{PLAN_CALL_SOURCE}sum"]
    finish(play, "sum")
    finish(play, "pays")
    ended = play.only_output(TaskEnded)
    assert (ended.status, ended.result.standing) == ("succeeded", "ok")
    play.replays()


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "unverified: calculate"},
        {"source": "pay"},
        {"observed_by": "worker"},
        {"step_id": "other"},
        {"sha256": "f" * 64},
        {"kind": "passage"},
    ],
)
def test_a_result_that_the_doer_did_not_label_is_not_accepted(play, changes):
    begin(play, SUM)
    finish(play, "sum", **changes)
    assert play.only_output(StepEnded).outcome == "rejected"
    assert play.only_output(StepAssigned).attempt == 2


@pytest.mark.parametrize("step", [SUM, ASKS])
def test_a_verdict_takes_no_doers_or_persons_place(play, step):
    begin(play, step)
    accepts(play, "sum")
    ended = play.only_output(StepEnded)
    assert ended.outcome == "rejected" and "which no checker judges" in ended.reasons[0]
    assert play.only_output(StepAssigned).attempt == 2


@pytest.mark.parametrize(("trust", "flows"), [("user", (FLOW,)), ("untrusted", ())])
def test_a_reference_to_a_field_of_a_call_is_a_flow_of_who_wrote_the_plan(play, trust, flows):
    begin(play, SUM, PAYS, trust=trust)
    assert play.send_of(StepAssigned).step_grant.flows == flows
    assert play.only_output(StepAssigned).tools[0].feeds == bool(flows)
    finish(play, "sum")
    assert play.send_of(StepAssigned).step_grant.flows == flows, "the whole of a result is no field of it"


def test_a_reference_that_no_flow_can_name_is_none():
    field = "/" + "x" * 120
    call = StepCall(tool="pay", arguments_json=json.dumps({"to": {"$item": field}}))
    pays = PAYS.model_copy(update={"call": call, "over": MapOver(of="sum", field=field)})
    assert _referred_flows((SUM, pays)) == {}


@pytest.mark.parametrize(
    ("step", "code", "is_repeated"),
    [
        (SUM, "timeout", True),
        (SUM, "bad_arguments", False),
        (SUM, "approval_denied", False),
        (ASKS, "approval_denied", False),
        (ASKS, "approval_expired", False),
        (SUM, "uncertain_effect", False),
    ],
)
def test_a_failure_that_would_come_again_ends_the_task(play, step, code, is_repeated):
    begin(play, step)
    failure = Failure.from_text(code, "bob denied it: not now")
    finish(play, "sum", failure=failure)
    if is_repeated:
        assert play.only_output(StepAssigned).attempt == 2
    else:
        assert play.only_output(TaskEnded).failure == failure


def test_a_malformed_call_is_refused_before_anything_runs(play):
    begin(play, SUM, PAYS.model_copy(update={"call": StepCall(tool="pay", arguments_json="[")}))
    assert play.send_of(TaskEnded).body.failure.code == "plan_rejected"


def test_the_grant_of_a_question_names_it(play):
    begin(play, ASKS)
    assert play.send_of(StepAssigned).step_grant.question_sha256 == ASKS.question.signed_sha256


def test_what_a_person_releases_at_the_end_is_the_answer(play):
    release = ASKS.model_copy(update={"id": "release", "inputs": ("sum",)})
    begin(play, SUM, release)
    finish(play, "sum")
    summed = play.state.step("sum").result
    finish(play, "release")
    assert play.only_output(TaskEnded).result.content == summed.content
    play.replays()


def test_a_result_that_was_not_accepted_may_be_shown_to_the_person_who_decides(play):
    draft = PlanStep(id="sum", title="", instruction="Draft it.", acceptance="good")
    release = ASKS.model_copy(update={"id": "release", "inputs": ("sum",)})
    begin(play, draft, release)
    for attempt in (1, 2, 3):
        rejects(play, "sum", attempt, stands=True)
    assert [row.step.id for row in play.outputs_of(StepAssigned)] == ["release"]
    finish(play, "release")
    ended = play.only_output(TaskEnded)
    assert (ended.status, ended.result.standing, play.state.wrote) == ("succeeded", "degraded", False)
    play.replays()
