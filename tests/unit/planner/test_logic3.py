"""Logic 3 of the planner: one decision tells its progress in one message. What it tells is what logic 2 tells."""

from hypothesis import given
from hypothesis import strategies as st

from bulkhead.flow import Send, SetTimer
from bulkhead.testing.playbook import Playbook
from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanRejected, PlanStep
from bulkhead_contracts.result import Label, Result
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.task import (
    Progressed,
    StepEnded,
    StepStarted,
    TaskAccepted,
    TaskEnded,
    TaskLimits,
    TaskStopped,
    facts,
)
from bulkhead_services.planner.logic2 import PlannerV2
from bulkhead_services.planner.logic3 import MAX_BYTES, PlannerV3, merged
from tests.unit.planner.test_playbook import DIAMOND, accepts, answers, rejects, submit

CHAIN = Plan(
    steps=tuple(
        PlanStep(id=name, title="", instruction="x", kind="noop", acceptance="done", inputs=inputs)
        for name, inputs in (("a", ()), ("b", ("a",)))
    )
)
ADOPTED = PlanAdopted(plan=CHAIN)
ACCEPTED = TaskAccepted(deadline_unix_ms=9)
REJECTED = PlanRejected(draft=1, notes=())
LABEL = Label(sha256="a" * 64, kind="passage", source="s" * bounds.MAX_SUMMARY_CHARS, observed_by="rag")
LARGE = Result(provenance=(LABEL,) * bounds.MAX_LABELS)


def ended(step: str, **more) -> StepEnded:
    return StepEnded(step_id=step, attempt=1, plan_version=1, outcome="accepted", **more)


def started(step: str) -> StepStarted:
    return StepStarted(step_id=step, title="", attempt=1, plan_version=1)


def told(outputs) -> list:
    return [fact for one in outputs if isinstance(one, Send) and one.to == "gateway" for fact in facts(one.body)]


def others(outputs) -> list:
    return [one for one in outputs if not (isinstance(one, Send) and one.to == "gateway")]


def gateway(*bodies) -> tuple[Send, ...]:
    return tuple(Send("gateway", body) for body in bodies)


def test_a_step_that_ends_while_the_next_begins_is_one_message():
    play = Playbook(PlannerV3())
    submit(play)
    play.says(TaskAccepted, ModelCallRequested)
    answers(play, DIAMOND)
    play.says(StepAssigned, StepAssigned, Progressed)
    assert [type(one) for one in facts(play.said(Progressed))] == [PlanAdopted, StepStarted, StepStarted]
    accepts(play, "a")
    play.says(StepEnded)
    accepts(play, "b")
    play.says(StepAssigned, Progressed)
    assert [one.step_id for one in facts(play.said(Progressed))] == ["b", "c"]
    rejects(play, "c")
    play.says(StepAssigned, Progressed)
    accepts(play, "c", 2)
    play.says(StepEnded, TaskEnded)
    play.replays()


def test_a_task_that_comes_with_its_plan_begins_with_one_message():
    play = Playbook(PlannerV3())
    submit(play, plan=CHAIN)
    play.says(StepAssigned, Progressed)
    assert [type(one) for one in facts(play.said(Progressed))] == [TaskAccepted, PlanAdopted, StepStarted]


def test_steps_whose_time_is_up_together_are_told_in_their_order():
    new, old = Playbook(PlannerV3()), Playbook(PlannerV2())
    for play in (new, old):
        submit(play, limits=TaskLimits(deadline_ms=600_000))
        answers(play, DIAMOND)
        play.fires(next(key for key in play.timers if key.startswith("steps-")))
    assert told(new.outputs) == told(old.outputs) and len(old.all_said(StepEnded)) == 2
    assert len(new.outputs) < len(old.outputs)


FACTS = st.one_of(
    st.sampled_from((ACCEPTED, REJECTED, ADOPTED)),
    st.sampled_from("abc").map(ended),
    st.sampled_from("abc").map(started),
)
ELSE = st.sampled_from((SetTimer("t", 1), Send("budget", TaskStopped(code="x")), Send("worker", ended("w"))))


@given(st.lists(st.one_of(FACTS.map(lambda body: Send("gateway", body)), ELSE)))
def test_what_is_told_stays_the_same_in_the_same_order_and_nothing_else_changes(outputs):
    after = merged([one for one in outputs if getattr(one, "to", "") != "worker"])
    before = [one for one in outputs if getattr(one, "to", "") != "worker"]
    assert told(after) == told(before) and others(after) == others(before)
    assert len(after) <= len(before)


def test_the_end_is_a_message_of_its_own():
    outputs = gateway(ended("a"), TaskEnded(status="succeeded"))
    assert merged(outputs) == outputs


def test_what_might_not_fit_together_goes_apart():
    apart = gateway(*(ended(name, result=LARGE) for name in "abcde"), started("f"))
    assert sum(len(one.body.encode()) for one in apart) > MAX_BYTES
    assert merged(apart) == apart
    assert len(merged(apart[-2:])) == 1
