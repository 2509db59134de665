"""Waits and the parties that wait: what the graph is made of. In: nothing. Out: values."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

Mode = Literal["all", "any"]

MAX_TARGETS = 64
MAX_CLOSED_PER_TASK = 4_096
"""Ids of closed waits that are remembered while their task lives: a repeated opening must not open them again."""


@dataclass(frozen=True, slots=True)
class Wait:
    """One open request. `key` is the id of the message that opened it; `task` owns it: it ends with the task.

    firm: it is no request (who holds a lease, what a plan builds on), so it cannot be refused. said: the message that
    tells of it, when that is not the key.
    """

    key: str
    waiter: str
    targets: tuple[str, ...]
    mode: Mode = "all"
    task: str = ""
    firm: bool = False
    said: str = ""


@dataclass(frozen=True, slots=True)
class Party:
    """What the choice of a victim knows. resource: a lease; it holds others up, and cannot be refused."""

    task: str = ""
    sunk_cost: int = 0
    born: int = 0
    resource: bool = False


class OwnedWaits:
    """Waits and parties of a living task."""

    __slots__ = ("closed", "parties", "waits")

    def __init__(self) -> None:
        self.waits: set[str] = set()
        self.closed: OrderedDict[str, None] = OrderedDict()
        self.parties: set[str] = set()

    def remember(self, key: str) -> None:
        """Keep the id of a closed wait."""
        self.closed[key] = None
        while len(self.closed) > MAX_CLOSED_PER_TASK:
            self.closed.popitem(last=False)
