"""Failed calls: the result says what it was made without, until the same call has worked."""

import pytest

from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.result import Citation, Failure, Result
from bulkhead_contracts.retrieval import Passage, RetrievalRequested
from bulkhead_contracts.step import StepFinished, StepProposed
from bulkhead_contracts.tool import ToolCallRequested
from bulkhead_services.worker.core import Worker
from tests.playbook import Playbook
from tests.unit.services.worker.test_playbook import assign, computes, finds, label, thinks

LATE = Failure(code="timeout", message="late")
BAD = Failure(code="bad_arguments", message="expression is missing")


@pytest.fixture
def play() -> Playbook:
    play = Playbook(Worker())
    assign(play)
    return play


def does(play: Playbook, *calls: tuple[str, str, Failure | None]) -> None:
    """One turn: a tool, its arguments, and how the call fails."""
    thinks(play, calls=tuple((name, arguments) for name, arguments, _ in calls))
    asked = play.outputs_of(ToolCallRequested)
    for call, (_, _, failure) in zip(asked, calls, strict=True):
        outcome = "succeeded" if failure is None else "refused" if failure is BAD else "failed"
        computes(play, call.call_id, outcome=outcome, failure=failure)


def result(play: Playbook) -> Result:
    thinks(play, text="2")
    return play.only_output(StepProposed).result


def test_a_failed_write_is_told_though_another_call_of_the_tool_worked_beside_it(play):
    does(play, ("pay", '{"to": "ann"}', LATE), ("pay", '{"to": "bob"}', None))
    told = result(play)
    assert told.standing == "degraded" and told.standing_reason == "pay failed"
    assert [(row.what, row.detail) for row in told.completeness.omissions] == [("tool pay", "late")]
    play.replays()


def test_a_failed_call_is_told_though_another_call_of_the_tool_worked_later(play):
    does(play, ("calculate", '{"expression": "1"}', LATE))
    does(play, ("calculate", '{"expression": "2"}', None))
    assert result(play).standing == "degraded"


def test_a_call_that_failed_once_and_then_worked_is_no_loss(play):
    does(play, ("calculate", '{"expression": "1", "digits": 2}', LATE))
    does(play, ("calculate", '{"digits": 2, "expression":"1"}', None))
    assert result(play).standing == "ok"


def test_a_call_that_was_made_wrongly_is_mended_by_one_that_works_later(play):
    does(play, ("calculate", "{}", BAD))
    does(play, ("calculate", '{"expression": "1"}', None))
    assert result(play).standing == "ok"


def test_a_call_that_was_made_wrongly_is_not_mended_by_one_beside_it(play):
    does(play, ("calculate", "{}", BAD), ("calculate", '{"expression": "1"}', None))
    assert result(play).standing == "degraded"


def test_evidence_beyond_its_limit_is_told(play):
    count = bounds.MAX_EVIDENCE // bounds.MAX_PASSAGES + 1
    thinks(play, calls=tuple(("search_documents", f'{{"query": "{number}"}}') for number in range(count)))
    for asked in play.outputs_of(RetrievalRequested):
        refs = [play.add_content(f"{asked.query} {number}", "rag") for number in range(bounds.MAX_PASSAGES)]
        cited = Citation(marker="0" * 12, document="f.md", document_sha256="0" * 64, chunk_id="c", start=0, end=9)
        passages = tuple(Passage(content=ref, citation=cited) for ref in refs)
        finds(play, asked.call_id, passages=passages, provenance=tuple(label(ref, "passage", "rag") for ref in refs))
    play.says(ModelCallRequested)
    [row] = result(play).completeness.omissions
    assert (row.reason, row.what) == ("pruned", f"evidence beyond the first {bounds.MAX_EVIDENCE} pieces")


DENIED = Failure(code="approval_denied", message="bob denied pay: not our vendor")


def test_what_a_person_denied_has_not_failed(play):
    does(play, ("pay", '{"to": "ann"}', DENIED))
    told = result(play)
    assert (told.standing, told.standing_reason) == ("degraded", "bob denied pay: not our vendor")
    [lack] = told.completeness.omissions
    assert (lack.refused, lack.what, lack.detail) == (True, "call of pay", "bob denied pay: not our vendor")


def test_the_same_write_twice_in_a_turn_is_made_once_and_again_in_a_later_turn(play):
    twins = (("pay", '{"to": "ann", "amount": 2}'), ("pay", '{"amount":2, "to":"ann"}'), ("pay", '{"to": "bob"}'))
    thinks(play, calls=twins)
    first, other = play.outputs_of(ToolCallRequested)
    computes(play, first.call_id)
    computes(play, other.call_id)
    [turn] = play.only_output(ModelCallRequested).turns
    told = [answer.error.code if answer.error else "" for answer in turn.answers]
    assert told == ["", "repeated_call", ""]
    thinks(play, calls=twins[:1])
    again = play.only_output(ToolCallRequested)
    assert again.call_id != first.call_id
    computes(play, again.call_id)
    assert result(play).standing == "ok", "nothing is missing from it"
    play.replays()


def test_a_slip_of_one_attempt_does_not_move_the_keys_of_the_next(play):
    call = ("pay", '{"to": "ann"}')
    keys = []
    for attempt, turns in ((1, ((call, call), (call,))), (2, ((call,), (call,)))):
        if attempt > 1:
            assign(play, attempt)
        made = []
        for calls in turns:
            thinks(play, calls=calls)
            made += [sent.call_id for sent in play.outputs_of(ToolCallRequested)]
            computes(play, made[-1])
        result(play)
        keys.append(made)
    assert keys[0] == keys[1] and len(set(keys[0])) == 2


def test_a_step_whose_one_write_was_denied_does_not_answer(play):
    does(play, ("pay", '{"to": "ann"}', DENIED))
    told = result(play)
    assert (told.answered, told.answered_reason) == ("no", "pay was not done: bob denied pay: not our vendor")
    play.replays()


def test_a_step_that_wrote_and_was_denied_another_write_answers_partly(play):
    does(play, ("pay", '{"to": "ann"}', DENIED), ("pay", '{"to": "bob"}', None))
    assert result(play).answered == "partly"


def test_a_write_that_failed_and_then_worked_takes_nothing_from_the_answer(play):
    does(play, ("pay", '{"to": "ann"}', LATE))
    does(play, ("pay", '{"to": "ann"}', None))
    assert result(play).answered is None


def test_a_read_that_failed_is_left_to_the_judge(play):
    does(play, ("calculate", "{}", LATE))
    assert result(play).answered is None


@pytest.mark.parametrize(("check", "answered"), [(False, "no"), (True, None)])
def test_a_search_that_found_nothing_answers_nothing_where_nobody_checks(check, answered):
    play = Playbook(Worker())
    assign(play, check=check)
    thinks(play, calls=(("search_documents", '{"query": "leave"}'),))
    finds(play, play.only_output(RetrievalRequested).call_id, passages=(), provenance=())
    thinks(play, text="Twelve weeks.")
    assert play.only_output(StepProposed if check else StepFinished).result.answered == answered
