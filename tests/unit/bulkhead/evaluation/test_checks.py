"""Plain checks: what passes, what fails, and why."""

import pytest

from bulkhead.evaluation.answers import CaseAnswer
from bulkhead.evaluation.cases import Check
from bulkhead.evaluation.checks import failed_checks, find_numbers

TOTAL = {"type": "object", "required": ["total"], "properties": {"total": {"const": 5}}}


@pytest.mark.parametrize(
    ("check", "text", "passes"),
    [
        ({"contains": "40 EUR"}, "The refund is 40\n  eur.", True),
        ({"contains": "40 EUR"}, "The refund is 40 [#3fa9c1d2e4b5] EUR.", True),
        ({"contains": "3fa9"}, "The refund [#3fa9c1d2e4b5].", False),
        ({"contains": "40 EUR"}, "The refund is 50 EUR.", False),
        ({"not_contains": "free"}, "It is Free of charge.", False),
        ({"not_contains": "free"}, "It costs 4.", True),
        ({"regex": r"^\d+$"}, "42", True),
        ({"regex": r"^\d+$"}, "It is 42", False),
        ({"equals_number": 1234.5}, "It is EUR 1,234.50.", True),
        ({"equals_number": 1234.5}, "Es sind 1.234,50 EUR.", True),
        ({"equals_number": 1234.5}, "C'est 1\u202f234,50 EUR.", True),
        ({"equals_number": 12}, "It is 120.", False),
        ({"equals_number": -3}, "It is \u22123 degrees.", True),
        ({"equals_number": 0}, "None.", False),
        ({"equals_number": {"value": 100, "tolerance": 0.5}}, "About 100.4 m", True),
        ({"equals_number": {"value": 100, "tolerance": 0.5}}, "About 100.6 m", False),
        ({"json_schema": TOTAL}, '{"total": 5}', True),
        ({"json_schema": TOTAL}, '```json\n{"total": 5}\n```', True),
        ({"json_schema": TOTAL}, '{"total": 6}', False),
        ({"json_schema": TOTAL}, 'Here: {"total": 5}', False),
    ],
)
def test_a_check_of_the_text(check: dict[str, object], text: str, passes: bool) -> None:
    why = failed_checks([Check.model_validate(check)], CaseAnswer(text))
    assert (not why) is passes, why


def test_a_citation_is_of_a_document_by_its_name() -> None:
    check = Check(cites="terms.md")
    assert not failed_checks([check], CaseAnswer("x", ("terms.md",)))
    assert failed_checks([check], CaseAnswer("terms.md says so", ("other.md",))) == (
        "cites: terms.md (cited: other.md)",
    )


def test_every_check_that_fails_is_told() -> None:
    checks = [Check(contains="a"), Check(equals_number=7), Check(contains="z")]
    assert failed_checks(checks, CaseAnswer("abc 3")) == (
        "equals_number: 7.0 (numbers: 3)",
        "contains: z (it does not stand in the answer)",
    )


def test_a_separator_is_read_both_ways_where_it_may_be_either() -> None:
    assert list(find_numbers("1,234")) == [1234.0, 1.234] and list(find_numbers("2026-05-01")) == [2026.0, 5.0, 1.0]
    assert list(find_numbers("1.2.3")) == [] and list(find_numbers("v2 x3")) == []
