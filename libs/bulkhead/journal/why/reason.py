"""One reason of `bulkhead why`."""

from dataclasses import dataclass
from typing import Literal, Protocol


class StoredFact(Protocol):
    """The part of a journal's entry that a reason tells; the client has the shapes without the journal."""

    @property
    def id(self) -> str: ...
    @property
    def at_unix_ms(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Write:
    """One call. key: what a tool that honours keys was sent. outcome: uncertain, or unanswered at the task's end.
    write_id: under which a person resolves one that is uncertain."""

    step_id: str
    title: str
    attempt: int
    tool: str
    arguments_json: str
    key: str
    asked_unix_ms: int
    outcome: Literal["uncertain", "unanswered"]
    why: str
    message: str
    write_id: str = ""


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
    def from_entry(cls, entry: StoredFact, kind: str, what: str, todo: str = "", level: str = "") -> "Reason":
        """A reason that one message shows, as of its time."""
        return cls(kind, what, todo, entry.at_unix_ms, level, (entry.id,))
