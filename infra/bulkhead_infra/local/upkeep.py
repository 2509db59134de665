"""Upkeep of a mesh that runs for weeks: ended tasks are purged after their retention.

In: a broker, keys, a Retention. Out: what was removed, as events for people. It looks at the start and once a day; a
look that finds nothing reads one page of the gateway's inbox.
"""

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path

from bulkhead_infra.identity.keys import KeyFileError
from bulkhead_infra.nats.purge import DAY_S, PurgeError, Retention, purge


async def purge_daily(
    url: str,
    seed_of: Callable[[str], str],
    retention: Retention,
    report: Callable[[str], None],
    ca_file: Path | None = None,
    publishers: Collection[str] | None = None,
) -> None:
    """Purge now and once a day, until it is cancelled; a purge that is cut off goes on at the next look. publishers:
    as `purge` takes them."""
    while True:
        try:
            done = await purge(url, seed_of, retention, ca_file=ca_file, publishers=publishers)
            if total := sum(done.messages.values()):
                tasks = f"{done.tasks} tasks that ended long ago were purged ({total} messages)"
                report(tasks if done.tasks else f"{total} old internal messages were purged")
        except (PurgeError, KeyFileError, OSError) as error:
            report(f"ended tasks were not purged: {error}")
        await asyncio.sleep(DAY_S)
