"""News of a tenant's tasks: which have changed since a watcher last looked.

In: pokes (a message of this task was handled, by whichever replica). Out: per watcher, ids of tasks, at most MAX_NAMED.
Where nobody watches nothing is kept.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

MAX_NAMED = 100


@dataclass(slots=True)
class UnseenChanges:
    """Changes that one watcher has not been told yet. more: tasks beyond MAX_NAMED have changed too."""

    tasks: dict[str, None] = field(default_factory=dict)
    more: bool = False
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def take_changes(self) -> tuple[tuple[str, ...], bool]:
        """The tasks, each once, and whether more have changed; then nothing is left."""
        tasks, has_more = tuple(self.tasks), self.more
        self.tasks, self.more = {}, False
        self.came.clear()
        return tasks, has_more


class ChangeWatchers:
    """The watchers of this replica, by tenant."""

    def __init__(self) -> None:
        self._watchers: dict[str, list[UnseenChanges]] = {}

    @property
    def watcher_count(self) -> int:
        """Number of watchers, of all tenants."""
        return sum(map(len, self._watchers.values()))

    @contextmanager
    def watch_tenant(self, tenant: str) -> Iterator[UnseenChanges]:
        """News of this tenant for as long as it is watched."""
        news = UnseenChanges()
        self._watchers.setdefault(tenant, []).append(news)
        try:
            yield news
        finally:
            remaining = [watcher for watcher in self._watchers[tenant] if watcher is not news]
            if remaining:
                self._watchers[tenant] = remaining
            else:
                del self._watchers[tenant]

    def announce_change(self, tenant: str, task: str) -> None:
        """Something of this task was stored."""
        for news in self._watchers.get(tenant, ()):
            if len(news.tasks) < MAX_NAMED or task in news.tasks:
                news.tasks[task] = None
            else:
                news.more = True
            news.came.set()

    def close(self) -> None:
        """Wake every watcher: this replica goes away."""
        for watchers in self._watchers.values():
            for news in watchers:
                news.came.set()
