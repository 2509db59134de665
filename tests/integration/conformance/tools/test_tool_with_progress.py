"""A call that lasts: long enough for three notes of its progress."""

import asyncio

from bulkhead.tools.packs import Arguments, Call, Done

LASTS_S = 0.5


async def run(arguments: Arguments, call: Call) -> Done:
    """A text, after a while."""
    await asyncio.sleep(LASTS_S)
    return Done("done")
