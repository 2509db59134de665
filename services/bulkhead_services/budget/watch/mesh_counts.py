"""What the mesh as a whole holds: messages that wait for services and who asks for them, streams, dead letters.

In: the broker's counts, asked at intervals. Out: gauges for metrics; the work of each inbox. Every replica of budget
tells the same, so that a service that is down is seen to fall behind; queries take the largest.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from bulkhead.bus.port import Bus, BusError, DurableCounts
from bulkhead.runtime.dead_letters import MARKED, is_mark
from bulkhead.telemetry import names
from bulkhead.telemetry.log import Log
from bulkhead.telemetry.metrics import Counts, Look
from bulkhead_contracts import bounds, catalog, subjects

log = Log("budget.counts")

AGAIN_S = 0.3
"""A count of replicas that changed is told when a second look finds the same: a request ends every few seconds, and the
next one takes its place a moment later."""
QUIET_MS = 8_000
"""A replica has several requests standing while it works; one for each durable when that has been quiet for longer than
any request lasts (MAX_PULL_S of the pull consumer)."""


class Inbox(NamedTuple):
    """Messages of a service that wait and that are in work; replicas and listens: see the contract's ServiceLoad."""

    pending: int
    in_work: int
    replicas: int | None
    listens: bool | None


class MeshCounts:
    """The last counts; none before the first answer, nor while the broker is away."""

    def __init__(self, bus: Bus, every_s: float, again_s: float = AGAIN_S) -> None:
        self._bus, self._every_s, self._again_s = bus, every_s, again_s
        self._found: dict[str, Counts] = {}
        self.inboxes: dict[str, Inbox] = {}

    @property
    def letters(self) -> dict[str, int] | None:
        """Open dead letters per service; None before they are counted."""
        found = self._found.get(names.DEAD_LETTERS)
        return {str(key[0][1]): int(count) for key, count in found.items()} if found is not None else None

    def gauges(self) -> dict[str, Look]:
        """By the names of the metrics."""
        told = (*(names.INBOX_PENDING, names.INBOX_IN_WORK), *(names.STREAM_BYTES, names.STREAM_LIMIT))
        return {name: partial(self._look, name) for name in (*told, names.DEAD_LETTERS)}

    def _look(self, name: str) -> Counts:
        return self._found.get(name, {})

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                self._found = {**await self._streams(), **await self._inboxes()}
            except BusError as error:
                self._found, self.inboxes = {}, {}
                log.warning("not_counted", reason=str(error))
            await asyncio.sleep(self._every_s)

    async def _streams(self) -> dict[str, Counts]:
        size: dict[str, int] = {}
        limit: dict[str, int] = {}
        letters: Counts = {}
        for name in catalog.COUNTED_STREAMS:
            of_letters = name == subjects.DEAD_LETTERS_STREAM
            found = await self._bus.stream_counts(name, "dead.>" if of_letters else "")
            size[name] = found.bytes
            if found.max_bytes:
                limit[name] = found.max_bytes
            if of_letters:
                letters = _by(names.SERVICE, open_letters(found.by_subject))
        return {
            names.STREAM_BYTES: _by(names.STREAM, size),
            names.STREAM_LIMIT: _by(names.STREAM, limit),
            names.DEAD_LETTERS: letters,
        }

    async def _inboxes(self) -> dict[str, Counts]:
        shards = {service: await self._shards(service) for service in catalog.INBOXES}
        found = {service: inbox_of(counts) for service, counts in shards.items() if counts}
        changed = [name for name, one in found.items() if _asked(one) != _asked(self.inboxes.get(name))]
        if changed:
            await asyncio.sleep(self._again_s)
        for name in changed:
            again = inbox_of(await self._shards(name))
            listens = again.listens if again.listens == found[name].listens else None
            found[name] = again._replace(
                replicas=again.replicas if again.replicas == found[name].replicas else None, listens=listens
            )
        self.inboxes = found
        pending, in_work = (
            {name: getattr(one, part) for name, one in found.items()} for part in ("pending", "in_work")
        )
        return {names.INBOX_PENDING: _by(names.INBOX, pending), names.INBOX_IN_WORK: _by(names.INBOX, in_work)}

    async def _shards(self, service: str) -> list[DurableCounts]:
        found: list[DurableCounts] = []
        for shard in range(bounds.PARTITIONS):
            counts = await self._bus.durable_counts(subjects.inbox_stream(service), subjects.durable(service, shard))
            if counts is None:
                break
            found.append(counts)
        return found


def inbox_of(shards: Sequence[DurableCounts]) -> Inbox:
    """The work of one inbox, from the counts of its durables; every replica asks all of them for messages. Pure.

    Where nobody asks, but messages are in work, the replicas have no room or are gone: the broker does not tell.
    """
    pending, in_work = sum(one.pending for one in shards), sum(one.in_work for one in shards)
    if not any(one.asking for one in shards):
        return Inbox(pending, in_work, *((0, False) if not in_work else (None, None)))
    quiet = [one.asking for one in shards if not one.in_work and one.quiet_ms > QUIET_MS]
    return Inbox(pending, in_work, max(quiet, default=0) or None, True)


def _asked(inbox: Inbox | None) -> tuple[int | None, bool | None] | None:
    return (inbox.replicas, inbox.listens) if inbox is not None else None


def open_letters(by_subject: Mapping[str, int]) -> dict[str, int]:
    """Dead letters per service that nobody has sent again or dismissed; 0 for a service with none left. Pure.

    Letters and marks are counted per task, for their subjects name no letter: a letter that was sent again twice hides
    another one of its task.
    """
    marks: Counter[str] = Counter()
    letters: dict[str, dict[str, int]] = {}
    for subject, count in by_subject.items():
        _, service, task = subject.split(".", 2)
        if is_mark(subject):
            marks[task.removesuffix(f".{MARKED}")] += count
        else:
            letters.setdefault(service, {})[task] = count
    found = dict.fromkeys(letters, 0)
    for service, tasks in letters.items():
        for task, count in tasks.items():
            done = min(count, marks[task])
            marks[task] -= done
            found[service] += count - done
    return found


def _by(attribute: str, values: Mapping[str, int]) -> Counts:
    return {((attribute, name),): value for name, value in values.items()}
