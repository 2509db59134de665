"""Progress of a call, as its client is told: what its tool says, else how long it has been waited for.

In: a tool's reports (`ToolProgress`), untrusted words. Out: `notifications/progress`, which the SDK sends to those
alone who gave a progress token. Each is greater than the one before, as MCP wants it.
"""

import asyncio
import math
from typing import Any

from bulkhead_contracts.tool import ToolProgress


class ProgressReporter:
    """The reports of one call. session: of its client. changed: its tool has said something new."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._newest: ToolProgress | None = None
        self._reported = 0.0
        self.changed = asyncio.Event()

    def note_progress(self, progress: ToolProgress) -> None:
        """Take what its tool says; it is sent with the next report."""
        self._newest = progress
        self.changed.set()

    async def send_report(self, waited_s: float) -> None:
        """Send the tool's newest report, or else how long the call has been waited for."""
        is_new, newest = self.changed.is_set(), self._newest
        self.changed.clear()
        progress, total = (newest.progress, newest.total) if newest is not None else (waited_s, None)
        message = newest.message if newest is not None and is_new else f"{waited_s:.0f} s"
        self._reported = max(progress, math.nextafter(self._reported, math.inf))
        await self._session.report_progress(self._reported, total=total, message=message or None)
