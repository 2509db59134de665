"""The calculator agrees with decimal arithmetic, and nothing hostile hangs it."""

import time
from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkhead.tools.api import Done, Failed
from bulkhead_services.tool_executor.arithmetic import evaluate

NUMBER = st.decimals(min_value=0, max_value=10**6, places=2).map(lambda d: (format(d, "f"), d))


def _join(pair, op):
    (left, a), (right, b) = pair
    value = {"+": a.__add__, "-": a.__sub__, "*": a.__mul__}[op](b)
    return f"({left} {op} {right})", value


TREE = st.recursive(
    NUMBER,
    lambda inner: st.one_of(
        st.builds(_join, st.tuples(inner, inner), st.sampled_from("+-*")),
        inner.map(lambda p: (f"-{p[0]}", -p[1])),
        st.tuples(inner, inner).map(lambda p: (f"max({p[0][0]}, {p[1][0]})", max(p[0][1], p[1][1]))),
        st.tuples(inner, inner).map(lambda p: (f"min({p[0][0]}, {p[1][0]})", min(p[0][1], p[1][1]))),
        inner.map(lambda p: (f"abs({p[0]})", abs(p[1]))),
        inner.map(lambda p: (f"round({p[0]}, 1)", p[1].quantize(Decimal("0.1"), ROUND_HALF_UP))),
    ),
    max_leaves=5,
)


@given(TREE)
@settings(max_examples=300)
def test_agrees_with_decimal_evaluation(pair) -> None:
    expression, value = pair
    if len(expression) > 500:
        return
    found = evaluate(expression)
    assert isinstance(found, Done), found
    left, _, right = found.text.rpartition(" = ")
    assert left == expression
    assert Decimal(right) == value


@given(NUMBER, NUMBER)
def test_division_is_rounded_and_says_so(a, b) -> None:
    found = evaluate(f"{a[0]} / {b[0]}")
    if b[1] == 0:
        assert isinstance(found, Failed)
        return
    assert isinstance(found, Done)
    with localcontext() as context:
        context.prec = 60
        exact = a[1] / b[1]
    value = Decimal(found.text.rpartition(" = ")[2].removesuffix(" (rounded)"))
    assert abs(value - exact) <= abs(exact) * Decimal("1e-27")
    assert found.text.endswith("(rounded)") == (Fraction(value) * Fraction(b[1]) != Fraction(a[1]))


@given(st.one_of(st.text(max_size=500), st.text(alphabet="0123456789.()+-*/%^ ,eminaxroudbs_", max_size=500)))
@settings(max_examples=400)
def test_never_raises_nor_hangs(expression: str) -> None:
    before = time.process_time()
    assert isinstance(evaluate(expression), Done | Failed)
    assert time.process_time() - before < 1.0


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("900 * 15%", "900 * 15% = 135"),
        ("(480.00 - 35) * 80%", "(480.00 - 35) * 80% = 356.00"),
        ("0.1 + 0.2", "0.1 + 0.2 = 0.3"),
        ("12.50*0.80", "12.50*0.80 = 10.00"),
        ("round(2.675, 2)", "round(2.675, 2) = 2.68"),
        ("round(2.5)", "round(2.5) = 3"),
        ("2^10", "2^10 = 1024"),
        ("10 % 3", "10 % 3 = 1"),
        ("7 // 2", "7 // 2 = 3"),
        ("5 × 4 ÷ 2 − 1", "5 × 4 ÷ 2 − 1 = 9"),
        ("1/4", "1/4 = 0.25"),
        ("1" + "+1" * 249, "1" + "+1" * 249 + " = 250"),
        ("1/3*3", "1/3*3 = 1 (rounded)"),
        ("0 - 0.00", "0 - 0.00 = 0.00"),
    ],
)
def test_results(expression: str, text: str) -> None:
    assert evaluate(expression) == Done(text)


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("9**9**9", "bad_exponent"),
        ("9**0.5", "bad_exponent"),
        ("(((10**256)**256)**256)", "not_computable"),
        ("9" * 60, "too_large"),
        ("(" * 240 + "1" + ")" * 240, "bad_expression"),
        ("-" * 400 + "1", "bad_expression"),
        ("1,234.50 + 1", "bad_expression"),
        ("__import__('os').system('true')", "bad_expression"),
        ("(1).__class__", "bad_expression"),
        ("[1 for _ in (1,)]", "bad_expression"),
        ("lambda: 1", "bad_expression"),
        ("1 if 1 else 2", "bad_expression"),
        ("0x10", "bad_expression"),
        ("1e5", "bad_expression"),
        ("1j", "bad_expression"),
        ("price * 2", "bad_expression"),
        ("round(1, 99)", "bad_expression"),
        ("max()", "bad_expression"),
        ("1/0", "division_by_zero"),
        ("0/0", "not_computable"),
        ("", "bad_expression"),
        ("1\x002", "bad_expression"),
    ],
)
def test_refusals(expression: str, code: str) -> None:
    refused = evaluate(expression)
    assert isinstance(refused, Failed)
    assert refused.code == code and refused.message and refused.hint
