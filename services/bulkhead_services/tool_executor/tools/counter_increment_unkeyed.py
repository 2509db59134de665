"""`counter_increment_unkeyed(name, amount)`: the same without a key, so that a lost answer stays uncertain."""

from bulkhead.tools.api import Arguments, Call, Done, Failed
from bulkhead_services.tool_executor.tools.counter_increment import post_increment


async def run(arguments: Arguments, call: Call) -> Done | Failed:
    """`counter NAME = VALUE`."""
    return await post_increment(arguments, call, {})
