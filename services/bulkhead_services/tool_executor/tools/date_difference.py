"""`date_difference(start, end)`: days from one date to another."""

from bulkhead.tools.api import Arguments, Call, Done, Failed
from bulkhead_services.tool_executor.tools.date_add import read_date


async def run(arguments: Arguments, call: Call) -> Done | Failed:
    """`start to end = N days`."""
    start, end = read_date(arguments["start"]), read_date(arguments["end"])
    if isinstance(start, Failed):
        return start
    if isinstance(end, Failed):
        return end
    days = (end - start).days
    return Done(f"{start} to {end} = {days} {'day' if abs(days) == 1 else 'days'}")
