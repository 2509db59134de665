"""Statements of evaluations: signed, verified against keys, and held to what is expected."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.evaluation.statement import (
    Expectation,
    StatementError,
    find_statement_misfits,
    load_key,
    make_key,
    sign_statement,
    verify_envelope,
)
from bulkhead_contracts.evaluation import (
    EvaluationPredicate,
    EvaluationStatement,
    FailedCase,
    StatementSubject,
    SubjectDigest,
)

NOW, HOUR_MS = 1_800_000_000_000, 3_600_000
A, B = "a" * 64, "b" * 64


def make_statement(**changes) -> EvaluationStatement:
    fields = {"case_set": "answers", "cases": 10, "runs": 10, "expected_runs": 10, "passed": 0.9, "made_unix_ms": NOW}
    subjects = {"prompts/worker.step": A, "datasets/answers": B, "images/worker": A}
    return EvaluationStatement(
        subject=[StatementSubject(name=name, digest=SubjectDigest(sha256=sha)) for name, sha in subjects.items()],
        predicate=EvaluationPredicate(**fields | {"models": ("openai/m",)} | changes),
    )


@pytest.fixture
def key(tmp_path: Path) -> tuple[str, Path]:
    path = tmp_path / "key.pem"
    return make_key(path), path


def test_a_signed_statement_is_verified_by_its_key_alone(key, tmp_path):
    public, path = key
    assert path.stat().st_mode & 0o777 == 0o600
    envelope = sign_statement(make_statement(), load_key(path))
    payload = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    assert payload["_type"] == "https://in-toto.io/Statement/v1" and payload["predicateType"].startswith("urn:")
    assert verify_envelope(envelope, [public]).statement == make_statement()
    stranger = make_key(tmp_path / "other.pem")
    for keys in ([stranger], []):
        with pytest.raises(StatementError):
            verify_envelope(envelope, keys)
    with pytest.raises(StatementError, match="exists"):
        make_key(path)


@pytest.mark.parametrize("character", ["a", "ж", "中", "\x01"])
def test_a_statement_of_many_failed_cases_names_as_many_as_fit(key, character):
    text = character * 400
    case = FailedCase(case="c", passed=0, objective=text, expected=text, got=text, reasons=[text] * 8)
    statement = make_statement(failed=[case] * 50, failed_count=50)
    predicate = verify_envelope(sign_statement(statement, load_key(key[1])), [key[0]]).statement.predicate
    assert 0 < len(predicate.failed) < 50 and predicate.failed_count == 50


def test_a_changed_statement_is_refused(key):
    public, path = key
    envelope = json.loads(sign_statement(make_statement(passed=0.1), load_key(path)))
    payload = base64.b64decode(envelope["payload"]).replace(b'"passed": 0.1', b'"passed": 1.0')
    forged = json.dumps(envelope | {"payload": base64.b64encode(payload).decode()})
    with pytest.raises(StatementError, match="has signed it"):
        verify_envelope(forged, [public])


@given(text=st.one_of(st.text(), st.recursive(st.none() | st.text(), st.lists).map(json.dumps)))
def test_anything_else_is_refused_and_nothing_breaks(text):
    with pytest.raises(StatementError):
        verify_envelope(text, [A])


@pytest.mark.parametrize(
    ("expected", "changes", "code"),
    [
        (Expectation("answers", prompts={"worker.step": A}, min_pass=0.9, max_age_ms=HOUR_MS), {}, ""),
        (Expectation("answers", B, images={"worker": A}, models=frozenset({"openai/m"})), {}, ""),
        (Expectation("others"), {}, "other_set"),
        (Expectation("answers", A), {}, "other_set"),
        (Expectation(prompts={"worker.step": B}), {}, "other_digests"),
        (Expectation(prompts={"checker.judge": A}), {}, "other_digests"),
        (Expectation(images={"rag": A}), {}, "other_digests"),
        (Expectation(models=frozenset({"openai/m", "openai/n"})), {}, "other_models"),
        (Expectation(max_age_ms=HOUR_MS), {"made_unix_ms": NOW - HOUR_MS - 1}, "stale"),
        (Expectation(max_age_ms=HOUR_MS), {"made_unix_ms": NOW + HOUR_MS}, "stale"),
        (Expectation(min_pass=0.9), {"passed": 0.89}, "failed"),
        (Expectation(), {"runs": 0}, "failed"),
        (Expectation(), {"problems": ("2 of 10 runs not made",)}, "failed"),
    ],
)
def test_what_does_not_fit_is_named(expected, changes, code):
    misfits = find_statement_misfits(make_statement(**changes), expected, NOW)
    assert [misfit.code for misfit in misfits] == ([code] if code else [])


def test_a_failed_statement_names_its_cases():
    failed = (FailedCase(case="late", passed=0, objective="When?"),)
    [misfit] = find_statement_misfits(make_statement(passed=0.5, failed=failed), Expectation(min_pass=0.9), NOW)
    assert misfit.reason == "50% of 10 runs passed, less than 90%: late"
