"""Progress: one decision tells its facts in one message, in their order, where they fit."""

from hypothesis import given
from hypothesis import strategies as st

from bulkhead.flow import Send, SetTimer
from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.plan import Plan, PlanAdopted, PlanRejected, PlanStep
from bulkhead_contracts.result import Label, Result
from bulkhead_contracts.step import StepAssigned, StepCancelRequested
from bulkhead_contracts.task import (
    Progressed,
    StepEnded,
    StepStarted,
    TaskAccepted,
    TaskEnded,
    TaskLimits,
    TaskStopped,
    list_facts,
)
from bulkhead_services.planner.core import Planner
from bulkhead_services.planner.progress import MAX_BYTES, merge_progress
from tests.playbook import Playbook
from tests.unit.services.planner.test_playbook import DIAMOND, accepts, answers, rejects, submit

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
    found = [fact for one in outputs if isinstance(one, Send) and one.to == "gateway" for fact in list_facts(one.body)]
    return [one.model_copy(update={"ended_steps": ()}) if isinstance(one, TaskEnded) else one for one in found]


def others(outputs) -> list:
    return [one for one in outputs if not (isinstance(one, Send) and one.to == "gateway")]


def gateway(*bodies) -> tuple[Send, ...]:
    return tuple(Send("gateway", body) for body in bodies)


def test_a_step_that_ends_while_the_next_begins_is_one_message():
    play = Playbook(Planner())
    submit(play)
    play.says(TaskAccepted, ModelCallRequested)
    answers(play, DIAMOND)
    play.says(StepAssigned, StepAssigned, Progressed)
    assert [type(one) for one in list_facts(play.only_output(Progressed))] == [PlanAdopted, StepStarted, StepStarted]
    accepts(play, "a")
    play.says(StepEnded)
    accepts(play, "b")
    play.says(StepAssigned, Progressed)
    assert [one.step_id for one in list_facts(play.only_output(Progressed))] == ["b", "c"]
    rejects(play, "c")
    play.says(StepAssigned, Progressed)
    accepts(play, "c", 2)
    play.says(TaskEnded)
    play.replays()


def test_a_task_that_comes_with_its_plan_begins_with_one_message():
    play = Playbook(Planner())
    submit(play, plan=CHAIN)
    play.says(StepAssigned, Progressed)
    assert [type(one) for one in list_facts(play.only_output(Progressed))] == [TaskAccepted, PlanAdopted, StepStarted]


def test_steps_whose_time_is_up_together_are_told_in_their_order():
    play = Playbook(Planner())
    submit(play, limits=TaskLimits(deadline_ms=600_000))
    answers(play, DIAMOND)
    play.fires(next(key for key in play.timers if key.startswith("steps-")))
    told_of = [(type(fact), fact.step_id) for fact in told(play.outputs)]
    assert told_of == [(StepEnded, "a"), (StepStarted, "a"), (StepEnded, "b"), (StepStarted, "b")]
    play.says(StepCancelRequested, StepAssigned, Progressed, StepCancelRequested, StepAssigned, Progressed)


FACTS = st.one_of(
    st.sampled_from((ACCEPTED, REJECTED, ADOPTED, TaskEnded(status="failed"))),
    st.sampled_from("abc").map(ended),
    st.sampled_from("abc").map(started),
)
ELSE = st.sampled_from((SetTimer("t", 1), Send("budget", TaskStopped(code="x")), Send("worker", ended("w"))))


@given(st.lists(st.one_of(FACTS.map(lambda body: Send("gateway", body)), ELSE)))
def test_what_is_told_stays_the_same_in_the_same_order_and_nothing_else_changes(outputs):
    after = merge_progress([one for one in outputs if getattr(one, "to", "") != "worker"])
    before = [one for one in outputs if getattr(one, "to", "") != "worker"]
    assert told(after) == told(before) and others(after) == others(before)
    assert len(after) <= len(before)


def test_the_end_tells_of_the_steps_that_ended_with_it():
    [sent] = merge_progress(gateway(ended("a"), ended("b"), TaskEnded(status="succeeded")))
    assert sent.body.ended_steps == (ended("a"), ended("b"))
    assert [type(fact) for fact in list_facts(sent.body)] == [StepEnded, StepEnded, TaskEnded]


def test_the_end_takes_nothing_but_ends_of_steps():
    end = TaskEnded(status="succeeded")
    assert merge_progress(gateway(end)) == gateway(end)
    first, last = merge_progress(gateway(ADOPTED, ended("a"), end))
    assert list_facts(first.body) == (ADOPTED, ended("a")) and last.body == end


def test_what_might_not_fit_together_goes_apart():
    apart = gateway(*(ended(name, result=LARGE) for name in "abcde"), started("f"))
    assert sum(len(one.body.encode()) for one in apart) > MAX_BYTES
    assert merge_progress(apart) == apart
    assert len(merge_progress(apart[-2:])) == 1
