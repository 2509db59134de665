"""A step that is carried out elsewhere: one call, whose answer is proposed; early, late, repeated and missing words."""

import json

import pytest

from bulkhead.flow.content import reference
from bulkhead_contracts import bounds
from bulkhead_contracts.control import CallDeferred, CallResumed
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.plan import Delegation, PlanStep
from bulkhead_contracts.result import Completeness, ContentRef, Failure, Label, Omission, Result, Usage
from bulkhead_contracts.step import (
    DelegationReplied,
    DelegationRequested,
    StepCancelRequested,
    StepExtended,
    StepFinished,
    StepInput,
    StepPaused,
    StepProposed,
)
from bulkhead_contracts.tool import ToolCallCancelRequested, ToolCallReplied, ToolCallRequested, ToolSpec
from bulkhead_services.worker.core import Worker
from tests.playbook import START_UNIX_MS, Playbook
from tests.unit.services.worker.test_playbook import assign

OURS = Delegation(role="refunds", to="worker", name="wrk_demo")
REMOTE = Delegation(role="refunds", to="agent", name="partner")
AGENT = ToolSpec(name="agent_partner", description="a remote agent", parameters_json="{}")
STEP = PlanStep(id="s1", title="Refund", instruction="say what is refunded", acceptance="an amount", role="refunds")


@pytest.fixture
def play() -> Playbook:
    return Playbook(Worker())


def replies(play: Playbook, call_id: str, **changes) -> None:
    ref = play.add_content("Of 100.00 he gets 60.00 back.", "doors")
    body = DelegationReplied(
        call_id=call_id,
        step_id="s1",
        outcome="succeeded",
        content=ref,
        provenance=(Label(sha256=ref.sha256, kind="tool_result", source="wrk_demo", observed_by="doors"),),
        usage=Usage(model_calls=2, cost_usd_micros=9),
        tries=1,
    )
    play.hears(body.model_copy(update=changes), sender="doors")


def handed(play: Playbook, **changes) -> DelegationRequested:
    assign(play, step=STEP, delegated=OURS, **changes)
    play.says(DelegationRequested)
    return play.only_output(DelegationRequested)


def test_a_program_outside_answers_and_its_answer_is_proposed(play):
    given = StepInput(step_id="s0", result=Result(content=play.add_content("a claim")))
    asked = handed(play, inputs=(given,))
    assert (asked.delegated, asked.step, asked.inputs, asked.attempt) == (OURS, STEP, (given,), 1)
    sent = play.send_of(DelegationRequested)
    assert (sent.to, sent.grant) == ("doors", "step-token")
    replies(play, asked.call_id)
    play.says(StepProposed)
    proposed = play.only_output(StepProposed)
    assert proposed.usage == Usage(model_calls=2, cost_usd_micros=9)
    assert proposed.result.content.author == "doors" and proposed.result.standing == "ok"
    assert [(row.kind, row.trust) for row in proposed.result.provenance] == [("tool_result", "untrusted")]
    assert not play.outputs_of(ModelCallRequested)
    play.replays()


def test_a_reply_that_is_early_late_or_repeated_changes_nothing(play):
    replies(play, "f" * 32)
    play.says()
    asked = handed(play)
    play.hears_again(1)
    play.says()
    replies(play, asked.call_id)
    play.says(StepProposed)
    replies(play, asked.call_id, content=play.add_content("another answer", "doors"))
    play.says()
    play.replays()


def test_a_failure_and_an_empty_answer_end_the_attempt_by_name(play):
    asked = handed(play)
    nobody = Failure.from_text("not_answered", "nobody answered in time", "is wrk_demo up?")
    replies(play, asked.call_id, outcome="failed", failure=nobody, content=None)
    finished = play.only_output(StepFinished)
    assert finished.failure == nobody and finished.usage.cost_usd_micros == 9
    assign(play, attempt=2, step=STEP, delegated=OURS)
    again = play.only_output(DelegationRequested)
    assert again.call_id != asked.call_id
    replies(play, again.call_id, content=None)
    assert play.only_output(StepFinished).failure.code == "empty_answer"


def test_what_the_answer_lacks_goes_on_with_it(play):
    cut = Completeness.with_omissions(Omission(reason="truncated", what="the last page"))
    replies(play, handed(play).call_id, completeness=cut, standing="degraded", standing_reason="an old price list")
    result = play.only_output(StepProposed).result
    assert (result.standing, result.standing_reason, result.completeness) == ("degraded", "an old price list", cut)


def test_a_cancelled_attempt_ends_when_doors_have_said_what_was_spent(play):
    asked = handed(play)
    play.hears(StepCancelRequested(step_id="s1", attempt=1, plan_version=1, reason="enough"), sender="planner")
    play.says(StepCancelRequested)
    assert (play.send_of(StepCancelRequested).to, play.send_of(StepCancelRequested).grant) == ("doors", "step-token")
    gone = Failure.from_text("cancelled", "enough")
    replies(play, asked.call_id, outcome="failed", failure=gone, content=None)
    assert play.only_output(StepFinished).failure == gone and play.only_output(StepFinished).usage.cost_usd_micros == 9
    play.hears(StepCancelRequested(step_id="s1", attempt=1, plan_version=1, reason="again"), sender="planner")
    play.says()


def test_more_time_reaches_doors_under_the_same_id(play):
    asked = handed(play)
    later = StepExtended(step_id="s1", attempt=1, plan_version=1, deadline_unix_ms=START_UNIX_MS + 90_000)
    play.hears(later, sender="planner", grant="longer")
    play.says(DelegationRequested)
    again = play.only_output(DelegationRequested)
    assert (again.call_id, again.deadline_unix_ms) == (asked.call_id, START_UNIX_MS + 90_000)
    assert play.send_of(DelegationRequested).grant == "longer"
    replies(play, asked.call_id)
    play.hears(later, sender="planner", grant="longer")
    play.says()


def called(play: Playbook, **changes) -> ToolCallRequested:
    assign(play, step=STEP, delegated=REMOTE, tools=(AGENT,), **changes)
    play.says(ToolCallRequested)
    return play.only_output(ToolCallRequested)


def test_a_remote_agent_is_one_call_of_its_tool_with_inputs_by_reference(play):
    claim = play.add_content("a claim " * 40)
    before = (
        StepInput(step_id="s0", title="Claim", result=Result(content=claim)),
        StepInput(step_id="n", result=Result()),
    )
    asked = called(play, inputs=before, notes=("name the amount",))
    assert (asked.tool, play.send_of(ToolCallRequested).to) == ("agent_partner", "tool_executor")
    assert json.loads(asked.arguments_json) == {
        "text": "Refund\nsay what is refunded\nAcceptance: an amount",
        "inputs": [
            {
                "step": "s0",
                "title": "Claim",
                "content": {
                    "author": "model_gateway",
                    "sha256": claim.sha256,
                    "size_bytes": 320,
                    "media_type": "text/plain",
                },
            },
            {"step": "n", "title": "", "text": ""},
        ],
        "notes": ["name the amount"],
    }
    ref = play.add_content("60.00", "tool_executor")
    body = ToolCallReplied(call_id=asked.call_id, step_id="s1", outcome="succeeded", content=ref)
    play.hears(body.model_copy(update={"usage": Usage(tool_calls=1)}), sender="tool_executor")
    assert play.only_output(StepProposed).result.content == ref and play.only_output(StepProposed).usage.tool_calls == 1
    play.replays()


def test_a_remote_agent_gets_an_input_that_its_reference_carries(play):
    carried = reference("checker", b"It is 40.")
    asked = called(play, inputs=(StepInput(step_id="s0", result=Result(content=carried)),))
    [told] = json.loads(asked.arguments_json)["inputs"]
    assert ContentRef.model_validate(told["content"]).carried_text == "It is 40."


def test_a_remote_agent_is_told_what_its_inputs_lack(play):
    lacks = Completeness.with_omissions(*(Omission(reason="truncated", what=f"page {n}") for n in range(1, 11)))
    degraded = Result(standing="degraded", standing_reason="an old price list", completeness=lacks)
    asked = called(play, inputs=(StepInput(step_id="s0", result=degraded), StepInput(step_id="s9", result=Result())))
    first, second = json.loads(asked.arguments_json)["inputs"]
    assert first["standing"] == "degraded: an old price list"
    assert first["lacks"] == [*(f"page {n}" for n in range(1, 9)), "2 more parts"]
    assert not {"standing", "lacks"} & second.keys()


def test_a_silent_or_broken_agent_ends_the_attempt_by_name(play):
    asked = called(play)
    away = Failure.from_text("agent_unreachable", "partner does not answer", "ask who runs it")
    body = ToolCallReplied(call_id=asked.call_id, step_id="s1", outcome="failed", failure=away)
    play.hears(body, sender="tool_executor")
    assert play.only_output(StepFinished).failure == away


def test_a_call_that_is_put_off_is_made_again_once(play):
    asked = called(play)
    held = CallDeferred(call_id=asked.call_id, after_ms=500, paused=True, code="breaker_open", reason="it fails")
    play.hears(held, sender="tool_executor")
    play.hears(CallResumed(call_id=asked.call_id), sender="tool_executor")
    assert play.only_output(ToolCallRequested).call_id == asked.call_id
    play.fires(f"again-{asked.call_id}")
    play.says()


def test_a_step_that_no_call_can_carry_says_so(play):
    assign(play, step=STEP.model_copy(update={"instruction": '"' * bounds.MAX_INSTRUCTION_CHARS}), delegated=REMOTE)
    assert play.only_output(StepFinished).failure.code == "step_too_long"
    assign(play, attempt=2, step=STEP, delegated=REMOTE, tools=())
    assert play.only_output(StepFinished).failure.code == "agent_not_granted"


def test_a_cancel_of_a_step_reaches_the_call_of_its_remote_agent(play):
    asked = called(play)
    play.hears(StepCancelRequested(step_id="s1", attempt=1, plan_version=1, reason="no more"), sender="planner")
    play.says(ToolCallCancelRequested, StepFinished)
    stop = play.only_output(ToolCallCancelRequested)
    assert (stop.call_id, stop.tool) == (asked.call_id, "agent_partner")
    assert (play.send_of(ToolCallCancelRequested).to, play.send_of(ToolCallCancelRequested).grant) == (
        "tool_executor",
        "step-token",
    )


def test_a_program_whose_calls_are_held_back_has_a_step_that_waits(play):
    asked = handed(play)
    held = CallDeferred(call_id=asked.call_id, after_ms=500, paused=True, code="task_halted", reason="look first")
    play.hears(held, sender="doors")
    play.says(StepPaused)
    assert (play.only_output(StepPaused).active, play.only_output(StepPaused).code) == (True, "task_halted")
    play.hears(held, sender="doors")
    play.says()
    play.hears(CallResumed(call_id=asked.call_id), sender="doors")
    assert play.only_output(StepPaused).active is False
    play.hears(held, sender="doors")
    replies(play, asked.call_id)
    play.says(StepPaused, StepProposed)
    play.replays()
