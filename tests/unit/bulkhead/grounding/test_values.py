"""Numbers, dates and identifiers as people of several countries write them, and what follows from them."""

from decimal import Decimal

import pytest

from bulkhead.grounding.arithmetic import find_derivation, find_equations
from bulkhead.grounding.language import word_stems
from bulkhead.grounding.sentences import split_sentences
from bulkhead.grounding.values import find_values


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("1,234.50", "1.234,50"),
        ("1 234,50 EUR", "1234.5"),
        ("1'234.50", "1,234.50"),
        ("40", "40.00"),
        ("12 %", "12 percent"),
        ("five", "5"),
        ("zwölf", "12"),
        ("2026-04-01", "1. April 2026"),
        ("2026-04-01", "April 1, 2026"),
        ("2026-04-01", "01/04/2026"),
        ("2026-04-01", "1 avril 2026"),
        ("2026-04-01", "1 de abril de 2026"),
        ("2026-04-01", "2026年4月1日"),
        ("31 March", "2026-03-31"),
        ("May 2026", "2026-05-17"),
        ("2026", "2026-05-17"),
        ("lf-200", "LF-200"),
    ],
)
def test_one_value_is_the_same_in_every_form(text, other):
    [first], [second] = find_values(text), find_values(other)
    assert first.is_same(second) and second.is_same(first)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("1,234", "1,235"),
        ("2026-04-01", "2025-04-01"),
        ("LF-200", "200"),
        ("LF-200", "LF-300"),
        ("31 March", "30 March"),
    ],
)
def test_different_values_are_not_the_same(text, other):
    assert not find_values(text)[0].is_same(find_values(other)[0])


def test_digits_in_a_name_are_no_number():
    assert [(row.kind, row.unit) for row in find_values("12 x LF-200, 30-day, 25kg, Q3")] == [
        ("number", "x"),
        ("identifier", ""),
        ("number", "day"),
        ("number", "kg"),
        ("identifier", ""),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "2026-05-01 to 2026-05-20 = 19 days",
        "15 / 100 * 80 = 12",
        "0.5 * 412.50 - 60 = 146.25",
        "(10 - 4) * 2 = 12",
        "max(3, 4) - 1 = 3",
        "1,000 + 1 = 1,001",
        "10 - 3 - 2 = 5",
        "12 * 642.50 EUR = 7,710.00",
    ],
)
def test_true_arithmetic_and_dates_are_left_alone(text):
    assert all(row.is_right for row in find_equations(text))


@pytest.mark.parametrize("text", ["15 / 100 * 80 = 13", "10 - 3 - 2 = 9", "2 + 2 = 5", "12 * 642.50 = 7,700.00"])
def test_false_arithmetic_is_found(text):
    assert [row.is_right for row in find_equations(text)] == [False]


@pytest.mark.parametrize(
    ("value", "operands", "how"),
    [
        ("7,710.00", "12, 642.50 EUR", "12 x 642.5"),
        ("610.38 EUR", "642.50 EUR, 5 %", "642.5 - 5%"),
        ("7,324.50", "12, 642.50 EUR, 5 %", "12 x 642.5 - 5%"),
        ("7,728.00", "12, 642.50 EUR, 18.00 EUR", "12 x 642.5 + 18"),
        ("90 days", "2026-04-01, 2026-06-30", "from 2026-04-01 to 2026-06-30"),
        ("2026-07-01", "2026-04-01, 3 months", "2026-04-01 + 3 months"),
        ("28 days", "25 days, 10", ""),
        ("35 days", "30 days, 5 EUR", ""),
        ("9,999", "12, 642.50", ""),
    ],
)
def test_a_number_follows_from_others_by_plain_operations_alone(value, operands, how):
    assert find_derivation(find_values(value)[0], find_values(operands)) == how


def test_sentences_end_where_readers_end_them():
    text = "Am 1. April gilt Art. 5. Das ist alles!\nA line that\ngoes on.\n- one\n- two\n| a | b |\n\n七です。八です。"
    assert [row.text for row in split_sentences(text)] == [
        "Am 1. April gilt Art. 5.",
        "Das ist alles!",
        "A line that\ngoes on.",
        "- one",
        "- two",
        "| a | b |",
        "七です。",
        "八です。",
    ]


def test_stems_match_inflections_and_know_no_accents():
    assert word_stems("Kündigungsfrist") == word_stems("kundigung") and word_stems("the and und") == frozenset()


def test_a_long_number_is_none():
    assert find_values("9" * 41) == () and find_values("7")[0].number_readings == (Decimal(7),)
