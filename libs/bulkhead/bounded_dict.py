"""A dict with a size limit: the least recently used entry goes when there is no room.

In: entries. Out: the same entries, at most `most` of them, the oldest first in iteration.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedDict(OrderedDict[K, V]):
    """Setting an entry makes it the newest; `get_refreshed` does so on reading. dropped: called with each entry
    that goes.
    """

    def __init__(self, most: int, dropped: Callable[[K, V], None] | None = None) -> None:
        super().__init__()
        self.most = most
        self._dropped = dropped

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        while len(self) > self.most:
            evicted = self.popitem(last=False)
            if self._dropped is not None:
                self._dropped(*evicted)

    def get_refreshed(self, key: K) -> V | None:
        """The value of a key, which becomes the newest; None where there is none."""
        value = self.get(key)
        if value is not None:
            self.move_to_end(key)
        return value
