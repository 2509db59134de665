"""Values of the wait-for graph: waits and parties."""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from bulkhead.bounded_dict import BoundedDict

WaitMode = Literal["all", "any"]

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
    mode: WaitMode = "all"
    task: str = ""
    firm: bool = False
    said: str = ""


@dataclass(frozen=True, slots=True)
class Party:
    """Facts for the choice of a victim: tokens spent, and when it began."""

    sunk_cost: int = 0
    born: int = 0


@dataclass(slots=True)
class TaskWaits:
    """Waits and parties of a living task, by their names."""

    waits: set[str] = field(default_factory=set)
    closed: BoundedDict[str, None] = field(default_factory=partial(BoundedDict, MAX_CLOSED_PER_TASK))
    parties: set[str] = field(default_factory=set)
