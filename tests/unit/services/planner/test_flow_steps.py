"""Branches, gates, waits and skipped steps, as the planner routes by what workers say of them."""

import pytest

from bulkhead_contracts import bounds
from bulkhead_contracts.control import TimerFired
from bulkhead_contracts.plan import (
    ASK_PERSON,
    Branch,
    BranchCase,
    GateJudge,
    Plan,
    PlanStep,
    PropertyCheck,
    QualityGate,
    TimedWait,
)
from bulkhead_contracts.result import Failure, Label, Result
from bulkhead_contracts.step import StepAssigned, StepCancelRequested, StepFinished, StepPaused
from bulkhead_contracts.task import StepEnded, StepStarted, TaskCancelRequested, TaskEnded, TaskLimits
from bulkhead_contracts.tool import ToolSpec
from bulkhead_services.planner.core import Planner
from tests.playbook import START_UNIX_MS, Playbook
from tests.unit.services.planner.test_playbook import accepts, rejects, submit


def agent(id: str, *inputs: str, **more) -> PlanStep:
    return PlanStep(id=id, title="", instruction=f"do {id}", acceptance="done", inputs=inputs, **more)


def plain(id: str, *inputs: str, **action) -> PlanStep:
    return PlanStep(id=id, title="", instruction="", kind="noop", inputs=inputs, **action)


def branch(id: str, of: str, then: tuple[str, ...], otherwise: tuple[str, ...] = ()) -> PlanStep:
    cases = (BranchCase(test="contains", text="yes", steps=then),)
    return plain(id, of, branch=Branch(of=of, cases=cases, otherwise=otherwise))


def gate(of: str, **changes) -> PlanStep:
    return plain("gate", of, gate=QualityGate(of=of, checks=(PropertyCheck(test="cites"),), **changes))


BRANCHED = Plan(
    steps=(
        agent("ask"),
        branch("which", "ask", ("left",), ("right",)),
        agent("left", "which"),
        agent("more", "left"),
        agent("right", "which"),
        agent("end", "more", "right"),
    )
)
GATED = (agent("write"), gate("write", on_fail="retry", retries=2), agent("end", "gate"))


@pytest.fixture
def play() -> Playbook:
    return Playbook(Planner())


def finishes(play: Playbook, step: str, attempt: int = 1, sender: str = "worker", **more) -> None:
    body = StepFinished(step_id=step, attempt=attempt, plan_version=1, result=Result(), **more)
    play.hears(body, sender=sender)


def assigned(play: Playbook) -> list[str]:
    return [body.step.id for body in play.outputs_of(StepAssigned)]


def test_a_branch_skips_the_steps_of_its_other_cases_and_what_builds_on_them_alone(play):
    submit(play, plan=BRANCHED)
    accepts(play, "ask")
    finishes(play, "which", chosen=("right",))
    assert assigned(play) == ["right"]
    ended = play.only_output(StepEnded)
    assert ended.skipped == ("left", "more") and ended.outcome == "accepted"
    assert ended.result.content == play.add_content("result of ask") and ended.result.standing == "ok"
    accepts(play, "right")
    assert [row.step_id for row in play.only_output(StepAssigned).inputs] == ["right"]
    accepts(play, "end")
    ended = play.only_output(TaskEnded)
    assert (ended.status, ended.steps_done, ended.steps_total) == ("succeeded", 4, 4)
    play.replays()


def test_a_skipped_branch_begins_none_of_its_steps(play):
    steps = (
        agent("ask"),
        branch("which", "ask", ("again",)),
        branch("again", "which", ("pay",), ("refund",)),
        agent("pay", "again", "ask"),
        agent("refund", "again", "ask"),
        agent("end", "ask", "pay", "refund"),
    )
    submit(play, plan=Plan(steps=steps))
    accepts(play, "ask")
    finishes(play, "which", chosen=("ask",))
    assert play.only_output(StepEnded).skipped == ("again", "pay", "refund")
    assert assigned(play) == ["end"]


def test_a_plan_whose_end_is_skipped_answers_with_its_last_result(play):
    submit(play, plan=Plan(steps=(agent("ask"), branch("which", "ask", ("end",)), agent("end", "which"))))
    accepts(play, "ask")
    finishes(play, "which", chosen=("ask",))
    ended = play.only_output(TaskEnded)
    assert ended.status == "succeeded" and ended.result.content == play.add_content("result of ask")


def test_a_choice_that_no_case_has_is_not_believed(play):
    submit(play, plan=BRANCHED)
    accepts(play, "ask")
    finishes(play, "which", chosen=("left", "right"))
    assert play.only_output(StepEnded).outcome == "failed" and assigned(play) == ["which"]


@pytest.mark.parametrize("looking", [gate("ask"), branch("which", "ask", ("end",))])
def test_a_worker_that_knows_no_gates_or_branches_lets_nothing_pass(play, looking):
    submit(play, plan=Plan(steps=(agent("ask"), looking, agent("end", looking.id))))
    accepts(play, "ask")
    for attempt in range(1, bounds.MAX_STEP_ATTEMPTS + 1):
        finishes(play, looking.id, attempt)
    assert "update the workers" in play.only_output(TaskEnded).failure.message


def test_a_gate_repeats_its_step_with_the_reasons_and_nothing_runs_meanwhile(play):
    submit(play, plan=Plan(steps=GATED))
    accepts(play, "write")
    assert assigned(play) == ["gate"]
    finishes(play, "gate", reasons=("it cites no source",))
    again = play.only_output(StepAssigned)
    assert (again.step.id, again.attempt, again.notes) == ("write", 2, ("it cites no source",))
    rejects(play, "write", 2)
    assert play.only_output(StepAssigned).notes == ("it cites no source", "cite the passage")
    accepts(play, "write", 3)
    finishes(play, "gate", 2, chosen=("write",))
    assert assigned(play) == ["end"]
    assert play.only_output(StepAssigned).inputs[0].result.content == play.add_content("result of write")
    play.replays()


def test_a_gate_repeats_its_step_so_often_and_then_the_task_fails_with_the_reasons(play):
    submit(play, plan=Plan(steps=(agent("write"), gate("write", on_fail="retry"), agent("end", "gate"))))
    for attempt in (1, 2):
        accepts(play, "write", attempt)
        finishes(play, "gate", attempt, reasons=("it cites no source",))
    ended = play.only_output(TaskEnded)
    assert ended.status == "failed" and "it cites no source" in ended.failure.message
    assert "no model replaces it" in ended.failure.hint


def judged(on_fail: str = "retry", uncertified: str = "advise", **more) -> Plan:
    judge = GateJudge(question="Is it right?", step="judge", uncertified=uncertified)
    looking = plain("gate", "write", "judge", gate=QualityGate(of="write", on_fail=on_fail, judge=judge, **more))
    return Plan(steps=(agent("write"), agent("judge", "write", role="gate_judge"), looking, agent("end", "gate")))


def judges(play: Playbook, attempt: int, *reasons: str) -> None:
    """The judged step is accepted, its judge answers unchecked, and the gate says what it found."""
    accepts(play, "write", attempt)
    asked = play.only_output(StepAssigned)
    assert (asked.step.id, asked.check, asked.notes) == ("judge", False, ())
    finishes(play, "judge", attempt)
    assert assigned(play) == ["gate"] and play.only_output(StepEnded).result.standing == "ok"
    finishes(play, "gate", attempt, reasons=reasons, chosen=() if reasons else ("write", "judge"))


def test_a_judge_has_its_step_repeated_with_its_reasons_and_judges_anew(play):
    submit(play, plan=judged(retries=2))
    judges(play, 1, "the judge: no fee")
    again = play.only_output(StepAssigned)
    assert (again.step.id, again.attempt, again.notes) == ("write", 2, ("the judge: no fee",))
    judges(play, 2)
    assert assigned(play) == ["end"]
    handed = play.only_output(StepAssigned).inputs[0].result
    assert handed.content == play.add_content("result of write") and handed.standing == "ok"
    play.replays()


@pytest.mark.parametrize("on_fail", ["retry", "fail"])
def test_what_a_judge_fails_goes_on_degraded_or_the_run_fails_where_the_plan_allows_it(on_fail):
    for uncertified in ("advise", "allow"):
        play = Playbook(Planner())
        submit(play, plan=judged(on_fail, uncertified))
        judges(play, 1, "the judge: no fee")
        if on_fail == "retry":
            judges(play, 2, "the judge: no fee")
        if uncertified == "allow":
            ended = play.only_output(TaskEnded)
            assert ended.status == "failed" and "no fee" in ended.failure.message
        else:
            handed = play.only_output(StepAssigned).inputs[0].result
            assert handed.standing == "degraded" and "which is advice: the judge: no fee" in handed.standing_reason
        play.replays()


def test_a_judge_sends_to_a_person(play):
    ask = ToolSpec(name=ASK_PERSON, description="asks", parameters_json="{}", effect="write")
    submit(play, plan=judged("person"), tools=(ask,))
    judges(play, 1, "the judge: no fee")
    assert play.only_output(StepAssigned).step.question.text.endswith("does not pass: the judge: no fee")


def test_a_worker_that_knows_no_judges_lets_nothing_pass(play):
    submit(play, plan=judged())
    accepts(play, "write")
    finishes(play, "judge")
    for attempt in range(1, bounds.MAX_STEP_ATTEMPTS + 1):
        finishes(play, "gate", attempt, chosen=("write",))
    assert "update the workers" in play.only_output(TaskEnded).failure.message


def test_a_gate_asks_a_person_and_hands_on_what_he_lets_pass(play):
    ask = ToolSpec(name=ASK_PERSON, description="asks", parameters_json="{}", effect="write")
    gated = (agent("write"), gate("write", on_fail="person"), agent("end", "gate"))
    submit(play, plan=Plan(steps=gated), tools=(ask,))
    accepts(play, "write")
    assert play.send_of(StepAssigned).step_grant.tools == (), "it has no question yet"
    finishes(play, "gate", reasons=("it cites no source",))
    asking = play.only_output(StepAssigned)
    assert (asking.step.action, asking.attempt, [tool.name for tool in asking.tools]) == ("approval", 2, [ASK_PERSON])
    assert asking.step.question.text == "The result of write does not pass: it cites no source"
    word = play.add_content("approved by ann", "tool_executor")
    finishes(play, "gate", 2, reasons=("ask again",))
    assert play.only_output(StepEnded).outcome == "rejected", "once asked, nobody but the person decides"
    label = Label(
        sha256=word.sha256, kind="tool_result", source=ASK_PERSON, observed_by="tool_executor", step_id="gate"
    )
    finished = StepFinished(step_id="gate", attempt=3, plan_version=1, result=Result(content=word, provenance=(label,)))
    play.hears(finished, sender="worker")
    assert play.only_output(StepAssigned).inputs[0].result.content == play.add_content("result of write")
    play.replays()


def test_a_fresh_attempt_is_told_nothing_of_the_last_one(play):
    submit(play, plan=Plan(steps=(agent("a", retry="fresh"),)))
    rejects(play, "a")
    assert play.only_output(StepAssigned).notes == ()


def test_a_gate_that_cannot_be_evaluated_is_not_tried_again(play):
    submit(play, plan=Plan(steps=GATED))
    accepts(play, "write")
    finishes(play, "gate", failure=Failure(code="input_too_large", message="too much"))
    assert "input_too_large" in play.only_output(TaskEnded).failure.message


def test_a_step_that_no_message_can_hold_ends_its_task_by_name(play):
    labels = tuple(Label(sha256=f"{n:064x}", kind="passage", observed_by="rag") for n in range(bounds.MAX_LABELS))
    first = [agent(f"a{number}") for number in range(bounds.MAX_STEP_INPUTS)]
    names = [step.id for step in first]
    submit(play, plan=Plan(steps=(*first, agent("wide", *names), agent("end", "wide"))))
    for name in names:
        accepts(play, name, provenance=labels)
    failure = play.only_output(TaskEnded).failure
    assert failure.code == "step_too_large" and "step wide takes" in failure.message
    assert not assigned(play)


def test_a_wait_is_nobodys_work_and_outlasts_the_time_of_a_step(play):
    plan = Plan(steps=(agent("a"), plain("pause", "a", wait=TimedWait(duration_ms=3_600_000)), agent("b", "pause")))
    submit(play, plan=plan, limits=TaskLimits(deadline_ms=7_200_000))
    accepts(play, "a")
    started = play.only_output(StepStarted)
    assert started.until_unix_ms == START_UNIX_MS + 3_600_000 and not assigned(play)
    play.fires(next(key for key in play.timers if key.startswith("steps-")))
    assert not assigned(play), "the timer of the step before it"
    play.fires(f"steps-{started.until_unix_ms}")
    assert assigned(play) == ["b"]
    assert play.only_output(StepAssigned).inputs[0].result.content == play.add_content("result of a")
    play.replays()


def test_no_word_of_a_worker_ends_a_wait_or_prolongs_it(play):
    submit(play, plan=Plan(steps=(plain("pause", wait=TimedWait(duration_ms=30_000)), agent("b", "pause"))))
    finishes(play, "pause")
    finishes(play, "pause", failure=Failure(code="cancelled", message="over"))
    accepts(play, "pause")
    play.hears(StepPaused(step_id="pause", attempt=1, plan_version=1, code="halted"), sender="worker")
    assert not play.outputs and not play.state.pauses
    play.fires(f"steps-{START_UNIX_MS + 30_000}")
    assert assigned(play) == ["b"]


def test_a_branch_waits_for_no_verdict(play):
    submit(play, plan=BRANCHED)
    accepts(play, "ask")
    accepts(play, "which")
    assert assigned(play) == ["which"] and play.only_output(StepEnded).outcome == "rejected"


def test_a_wait_until_a_time_that_is_past_is_over_at_once_and_a_late_timer_ends_nothing(play):
    submit(play, plan=Plan(steps=(plain("pause", wait=TimedWait(until_unix_ms=1)), agent("b", "pause"))))
    due = play.only_output(StepStarted).until_unix_ms
    assert due == START_UNIX_MS
    play.fires(f"steps-{due}")
    assert assigned(play) == ["b"]
    play.hears(TimerFired(key=f"steps-{due}", due_unix_ms=due), sender="planner")
    assert not play.outputs


def test_a_cancel_during_a_wait_stops_nobody(play):
    submit(play, plan=Plan(steps=(plain("pause", wait=TimedWait(duration_ms=30_000)), agent("b", "pause"))))
    play.hears(TaskCancelRequested(), sender="gateway")
    assert play.only_output(TaskEnded).status == "cancelled" and not play.outputs_of(StepCancelRequested)
