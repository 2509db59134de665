"""Looks after the journal of a running mesh: at the start, whenever the broker has come back, and once a day.

In: a broker, keys, a Layout, a folder for what only the journal still has. Out: events for people.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from bulkhead.bus.port import BusError
from bulkhead_infra.identity.keys import KeyFileError
from bulkhead_infra.nats.journal import keep_journal_whole
from bulkhead_infra.nats.provision import ProvisionError
from bulkhead_infra.nats.streams import Layout

PAUSES_S = (5.0, 60.0, 24 * 3600.0)
"""After a start of the broker it looks again soon: what JOURNAL wrongly takes for read shows with what is said next."""


class JournalKeeper:
    def __init__(
        self,
        url: str,
        seed_of: Callable[[str], str],
        layout: Layout,
        lost_folder: Path,
        report: Callable[[str], None],
        ca_file: Path | None = None,
    ) -> None:
        self._url, self._seed_of, self._layout, self._ca_file = url, seed_of, layout, ca_file
        self._lost_folder, self._report = lost_folder, report
        self._asked, self._broker = asyncio.Event(), "ready"
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with a first look; returns at once."""
        self._task = asyncio.create_task(self._compare_repeatedly())
        self._task.add_done_callback(self._report_bug)

    def _report_bug(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (bug := task.exception()) is not None:
            way = "that is a bug: report it, and start the mesh again"
            self._report(f"the journal is not compared with the inboxes any more: {bug!r}; {way}")

    def note_broker_state(self, state: str) -> None:
        """Take note of the broker's state: after each restart the journal is compared again."""
        if state == "ready" and self._broker != "ready":
            self._asked.set()
        self._broker = state

    async def stop(self) -> None:
        """End; a journal that was dropped and not yet made again is made at the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _compare_repeatedly(self) -> None:
        looks = 0
        while True:
            self._asked.clear()
            try:
                report = await keep_journal_whole(
                    self._url, self._seed_of, self._layout, self._lost_folder, ca_file=self._ca_file
                )
            except (BusError, ProvisionError, KeyFileError, OSError) as error:
                # The broker has gone in the middle: it will have come back when the next look is asked for.
                self._report(f"the journal was not compared with the inboxes: {error}")
            else:
                wait = "timelines and replays wait until it is complete"
                rebuilt = report.fault and f"the journal is rebuilt from the inboxes, since {report.fault}; {wait}"
                for text in filter(None, (report.lost, report.hidden, rebuilt)):
                    self._report(text)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), PAUSES_S[min(looks, len(PAUSES_S) - 1)])
            looks = 0 if self._asked.is_set() else looks + 1
