"""`calculate(expression)`: exact decimal arithmetic."""

from bulkhead_services.tool_executor.arithmetic import evaluate
from bulkhead_services.tool_executor.tool import Arguments, Call, Done, Failed


async def run(arguments: Arguments, call: Call) -> Done | Failed:
    """`expression = value`."""
    return evaluate(arguments["expression"])
