"""Steps ask each other: results when they are there, questions to those that run, a reason when nothing will come."""

import pytest

from bulkhead.flow import Send
from bulkhead_contracts.model import ModelCallReplied
from bulkhead_contracts.peer import AnswerGiven, AnswerRequested
from bulkhead_contracts.result import Failure, Result
from bulkhead_contracts.step import StepAssigned, StepFinished
from bulkhead_services.planner.core import Planner
from tests.playbook import START_UNIX_MS, Playbook
from tests.unit.services.planner.test_playbook import accepts, answers, rejects, submit

SIDE_BY_SIDE = """{"steps": [
 {"id": "a", "instruction": "do a", "acceptance": "done"},
 {"id": "b", "instruction": "do b", "acceptance": "done"},
 {"id": "c", "instruction": "do c", "acceptance": "done", "inputs": ["a"]},
 {"id": "z", "instruction": "compose", "acceptance": "done", "inputs": ["b", "c"]}]}"""


@pytest.fixture
def play() -> Playbook:
    play = Playbook(Planner())
    submit(play)
    answers(play, SIDE_BY_SIDE)
    assert {one.step.id for one in play.outputs_of(StepAssigned)} == {"a", "b"}
    return play


def asks(play: Playbook, who: str, *whom: str, question: str = "", mode: str = "all", ask: str = "q1") -> None:
    body = AnswerRequested(
        ask_id=ask,
        step_id=who,
        attempt=1,
        plan_version=1,
        targets=whom,
        question=question,
        mode=mode,
        deadline_unix_ms=START_UNIX_MS + 60_000,
    )
    play.hears(body, sender="worker")


def given(play: Playbook) -> dict[str, AnswerGiven]:
    return {one.target: one for one in play.outputs_of(AnswerGiven)}


def test_a_result_is_told_when_it_is_there(play):
    asks(play, "a", "b")
    play.says()
    accepts(play, "b")
    answer = given(play)["b"]
    assert answer.outcome == "answered" and answer.result is not None and answer.step_id == "a"
    assert play.state.asks == ()


def test_a_result_that_is_there_already_is_told_at_once(play):
    accepts(play, "b")
    asks(play, "a", "b")
    assert given(play)["b"].result is not None


def test_a_question_goes_to_who_runs_and_the_opinion_comes_back(play):
    asks(play, "a", "b", question="is it so?")
    handed = play.only_output(AnswerRequested)
    assert handed.targets == ("b",) and handed.question == "is it so?"
    play.hears(AnswerGiven(ask_id="q1", step_id="a", target="b", outcome="answered", text="yes"), sender="worker")
    assert given(play)["b"].text == "yes" and play.state.asks == ()
    accepts(play, "b")
    assert not play.outputs_of(AnswerGiven)


def test_a_question_follows_a_step_into_its_next_attempt(play):
    asks(play, "a", "b", question="is it so?")
    rejects(play, "b")
    assert [one.targets for one in play.outputs_of(AnswerRequested)] == [("b",)]


def test_any_is_over_with_the_first_answer_and_all_with_the_last(play):
    asks(play, "a", "b", "nobody", mode="any")
    assert given(play)["nobody"].failure.code == "unknown_step" and len(play.state.asks) == 1
    asks(play, "b", "a", ask="q2")
    accepts(play, "b")
    assert set(given(play)) == {"b"} and play.state.asks == ()  # b asks nobody any more: it is over.


def test_who_builds_on_the_asker_cannot_be_waited_for(play):
    asks(play, "a", "z", "c")
    assert {one.failure.code for one in given(play).values()} == {"waits_for_asker"} and play.state.asks == ()


def test_a_late_asker_and_a_known_ask_are_ignored(play):
    asks(play, "a", "b")
    asks(play, "a", "b")
    assert len(play.state.asks) == 1
    rejects(play, "a")  # Its next attempt runs now; the one that asked does not.
    assert play.state.asks == ()
    asks(play, "a", "b", ask="q9")
    assert play.state.asks == ()


def test_answers_of_others_than_who_was_asked_are_not_handed_on(play):
    asks(play, "a", "b")
    play.hears(AnswerGiven(ask_id="q1", step_id="a", target="z", outcome="answered", text="me"), sender="worker")
    play.says()
    play.hears(AnswerGiven(ask_id="q1", step_id="b", target="b", outcome="answered", text="me"), sender="worker")
    play.says()
    play.hears(
        AnswerGiven(
            ask_id="q1",
            step_id="a",
            target="b",
            outcome="refused",
            text="no",
            result=Result(),
            failure=Failure(code="x", message="x"),
        ),
        sender="worker",
    )
    told = given(play)["b"]
    assert (told.outcome, told.result, told.failure) == ("answered", None, None)  # An opinion is never a result.


def test_what_cannot_come_any_more_is_said_when_the_plan_is_replaced(play):
    asks(play, "a", "b")
    for attempt in (1, 2, 3):
        failed = StepFinished(
            step_id="b",
            attempt=attempt,
            plan_version=1,
            result=Result(standing="failed"),
            failure=Failure(code="x", message="it broke"),
        )
        play.hears(failed, sender="worker")
    assert play.state.phase == "drafting" and play.state.asks == ()
    play.replays()


def test_the_steps_grant_names_its_role(play):
    sent = [one for one in play.outputs if isinstance(one, Send) and isinstance(one.body, StepAssigned)]
    assert sent and all(one.step_grant.role == one.body.step.role == "step" for one in sent)


def test_a_pause_of_a_draft_has_no_cap():
    from bulkhead_contracts.control import CallDeferred
    from bulkhead_contracts.model import ModelCallRequested

    play = Playbook(Planner())
    submit(play)
    call = play.only_output(ModelCallRequested).call_id
    for _ in range(60):
        play.hears(CallDeferred(call_id=call, after_ms=1_000, reason="halted", paused=True), sender="model_gateway")
        play.fires(f"draft-again-{call}")
        play.says(ModelCallRequested)
    assert play.state.phase == "drafting" and not play.outputs_of(ModelCallReplied)
