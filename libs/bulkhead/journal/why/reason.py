"""One reason of `bulkhead why`."""

from dataclasses import dataclass

from bulkhead.journal.history import JournalEntry
from bulkhead.journal.uncertain_writes import Write


@dataclass(frozen=True, slots=True)
class Reason:
    """kind: ended, uncertain (a write), doubtful (the answer), waited, rejected, halted, tripped, alerted, waits or
    stalled. evidence: ids of messages. write: the one that is uncertain, whole.
    """

    kind: str
    what: str
    todo: str = ""
    at_unix_ms: int = 0
    level: str = ""
    evidence: tuple[str, ...] = ()
    write: Write | None = None

    @classmethod
    def from_entry(cls, entry: JournalEntry, kind: str, what: str, todo: str = "", level: str = "") -> "Reason":
        """A reason that one message shows, as of its time."""
        return cls(kind, what, todo, entry.at_unix_ms, level, (entry.id,))
