"""Drift: what is one, what is only told, and a baseline as a file."""

from dataclasses import replace
from pathlib import Path

import pytest

from bulkhead.evaluation import drift
from bulkhead.evaluation.cases import CaseError, Check, EvaluationCase
from bulkhead.evaluation.checks import CaseAnswer, failed_checks
from bulkhead.evaluation.drift import Drift
from bulkhead.evaluation.runs import CaseRun, CaseRunOutcome

CASE = EvaluationCase(name="q", objective="What is refunded?", checks=(Check(contains="40 EUR"),))
OUTCOME = CaseRunOutcome("t1", "succeeded", None, 1, None, 1, 1, models=("openai/m-1",))


def run(text: str | None, route: str = "a", **more: object) -> CaseRun:
    answer = CaseAnswer(text) if text is not None else None
    outcome = replace(OUTCOME, answer=answer, code="" if answer else "timeout", **more)  # type: ignore[arg-type]
    return CaseRun("q", route, 0, outcome, failed_checks(CASE.checks, answer) if answer else ())


def changes(before: str | None, now: CaseRun, case: EvaluationCase = CASE) -> list[Drift]:
    base = drift.build_baseline([run(before)], [CASE], 1)
    return drift.find_drifts(base, drift.build_baseline([now], [case], 2), [now])


OLD = "When a train is 60 minutes late, 40 EUR are refunded."


@pytest.mark.parametrize(
    ("now", "change", "drifted"),
    [
        (run("You will get 40 EUR back for that."), "answer", True),
        (run("When a train is 60 minutes late, then 40 EUR are refunded."), "answer", False),
        (run("When a train is 60 minutes late, 50 EUR are refunded."), "check", True),
        (run("I cannot help with that."), "check", True),
        (run(None), "no_answer", True),
        (run(OLD, models=("openai/m-2",)), "model", True),
        (run(OLD, "b"), "questions", True),
    ],
)
def test_a_change_is_told_as_what_it_is(now: CaseRun, change: str, drifted: bool) -> None:
    found = changes(OLD, now)
    assert (found[0].change, found[0].drifted) == (change, drifted)


def test_the_same_words_are_no_change_and_what_failed_before_may_fail() -> None:
    assert not changes(OLD, run(OLD)) and not changes("I do not know.", run("I do not know."))
    assert not changes(OLD, run(f"{OLD} [#3fa9c1d2e4b5]")), "markers are of the documents, not of the model"


def test_another_question_under_the_same_name_is_not_compared() -> None:
    (found,) = changes(OLD, run(OLD), CASE.model_copy(update={"objective": "And by bus?"}))
    assert found.change == "questions" and "--update" in found.what


def test_a_baseline_is_read_back_and_keeps_routes_that_were_not_asked(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    assert drift.read_baseline(path) is None
    first = drift.build_baseline([run(OLD), run(OLD, "b")], [CASE], 1)
    drift.write_baseline(path, first)
    assert drift.read_baseline(path) == first
    again = drift.merge_baselines(first, drift.build_baseline([run("new")], [CASE], 2))
    assert (again.routes["a"]["q"].answer, again.routes["b"]["q"].answer, again.made_unix_ms) == ("new", OLD, 2)
    path.write_text("{}")
    with pytest.raises(CaseError, match="holds no baseline"):
        drift.read_baseline(path)
    with pytest.raises(CaseError, match="cannot be written"):
        drift.write_baseline(tmp_path / "none" / "b.json", first)
