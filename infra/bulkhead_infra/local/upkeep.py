"""Upkeep of a mesh that runs for weeks: ended tasks are purged after their retention.

In: a broker, keys, a Retention. Out: what was removed, as events for people. It looks at the start and once a day; a
look that finds nothing reads one page of the gateway's inbox.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from bulkhead_infra.identity.keys import KeyFileError
from bulkhead_infra.nats.purge import DAY_S, PurgeError, Retention, purge


class Upkeep:
    """`start`, then `stop`."""

    def __init__(
        self,
        url: str,
        seed_of: Callable[[str], str],
        retention: Retention,
        say: Callable[[str], None],
        every_s: float = DAY_S,
        ca_file: Path | None = None,
    ) -> None:
        self._url, self._seed_of, self._retention, self._say = url, seed_of, retention, say
        self._every_s, self._ca_file = every_s, ca_file
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; a purge that is cut off goes on at the next look."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                done = await purge(self._url, self._seed_of, self._retention, ca_file=self._ca_file)
                if total := sum(done.messages.values()):
                    self._say(
                        f"{done.tasks} tasks that ended long ago were purged ({total} messages)"
                        if done.tasks
                        else f"{total} old internal messages were purged"
                    )
            except (PurgeError, KeyFileError, OSError) as error:
                self._say(f"ended tasks were not purged: {error}")
            await asyncio.sleep(self._every_s)
