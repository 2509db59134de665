"""Exact decimal arithmetic. Enters: an expression, and the numbers that its names stand for. Leaves: its value.

Pure, with a parser of its own: what Python's `ast` does with hostile nesting depends on how deep its caller stands.
Bounded in time: length, depth, digits and exponents are. Sums and products are exact; a quotient that does not
end is rounded to 28 digits and says so.

    sum: product (("+" | "-") product)*          power: atom ["**" unary]
    product: unary (("*" | "/" | "//" | "%") unary)*   atom: (number | "(" sum ")" | name "(" sum, ... ")") ["%"]
    unary: ("-" | "+") unary | power              a name alone: the one number that it stands for

"sum(name)", "count(name)" and the like take all numbers of a name. "%" after an atom is a percentage, unless an operand
follows: then it is the remainder.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

from bulkhead_contracts import bounds

MAX_DEPTH = 50
MAX_ROUND_DIGITS = 20
_SPELLINGS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "^": "**"})
_TOKEN = re.compile(r"\s*(\d+\.\d*|\.\d+|\d+|[A-Za-z_]\w*|\*\*|//|[-+*/%(),]|\S)", re.ASCII)
_OPERAND = re.compile(r"[\w(.]", re.ASCII)
Operands = Mapping[str, Sequence[Decimal]]


class ExpressionRefused(ValueError):
    """An expression without a value; says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class ExactValue:
    """decimals: the most of any number that was read. is_rounded: digits were lost, and nobody asked for that."""

    value: Decimal
    decimals: int
    is_rounded: bool


def evaluate_exactly(expression: str, operands: Operands | None = None) -> ExactValue:
    """The value. operands: numbers by name; a name alone is a number where they are all the same. Raises
    ExpressionRefused."""
    normalised = " ".join(expression.split())
    if not 0 < len(normalised) <= bounds.MAX_EXPRESSION_CHARS:
        raise ExpressionRefused("bad_expression", f"an expression has 1-{bounds.MAX_EXPRESSION_CHARS} characters")
    traps = [DivisionByZero, InvalidOperation, Overflow]
    context = Context(prec=bounds.MAX_RESULT_DIGITS, rounding=ROUND_HALF_UP, Emax=999, Emin=-999, traps=traps)
    calculator = _Calculator(_TOKEN.findall(normalised.translate(_SPELLINGS)), context, operands or {})
    try:
        value = calculator.evaluate_all()
    except DivisionByZero:
        raise ExpressionRefused("division_by_zero", f"{normalised} divides by zero") from None
    except DecimalException as error:
        text = f"{normalised} has no value here ({type(error).__name__})"
        raise ExpressionRefused("not_computable", text) from None
    return ExactValue(value, calculator.decimals, bool(context.flags[Inexact]))


class _Calculator:
    """Reads tokens once, from left to right, and computes as it goes."""

    def __init__(self, tokens: list[str], context: Context, operands: Operands) -> None:
        self._tokens, self._operands = [*tokens, ""], operands
        self._at = 0
        self._depth = 0
        self._context = context
        self.decimals = 0
        """The most decimals of any number read."""

    def evaluate_all(self) -> Decimal:
        """All of it."""
        value = self._read_sum()
        if self._next_symbol == ",":
            raise ExpressionRefused(
                "bad_expression", "there is a comma outside a function; write 1234.50, not 1,234.50"
            )
        if self._next_symbol:
            raise self._unexpected_token()
        return value

    @property
    def _next_symbol(self) -> str:
        return self._tokens[self._at]

    def _accept_token(self, *symbols: str) -> str:
        token = self._next_symbol
        if token not in symbols or not token:
            return ""
        self._at += 1
        return token

    def _unexpected_token(self) -> ExpressionRefused:
        token = repr(self._next_symbol[:40]) if self._next_symbol else "the end"
        return ExpressionRefused("bad_expression", f"{token} stands where a number, an operator or ( ) should be")

    def _read_sum(self) -> Decimal:
        value = self._read_product()
        while sign := self._accept_token("+", "-"):
            right = self._read_product()
            value = self._context.add(value, right) if sign == "+" else self._context.subtract(value, right)
        return value

    def _read_product(self) -> Decimal:
        context = self._context
        value = self._read_unary()
        while operator := self._accept_token("*", "/", "//", "%"):
            right = self._read_unary()
            match operator:
                case "*":
                    value = context.multiply(value, right)
                case "/":
                    value = context.divide(value, right)
                case "//":
                    value = context.divide_int(value, right)
                case _:
                    value = context.remainder(value, right)
        return value

    def _read_unary(self) -> Decimal:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionRefused("bad_expression", f"it is nested deeper than {MAX_DEPTH}")
        sign = self._accept_token("-", "+")
        value = self._read_unary() if sign else self._read_power()
        self._depth -= 1
        return self._context.minus(value) if sign == "-" else value

    def _read_power(self) -> Decimal:
        base = self._read_atom()
        if not self._accept_token("**"):
            return base
        exponent = self._read_unary()
        if exponent != exponent.to_integral_value() or abs(exponent) > bounds.MAX_EXPONENT:
            raise ExpressionRefused("bad_exponent", f"an exponent is a whole number up to {bounds.MAX_EXPONENT}")
        return self._context.power(base, exponent)

    def _read_atom(self) -> Decimal:
        token = self._next_symbol
        if token[:1].isdigit() or (token[:1] == "." and len(token) > 1):
            value = self._read_number()
        elif self._accept_token("("):
            value = self._read_sum()
            if not self._accept_token(")"):
                raise self._unexpected_token()
        elif token.isidentifier():
            value = self._read_function()
        else:
            raise self._unexpected_token()
        if self._next_symbol == "%" and not _OPERAND.match(self._tokens[self._at + 1]):
            self._at += 1
            value = self._context.divide(value, Decimal(100))
        return value

    def _read_number(self) -> Decimal:
        token = self._next_symbol
        self._at += 1
        if len(token) > bounds.MAX_RESULT_DIGITS:
            raise ExpressionRefused("too_large", f"a number has more than {bounds.MAX_RESULT_DIGITS} digits")
        self.decimals = max(self.decimals, len(token.partition(".")[2]))
        return Decimal(token)

    def _read_function(self) -> Decimal:
        name = self._next_symbol
        self._at += 1
        if not self._accept_token("("):
            numbers = set(self._operands.get(name, ()))
            if len(numbers) == 1:
                return numbers.pop()
            stands = f"{len(numbers)} numbers" if name in self._operands else "not a number; put its value in"
            raise ExpressionRefused("bad_expression", f"{name[:40]!r} is {stands}")
        values: list[Decimal] = []
        was_rounded = self._context.flags[Inexact]
        while not self._accept_token(")"):
            if values and not self._accept_token(","):
                raise self._unexpected_token()
            if self._next_symbol in self._operands and self._tokens[self._at + 1] in (",", ")"):
                values.extend(self._operands[self._next_symbol])
                self._at += 1
            else:
                values.append(self._read_sum())
        if name == "round":
            # Rounding that was asked for is no loss to report, nor is what it rounds away.
            self._context.flags[Inexact] = was_rounded
        match name, values:
            case "sum", [_, *_]:
                total = Decimal(0)
                for number in values:
                    total = self._context.add(total, number)
                return total
            case "count", _:
                return Decimal(len(values))
            case "abs", [value]:
                return self._context.abs(value)
            case "min", [_, *_]:
                return min(values)
            case "max", [_, *_]:
                return max(values)
            case "round", [value]:
                return self._round_value(value, Decimal(0))
            case "round", [value, digits]:
                return self._round_value(value, digits)
        raise ExpressionRefused("bad_expression", f"there is no function {name[:40]} of {len(values)} numbers")

    def _round_value(self, value: Decimal, digits: Decimal) -> Decimal:
        if digits != digits.to_integral_value() or not 0 <= digits <= MAX_ROUND_DIGITS:
            raise ExpressionRefused("bad_expression", f"round takes 0-{MAX_ROUND_DIGITS} digits")
        rounding_context = self._context.copy()
        rounding_context.prec = bounds.MAX_RESULT_DIGITS + MAX_ROUND_DIGITS
        return value.quantize(Decimal(1).scaleb(-int(digits)), context=rounding_context)
