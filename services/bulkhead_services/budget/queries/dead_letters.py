"""A tenant's dead letters for its operators and auditors, and their dismissal: a gateway faces the internet and may
read none.

In: DeadLettersRequested, DeadLetterRequested, DismissalRequested (rpc, from the gateway, which established who asks).
Out: the replies; a mark beside a letter that was dismissed. Content goes to operators alone, without grants and keys.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from bulkhead.bus.port import BusError, StoredMessage
from bulkhead.runtime import dead_letters as letters
from bulkhead.runtime.context import Context
from bulkhead.runtime.dead_letters import BUDGET, DeadLetterMark, Letter, address_of
from bulkhead.runtime.decider.history_secrets import GRANT, without_secrets
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead.runtime.halts.operator import change_of
from bulkhead.runtime.publish.publisher import publish_persistently
from bulkhead.telemetry.log import Log
from bulkhead.telemetry.redaction import without_keys
from bulkhead_contracts import bounds, envelope
from bulkhead_contracts.budget import (
    DeadLetter,
    DeadLetterReplied,
    DeadLetterRequested,
    DeadLettersReplied,
    DeadLettersRequested,
    DismissalReplied,
    DismissalRequested,
    LetterMark,
)
from bulkhead_contracts.result import Failure
from bulkhead_services.budget.readers import check_reader

log = Log("budget.dead_letters")

R = TypeVar("R")
MAY_READ_CONTENT = MAY_DISMISS = ("operator",)
BATCH = 16
"""Letters in memory at a time, each up to the size of a message."""
AT_ONCE = 2
"""Requests of two tenants at a time: neither waits for the whole of the other's."""
MAX_WAITING = 16
"""Requests of one tenant that may wait."""
MIN_ID_CHARS = 4
MAX_REASON_CHARS = 1_000
MAX_HEADER_NAME_CHARS = 64
HINT = "GET /v1/dead-letters lists the letters of your tenant"


# Pure


def row_of(letter: Letter, *, content: bool) -> DeadLetter:
    """Row of a letter in a list."""
    address = address_of(letter.subject)
    return DeadLetter(
        id=letter.id,
        code=letter.code[: bounds.MAX_SUMMARY_CHARS],
        reason=without_keys(letter.reason[:MAX_REASON_CHARS]) if content else "",
        service=letter.service[: bounds.MAX_SUMMARY_CHARS],
        sender=address.sender,
        type=letter.headers.get("ce-type", "")[: bounds.MAX_SUMMARY_CHARS],
        task=address.task,
        subject=letter.subject,
        sequence=letter.sequence,
        buried_unix_ms=letter.buried_unix_ms,
        body_bytes=len(letter.body),
        marks=tuple(
            LetterMark(
                what=mark.what,
                by=mark.by[: bounds.MAX_SUMMARY_CHARS],
                reason=mark.reason[:MAX_REASON_CHARS],
                at_unix_ms=mark.at_unix_ms,
            )
            for mark in letter.marks[-bounds.MAX_LETTER_MARKS :]
        ),
    )


def reply_with_content(letter: Letter) -> DeadLetterReplied:
    """The letter with its content, as far as there is room."""
    [bare] = without_secrets(
        [StoredMessage(letter.subject, letter.headers, letter.body, letter.sequence, letter.buried_unix_ms)]
    )
    body = without_keys(bare.body.decode("utf-8", "replace"))
    headers = _shown_headers(bare.headers)
    return DeadLetterReplied(
        letter=row_of(letter, content=True),
        content=True,
        headers=headers,
        body=body[: bounds.MAX_LETTER_CHARS],
        left_out_chars=max(0, len(body) - bounds.MAX_LETTER_CHARS),
        left_out_headers=sum(name != GRANT for name in bare.headers) - len(headers),
    )


def _shown_headers(headers: Mapping[str, str]) -> dict[str, str]:
    clean_headers = {
        name[:MAX_HEADER_NAME_CHARS]: without_keys(value)[: bounds.MAX_LETTER_HEADER_CHARS]
        for name, value in sorted(headers.items())
        if name != GRANT
    }
    return dict(list(clean_headers.items())[: bounds.MAX_LETTER_HEADERS])


def should_dismiss(letter: Letter, change: str) -> Failure | bool:
    """True when a dismissal is to be made, False when this very request made it before; else why not."""
    if any(mark.change == change for mark in letter.marks):
        return False
    request_id = change.rpartition("-")[0]
    if any(mark.change.rpartition("-")[0] == request_id for mark in letter.marks if mark.change):
        reason = f"something else was said of the letter {letter.id} under this key"
        return Failure.from_text("idempotency_reused", reason, "use a new key, or repeat the first request unchanged")
    if letter.standing == "dismissed":
        last = letter.marks[-1]
        return Failure.from_text(
            "dismissed", f"the letter was dismissed by {last.by}: {last.reason}", "nothing is left to do"
        )
    return True


# The stream


class DeadLetterQuery:
    """Answers from the dead letters of one tenant after the other."""

    def __init__(self, context: Context) -> None:
        self._bus, self._key = context.bus, context.message_key
        self._places = FairSemaphore(AT_ONCE, kept=AT_ONCE - 1)

    async def list_letters(self, message: ReceivedMessage) -> DeadLettersReplied:
        """A page."""
        body, tenant = message.body, message.tenant
        assert isinstance(body, DeadLettersRequested)
        if (failure := check_reader(body.requester, tenant, f"list dead letters of {message.tenant}")) is not None:
            return DeadLettersReplied(failure=failure)
        result = await self._read_in_turn(tenant, lambda: self._list_page(body, tenant))
        return DeadLettersReplied(failure=result) if isinstance(result, Failure) else result

    async def show_letter(self, message: ReceivedMessage) -> DeadLetterReplied:
        """One letter; its content for who may read it."""
        body, tenant = message.body, message.tenant
        assert isinstance(body, DeadLetterRequested)
        if (failure := check_reader(body.requester, tenant, f"see dead letters of {message.tenant}")) is not None:
            return DeadLetterReplied(failure=failure)
        letter = await self._read_in_turn(tenant, lambda: self._find_letter(body.letter, tenant))
        if isinstance(letter, Failure):
            return DeadLetterReplied(failure=letter)
        if body.requester.role in MAY_READ_CONTENT:
            return reply_with_content(letter)
        return DeadLetterReplied(letter=row_of(letter, content=False))

    async def dismiss_letter(self, message: ReceivedMessage) -> DismissalReplied:
        """Say beside a letter that it needs no action, and who says so."""
        body, tenant = message.body, message.tenant
        assert isinstance(body, DismissalRequested)
        if (
            failure := check_reader(body.requester, tenant, f"dismiss dead letters of {message.tenant}", MAY_DISMISS)
        ) is not None:
            return DismissalReplied(failure=failure)
        change = change_of(message.envelope.id, f"{body.letter} {body.reason}")
        mark = DeadLetterMark(
            "dismissed", f"{tenant}/{body.requester.person}", body.reason[:MAX_REASON_CHARS], change=change
        )
        letter = await self._read_in_turn(tenant, lambda: self._mark_dismissed(body.letter, tenant, mark))
        if isinstance(letter, Failure):
            return DismissalReplied(failure=letter)
        return DismissalReplied(letter=row_of(letter, content=True))

    async def _list_page(self, body: DeadLettersRequested, tenant: str) -> DeadLettersReplied:
        marks = await letters.read_marks(self._bus, tenant)
        rows, room, letters_read, after = list[DeadLetter](), bounds.MAX_TOLD_BYTES, 0, body.after
        content = body.requester.role in MAY_READ_CONTENT
        async for bare in letters.tenants_letters(self._bus, tenant, body.after, BATCH):
            letter = marks.with_marks(bare)
            if body.everything or not letter.marks:
                row = row_of(letter, content=content)
                room -= len(row.model_dump_json())
                if len(rows) == body.limit or room < 0:
                    return DeadLettersReplied(letters=tuple(rows), next=after)
                rows.append(row)
            after, letters_read = letter.number, letters_read + 1
            if letters_read == bounds.MAX_LETTERS_READ:
                return DeadLettersReplied(letters=tuple(rows), next=after)
        return DeadLettersReplied(letters=tuple(rows))

    async def _find_letter(self, letter: str, tenant: str) -> Letter | Failure:
        matches: dict[str, Letter] = {}
        if len(letter) >= MIN_ID_CHARS:
            async for candidate in letters.tenants_letters(self._bus, tenant, 0, BATCH):
                if candidate.id.startswith(letter):
                    matches[candidate.id] = candidate
        if letter in matches or len(matches) == 1:
            return (await letters.read_marks(self._bus, tenant)).with_marks(
                matches.get(letter) or next(iter(matches.values()))
            )
        if matches:
            return Failure.from_text("several_letters", f"{len(matches)} dead letters begin with {letter}", HINT)
        return Failure.from_text("no_such_letter", f"no dead letter of this tenant begins with {letter}", HINT)

    async def _mark_dismissed(self, letter: str, tenant: str, mark: DeadLetterMark) -> Letter | Failure:
        stored = await self._find_letter(letter, tenant)
        if isinstance(stored, Failure):
            return stored
        verdict = should_dismiss(stored, mark.change)
        if isinstance(verdict, Failure):
            return verdict
        if verdict:
            place, (content, headers) = letters.mark_place(BUDGET, stored), letters.mark_content(stored, mark)
            # Of two at the same time the broker takes one: two marks would hide another letter of the task.
            message_id = envelope.message_id(self._key, place, f"mark-{stored.id}-{len(stored.marks)}")
            ack = await publish_persistently(lambda: self._bus.publish(place, content, headers, message_id))
            log.warning("dead_letter_dismissed", letter=stored.id, tenant=tenant, by=mark.by, duplicate=ack.duplicate)
            stored = (await letters.read_marks(self._bus, tenant)).with_marks(stored)
        return stored

    async def _read_in_turn(self, tenant: str, read: Callable[[], Awaitable[R | Failure]]) -> R | Failure:
        if self._places.count_waiting(tenant) >= MAX_WAITING:
            return Failure.from_text(
                "busy", "others read dead letters of the tenant at the same time", "ask again in a moment"
            )
        try:
            # Less than the asker waits, so that it hears why.
            async with asyncio.timeout(bounds.WRITES_TIMEOUT_MS / 1_000 * 0.8), self._places.hold_slot(tenant):
                return await read()
        except TimeoutError:
            reason = "there are too many dead letters to look through in time"
            return Failure.from_text(
                "too_much", reason, "`bulkhead dead-letters` on the machine of the mesh has no such limit"
            )
        except BusError as error:
            return Failure.from_text("unavailable", f"dead letters cannot be read: {error}", "ask again in a moment")
