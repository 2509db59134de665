"""Dead letters: what a service could not handle, with the reason and the original, and what a person did about it.

In: the DEAD_LETTERS stream, which the operator's identity and budget may read. Out: letters. A redrive stores the
original once more under its original subject, which only the operator's identity may do. Nothing is taken away: that a
letter was sent again, or dismissed, by whom and why, stands beside it in the same stream, and goes when the task is
purged.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import Bus, PubAck, StoredMessage
from bulkhead_contracts import subjects

MAX_LETTERS = 10_000
MAX_REASON_CHARS = 1_000
ORIGINAL = "bulkhead-original-"
MARK, DEAD_ID = "bulkhead-dead-mark", "bulkhead-dead-id"
OPERATOR, BUDGET = "operator", "budget"
"""Who publishes marks, as the broker guarantees: a person at the machine of the mesh; budget, for a person of a tenant.
Budget buries letters too, so its marks have a last token of their own."""
MARKED = "mark"
NOWHERE = subjects.Address("", "", "", 0, "", "")
MarkKind = Literal["redriven", "dismissed"]


@dataclass(frozen=True, slots=True)
class DeadLetterMark:
    """An action of a person on a letter."""

    what: MarkKind
    by: str
    reason: str
    at_unix_ms: int = 0
    change: str = ""
    """The request by which it was made; "" at the machine of the mesh."""


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
    number: int = 0
    """Its own sequence, among dead letters."""
    marks: tuple[DeadLetterMark, ...] = ()

    @property
    def standing(self) -> str:
        """open, redriven, dismissed."""
        return self.marks[-1].what if self.marks else "open"

    def as_json(self) -> dict[str, object]:
        """For programs."""
        marks = [
            {"what": entry.what, "by": entry.by, "reason": entry.reason, "at_unix_ms": entry.at_unix_ms}
            for entry in self.marks
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


def parse_letter(stored: StoredMessage) -> Letter:
    """A stored dead letter."""
    lower = _lower_headers(stored)
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
        number=stored.sequence,
    )


async def read_letters(bus: Bus) -> list[Letter]:
    """All of them, the oldest first, with what was done about them. Raises BusError."""
    letters: list[Letter] = []
    marks = LetterMarks()
    async for stored in stored_messages(bus, subjects.DEAD_LETTERS_STREAM, "dead.>"):
        if is_mark(stored.subject):
            marks.fold_mark(stored)
        else:
            letters.append(parse_letter(stored))
            if len(letters) >= MAX_LETTERS:
                break
    return [marks.with_marks(unmarked) for unmarked in letters]


async def read_marks(bus: Bus, tenant: str) -> "LetterMarks":
    """Marks on a tenant's letters. Raises BusError."""
    marks = LetterMarks()
    for subject in (f"dead.{OPERATOR}.*.{tenant}.*", f"dead.{BUDGET}.*.{tenant}.*.{MARKED}"):
        async for stored in stored_messages(bus, subjects.DEAD_LETTERS_STREAM, subject):
            marks.fold_mark(stored)
    return marks


async def tenants_letters(bus: Bus, tenant: str, after: int, batch: int) -> AsyncIterator[Letter]:
    """Those behind a place whose messages were addressed to an inbox for this tenant, the oldest first. A letter whose
    original subject cannot be read is nobody's. batch: so many are held at a time. Raises BusError."""
    async for stored in stored_messages(
        bus, subjects.DEAD_LETTERS_STREAM, f"dead.*.*.{tenant}.*", after=after, page_size=batch
    ):
        if not is_mark(stored.subject):
            parsed = parse_letter(stored)
            if address_of(parsed.subject).tenant == tenant:
                yield parsed


def address_of(original: str) -> subjects.Address:
    """Address of the message of a letter; an address of nobody where its subject does not say."""
    try:
        address = subjects.parse(original)
    except subjects.SubjectError:
        return NOWHERE
    return address if address.plane == "mesh" else NOWHERE


def is_mark(subject: str) -> bool:
    """Check whether what lies there is a mark, and not a letter."""
    parts = subject.split(".")
    return parts[1] == OPERATOR or (parts[1] == BUDGET and len(parts) == 6 and parts[5] == MARKED)


class LetterMarks:
    """Marks on letters, by letter."""

    def __init__(self) -> None:
        self._by_letter: dict[tuple[str, ...], list[DeadLetterMark]] = {}

    def fold_mark(self, stored: StoredMessage) -> None:
        """A stored mark; it counts for a letter of its own task."""
        key = (_lower_headers(stored).get(DEAD_ID, ""), *_task_at(stored.subject))
        self._by_letter.setdefault(key, []).extend(_parse_mark(stored))

    def with_marks(self, letter: Letter) -> Letter:
        """The letter with its marks, the oldest first."""
        letter_marks = self._by_letter.get((letter.id, *_task_at(letter.place)), ())
        return replace(letter, marks=tuple(sorted(letter_marks, key=lambda mark: mark.at_unix_ms)))


async def redrive_letter(bus: Bus, letter: Letter, by: str) -> PubAck:
    """Store the original again, then say so beside the letter. Raises BusError.

    Its message id is new each time: the broker still knows the old one.
    """
    ack = await bus.publish(letter.subject, letter.body, letter.headers, f"redrive-{letter.id}-{len(letter.marks)}")
    await mark_letter(bus, letter, DeadLetterMark("redriven", by, f"number {ack.sequence} of {ack.stream}"))
    return ack


async def mark_letter(bus: Bus, letter: Letter, mark: DeadLetterMark) -> None:
    """Say beside a letter what was done about it, as the operator. Raises BusError."""
    message_id = f"mark-{letter.id}-{len(letter.marks)}"
    await bus.publish(mark_place(OPERATOR, letter), *mark_content(letter, mark), message_id)


def mark_place(author: str, letter: Letter) -> str:
    """The subject of a mark on this letter."""
    return ".".join(("dead", author, *_task_at(letter.place), *((MARKED,) if author != OPERATOR else ())))


def mark_content(letter: Letter, mark: DeadLetterMark) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a mark."""
    content = {"what": mark.what, "by": mark.by, "reason": mark.reason[:MAX_REASON_CHARS]}
    content |= {"change": mark.change} if mark.change else {}
    return json.dumps(content).encode(), {MARK: mark.what, DEAD_ID: letter.id}


def _parse_mark(stored: StoredMessage) -> list[DeadLetterMark]:
    """[] for what is none."""
    try:
        row = json.loads(stored.body)
        is_known = row["what"] in get_args(MarkKind)
        change = str(row.get("change", ""))
        return (
            [DeadLetterMark(row["what"], str(row["by"]), str(row["reason"]), stored.time_unix_ms, change)]
            if is_known
            else []
        )
    except (ValueError, KeyError, TypeError):
        return []


def _lower_headers(stored: StoredMessage) -> dict[str, str]:
    return {key.lower(): value for key, value in stored.headers.items()}


def _task_at(subject: str) -> tuple[str, ...]:
    """Partition, tenant and task of a letter's or a mark's own subject."""
    return tuple(subject.split(".")[2:5])
