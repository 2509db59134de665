"""Pairs in both orders: which are asked, how a preference is read, and what a place shows."""

import json

import pytest

from bulkhead.evaluation.answers import CaseAnswer
from bulkhead.evaluation.judges.calibration import LabelledCase
from bulkhead.evaluation.judges.pairs import PositionBias, build_pair_cases, find_position_bias, read_preference
from bulkhead.evaluation.runs import CaseRun, CaseRunOutcome


def labelled(case: str, question: str, label: str, answer: str = "a") -> LabelledCase:
    row = {"case": case, "question": question, "answer": answer, "labels": {"ann": label}}
    return LabelledCase.model_validate(row | {"documents": [{"name": "a.md", "text": "x"}]})


def test_a_good_and_a_bad_answer_of_one_question_are_asked_in_both_orders() -> None:
    cases = [labelled("g", "q", "good", "G"), labelled("b", "q", "bad", "B"), labelled("alone", "p", "good")]
    cases += [labelled("g2", "r", "good"), labelled("b2", "r", "bad", "x" * 20_000)]
    first, second = build_pair_cases(cases, 9)
    assert [json.loads(case.objective)["first"] for case in (first, second)] == ["G", "B"]
    assert (first.name, second.name) == ("g.good-first", "g.bad-first") and not build_pair_cases(cases, 0)


@pytest.mark.parametrize(
    ("text", "preference"),
    [('{"better": "first", "reason": ""}', "first"), ('{"better": "A"}', None), ("first", None), ('["better"]', None)],
)
def test_what_is_no_preference_is_none(text: str, preference: str | None) -> None:
    assert read_preference(text) == preference


def test_a_place_that_is_preferred_in_both_orders_is_a_bias() -> None:
    def run(pair: str, order: str, better: str) -> CaseRun:
        answer = CaseAnswer(json.dumps({"better": better, "reason": ""})) if better else None
        return CaseRun(f"{pair}.{order}", "r", 0, CaseRunOutcome("t", "succeeded", answer, 1, None, 1, 1))

    words = {
        "right": ("first", "second"),
        "place": ("first", "first"),
        "silent": ("first", ""),
        "equal": ("equal", "first"),
    }
    runs = [
        run(pair, order, word)
        for pair, row in words.items()
        for order, word in zip(("good-first", "bad-first"), row, strict=True)
    ]
    assert find_position_bias([*runs, run("half", "good-first", "first")]) == PositionBias(4, 1, 0, 1, 0)
    assert find_position_bias([]) is None
