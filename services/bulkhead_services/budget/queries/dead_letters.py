"""A tenant's dead letters for its operators and auditors, and their dismissal: a gateway faces the internet and may
read none.

In: DeadLettersRequested, DeadLetterRequested, DismissalRequested (rpc, from the gateway, which established who asks).
Out: the replies; a mark beside a letter that was dismissed. Content goes to operators alone, without grants and keys.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from bulkhead.bus.port import BusError, Stored
from bulkhead.runtime import dead_letters as letters
from bulkhead.runtime.context import Context
from bulkhead.runtime.dead_letters import BUDGET, Letter, Mark, address_of
from bulkhead.runtime.decider.history_secrets import GRANT, without_secrets
from bulkhead.runtime.edge.protocol import Received
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead.runtime.halts.operator import change_of
from bulkhead.runtime.publish.publisher import persist
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
from bulkhead_services.budget.readers import refused

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


def row_of(one: Letter, *, content: bool) -> DeadLetter:
    """What a list says of a letter."""
    address = address_of(one.subject)
    return DeadLetter(
        id=one.id,
        code=one.code[: bounds.MAX_SUMMARY_CHARS],
        reason=without_keys(one.reason[:MAX_REASON_CHARS]) if content else "",
        service=one.service[: bounds.MAX_SUMMARY_CHARS],
        sender=address.sender,
        type=one.headers.get("ce-type", "")[: bounds.MAX_SUMMARY_CHARS],
        task=address.task,
        subject=one.subject,
        sequence=one.sequence,
        buried_unix_ms=one.buried_unix_ms,
        body_bytes=len(one.body),
        marks=tuple(
            LetterMark(
                what=mark.what,
                by=mark.by[: bounds.MAX_SUMMARY_CHARS],
                reason=mark.reason[:MAX_REASON_CHARS],
                at_unix_ms=mark.at_unix_ms,
            )
            for mark in one.marks[-bounds.MAX_LETTER_MARKS :]
        ),
    )


def shown(one: Letter) -> DeadLetterReplied:
    """The letter with its content, as far as there is room."""
    [bare] = without_secrets([Stored(one.subject, one.headers, one.body, one.sequence, one.buried_unix_ms)])
    body = without_keys(bare.body.decode("utf-8", "replace"))
    headers = _headers(bare.headers)
    return DeadLetterReplied(
        letter=row_of(one, content=True),
        content=True,
        headers=headers,
        body=body[: bounds.MAX_LETTER_CHARS],
        left_out_chars=max(0, len(body) - bounds.MAX_LETTER_CHARS),
        left_out_headers=sum(name != GRANT for name in bare.headers) - len(headers),
    )


def _headers(found: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name[:MAX_HEADER_NAME_CHARS]: without_keys(value)[: bounds.MAX_LETTER_HEADER_CHARS]
        for name, value in sorted(found.items())
        if name != GRANT
    }
    return dict(list(kept.items())[: bounds.MAX_LETTER_HEADERS])


def judged(one: Letter, change: str) -> Failure | bool:
    """Whether a dismissal is to be made: not when this very request made it before; why not."""
    if any(mark.change == change for mark in one.marks):
        return False
    asked = change.rpartition("-")[0]
    if any(mark.change.rpartition("-")[0] == asked for mark in one.marks if mark.change):
        what = f"something else was said of the letter {one.id} under this key"
        return Failure.of("idempotency_reused", what, "use a new key, or repeat the first request unchanged")
    if one.standing == "dismissed":
        last = one.marks[-1]
        return Failure.of("dismissed", f"the letter was dismissed by {last.by}: {last.reason}", "nothing is left to do")
    return True


# The stream


class LetterBook:
    """Answers from the dead letters of one tenant after the other."""

    def __init__(self, context: Context) -> None:
        self._bus, self._key = context.bus, context.message_key
        self._places = FairSemaphore(AT_ONCE, kept=AT_ONCE - 1)

    async def list(self, message: Received) -> DeadLettersReplied:
        """A page."""
        body, tenant = message.body, message.tenant
        assert isinstance(body, DeadLettersRequested)
        if (failure := refused(body.requester, tenant, f"list dead letters of {message.tenant}")) is not None:
            return DeadLettersReplied(failure=failure)
        found = await self._held(tenant, lambda: self._page(body, tenant))
        return DeadLettersReplied(failure=found) if isinstance(found, Failure) else found

    async def show(self, message: Received) -> DeadLetterReplied:
        """One letter; its content for who may read it."""
        body, tenant = message.body, message.tenant
        assert isinstance(body, DeadLetterRequested)
        if (failure := refused(body.requester, tenant, f"see dead letters of {message.tenant}")) is not None:
            return DeadLetterReplied(failure=failure)
        found = await self._held(tenant, lambda: self._find(body.letter, tenant))
        if isinstance(found, Failure):
            return DeadLetterReplied(failure=found)
        if body.requester.role in MAY_READ_CONTENT:
            return shown(found)
        return DeadLetterReplied(letter=row_of(found, content=False))

    async def dismiss(self, message: Received) -> DismissalReplied:
        """Say beside a letter that it needs no action, and who says so."""
        body, tenant = message.body, message.tenant
        assert isinstance(body, DismissalRequested)
        if (
            failure := refused(body.requester, tenant, f"dismiss dead letters of {message.tenant}", MAY_DISMISS)
        ) is not None:
            return DismissalReplied(failure=failure)
        change = change_of(message.envelope.id, f"{body.letter} {body.reason}")
        done = Mark("dismissed", f"{tenant}/{body.requester.person}", body.reason[:MAX_REASON_CHARS], change=change)
        found = await self._held(tenant, lambda: self._dismissed(body.letter, tenant, done))
        if isinstance(found, Failure):
            return DismissalReplied(failure=found)
        return DismissalReplied(letter=row_of(found, content=True))

    async def _page(self, body: DeadLettersRequested, tenant: str) -> DeadLettersReplied:
        marks = await letters.read_marks(self._bus, tenant)
        rows, room, read, after = list[DeadLetter](), bounds.MAX_TOLD_BYTES, 0, body.after
        content = body.requester.role in MAY_READ_CONTENT
        async for bare in letters.tenants_letters(self._bus, tenant, body.after, BATCH):
            one = marks.on(bare)
            if body.everything or not one.marks:
                row = row_of(one, content=content)
                room -= len(row.model_dump_json())
                if len(rows) == body.limit or room < 0:
                    return DeadLettersReplied(letters=tuple(rows), next=after)
                rows.append(row)
            after, read = one.number, read + 1
            if read == bounds.MAX_LETTERS_READ:
                return DeadLettersReplied(letters=tuple(rows), next=after)
        return DeadLettersReplied(letters=tuple(rows))

    async def _find(self, letter: str, tenant: str) -> Letter | Failure:
        found: dict[str, Letter] = {}
        if len(letter) >= MIN_ID_CHARS:
            async for one in letters.tenants_letters(self._bus, tenant, 0, BATCH):
                if one.id.startswith(letter):
                    found[one.id] = one
        if letter in found or len(found) == 1:
            return (await letters.read_marks(self._bus, tenant)).on(found.get(letter) or next(iter(found.values())))
        if found:
            return Failure.of("several_letters", f"{len(found)} dead letters begin with {letter}", HINT)
        return Failure.of("no_such_letter", f"no dead letter of this tenant begins with {letter}", HINT)

    async def _dismissed(self, letter: str, tenant: str, done: Mark) -> Letter | Failure:
        one = await self._find(letter, tenant)
        if isinstance(one, Failure):
            return one
        verdict = judged(one, done.change)
        if isinstance(verdict, Failure):
            return verdict
        if verdict:
            place, (said, headers) = letters.mark_place(BUDGET, one), letters.mark_content(one, done)
            # Of two at the same time the broker takes one: two marks would hide another letter of the task.
            message_id = envelope.message_id(self._key, place, f"mark-{one.id}-{len(one.marks)}")
            ack = await persist(lambda: self._bus.publish(place, said, headers, message_id))
            log.warning("dead_letter_dismissed", letter=one.id, tenant=tenant, by=done.by, duplicate=ack.duplicate)
            one = (await letters.read_marks(self._bus, tenant)).on(one)
        return one

    async def _held(self, tenant: str, read: Callable[[], Awaitable[R | Failure]]) -> R | Failure:
        if self._places.waiting(tenant) >= MAX_WAITING:
            return Failure.of(
                "busy", "others read dead letters of the tenant at the same time", "ask again in a moment"
            )
        try:
            # Less than the asker waits, so that it hears why.
            async with asyncio.timeout(bounds.WRITES_TIMEOUT_MS / 1_000 * 0.8), self._places.held(tenant):
                return await read()
        except TimeoutError:
            what = "there are too many dead letters to look through in time"
            return Failure.of("too_much", what, "`bulkhead dead-letters` on the machine of the mesh has no such limit")
        except BusError as error:
            return Failure.of("unavailable", f"dead letters cannot be read: {error}", "ask again in a moment")
