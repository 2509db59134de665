"""Dead letters: what a service could not handle, with the reason and the original, and a way to send it again.

In: the DEAD_LETTERS stream under the operator's identity. Out: letters; a redrive stores the original once more
under its original subject, which only the operator's identity may do.
"""

from dataclasses import dataclass

from bulkhead.bus.port import Bus, PubAck, Stored
from bulkhead_contracts import subjects

BATCH = 256
MAX_LETTERS = 10_000
ORIGINAL = "bulkhead-original-"


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. headers: those of the original message."""

    id: str
    code: str
    reason: str
    service: str
    subject: str
    sequence: int
    buried_unix_ms: int
    headers: dict[str, str]
    body: bytes

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {"id": self.id, "code": self.code, "reason": self.reason, "service": self.service,
                "subject": self.subject, "sequence": self.sequence, "buried_unix_ms": self.buried_unix_ms,
                "headers": self.headers, "body": self.body.decode("utf-8", "replace")}


def letter(stored: Stored) -> Letter:
    """A stored dead letter."""
    lower = {key.lower(): value for key, value in stored.headers.items()}
    originals = {key.removeprefix(ORIGINAL): value for key, value in lower.items() if key.startswith(ORIGINAL)}
    number = lower.get("bulkhead-dead-sequence", "0")
    return Letter(
        id=lower.get("bulkhead-dead-id", str(stored.sequence)), code=lower.get("bulkhead-dead-code", ""),
        reason=lower.get("bulkhead-dead-reason", ""), service=lower.get("bulkhead-dead-service", ""),
        subject=lower.get("bulkhead-dead-subject", ""), sequence=int(number) if number.isdigit() else 0,
        buried_unix_ms=stored.time_unix_ms, headers=originals, body=stored.body)


async def read_letters(bus: Bus) -> list[Letter]:
    """All of them, the oldest first. Raises BusError."""
    found: list[Letter] = []
    after = 0
    while len(found) < MAX_LETTERS:
        batch = await bus.read(subjects.DEAD_LETTERS_STREAM, "dead.>", after=after, limit=BATCH)
        if not batch:
            break
        found += [letter(stored) for stored in batch]
        after = batch[-1].sequence
    return found


async def redrive(bus: Bus, one: Letter, attempt: str) -> PubAck:
    """Store the original again. `attempt` makes the message id new: the broker still knows the old one.

    Raises BusError.
    """
    return await bus.publish(one.subject, one.body, one.headers, f"redrive-{one.id}-{attempt}")
