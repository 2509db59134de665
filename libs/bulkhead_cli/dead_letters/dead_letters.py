"""Dead letters: what a service could not handle, with the reason and the original, and what a person did about it.

In: the DEAD_LETTERS stream under the operator's identity. Out: letters. A redrive stores the original once more under
its original subject, which only the operator's identity may do. Nothing is taken away: that a letter was sent again, or
dismissed, by whom and why, stands beside it in the same stream, and goes when the task is purged.
"""

import json
from dataclasses import dataclass, replace
from typing import Literal, get_args

from bulkhead.bus.port import Bus, PubAck, Stored
from bulkhead_contracts import subjects

BATCH = 256
MAX_LETTERS = 10_000
MAX_REASON_CHARS = 1_000
ORIGINAL = "bulkhead-original-"
MARK, DEAD_ID = "bulkhead-dead-mark", "bulkhead-dead-id"
MARKER = "operator"
"""The service that publishes marks, as the broker guarantees."""
What = Literal["redriven", "dismissed"]


@dataclass(frozen=True, slots=True)
class Mark:
    """An action of a person on a letter."""

    what: What
    by: str
    reason: str
    at_unix_ms: int = 0


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. headers: those of the original message. marks: the oldest first; it is open without one."""

    id: str
    code: str
    reason: str
    service: str
    subject: str
    sequence: int
    buried_unix_ms: int
    headers: dict[str, str]
    body: bytes
    place: str = ""
    """Its own subject."""
    marks: tuple[Mark, ...] = ()

    @property
    def standing(self) -> str:
        """open, redriven, dismissed."""
        return self.marks[-1].what if self.marks else "open"

    def as_json(self) -> dict[str, object]:
        """For programs."""
        marks = [
            {"what": one.what, "by": one.by, "reason": one.reason, "at_unix_ms": one.at_unix_ms} for one in self.marks
        ]
        return {
            "id": self.id,
            "code": self.code,
            "reason": self.reason,
            "service": self.service,
            "subject": self.subject,
            "sequence": self.sequence,
            "buried_unix_ms": self.buried_unix_ms,
            "standing": self.standing,
            "marks": marks,
            "headers": self.headers,
            "body": self.body.decode("utf-8", "replace"),
        }


def letter(stored: Stored) -> Letter:
    """A stored dead letter."""
    lower = _lower(stored)
    originals = {key.removeprefix(ORIGINAL): value for key, value in lower.items() if key.startswith(ORIGINAL)}
    number = lower.get("bulkhead-dead-sequence", "0")
    return Letter(
        id=lower.get(DEAD_ID, str(stored.sequence)),
        code=lower.get("bulkhead-dead-code", ""),
        reason=lower.get("bulkhead-dead-reason", ""),
        service=lower.get("bulkhead-dead-service", ""),
        subject=lower.get("bulkhead-dead-subject", ""),
        sequence=int(number) if number.isdigit() else 0,
        buried_unix_ms=stored.time_unix_ms,
        headers=originals,
        body=stored.body,
        place=stored.subject,
    )


async def read_letters(bus: Bus) -> list[Letter]:
    """All of them, the oldest first, with what was done about them. Raises BusError."""
    found: list[Letter] = []
    marks: dict[str, list[Mark]] = {}
    after = 0
    while len(found) < MAX_LETTERS:
        batch = await bus.read(subjects.DEAD_LETTERS_STREAM, "dead.>", after=after, limit=BATCH)
        if not batch:
            break
        for stored in batch:
            if stored.subject.startswith(f"dead.{MARKER}."):
                marks.setdefault(_lower(stored).get(DEAD_ID, ""), []).extend(_mark(stored))
            else:
                found.append(letter(stored))
        after = batch[-1].sequence
    return [replace(one, marks=tuple(marks.get(one.id, ()))) for one in found]


async def redrive(bus: Bus, one: Letter, by: str) -> PubAck:
    """Store the original again, then say so beside the letter. Raises BusError.

    Its message id is new each time: the broker still knows the old one.
    """
    ack = await bus.publish(one.subject, one.body, one.headers, f"redrive-{one.id}-{len(one.marks)}")
    await mark(bus, one, Mark("redriven", by, f"number {ack.sequence} of {ack.stream}"))
    return ack


async def mark(bus: Bus, one: Letter, done: Mark) -> None:
    """Say beside a letter what was done about it. Raises BusError."""
    place = ".".join(["dead", MARKER, *one.place.split(".")[2:]])
    body = json.dumps({"what": done.what, "by": done.by, "reason": done.reason[:MAX_REASON_CHARS]}).encode()
    await bus.publish(place, body, {MARK: done.what, DEAD_ID: one.id}, f"mark-{one.id}-{len(one.marks)}")


def _mark(stored: Stored) -> list[Mark]:
    """[] for what is none."""
    try:
        row = json.loads(stored.body)
        known = row["what"] in get_args(What)
        return [Mark(row["what"], str(row["by"]), str(row["reason"]), stored.time_unix_ms)] if known else []
    except (ValueError, KeyError, TypeError):
        return []


def _lower(stored: Stored) -> dict[str, str]:
    return {key.lower(): value for key, value in stored.headers.items()}
