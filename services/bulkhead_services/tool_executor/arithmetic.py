"""Values of expressions as text. Enters: an expression. Leaves: the expression with its value, or Failed. Pure."""

from decimal import ROUND_HALF_UP, Context, Decimal

from bulkhead.policy.arithmetic import ExpressionRefused, evaluate_exactly
from bulkhead.tools.api import Done, Failed

ROUNDED_DIGITS = 28
_HINTS = {"division_by_zero": "check the divisor", "not_computable": "use smaller numbers"}
_HINT = "write plain arithmetic: numbers like 1234.50, + - * / // % ** ( ), min, max, abs, round"


def evaluate(expression: str) -> Done | Failed:
    """`expression = value`, the value with no more decimals than the numbers in it when that loses nothing."""
    try:
        outcome = evaluate_exactly(expression)
    except ExpressionRefused as refused:
        return Failed(refused.code, str(refused), _HINTS.get(refused.code, _HINT))
    written = _render_value(outcome.value, outcome.decimals, outcome.is_rounded)
    return Done(f"{' '.join(expression.split())} = {written}{' (rounded)' if outcome.is_rounded else ''}")


def _render_value(value: Decimal, decimals: int, rounded: bool) -> str:
    if rounded:
        value = Context(prec=ROUNDED_DIGITS, rounding=ROUND_HALF_UP).plus(value)
    text = format(value, "f")
    if "." in text:
        head, _, tail = text.partition(".")
        fraction = tail[:decimals] + tail[decimals:].rstrip("0")
        text = f"{head}.{fraction}" if fraction else head
    return "0" if text in ("-0", "") else text
