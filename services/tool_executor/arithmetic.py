"""Exact decimal arithmetic over a whitelist of syntax. Enters: an expression. Leaves: its value, or Failed.

Pure, bounded in time: length, depth, exponents and digits are. Sums and products are exact; a quotient that does
not end is rounded to 28 digits and says so.
"""

import ast
import re
from decimal import (
    ROUND_HALF_UP,
    Context,
    Decimal,
    DecimalException,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
)

from bulkhead_contracts import limits

from .tool import Done, Failed

ROUNDED_DIGITS = 28
MAX_DEPTH = 260
"""A sum of as many numbers as fit an expression is this deep; far below the interpreter's own limit."""
MAX_ROUND_DIGITS = 20
_SPELLINGS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "^": "**", "\n": " ", "\t": " "})
# A number followed by % is a percentage, unless an operand follows: then it is the remainder.
_PERCENT = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s*%(?!\s*[\w(.])")
_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+")
_HINT = "write plain arithmetic: numbers like 1234.50, + - * / // % ** ( ), min, max, abs, round"


class _Refused(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def evaluate(expression: str) -> Done | Failed:
    """`expression = value`, the value with no more decimals than the numbers in it when that loses nothing."""
    shown = " ".join(expression.split())
    source = _PERCENT.sub(r"(\1/100)", shown.translate(_SPELLINGS)).strip()
    try:
        tree = _parse(source)
        context = Context(
            prec=limits.MAX_RESULT_DIGITS, rounding=ROUND_HALF_UP, Emax=999, Emin=-999,
            traps=[DivisionByZero, InvalidOperation, Overflow],
        )  # fmt: skip
        value = _Evaluator(source, context).value(tree.body, 0)
    except _Refused as refused:
        return Failed(refused.code, str(refused), _HINT)
    except DivisionByZero:
        return Failed("division_by_zero", f"{shown} divides by zero", "check the divisor")
    except DecimalException as error:
        return Failed("not_computable", f"{shown} has no value here ({type(error).__name__})", _HINT)
    rounded = bool(context.flags[Inexact])
    return Done(f"{shown} = {_written(value, source, rounded)}{' (rounded)' if rounded else ''}")


def _parse(source: str) -> ast.Expression:
    if not source or len(source) > limits.MAX_EXPRESSION_CHARS * 2:
        raise _Refused("bad_expression", f"an expression has 1-{limits.MAX_EXPRESSION_CHARS} characters")
    try:
        return ast.parse(source, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply or holds odd characters"
        raise _Refused("bad_expression", f"this is not arithmetic: {reason}") from error


class _Evaluator:
    def __init__(self, source: str, context: Context) -> None:
        self._source = source
        self._context = context

    def value(self, node: ast.AST, depth: int) -> Decimal:
        """Of one node; refuses whatever is not on the list."""
        if depth > MAX_DEPTH:
            raise _Refused("bad_expression", f"it is nested deeper than {MAX_DEPTH}")
        match node:
            case ast.Constant():
                return self._number(node)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._context.minus(self.value(operand, depth + 1))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.value(operand, depth + 1)
            case ast.BinOp(left=left, op=operator, right=right):
                return self._binary(operator, self.value(left, depth + 1), self.value(right, depth + 1))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return self._call(name, [self.value(arg, depth + 1) for arg in args])
            case ast.Tuple():
                raise _Refused("bad_expression", "there is a comma in a number; write 1234.50, not 1,234.50")
            case ast.Name(id=name):
                raise _Refused("bad_expression", f"{name[:40]!r} is not a number; put its value in")
        raise _Refused("bad_expression", f"{type(node).__name__} is not arithmetic")

    def _number(self, node: ast.Constant) -> Decimal:
        # The text and not the parsed float, which would have lost digits already.
        text = ast.get_source_segment(self._source, node) or ""
        if not _NUMBER.fullmatch(text):
            raise _Refused("bad_expression", f"{text[:40]!r} is not a plain decimal number")
        if len(text) > limits.MAX_RESULT_DIGITS:
            raise _Refused("too_large", f"a number has more than {limits.MAX_RESULT_DIGITS} digits")
        return Decimal(text)

    def _binary(self, operator: ast.operator, left: Decimal, right: Decimal) -> Decimal:
        context = self._context
        match operator:
            case ast.Add():
                return context.add(left, right)
            case ast.Sub():
                return context.subtract(left, right)
            case ast.Mult():
                return context.multiply(left, right)
            case ast.Div():
                return context.divide(left, right)
            case ast.FloorDiv():
                return context.divide_int(left, right)
            case ast.Mod():
                return context.remainder(left, right)
            case ast.Pow():
                return self._power(left, right)
        raise _Refused("bad_expression", f"{type(operator).__name__} is not arithmetic")

    def _power(self, left: Decimal, right: Decimal) -> Decimal:
        if right != right.to_integral_value() or abs(right) > limits.MAX_EXPONENT:
            raise _Refused("bad_exponent", f"an exponent is a whole number up to {limits.MAX_EXPONENT}")
        return self._context.power(left, right)

    def _call(self, name: str, values: list[Decimal]) -> Decimal:
        match name, values:
            case "abs", [value]:
                return self._context.abs(value)
            case ("min", [_, *_]):
                return min(values)
            case ("max", [_, *_]):
                return max(values)
            case "round", [value]:
                return self._round(value, Decimal(0))
            case "round", [value, digits]:
                return self._round(value, digits)
        raise _Refused("bad_expression", f"there is no function {name[:40]} of {len(values)} numbers")

    def _round(self, value: Decimal, digits: Decimal) -> Decimal:
        if digits != digits.to_integral_value() or not 0 <= digits <= MAX_ROUND_DIGITS:
            raise _Refused("bad_expression", f"round takes 0-{MAX_ROUND_DIGITS} digits")
        # Rounding that was asked for is no loss to report, so it has a context of its own.
        apart = self._context.copy()
        apart.prec = limits.MAX_RESULT_DIGITS + MAX_ROUND_DIGITS
        return value.quantize(Decimal(1).scaleb(-int(digits)), context=apart)


def _written(value: Decimal, source: str, rounded: bool) -> str:
    if rounded:
        value = Context(prec=ROUNDED_DIGITS, rounding=ROUND_HALF_UP).plus(value)
    decimals = max((len(n.partition(".")[2]) for n in _NUMBER.findall(source)), default=0)
    text = format(value, "f")
    if "." in text:
        head, _, tail = text.partition(".")
        kept = tail[:decimals] + tail[decimals:].rstrip("0")
        text = f"{head}.{kept}" if kept else head
    return "0" if text in ("-0", "") else text
