"""Times and order of the messages of a journal that was rebuilt.

In: a task's messages as the journal has them, and their originals in the inboxes. Out: the messages with the times at
which the inboxes took them, in an order in which they were said; or untouched, where the journal kept up.

A journal that is made again (after a restore, or since it lacked something) has one inbox behind the other, under the
times of its own making. The inboxes keep the broker's times, also through a backup: nobody who publishes has a say in
them. What an author writes into the envelope counts only for a message whose original is gone, and never as later than
the journal has it: outsiders reach no inbox but the gateway's, which is purged no sooner than the journal.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from bulkhead.bus.port import Bus, Stored
from bulkhead.runtime.decider.history import at_its_source
from bulkhead_contracts import catalog, envelope, subjects

BEHIND_MS = 5_000
"""A journal that was not made again follows its inboxes more closely, or its times are worth no more than if it was."""
PAGE = 256


async def as_said(bus: Bus, place: str, found: list[Stored]) -> list[Stored]:
    """A task's messages in the order in which they were published. place: its partition, tenant and id in a subject.
    Raises BusError.

    The inboxes are read only for messages that the journal stored much later than their author's time: each author
    knows the broker's time, and a decision bears the time of its cause.
    """
    if not any(one.time_unix_ms - said_at(one) > BEHIND_MS for one in found):
        return found
    return as_taken(found, await _originals(bus, place, found))


def as_taken(found: list[Stored], originals: Mapping[int, int]) -> list[Stored]:
    """The messages in the order of their publication. originals: by position in `found`, when the inbox stored it; only
    of those that are still there. Nothing changes when the journal stored none of them much later."""
    if not any(found[at].time_unix_ms - taken > BEHIND_MS for at, taken in originals.items()):
        return found
    inboxes: dict[str, list[int]] = {}
    for at in sorted(range(len(found)), key=lambda at: (at_its_source(found[at]).sequence, at)):
        inboxes.setdefault(found[at].receiver, []).append(at)
    times = [0] * len(found)
    for inbox in inboxes.values():
        before = None
        for at in inbox:
            one = found[at]
            said = _told(one)
            by_author = min(said, one.time_unix_ms) if said is not None else before
            before = times[at] = originals.get(at, by_author if by_author is not None else one.time_unix_ms)
    order = _order(found, times, list(inboxes.values()))
    return [replace(found[at], time_unix_ms=times[at]) for at in order]


def said_at(stored: Stored) -> int:
    """The time of publication by its author; the time of storage where that cannot be read."""
    told = _told(stored)
    return told if told is not None else stored.time_unix_ms


def _order(found: Sequence[Stored], times: list[int], inboxes: Sequence[Sequence[int]]) -> list[int]:
    """By time, ties as they stand; none before its cause, nor before what its inbox took earlier.

    A cause that was taken much later is a lie, and left out; so is one of a circle. What bears a time before that of
    its cause (the clocks of two brokers differ, an original is gone) is set to that in `times`.
    """
    by_id: dict[str, int] = {}
    for at in sorted(range(len(found)), key=lambda at: (times[at], at)):
        if name := found[at].ce_id:
            by_id.setdefault(name, at)
    causes: list[int | None] = [by_id.get(one.cause) for one in found]
    waits, after = [0] * len(found), [list[int]() for _ in found]
    for at, cause in enumerate(causes):
        if cause is None or cause == at or times[cause] > times[at] + BEHIND_MS:
            causes[at] = None
            continue
        after[cause].append(at)
        waits[at] += 1
    for inbox in inboxes:
        for earlier, later in pairwise(inbox):
            after[earlier].append(later)
            waits[later] += 1
    free = [(times[at], at) for at in range(len(found)) if not waits[at]]
    heapq.heapify(free)
    rest = sorted(range(len(found)), key=lambda at: (times[at], at), reverse=True)
    order: list[int] = []
    done = [False] * len(found)
    while len(order) < len(found):
        if free:
            _, at = heapq.heappop(free)
        else:
            at = rest.pop()  # Of a circle, the earliest.
        if done[at]:
            continue
        done[at] = True
        if (cause := causes[at]) is not None and done[cause]:
            times[at] = max(times[at], times[cause])
        order.append(at)
        for later in after[at]:
            waits[later] -= 1
            if not waits[later]:
                heapq.heappush(free, (times[later], later))
    return order


async def _originals(bus: Bus, place: str, found: Sequence[Stored]) -> dict[int, int]:
    """When the inboxes took these, by place in `found`; nothing of what they have no more, or something else for."""
    wanted = {(one.receiver, at_its_source(one).sequence): at for at, one in enumerate(found)}
    times: dict[int, int] = {}
    for inbox in sorted({receiver for receiver, _ in wanted} & set(catalog.INBOXES)):
        after = 0
        while page := await bus.read(subjects.inbox_stream(inbox), f"mesh.*.{inbox}.{place}", after=after, limit=PAGE):
            for one in page:
                at = wanted.get((inbox, one.sequence))
                if at is not None and (found[at].subject, found[at].body) == (one.subject, one.body):
                    times[at] = one.time_unix_ms
            after = page[-1].sequence
    return times


def _told(stored: Stored) -> int | None:
    try:
        return envelope.parse(stored.headers).time_unix_ms
    except envelope.EnvelopeError:
        return None
