"""A person skips a step of the running plan: where the plan lets him, by a signed word that is bound to its digest."""

import pytest

from bulkhead_contracts.plan import ASK_PERSON, Plan, PlanAdopted, PlanDecided, PlanRejected, StepCall, TimedWait
from bulkhead_contracts.result import Failure, Result
from bulkhead_contracts.step import StepAssigned, StepCancelRequested, StepFinished
from bulkhead_contracts.task import StepEnded, TaskEnded, TaskLimits, TaskPaused
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.planner.core import Planner
from bulkhead_services.planner.ending import TASK_TIMER
from tests.playbook import START_UNIX_MS, Playbook
from tests.unit.services.planner.test_flow_steps import agent, assigned, gate, plain
from tests.unit.services.planner.test_playbook import accepts, rejects, submit

LIMITS = TaskLimits(deadline_ms=60_000, approval_wait_ms=3_600_000)
WRITE = ToolSpec(name="pay", description="", parameters_json="{}", effect="write")


@pytest.fixture
def play() -> Playbook:
    return Playbook(Planner())


def begin(play: Playbook, *steps, **more) -> str:
    """Submit these steps; the digest of the plan that runs."""
    submit(play, plan=Plan(steps=steps), limits=LIMITS, **more)
    return play.only_output(PlanAdopted).plan.steps_sha256


def skips(play: Playbook, sha256: str, step: str = "extra", **more) -> None:
    fields = {"decision": "approve", "token": "as the shell has verified it", "person": "bob", "role": "approver"}
    body = PlanDecided(sha256=sha256, skip=step, reason="it is late", **fields | more)
    play.hears(body, sender="gateway")


def fails(play: Playbook, step: str, attempt: int, code: str = "no_answer") -> None:
    failure = Failure.from_text(code, "it broke")
    play.hears(
        StepFinished(step_id=step, attempt=attempt, plan_version=1, result=Result(), failure=failure), sender="worker"
    )


def test_what_builds_on_a_skipped_step_goes_on_without_it_and_the_answer_says_so(play):
    sha256 = begin(play, agent("ask"), agent("extra", "ask", skippable=True), agent("end", "ask", "extra"))
    accepts(play, "ask")
    skips(play, sha256)
    ended = play.only_output(StepEnded)
    assert (ended.step_id, ended.outcome, ended.skipped, ended.result) == ("extra", "failed", ("extra",), None)
    assert ended.reasons == ("bob skipped step extra: it is late",)
    assert play.only_output(StepCancelRequested).step_id == "extra"
    ask, extra = play.only_output(StepAssigned).inputs
    assert ask.result.content is not None and extra.result.content is None and extra.result.standing == "degraded"
    accepts(play, "extra")
    assert not play.outputs_of(StepEnded), "its worker's word is late"
    skips(play, sha256)
    assert not play.outputs, "twice is once"
    accepts(play, "end")
    ended = play.only_output(TaskEnded)
    assert ended.status == "succeeded" and "bob skipped step extra" in ended.result.standing_reason
    skips(play, sha256)
    assert not play.outputs, "the task has ended"
    play.replays()


@pytest.mark.parametrize(
    "lie", [{"sha256": "0" * 64}, {"token": ""}, {"decision": "reject"}, {"step": "ask"}, {"step": "nothing"}]
)
def test_a_word_that_is_not_on_this_plan_not_signed_or_on_another_step_skips_nothing(play, lie):
    sha256 = begin(play, agent("ask"), agent("extra", skippable=True), agent("end", "ask", "extra"))
    skips(play, **{"sha256": sha256} | lie)
    assert not play.outputs
    skips(play, sha256)
    assert play.only_output(StepEnded).skipped == ("extra",)


def test_a_step_that_failed_for_good_waits_for_a_person_who_may_skip_it(play):
    sha256 = begin(play, agent("extra", skippable=True), agent("other"), agent("end", "extra", "other"))
    for attempt in (1, 2, 3):
        rejects(play, "extra", attempt=attempt)
    paused = play.only_output(TaskPaused)
    assert (paused.code, paused.step_id) == ("step_failed", "extra") and "failed 3 times" in paused.reason
    assert paused.until_unix_ms == START_UNIX_MS + LIMITS.approval_wait_ms
    accepts(play, "other")
    assert not assigned(play)
    skips(play, sha256)
    assert assigned(play) == ["end"] and not play.only_output(TaskPaused).active
    play.replays()


def test_a_failed_step_that_nobody_skips_fails_the_task_when_its_time_is_up(play):
    begin(play, agent("extra", skippable=True), agent("end", "extra"))
    for attempt in (1, 2, 3):
        rejects(play, "extra", attempt=attempt)
    play.fires(f"{TASK_TIMER}-{play.only_output(TaskPaused).deadline_unix_ms}")
    failure = play.only_output(TaskEnded).failure
    assert failure.code == "step_failed" and "step extra" in failure.message and "nobody skipped it" in failure.hint


def test_a_gate_that_is_skipped_hands_on_what_it_did_not_let_pass(play):
    gated = gate("write").model_copy(update={"skippable": True})
    sha256 = begin(play, agent("write"), gated, agent("end", "gate"))
    skips(play, sha256, "gate")
    assert "skip it when write is over" in play.only_output(PlanRejected).notes[0].message
    accepts(play, "write")
    play.hears(
        StepFinished(step_id="gate", attempt=1, plan_version=1, result=Result(), reasons=("no source",)),
        sender="worker",
    )
    assert play.only_output(TaskPaused).code == "step_failed"
    skips(play, sha256, "gate")
    [row] = play.only_output(StepAssigned).inputs
    assert row.result.content == play.add_content("result of write") and row.result.standing == "degraded"


def test_a_wait_ends_when_it_is_skipped_and_what_reads_a_field_of_a_skipped_step_is_skipped_too(play):
    call = StepCall(tool="calculate", arguments_json='{"expression": {"$from": "extra", "field": ""}}')
    reader = plain("reader", "extra", call=call)
    wait = plain("wait", wait=TimedWait(duration_ms=30_000), skippable=True)
    sha256 = begin(play, agent("extra", skippable=True), reader, wait, agent("end", "reader", "wait"))
    skips(play, sha256)
    assert play.only_output(StepEnded).skipped == ("extra", "reader")
    skips(play, sha256, "wait")
    assert assigned(play) == ["end"] and not play.outputs_of(StepCancelRequested), "nobody works on a wait"


def test_a_step_that_may_be_writing_is_not_skipped_and_doubt_about_a_write_is_no_wait(play):
    steps = (agent("extra", tools=("pay",), skippable=True), agent("end", "extra"))
    sha256 = begin(play, *steps, tools=(WRITE,))
    skips(play, sha256)
    assert "may be changing something" in play.only_output(PlanRejected).notes[0].message
    fails(play, "extra", 1, "uncertain_effect")
    assert play.only_output(TaskEnded).failure.code == "uncertain_effect"


def test_a_skipped_last_step_is_no_answer(play):
    sha256 = begin(play, agent("ask"), agent("extra", "ask", skippable=True))
    accepts(play, "ask")
    skips(play, sha256)
    ended = play.only_output(TaskEnded)
    assert ended.status == "succeeded" and ended.result.content == play.add_content("result of ask")
    assert "bob skipped step extra" in ended.result.standing_reason


@pytest.mark.parametrize("step", [plain("extra", question={"text": "May I?"}, skippable=True)])
def test_a_question_to_a_person_cannot_be_skipped(play, step):
    tool = ToolSpec(name=ASK_PERSON, description="", parameters_json="{}")
    submit(play, plan=Plan(steps=(agent("ask"), step)), tools=(tool,))
    assert "leave skippable out" in play.only_output(TaskEnded).failure.message


def test_a_gate_that_is_skipped_while_it_asks_hands_on_what_it_looks_at(play):
    asks = ToolSpec(name=ASK_PERSON, description="", parameters_json="{}", effect="write")
    asking = gate("write", on_fail="person").model_copy(update={"skippable": True})
    sha256 = begin(play, agent("write"), asking, agent("end", "gate"), tools=(asks,))
    accepts(play, "write")
    play.hears(
        StepFinished(step_id="gate", attempt=1, plan_version=1, result=Result(), reasons=("no source",)),
        sender="worker",
    )
    skips(play, sha256, "gate")
    [row] = play.only_output(StepAssigned).inputs
    assert row.result.content is not None and "bob skipped step gate" in row.result.standing_reason


def test_a_task_of_which_every_step_was_skipped_says_so(play):
    sha256 = begin(play, agent("extra", skippable=True))
    skips(play, sha256)
    result = play.only_output(TaskEnded).result
    assert result is not None and "bob skipped step extra" in result.standing_reason
