"""Times and order of the messages of a journal that was rebuilt.

In: a task's messages as the journal has them, and their originals in the inboxes, or as budget tells them to a gateway.
Out: the messages with the times at which the inboxes took them, in an order in which they were said; or untouched,
where the journal kept up.

A journal that is made again (after a restore, or since it lacked something) has one inbox behind the other, under the
times of its own making. The inboxes keep the broker's times, also through a backup: nobody who publishes has a say in
them. What an author writes into the envelope counts only for a message whose original is gone, and never as later than
the journal has it: outsiders reach no inbox but the gateway's, which is purged no sooner than the journal.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from bulkhead.bus.paging import stored_messages
from bulkhead.bus.port import Bus, StoredMessage
from bulkhead.runtime.decider.history import at_its_source
from bulkhead_contracts import catalog, envelope, subjects
from bulkhead_contracts.journal import ToldMessage

BEHIND_MS = 5_000
"""A journal that was not made again follows its inboxes more closely, or its times are worth no more than if it was."""


async def in_publication_order(bus: Bus, place: str, messages: list[StoredMessage]) -> list[StoredMessage]:
    """A task's messages in the order in which they were published. place: its partition, tenant and id in a subject.
    Raises BusError.

    The inboxes are read only for messages that the journal stored much later than their author's time: each author
    knows the broker's time, and a decision bears the time of its cause.
    """
    if not any(message.time_unix_ms - published_unix_ms(message) > BEHIND_MS for message in messages):
        return messages
    return reorder_by_originals(messages, await _original_times(bus, place, messages))


def reorder_by_originals(messages: list[StoredMessage], originals: Mapping[int, int]) -> list[StoredMessage]:
    """The messages in the order of their publication. originals: by position in `messages`, when the inbox stored it;
    only of those that are still there. Nothing changes when the journal stored none of them much later."""
    delays_ms = [messages[index].time_unix_ms - taken_unix_ms for index, taken_unix_ms in originals.items()]
    if not any(delay_ms > BEHIND_MS for delay_ms in delays_ms):
        return messages
    inboxes: dict[str, list[int]] = {}
    for index in sorted(range(len(messages)), key=lambda at: (at_its_source(messages[at]).sequence, at)):
        inboxes.setdefault(messages[index].receiver, []).append(index)
    times = [0] * len(messages)
    for inbox in inboxes.values():
        before = None
        for index in inbox:
            message = messages[index]
            author_unix_ms = _author_time(message)
            by_author = min(author_unix_ms, message.time_unix_ms) if author_unix_ms is not None else before
            before = times[index] = originals.get(index, by_author if by_author is not None else message.time_unix_ms)
    order = _causal_order(messages, times, list(inboxes.values()))
    return [replace(messages[index], time_unix_ms=times[index]) for index in order]


def published_unix_ms(stored: StoredMessage) -> int:
    """The time of publication by its author; the time of storage where that cannot be read."""
    author_unix_ms = _author_time(stored)
    return author_unix_ms if author_unix_ms is not None else stored.time_unix_ms


def _causal_order(messages: Sequence[StoredMessage], times: list[int], inboxes: Sequence[Sequence[int]]) -> list[int]:
    """By time, ties as they stand; none before its cause, nor before what its inbox took earlier.

    A cause that was taken much later is a lie, and left out; so is one of a circle. What bears a time before that of
    its cause (the clocks of two brokers differ, an original is gone) is set to that in `times`.
    """
    by_id: dict[str, int] = {}
    for index in sorted(range(len(messages)), key=lambda at: (times[at], at)):
        if name := messages[index].ce_id:
            by_id.setdefault(name, index)
    causes: list[int | None] = [by_id.get(message.cause) for message in messages]
    waits, after = [0] * len(messages), [list[int]() for _ in messages]
    for index, cause in enumerate(causes):
        if cause is None or cause == index or times[cause] > times[index] + BEHIND_MS:
            causes[index] = None
            continue
        after[cause].append(index)
        waits[index] += 1
    for inbox in inboxes:
        for earlier, later in pairwise(inbox):
            after[earlier].append(later)
            waits[later] += 1
    free = [(times[index], index) for index in range(len(messages)) if not waits[index]]
    heapq.heapify(free)
    unordered = sorted(range(len(messages)), key=lambda at: (times[at], at), reverse=True)
    order: list[int] = []
    done = [False] * len(messages)
    while len(order) < len(messages):
        if free:
            _, index = heapq.heappop(free)
        else:
            index = unordered.pop()  # Of a circle, the earliest.
        if done[index]:
            continue
        done[index] = True
        if (cause := causes[index]) is not None and done[cause]:
            times[index] = max(times[index], times[cause])
        order.append(index)
        for later in after[index]:
            waits[later] -= 1
            if not waits[later]:
                heapq.heappush(free, (times[later], later))
    return order


async def _original_times(bus: Bus, place: str, messages: Sequence[StoredMessage]) -> dict[int, int]:
    """When the inboxes took these, by place in `messages`; nothing of what they have no more, or something else for."""
    positions = {(message.receiver, at_its_source(message).sequence): index for index, message in enumerate(messages)}
    times: dict[int, int] = {}
    for inbox in sorted({receiver for receiver, _ in positions} & set(catalog.INBOXES)):
        stream, subject = subjects.inbox_stream(inbox), f"mesh.*.{inbox}.{place}"
        async for message in stored_messages(bus, stream, subject):
            index = positions.get((inbox, message.sequence))
            if index is None:
                continue
            if (messages[index].subject, messages[index].body) == (message.subject, message.body):
                times[index] = message.time_unix_ms
    return times


def _author_time(stored: StoredMessage) -> int | None:
    try:
        return envelope.parse(stored.headers).time_unix_ms
    except envelope.EnvelopeError:
        return None


def stored_of(message: ToldMessage, tenant: str, task: str) -> StoredMessage:
    """The message as a stream has it."""
    subject = subjects.mesh_subject(message.sender, message.receiver, tenant, task, message.key)
    return StoredMessage(
        subject, dict(message.headers), message.body.encode(), message.sequence, message.stored_unix_ms
    )


def as_in_inbox(message: ToldMessage, tenant: str, task: str) -> StoredMessage:
    """The same with the number that it has in its inbox, as portable histories have it."""
    return replace(stored_of(message, tenant, task), sequence=message.inbox_sequence)


def in_journal_order(messages: Iterable[StoredMessage]) -> list[StoredMessage]:
    """The messages as the journal has them; those of one that was made again (it has one inbox behind the other,
    under the times of its making) by their authors' times.
    """
    stored = list(messages)
    if not any(message.time_unix_ms - published_unix_ms(message) > BEHIND_MS for message in stored):
        return stored
    timed = [replace(message, time_unix_ms=min(message.time_unix_ms, published_unix_ms(message))) for message in stored]
    return sorted(timed, key=lambda one: one.time_unix_ms)
