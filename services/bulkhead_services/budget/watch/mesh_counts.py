"""What the mesh as a whole holds, for metrics: messages that wait for services, streams that fill, dead letters.

In: the broker's counts, asked at intervals. Out: gauges. Every replica of budget tells the same, so that a service
that is down is seen to fall behind; queries take the largest.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from functools import partial

from bulkhead.bus.port import Bus, BusError
from bulkhead.runtime.dead_letters import MARKED, is_mark
from bulkhead.telemetry import names
from bulkhead.telemetry.log import Log
from bulkhead.telemetry.metrics import Counts, Look
from bulkhead_contracts import bounds, catalog, subjects

log = Log("budget.counts")

EVERY_S = 10.0


class MeshCounts:
    """The last counts; none before the first answer, nor while the broker is away."""

    def __init__(self, bus: Bus, every_s: float = EVERY_S) -> None:
        self._bus, self._every_s = bus, every_s
        self._found: dict[str, Counts] = {}

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
                self._found = {}
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
        pending: dict[str, int] = {}
        in_work: dict[str, int] = {}
        for service in catalog.INBOXES:
            for shard in range(bounds.PARTITIONS):
                durable = subjects.durable(service, shard)
                counts = await self._bus.durable_counts(subjects.inbox_stream(service), durable)
                if counts is None:
                    break
                pending[service] = pending.get(service, 0) + counts.pending
                in_work[service] = in_work.get(service, 0) + counts.in_work
        return {names.INBOX_PENDING: _by(names.INBOX, pending), names.INBOX_IN_WORK: _by(names.INBOX, in_work)}


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
