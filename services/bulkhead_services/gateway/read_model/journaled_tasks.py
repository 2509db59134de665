"""Tasks as budget told them a moment ago, with what was made of them: the next page needs the new alone.

In: a task and the messages that were told of it. Out: the same, for KEPT_MS, as long as all tasks
together hold no more bytes than one story may.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bulkhead.journal.history import JournalEntry
from bulkhead.journal.story.model import Row
from bulkhead_contracts import bounds
from bulkhead_contracts.journal import ToldMessage

KEPT_MS = 30_000
"""A journal that was made again numbers its messages anew: what was told before it is of no use for long."""
MAX_TASKS = 16


@dataclass(frozen=True, slots=True)
class RenderedStory:
    """A story as JSON, as it was at that time. ended: the task's, so that time adds nothing to it."""

    body: bytes
    at_unix_ms: int
    ended: bool


@dataclass(frozen=True, slots=True)
class JournaledTask:
    """One task. more: there are messages beyond the bounds. rows: its timeline, with texts (True) and without them.
    stories: its story as it is sent, by whether it has texts and whether it is whole."""

    messages: tuple[ToldMessage, ...]
    more: bool
    entries: list[JournalEntry]
    since_unix_ms: int
    rows: dict[bool, tuple[Row, ...]] = field(default_factory=dict)
    stories: dict[tuple[bool, bool], RenderedStory] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        """Size of its messages and its stories."""
        return bytes_of(self.messages) + sum(len(story.body) for story in self.stories.values())


def bytes_of(messages: Sequence[ToldMessage]) -> int:
    """Bytes of their bodies, also of those that were left out."""
    return sum(len(message.body) + message.left_out_bytes for message in messages)


class JournaledTaskCache:
    """The tasks that were asked for last. clock: Unix milliseconds."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], JournaledTask] = OrderedDict()

    def get(self, tenant: str, task: str) -> JournaledTask | None:
        """The task, if it is known."""
        journaled = self._kept.get((tenant, task))
        if journaled is not None and not 0 <= self._clock() - journaled.since_unix_ms < KEPT_MS:
            del self._kept[tenant, task]
            return None
        return journaled

    def keep_task(self, tenant: str, task: str, journaled: JournaledTask) -> None:
        """Keep it, and let the oldest go."""
        self._kept[tenant, task] = journaled
        self._kept.move_to_end((tenant, task))
        room = bounds.MAX_STORY_BYTES
        for number, key in enumerate(reversed(list(self._kept))):
            room -= self._kept[key].total_bytes
            if number >= MAX_TASKS or (room < 0 and number):
                del self._kept[key]
