"""The rule by which a result is answered yes, partly or no."""

import pytest

from bulkhead.flow.answered import (
    AnswerFinding,
    DoneStep,
    judge_search,
    judge_text,
    judge_writes,
    lower_answer,
    settle_task_answer,
)
from bulkhead_contracts import bounds
from bulkhead_contracts.result import Result

DENIED = "pay was not done: bob denied it"


@pytest.mark.parametrize(
    ("finding", "answered"),
    [
        (judge_writes(0, ()), None),
        (judge_writes(2, ()), None),
        (judge_writes(0, (DENIED,)), "no"),
        (judge_writes(1, (DENIED,)), "partly"),
        (judge_text(1, ()), None),
        (judge_text(0, ("The documents do not say it.",)), "no"),
        (judge_text(2, ("The documents do not say it.",)), "partly"),
        (judge_search(0, 0), None),
        (judge_search(1, 1), None),
        (judge_search(1, 0), "no"),
    ],
)
def test_each_fact_says_what_its_row_says(finding, answered):
    assert (finding.answered if finding else None) == answered


def result_of(answered=None, reason=""):
    return Result(answered=answered, answered_reason=reason)


@pytest.mark.parametrize(
    ("before", "finding", "after"),
    [
        (None, None, (None, "")),
        (None, "yes", ("yes", "")),
        (None, "no", ("no", "why")),
        ("yes", "partly", ("partly", "why")),
        ("partly", "no", ("no", "why")),
        ("no", "yes", ("no", "before")),
        ("no", "partly", ("no", "before")),
        ("partly", "partly", ("partly", "before")),
    ],
)
def test_a_later_fact_lowers_an_answer_and_never_lifts_it(before, finding, after):
    result = result_of(before, "before" if before in ("partly", "no") else "")
    lowered = lower_answer(result, AnswerFinding(finding, "why") if finding else None)
    assert (lowered.answered, lowered.answered_reason) == after


def test_a_reason_is_cut_to_its_bound():
    lowered = lower_answer(Result(), AnswerFinding("no", "x" * 2 * bounds.MAX_REASON_CHARS))
    assert len(lowered.answered_reason) == bounds.MAX_REASON_CHARS


SEARCH_NO, SEARCH_YES = DoneStep("a", result_of("no", "not found"), False), DoneStep("a", result_of("yes"), False)
DENIED_STEP, DONE_STEP = DoneStep("b", result_of("no", DENIED), True), DoneStep("b", result_of("yes"), True)


@pytest.mark.parametrize(
    ("final", "earlier", "answered", "reason"),
    [
        (result_of(), (), None, ""),
        (result_of("yes"), (SEARCH_YES,), "yes", ""),
        (result_of("yes"), (SEARCH_NO,), "partly", "step a: not found"),
        (result_of(), (SEARCH_NO,), "partly", "step a: not found"),
        (result_of("no", "nothing"), (SEARCH_NO,), "no", "nothing"),
        (result_of("yes"), (SEARCH_YES, DENIED_STEP), "no", DENIED),
        (result_of("yes"), (DONE_STEP, DENIED_STEP), "partly", f"step b: {DENIED}"),
        (result_of("yes"), (DONE_STEP,), "yes", ""),
    ],
)
def test_a_task_is_answered_as_its_final_step_and_those_before_let_it(final, earlier, answered, reason):
    settled = settle_task_answer(DoneStep("z", final, False), earlier)
    assert (settled.answered, settled.answered_reason) == (answered, reason)


def test_what_is_not_known_is_not_written():
    assert b"answered" not in Result().model_dump_json().encode()
