"""Constraints of grants: what each test lets through, and that narrowing never lets more through."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead.policy.constraints import (
    Constraint,
    ConstraintError,
    argument_leaves,
    holds_for_call,
    implies_constraint,
    is_narrower,
)


def fits(text: str, arguments: dict[str, Any], tool: str = "pay") -> bool:
    return holds_for_call(Constraint.parse(text), tool, "acme", argument_leaves(arguments))


@pytest.mark.parametrize(
    ("text", "value", "other"),
    [
        ('pay /x equals "EUR"', "EUR", "eur"),
        ("pay /x equals 1", 1.0, True),
        ('pay /x one-of ["a", 2, null]', None, "b"),
        ("pay /x range 0..100", 100, 100.01),
        ("pay /x range ..-1.5", -2, "-2"),
        ('pay /x prefix "INV-"', "INV-7", "inv-7"),
        ('pay /x regex "INV-[0-9]{3}"', "INV-123", "INV-1234"),
        ('pay /x regex "a+"', "aaa", "aaa\n"),
        ("pay /x host shop.example", "https://SHOP.example/a?b", "https://shop.example.evil.example/"),
        ("pay /x host shop.example", "http://shop.example:80", "https://shop.example:8443/"),
        ("pay /x host shop.example", "https://shop.example", "https://evil.example@shop.example/"),
        ("pay /x host shop.example", "https://shop.example", "https://evil.example\\@shop.example/"),
        ("pay /x host *.shop.example", "https://cdn.shop.example", "https://shop.example"),
        ("pay /x below /srv/out", "/srv/out/a/b.txt", "/srv/out/../etc/passwd"),
        ("pay /x below /srv/out", "/srv/out", "/srv/output"),
        ("pay /x below /srv/out", "/srv/out/a", "/srv/out/%2e%2e/a"),
        ("pay /x belongs-to-tenant", "acme/7", "acme-evil/7"),
        ("* /x equals 1", 1, 2),
        ("pay /*/y equals 1", {"y": 1}, {"y": 2}),
        ("pay /x range 0..1", [0, [1]], [0, [2]]),
    ],
)
def test_each_test_lets_its_values_through(text: str, value: object, other: object) -> None:
    assert fits(text, {"x": value}) and not fits(text, {"x": other})


def test_what_is_left_out_fits_but_for_equals() -> None:
    assert fits("pay /x range 0..1", {}) and not fits("pay /x equals 1", {}) and fits("pay /x equals 1", {}, "other")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pay",
        "pay x equals 1",
        "pay /x like 1",
        "pay /x equals",
        "pay /x equals EUR",
        'pay /x one-of "a"',
        "pay /x equals [1]",
        "pay /x prefix 1",
        'pay /x regex "("',
        'pay /x regex "(a)\\\\1"',
        "pay /x range 5",
        "pay /x range ..",
        "pay /x host https://shop.example",
        "pay /x below /srv/../etc",
        "pay /x belongs-to-tenant acme",
        "pay /x equals " + "1" * 2_000,
    ],
)
def test_what_is_no_constraint_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ConstraintError):
        Constraint.parse(text)


SCALARS = st.sampled_from(
    ["a", "ab", "acme", "acme/1", "/srv", "/srv/a", "https://a.example", "https://b.a.example", ""]
)
VALUES = SCALARS | st.integers(-3, 3) | st.booleans() | st.none() | st.floats(-2, 2)
TESTS = st.one_of(
    st.builds(lambda value: f"equals {json.dumps(value)}", VALUES),
    st.builds(lambda values: f"one-of {json.dumps(values)}", st.lists(VALUES, max_size=3)),
    st.builds(lambda value: f"prefix {json.dumps(value)}", SCALARS),
    st.builds(lambda value: f"regex {json.dumps(value)}", st.sampled_from(["a.*", "[a-z]+", ".*", "acme/?1?"])),
    st.builds(lambda low, high: f"range {low}..{high}", st.integers(-3, 3), st.integers(-3, 3)),
    st.sampled_from(["range ..1", "range 0..", "range -1.5..1.5", "belongs-to-tenant", "from-user-or-trusted"]),
    st.sampled_from(["host a.example", "host *.a.example", "host b.a.example a.example", "below /srv", "below /srv/a"]),
)
PLACES = st.sampled_from(["/x", "/y", "/x/a", "/*", "/x/*", "/x/0", "/*/a"])
CONSTRAINTS = st.builds(
    lambda tool, place, test: Constraint.parse(f"{tool} {place} {test}"), st.sampled_from(["pay", "*"]), PLACES, TESTS
)
CALLS = st.dictionaries(
    st.sampled_from(["x", "y"]), VALUES | st.lists(VALUES, max_size=2) | st.dictionaries(st.just("a"), VALUES)
)


@settings(max_examples=400, deadline=None)
@given(st.lists(CONSTRAINTS, max_size=3), st.lists(CONSTRAINTS, max_size=2), CALLS)
@pytest.mark.slow
def test_what_fits_a_narrower_list_fits_the_wider(
    inner: list[Constraint], outer: list[Constraint], call: dict[str, Any]
) -> None:
    values = argument_leaves(call)
    if is_narrower(inner, outer) and all(holds_for_call(one, "pay", "acme", values) for one in inner):
        assert all(holds_for_call(one, "pay", "acme", values) for one in outer)


@settings(max_examples=400, deadline=None)
@given(CONSTRAINTS, CONSTRAINTS, CONSTRAINTS, CALLS)
@pytest.mark.slow
def test_implication_holds_for_every_call_and_goes_on(
    one: Constraint, two: Constraint, three: Constraint, call: dict[str, Any]
) -> None:
    assert implies_constraint(one, one)
    values = argument_leaves(call)
    if implies_constraint(one, two):
        assert holds_for_call(two, "pay", "acme", values) or not holds_for_call(one, "pay", "acme", values)


@given(st.lists(CONSTRAINTS, max_size=4), st.lists(CONSTRAINTS, max_size=2))
def test_adding_a_constraint_only_narrows(held: list[Constraint], more: list[Constraint]) -> None:
    assert is_narrower([*held, *more], held)


@given(st.text(max_size=80) | st.builds("pay {} {} {}".format, st.text(), st.text(), st.text()))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read = Constraint.parse(text)
    except ConstraintError:
        return
    assert Constraint.parse(str(read)) == read


def test_some_implications_are_seen() -> None:
    pairs = [
        ('pay /x equals "a"', 'pay /x prefix "a"'),
        ("pay /x one-of [1, 2]", "pay /x range 0..5"),
        ("* /x range 1..2", "pay /x range 0..5"),
        ("pay /x below /srv/a", "pay /x below /srv"),
        ("pay /x host b.a.example", "pay /x host *.a.example"),
        ("pay /x from-user-or-trusted", "pay /x from-user-or-trusted"),
    ]
    for inner, outer in pairs:
        assert is_narrower([Constraint.parse(inner)], [Constraint.parse(outer)])
        assert inner == outer or not is_narrower([Constraint.parse(outer)], [Constraint.parse(inner)])
