"""Counts of the whole mesh: messages that wait for services and who asks for them, streams, dead letters.

In: the broker's counts, asked at intervals. Out: gauges for metrics; the work of each inbox. Every replica of
budget tells the same, so that a service that is down is seen to fall behind; queries take the largest.
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
from bulkhead.telemetry.metrics import Counts, ReadGauge
from bulkhead_contracts import bounds, catalog, subjects

log = Log("budget.counts")

RECHECK_S = 0.3
"""A count of replicas that changed is told when a second look finds the same: a request ends every few seconds, and the
next one takes its place a moment later."""
IDLE_TIMES, IDLE_GROWTH = 3.0, 1.5
"""While the counts stay as they are, the pause between two of them grows to so many intervals."""
QUIET_MS = 8_000
"""A replica has several requests standing while it works; one for each durable when that has been quiet for longer than
any request lasts (MAX_PULL_S of the pull consumer)."""


class InboxLoad(NamedTuple):
    """Messages of a service that wait and that are in work; replicas and listens: see the contract's ServiceLoad."""

    pending: int
    in_work: int
    replicas: int | None
    listens: bool | None


class MeshCounts:
    """The last counts; none before the first answer, nor while the broker is away."""

    def __init__(self, bus: Bus, every_s: float, recheck_s: float = RECHECK_S) -> None:
        self._bus, self._every_s, self._recheck_s = bus, every_s, recheck_s
        self._counts_by_metric: dict[str, Counts] = {}
        self.inboxes: dict[str, InboxLoad] = {}

    @property
    def open_dead_letters(self) -> dict[str, int] | None:
        """Open dead letters per service; None before they are counted."""
        counts = self._counts_by_metric.get(names.DEAD_LETTERS)
        return {str(key[0][1]): int(count) for key, count in counts.items()} if counts is not None else None

    def gauges(self) -> dict[str, ReadGauge]:
        """By the names of the metrics."""
        metric_names = (*(names.INBOX_PENDING, names.INBOX_IN_WORK), *(names.STREAM_BYTES, names.STREAM_LIMIT))
        return {name: partial(self._latest_counts, name) for name in (*metric_names, names.DEAD_LETTERS)}

    def _latest_counts(self, name: str) -> Counts:
        return self._counts_by_metric.get(name, {})

    async def run(self) -> None:
        """Until cancelled."""
        pause_s = self._every_s
        while True:
            before = self._counts_by_metric, self.inboxes
            try:
                self._counts_by_metric = {**await self._count_streams(), **await self._count_inboxes()}
            except BusError as error:
                self._counts_by_metric, self.inboxes = {}, {}
                log.warning("not_counted", reason=str(error))
            is_idle = before == (self._counts_by_metric, self.inboxes)
            pause_s = min(pause_s * IDLE_GROWTH, self._every_s * IDLE_TIMES) if is_idle else self._every_s
            await asyncio.sleep(pause_s)

    async def _count_streams(self) -> dict[str, Counts]:
        size: dict[str, int] = {}
        limit: dict[str, int] = {}
        letters: Counts = {}
        for name in catalog.COUNTED_STREAMS:
            of_letters = name == subjects.DEAD_LETTERS_STREAM
            counts = await self._bus.stream_counts(name, "dead.>" if of_letters else "")
            size[name] = counts.bytes
            if counts.max_bytes:
                limit[name] = counts.max_bytes
            if of_letters:
                letters = _labelled_counts(names.SERVICE, open_letters(counts.by_subject))
        return {
            names.STREAM_BYTES: _labelled_counts(names.STREAM, size),
            names.STREAM_LIMIT: _labelled_counts(names.STREAM, limit),
            names.DEAD_LETTERS: letters,
        }

    async def _count_inboxes(self) -> dict[str, Counts]:
        shards = {service: await self._shard_counts(service) for service in catalog.INBOXES}
        loads = {service: inbox_of(counts) for service, counts in shards.items() if counts}
        changed = [
            name for name, load in loads.items() if _listening_state(load) != _listening_state(self.inboxes.get(name))
        ]
        if changed:
            await asyncio.sleep(self._recheck_s)
        for name in changed:
            second_load = inbox_of(await self._shard_counts(name))
            listens = second_load.listens if second_load.listens == loads[name].listens else None
            loads[name] = second_load._replace(
                replicas=second_load.replicas if second_load.replicas == loads[name].replicas else None, listens=listens
            )
        self.inboxes = loads
        pending, in_work = (
            {name: getattr(load, part) for name, load in loads.items()} for part in ("pending", "in_work")
        )
        return {
            names.INBOX_PENDING: _labelled_counts(names.INBOX, pending),
            names.INBOX_IN_WORK: _labelled_counts(names.INBOX, in_work),
        }

    async def _shard_counts(self, service: str) -> list[DurableCounts]:
        shards: list[DurableCounts] = []
        for shard in range(bounds.PARTITIONS):
            counts = await self._bus.durable_counts(
                subjects.inbox_stream(service), subjects.durable_name(service, shard)
            )
            if counts is None:
                break
            shards.append(counts)
        return shards


def inbox_of(shards: Sequence[DurableCounts]) -> InboxLoad:
    """The work of one inbox, from the counts of its durables; every replica asks all of them for messages. Pure.

    Where nobody asks, but messages are in work, the replicas have no room or are gone: the broker does not tell.
    """
    pending, in_work = sum(one.pending for one in shards), sum(one.in_work for one in shards)
    if not any(shard.asking for shard in shards):
        return InboxLoad(pending, in_work, *((0, False) if not in_work else (None, None)))
    quiet = [shard.asking for shard in shards if not shard.in_work and shard.quiet_ms > QUIET_MS]
    return InboxLoad(pending, in_work, max(quiet, default=0) or None, True)


def _listening_state(inbox: InboxLoad | None) -> tuple[int | None, bool | None] | None:
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
    open_counts = dict.fromkeys(letters, 0)
    for service, tasks in letters.items():
        for task, count in tasks.items():
            done = min(count, marks[task])
            marks[task] -= done
            open_counts[service] += count - done
    return open_counts


def _labelled_counts(attribute: str, values: Mapping[str, int]) -> Counts:
    return {((attribute, name),): value for name, value in values.items()}
