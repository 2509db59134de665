"""`counter_increment_unkeyed(name, amount)`: the same without a key, so that a lost answer stays uncertain."""

from ..tool import Arguments, Call, Done, Failed
from .counter_increment import increment


async def run(arguments: Arguments, call: Call) -> Done | Failed:
    """`counter NAME = VALUE`."""
    return await increment(arguments, call, {})
