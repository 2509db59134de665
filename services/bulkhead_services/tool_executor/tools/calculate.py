"""`calculate(expression)`: exact decimal arithmetic."""

from bulkhead.tools.api import Arguments, Call, Done, Failed
from bulkhead_services.tool_executor.arithmetic import evaluate


async def run(arguments: Arguments, call: Call) -> Done | Failed:
    """`expression = value`."""
    return evaluate(arguments["expression"])
