"""`calculate(expression)`: exact decimal arithmetic."""

from ..arithmetic import evaluate
from ..tool import Arguments, Call, Done, Failed


async def run(arguments: Arguments, call: Call) -> Done | Failed:
    """`expression = value`."""
    return evaluate(arguments["expression"])
