"""Cases from tasks: which are drawn, what becomes a reference, and what is masked."""

from typing import Any

from bulkhead.evaluation.production import build_case, sample_tasks

TASK = {
    "task_id": "t1",
    "kind": "planned",
    "status": "succeeded",
    "objective": "Refund Ada (ada@example.org, DE89 3704 0044 0532 0130 00) under sk-abcdefgh12345678.",
    "answer": "40 EUR [#3fa9c1d2e4b5] go to ada@example.org.",
    "answered": "yes",
    "standing": "ok",
    "created_unix_ms": 0,
    "failure": None,
    "result": {"citations": [{"document": "terms.md"}, {"document": "terms.md"}, {"document": "ada@example.org.md"}]},
}


def case_of(**changes: Any) -> Any:
    case = build_case(TASK | changes)
    assert case is not None
    return case


def test_a_whole_answer_becomes_a_reference_and_its_documents_checks() -> None:
    case = case_of()
    assert case.references == ("40 EUR go to [masked].",) and case.name == "t1"
    assert [check.cites for check in case.checks if check.cites] == ["terms.md"]
    text = case.model_dump_json()
    assert "ada@" not in text and "DE89" not in text and "sk-abc" not in text


def test_an_answer_that_is_not_whole_or_not_there_is_no_reference() -> None:
    failed = {
        "status": "failed",
        "answer": None,
        "answered": "no",
        "standing": None,
        "failure": {"code": "provider_error"},
    }
    for changes, origin in (
        ({"standing": "degraded"}, "degraded"),
        ({"answered": "no"}, "no"),
        (failed, "provider_error"),
    ):
        case = case_of(**changes)
        assert (
            not case.references
            and case.origin.endswith(origin)
            and {c.kind for c in case.checks} == {"answered", "personal_data"}
        )
    assert build_case(TASK | {"kind": "adopted"}) is None


def test_the_same_tasks_are_drawn_at_every_call_and_an_objective_once() -> None:
    rows = [{"task_id": f"t{n}", "objective": f"o{n % 40}", "feature": ""} for n in range(80)]
    drawn = sample_tasks(rows, 10)
    assert drawn == sample_tasks(reversed(rows), 10) and len({row["objective"] for row in drawn}) == 10
    assert not sample_tasks([row | {"feature": "eval"} for row in rows], 10)


def test_a_rating_becomes_a_tag_and_what_people_call_bad_is_no_reference() -> None:
    row = {"kind": "rating", "score": "bad", "comment": "ada@example.org says 250 euros"}
    others = [
        row | {"rating_id": "r2", "kind": "label", "comment": "blind"},
        row | {"rating_id": "r3", "score": "good", "comment": "fine"},
    ]
    ratings = {"bad": 1, "good": 1, "own": [row | {"rating_id": "r1"}], "named": [row | {"rating_id": "r1"}, *others]}
    case = case_of(ratings=ratings)
    assert case.tags == ("production", "rated-bad") and not case.references
    assert case.origin.endswith("yes; bad: [masked] says 250 euros")
    praised = case_of(ratings={"bad": 0, "good": 2, "own": [], "named": []})
    assert praised.tags == ("production", "rated-good") and praised.references
