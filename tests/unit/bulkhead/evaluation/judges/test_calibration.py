"""Judges held against labels: the table, disputes and abstentions, certificates and what they are not good for."""

import json
from pathlib import Path
from typing import Any

import pytest

from bulkhead.evaluation.cases import CaseError, EvaluationCase
from bulkhead.evaluation.judges.calibration import (
    CalibrationFigures,
    ConfusionTable,
    LabelledCase,
    calibrate_judge,
    load_labelled,
)
from bulkhead.evaluation.judges.certificates import (
    DAY_MS,
    Certificate,
    SeatedJudge,
    certificate_path,
    find_standing,
    read_certificate,
    seat_judges,
)
from bulkhead.evaluation.judges.panels import GROUNDED, Judge, Juror
from tests.proof.judge import measure

PANEL = Judge(name="panel", jury=(Juror(route="small"),))


def labelled(case: str, ann: str, bob: str, *tags: str) -> LabelledCase:
    labels = {"ann": ann, "bob": bob}
    return LabelledCase.model_validate({"id": case, "question": "q", "answer": "a" * 9, "labels": labels, "tags": tags})


def calibrate(hits: int, count: int) -> CalibrationFigures:
    """A judge that is right on so many of `count` good and as many bad answers."""
    table = ConfusionTable(hits, count - hits, 0, count - hits, hits, 0)
    return CalibrationFigures(2 * count, 0, table, None, None, None, None, {})


def certificate(**changes: Any) -> Certificate:
    row = {
        "judge": "panel",
        "judge_sha256": PANEL.digest,
        "dataset": "l.jsonl",
        "dataset_sha256": "0",
        "is_certified": True,
        "gate_true_positive": 0.8,
        "gate_true_negative": 0.8,
        "models": ("p/small",),
        "figures": calibrate(20, 20),
        "made_unix_ms": 0,
        "expires_unix_ms": DAY_MS,
    }
    return Certificate.model_validate(row | changes)


def test_disputes_count_in_no_rate_and_abstentions_against_the_judge() -> None:
    cases = [labelled("g", "good", "good", "x"), labelled("b", "bad", "bad", "x"), labelled("d", "good", "bad")]
    figures = calibrate_judge([*cases, labelled("u", "bad", "bad")], {"g": True, "b": False, "d": True, "u": None})
    assert (figures.cases, figures.disputed) == (4, 1)
    assert (figures.table.true_positive.value, figures.table.true_negative.value) == (1.0, 0.5)
    assert [rate.count for rate in figures.table.voting_rates] == [1, 1]
    assert figures.by_tag["x"].bad_failed == 1 and figures.labellers_alpha is not None
    assert figures.alpha is not None and figures.kappa is not None


def test_a_judge_is_certified_by_the_lower_bounds_and_not_by_the_rates() -> None:
    assert not calibrate(18, 20).reaches(0.8, 0.8), "90 % of 20 may be less than 80 %"
    assert calibrate(90, 100).reaches(0.8, 0.8) and not calibrate(90, 100).reaches(0.8, 0.9)


def test_certificates_of_others_and_old_ones_make_advice(tmp_path: Path) -> None:
    assert find_standing(PANEL, certificate(), DAY_MS - 1) == ""
    for row, problem in (
        (None, "no certificate"),
        (certificate(judge_sha256="1"), "another definition"),
        (certificate(judge="other"), "another definition"),
        (certificate(is_certified=False), "did not reach"),
        (certificate(expires_unix_ms=5), "past its date"),
        (certificate(gate_true_positive=0.0, figures=calibrate(14, 20)), "do not both reach 80%"),
        (certificate(gate_true_positive=0.0, figures=calibrate(19, 19)), "19 good and 19 bad answers"),
    ):
        assert problem in find_standing(PANEL, row, DAY_MS - 1)
    path = certificate_path(tmp_path, "panel")
    assert read_certificate(path) is None
    path.write_text(certificate().model_dump_json())
    assert read_certificate(path) == certificate()
    path.write_text("{}")
    with pytest.raises(CaseError, match="is no certificate"):
        read_certificate(path)


def test_a_verdict_of_models_that_were_not_calibrated_is_advice() -> None:
    seat = SeatedJudge(judge=PANEL, certificate=certificate())
    assert not seat.find_advice(["p/small"]) and "p/large voted" in seat.find_advice(["p/small", "p/large"])


def test_judges_take_their_seats_with_what_lies_beside_the_set(tmp_path: Path) -> None:
    row = {"name": "c", "input": "q", "documents": ["a.md"], "checks": [{"judge": "panel"}, {"judge": GROUNDED}]}
    case = EvaluationCase.model_validate(row)
    path = tmp_path / "cases.jsonl"
    with pytest.raises(CaseError, match="there is no judge panel"):
        seat_judges(path, [case], 0)
    (tmp_path / "judges.yaml").write_text("judges: [{name: panel, jury: [{route: small}]}]")
    certificate_path(tmp_path, "panel").write_text(certificate().model_dump_json())
    seats = seat_judges(path, [case], 0)
    assert not seats["panel"].advice and "no certificate" in seats[GROUNDED].advice
    later = seat_judges(path, [case], DAY_MS)
    assert seats["panel"].digest != later["panel"].digest, "what may fail a case is part of what is judged"
    with pytest.raises(CaseError, match="needs documents"):
        seat_judges(path, [case.model_copy(update={"documents": ()})], 0)


def test_labelled_answers_name_texts_or_hold_them(tmp_path: Path) -> None:
    (tmp_path / "terms.md").write_text("40 EUR")
    row = {
        "id": "a",
        "question": "q",
        "answer": "40",
        "labels": {"ann@x": "good"},
        "documents": ["terms.md"],
        "release": "",
    }
    inline = row | {"id": "b", "documents": [{"name": "terms.md", "text": "50 EUR"}]}
    path = tmp_path / "l.jsonl"
    path.write_text(f"{json.dumps(row)}\n{json.dumps(inline)}\n")
    assert [case.texts for case in load_labelled(path)] == [{"terms.md": "40 EUR"}, {"terms.md": "50 EUR"}]
    for change, problem in (
        ({"labels": {}}, "labels"),
        ({"labels": {"a": "fine"}}, "labels"),
        ({"documents": ["../x"]}, "does not lie in the folder"),
        ({"documents": ["missing.md"]}, "cannot read"),
    ):
        path.write_text(json.dumps(row | change))
        with pytest.raises(CaseError, match=problem):
            load_labelled(path)
    path.write_text(f"{json.dumps(row)}\n{json.dumps(row)}\n")
    with pytest.raises(CaseError, match="several answers are called a"):
        load_labelled(path)


@pytest.mark.slow
def test_the_figures_of_the_shipped_judge_are_those_of_the_page() -> None:
    assert not [figure for figure in measure() if not figure.holds]
