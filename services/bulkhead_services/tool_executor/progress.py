"""Progress of a call in flight, as its tool tells it: bounded, and passed on to whoever asked for the call.

In: a tool's own figures and words, untrusted. Out: `ToolProgress` on `live.tool_executor.<tenant>.<task>`, not stored.
"""

import asyncio
from contextlib import suppress

from pydantic import ValidationError

from bulkhead.bus.port import BusError
from bulkhead.runtime.doer.protocol import Job, JobContext
from bulkhead_contracts import bounds
from bulkhead_contracts.tool import ToolCallRequested, ToolProgress

REPORT_EVERY_S = 0.5
"""What a tool tells sooner after its last report is left out."""


class ProgressPublisher:
    """Publishes the reports of one call."""

    def __init__(self, job: Job[ToolCallRequested], context: JobContext) -> None:
        self._job, self._context = job, context
        self._next_s = 0.0
        """Time of the loop."""

    async def publish_report(self, progress: float, total: float | None, message: str) -> None:
        """Publish a report, unless it comes too soon or says no number."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._next_s:
            return
        self._next_s = now_s + REPORT_EVERY_S
        text = "".join(char if char.isprintable() else " " for char in message[: bounds.MAX_SUMMARY_CHARS])
        with suppress(ValidationError, BusError):
            body = ToolProgress(call_id=self._job.request.call_id, progress=progress, total=total, message=text)
            await self._context.publish_live(self._job, body)
