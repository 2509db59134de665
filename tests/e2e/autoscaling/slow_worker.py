"""A worker that takes up one message at a time, each for long, so that it is the bottleneck.

It sleeps where a slower one would compute: this machine has too few cores for eight of those.
"""

import asyncio

from bulkhead.runtime.consume.inbound import ReceivedMessage
from bulkhead.runtime.decider.fold import FoldHandler
from bulkhead.runtime.process.start import start_decider
from bulkhead_services.worker.app import LOGICS, SERVICE

TAKES_S = 0.15
ONE = asyncio.Semaphore(1)
_usual = FoldHandler.handle_message


async def _later(self: FoldHandler, message: ReceivedMessage) -> None:
    async with ONE:
        await asyncio.sleep(TAKES_S)
    await _usual(self, message)


if __name__ == "__main__":
    FoldHandler.handle_message = _later  # type: ignore[method-assign]
    start_decider(SERVICE, LOGICS)
