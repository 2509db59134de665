"""Constraints of grants: what each test lets through, and which texts are none."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.policy.constraints import Constraint, ConstraintError, argument_leaves, holds_for_call


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


@given(st.text(max_size=80) | st.builds("pay {} {} {}".format, st.text(), st.text(), st.text()))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read = Constraint.parse(text)
    except ConstraintError:
        return
    assert Constraint.parse(str(read)) == read
