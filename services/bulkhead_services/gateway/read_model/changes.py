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
class News:
    """What one watcher has not been told yet. more: tasks beyond MAX_NAMED have changed too."""

    tasks: dict[str, None] = field(default_factory=dict)
    more: bool = False
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self) -> tuple[tuple[str, ...], bool]:
        """The tasks, each once, and whether more have changed; then nothing is left."""
        found, more = tuple(self.tasks), self.more
        self.tasks, self.more = {}, False
        self.came.clear()
        return found, more


class Changes:
    """The watchers of this replica, by tenant."""

    def __init__(self) -> None:
        self._watchers: dict[str, list[News]] = {}

    @property
    def watching(self) -> int:
        """How many watch, of all tenants."""
        return sum(map(len, self._watchers.values()))

    @contextmanager
    def watched(self, tenant: str) -> Iterator[News]:
        """News of this tenant for as long as it is watched."""
        news = News()
        self._watchers.setdefault(tenant, []).append(news)
        try:
            yield news
        finally:
            left = [one for one in self._watchers[tenant] if one is not news]
            if left:
                self._watchers[tenant] = left
            else:
                del self._watchers[tenant]

    def say(self, tenant: str, task: str) -> None:
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
