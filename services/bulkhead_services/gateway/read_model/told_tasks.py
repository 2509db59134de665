"""What budget told of tasks a moment ago, with what was made of it: the next page needs what is new alone.

In: a task and the messages that were told of it. Out: the same, for KEPT_MS, as long as all tasks together hold no more
bytes than one story may.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bulkhead.journal.history import Entry
from bulkhead.journal.lines import Row
from bulkhead_contracts import bounds
from bulkhead_contracts.journal import ToldMessage

KEPT_MS = 30_000
"""A journal that was made again numbers its messages anew: what was told before it is of no use for long."""
MAX_TASKS = 16


@dataclass(frozen=True, slots=True)
class Told:
    """A story as JSON, as it was at that time. ended: the task's, so that time adds nothing to it."""

    body: bytes
    at_unix_ms: int
    ended: bool


@dataclass(frozen=True, slots=True)
class ToldTask:
    """One task. more: there are messages beyond the bounds. rows: its timeline, with texts (True) and without them.
    stories: its story as it is sent, by whether it has texts and whether it is whole."""

    messages: tuple[ToldMessage, ...]
    more: bool
    entries: list[Entry]
    since_unix_ms: int
    rows: dict[bool, tuple[Row, ...]] = field(default_factory=dict)
    stories: dict[tuple[bool, bool], Told] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Of its messages and its stories."""
        return bytes_of(self.messages) + sum(len(one.body) for one in self.stories.values())


def bytes_of(messages: Sequence[ToldMessage]) -> int:
    """Bytes of their bodies, also of those that were left out."""
    return sum(len(one.body) + one.left_out_bytes for one in messages)


class ToldTasks:
    """The tasks that were asked for last. clock: Unix milliseconds."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], ToldTask] = OrderedDict()

    def get(self, tenant: str, task: str) -> ToldTask | None:
        """What is known of a task."""
        found = self._kept.get((tenant, task))
        if found is not None and not 0 <= self._clock() - found.since_unix_ms < KEPT_MS:
            del self._kept[tenant, task]
            return None
        return found

    def keep(self, tenant: str, task: str, told: ToldTask) -> None:
        """Keep it, and let the oldest go."""
        self._kept[tenant, task] = told
        self._kept.move_to_end((tenant, task))
        room = bounds.MAX_STORY_BYTES
        for number, key in enumerate(reversed(list(self._kept))):
            room -= self._kept[key].bytes
            if number >= MAX_TASKS or (room < 0 and number):
                del self._kept[key]
