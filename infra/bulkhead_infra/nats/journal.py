"""Comparison of JOURNAL with the inboxes that it copies, and its repair: JOURNAL is dropped and made again.

In: a broker, the keys of the operator (reads) and the provisioner (makes streams). Out: a report, empty when JOURNAL is
whole or will be. JOURNAL is written without fsync and remembers how far it has read each inbox: after a full disk it
can lack what it remembers to have read; after an inbox was lost and made anew it waits for numbers that are long past.
Made again, it reads every inbox from its first message on: its own sequences change, which nothing permanent uses. The
report tells what only JOURNAL still has of a damaged inbox, and a file keeps it before the drop. The report also tells
of messages that the broker leaves out because their author used one id twice, in two inboxes: a new JOURNAL would lack
them, too.
"""

import asyncio
import base64
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from bulkhead.bus.port import StoredMessage
from bulkhead.bus.wire import MESSAGE_ID
from bulkhead.runtime.decider.history import at_its_source
from bulkhead_contracts import catalog, envelope, subjects
from bulkhead_infra.identity.policy import OPERATOR, PROVISIONER
from bulkhead_infra.nats.provision import provision
from bulkhead_infra.nats.purge import MIN_RETENTION_S
from bulkhead_infra.nats.stream_reads import JOURNAL, StreamReads, inbox_pattern, open_bus
from bulkhead_infra.nats.streams import Layout
from bulkhead_infra.nats.trimming import is_trimmed

STALLED_S, CLUSTER_STALLED_S = 12.0, 120.0
"""An inbox that has more, of which JOURNAL takes nothing for so long, is not read any more. In a cluster JOURNAL finds
an inbox's new leader by itself, after half a minute or more: to make it again for that would only take longer."""
PAUSE_S = 0.1
MAX_COUNTS = 100
"""Counts are taken again at most so often while messages come in between; then the next comparison decides."""
COMPARED_TAIL = 512
"""Count of an inbox's last numbers that are compared one by one: more were not on the way when its disk was full."""
MAX_COMPARED = 1_000
"""Subjects of which an inbox has fewer messages than JOURNAL; so many are looked at."""


@dataclass(frozen=True, slots=True)
class JournalReport:
    """For people; "" when there is nothing to say. fault: why JOURNAL was made again. lost: what an inbox has lost.
    hidden: what was kept out of JOURNAL."""

    fault: str = ""
    lost: str = ""
    hidden: str = ""


async def keep_journal_whole(
    url: str, seed_of: Callable[[str], str], layout: Layout, lost_folder: Path, *, ca_file: Path | None = None
) -> JournalReport:
    """Compare, and make JOURNAL again when it needs that. lost_folder: for what only JOURNAL has. ca_file: TLS.

    Raises BusError, ProvisionError, OSError; JOURNAL is not dropped before what only it has is in that folder.
    """
    connect = partial(open_bus, url, seed_of=seed_of, ca_file=ca_file)
    async with connect(OPERATOR) as reader, connect(PROVISIONER) as maker:
        stalled_s = STALLED_S if layout.replicas == 1 else CLUSTER_STALLED_S
        comparison = JournalComparison(StreamReads(reader, maker), stalled_s)
        fault = await comparison.find_fault()
        lost = await comparison.count_lost()
        where = await comparison.save_lost(lost, lost_folder) if fault and lost else None
        if fault:
            await comparison.drop_journal()
    if fault:
        await provision(url, seed_of(PROVISIONER), layout, ca_file=ca_file)
    return JournalReport(fault, _render_loss(lost, where), _render_hidden(comparison.hidden))


def _render_loss(lost: Mapping[str, Mapping[str, int]], where: Path | None) -> str:
    if not lost:
        return ""
    counts = ", ".join(f"{stream} {sum(by_subject.values())}" for stream, by_subject in lost.items())
    absent = (subject for by_subject in lost.values() for subject in by_subject)
    tasks = sorted({task for subject in absent for task in subject.split(".")[5:6]})
    return (
        f"messages that the journal has are gone from their inboxes ({counts}; of tasks {', '.join(tasks[:5])}"
        f"{' and others' if len(tasks) > 5 else ''}). Those that were on the way when a disk was full, or the power "
        "failed, nobody was told to be stored. Otherwise files were damaged or taken away: stop the mesh and restore "
        "its directory from a backup. What the journal still had of them is in "
        f"{where or 'the journal (`bulkhead timeline TASK`)'}"
    )


def _render_hidden(hidden: Mapping[str, set[str]]) -> str:
    if not hidden:
        return ""
    authors = "; ".join(f"{author}: {len(places)}, as {min(places)}" for author, places in sorted(hidden.items()))
    return (
        f"messages stand in their inboxes and not in the journal ({authors}), so that neither watcher "
        "nor timelines see "
        "them: their author gave messages in different inboxes one Nats-Msg-Id, which no program of this mesh does. "
        "Stop it, read what stands there, and replace its key"
    )


class JournalComparison:
    """One comparison of JOURNAL with the inboxes that it copies."""

    def __init__(self, streams: StreamReads, stalled_s: float = STALLED_S) -> None:
        self._streams, self._stalled_s = streams, stalled_s
        self._ahead: set[str] = set()
        self.hidden: dict[str, set[str]] = {}
        """By author, where something lies that JOURNAL left out for its id: inbox and number."""

    async def find_fault(self) -> str:
        """The messages that JOURNAL lacks and will not get; "" for none. Waits until it is level. Raises BusError."""
        if not await self._streams.has_journal():
            return "it is not there"
        for name in catalog.INBOXES:
            if (
                fault := await self._find_stall(name)
                or await self._find_difference(name)
                or await self._find_lack(name)
            ):
                return fault
        return ""

    async def count_lost(self) -> dict[str, dict[str, int]]:
        """Count, by stream and subject, the messages of JOURNAL that vanished without a purge. Raises BusError."""
        losses: dict[str, dict[str, int]] = {}
        if not await self._streams.has_journal():
            return losses
        for name in catalog.INBOXES:
            stream, pattern = subjects.inbox_stream(name), inbox_pattern(name)
            copied = await self._streams.count_from(JOURNAL, 1, pattern)
            if name not in self._ahead and copied <= (await self._streams.stream_state(stream)).messages:
                continue
            had, has = (
                await self._streams.count_by_subject(JOURNAL, pattern),
                await self._streams.count_by_subject(stream, pattern),
            )
            surplus = {
                subject: count - has.get(subject, 0) for subject, count in had.items() if count > has.get(subject, 0)
            }
            looked_at = list(surplus.items())[:MAX_COMPARED]
            untrimmed = {subject: await self._untrimmed_surplus(stream, subject, count) for subject, count in looked_at}
            if vanished := {
                subject: count
                for subject, count in untrimmed.items()
                if count and await self._is_too_young_to_purge(subject)
            }:
                losses[stream] = vanished
        return losses

    async def save_lost(self, lost: Mapping[str, Mapping[str, int]], lost_folder: Path) -> Path:
        """Messages of these subjects that only JOURNAL has, in a new file. Raises OSError, BusError."""
        with _new_file(lost_folder) as file:
            for stream, by_subject in lost.items():
                for subject in by_subject:
                    remaining = {message.sequence async for message in self._streams.read_all(stream, subject)}
                    async for stored in self._streams.read_all(JOURNAL, subject):
                        message = at_its_source(stored)
                        if message.sequence not in remaining:
                            file.write(_render_line(stream, message))
            file.flush()
            os.fsync(file.fileno())
            return Path(file.name)

    async def _untrimmed_surplus(self, stream: str, subject: str, surplus: int) -> int:
        """Surplus of JOURNAL; where the oldest are trimmed, only messages newer than the first that is still there."""
        if not is_trimmed(subject):
            return surplus
        first = next(iter(await self._streams.reader.read(stream, subject, limit=1)), None)
        if first is None:
            return surplus  # A trim leaves the newest.
        async for stored in self._streams.read_all(JOURNAL, subject):
            if at_its_source(stored).sequence >= first.sequence:
                copied = await self._streams.count_from(JOURNAL, stored.sequence, subject)
                return max(0, copied - await self._streams.count_from(stream, first.sequence, subject))
        return 0

    async def _is_too_young_to_purge(self, subject: str) -> bool:
        """True when it was said so lately that nothing of it can have been purged."""
        newest = await self._streams.reader.last(JOURNAL, subject)
        if newest is None:
            return False
        try:
            said_unix_ms = envelope.parse(newest.headers).time_unix_ms
        except envelope.EnvelopeError:
            said_unix_ms = newest.time_unix_ms
        return time.time() - said_unix_ms / 1000 < MIN_RETENTION_S

    async def drop_journal(self) -> None:
        """Take JOURNAL away. Raises BusError."""
        await self._streams.drop_journal()

    async def _find_stall(self, name: str) -> str:
        """Fault when JOURNAL comes no further in an inbox, or is further than the inbox itself; "" for none."""
        stream, loop = subjects.inbox_stream(name), asyncio.get_running_loop()
        reached, since = -1, loop.time()
        while True:
            position = await self._streams.last_copied_sequence(name)
            state = await self._streams.stream_state(stream)
            if position > state.last:
                self._ahead.add(name)
                return f"it has read {stream} up to number {position}, which now ends at {state.last} and was made anew"
            newest = await self._streams.reader.last(stream, inbox_pattern(name))
            if newest is None or position >= newest.sequence:
                return ""
            if position != reached:
                reached, since = position, loop.time()
            elif loop.time() - since > self._stalled_s:
                return f"it has read {stream} up to number {position} and does not go on to {newest.sequence}"
            await asyncio.sleep(PAUSE_S)

    async def _find_difference(self, name: str) -> str:
        """Fault when JOURNAL has another message under one of an inbox's newest numbers, or none; counts may agree
        then.

        A message that an inbox handed on when its disk was full was never stored, and its number was given again.
        JOURNAL itself may have read one message twice and another not at all.
        """
        stream, pattern = subjects.inbox_stream(name), inbox_pattern(name)
        reader = self._streams.reader
        newest, copy = await reader.last(stream, pattern), await reader.last(JOURNAL, pattern)
        if newest is None or copy is None:
            return ""
        messages = {
            message.sequence: message
            async for message in self._streams.read_all(stream, pattern, newest.sequence - COMPARED_TAIL)
        }
        copied: set[int] = set()
        async for stored in self._streams.read_all(
            JOURNAL, pattern, copy.sequence - COMPARED_TAIL * len(catalog.INBOXES)
        ):
            message = at_its_source(stored)
            copied.add(message.sequence)
            if message.sequence in messages and _message_identity(messages[message.sequence]) != _message_identity(
                message
            ):
                self._ahead.add(name)
                return f"something else stands in {stream} under number {message.sequence}, which it has read before"
        # Older messages may have been purged from one and not yet from the other.
        since_unix_ms = (time.time() - MIN_RETENTION_S) * 1000
        inner = range(min(copied) + 1, max(copied)) if copied else range(0)
        absent = [stored for number, stored in messages.items() if number in inner and number not in copied]
        gaps = [stored for stored in absent if stored.time_unix_ms > since_unix_ms]
        left_out = await self._dropped_as_duplicates(stream, gaps)
        missing = next((stored.sequence for stored in gaps if stored.sequence not in left_out), None)
        return f"it lacks number {missing} of {stream}, and has read past it" if missing is not None else ""

    async def _dropped_as_duplicates(self, stream: str, missing: Sequence[StoredMessage]) -> set[int]:
        """The numbers of those that JOURNAL dropped since it has another message under their Nats-Msg-Id."""
        missing_by_id = {(message.sender, _message_id(message)): message for message in missing if _message_id(message)}
        numbers = set()
        for author in {author for author, _ in missing_by_id}:
            async for stored in self._streams.read_all(JOURNAL, f"mesh.{author}.>"):
                twin = missing_by_id.get((author, _message_id(stored)))
                if twin is not None and _message_identity(twin) != _message_identity(at_its_source(stored)):
                    numbers.add(twin.sequence)
                    self.hidden.setdefault(author, set()).add(f"{stream}:{twin.sequence}")
        return numbers

    async def _count_never_coming(self, name: str, stream: str) -> int:
        """Count of the messages of an inbox that JOURNAL has left out for their ids."""
        inbox_counts = await self._streams.count_by_subject(stream, inbox_pattern(name))
        copied = await self._streams.count_by_subject(JOURNAL, inbox_pattern(name))
        fewer = [subject for subject, count in inbox_counts.items() if count > copied.get(subject, 0)][:MAX_COMPARED]
        position, missing = await self._streams.last_copied_sequence(name), []
        for subject in fewer:
            have = {at_its_source(message).sequence async for message in self._streams.read_all(JOURNAL, subject)}
            missing += [
                message
                async for message in self._streams.read_all(stream, subject)
                if message.sequence not in have | {position}
            ]
        return len(
            await self._dropped_as_duplicates(stream, [message for message in missing if message.sequence < position])
        )

    async def _find_lack(self, name: str) -> str:
        """Fault when something is missing among what JOURNAL has read of an inbox."""
        stream, before = subjects.inbox_stream(name), 0
        for _ in range(MAX_COUNTS):
            counts = await self._count_copied(name, stream)
            if counts is None:
                await asyncio.sleep(PAUSE_S)
                continue
            have, should, trimmed = counts
            if have > should and not trimmed:
                # Tasks were purged there and not yet here: they must not stand in for what is missing.
                have, should = 0, await self._count_missing(name, stream)
            lacks = should - have
            if lacks <= 0:
                return ""
            if lacks == before:
                lacks -= await self._count_never_coming(name, stream)
                return f"it lacks {lacks} of the messages of {stream}" if lacks > 0 else ""
            before = lacks  # Asked twice: what is dropped for a mistake takes long to come back.
        return ""

    async def _count_copied(self, name: str, stream: str) -> tuple[int, int, bool] | None:
        """Counts of the messages of an inbox that JOURNAL has, and should have, and whether it has begun to drop its
        oldest; None when a message came in between.
        """
        state, position = await self._streams.stream_state(stream), await self._streams.last_copied_sequence(name)
        if not position:
            return 0, 0, False
        have = await self._streams.count_from(JOURNAL, 1, inbox_pattern(name))
        later = await self._streams.count_from(stream, position + 1)
        earlier, trimmed = 0, await self._streams.is_trimming()
        if trimmed and (oldest := await self._streams.reader.read(JOURNAL, inbox_pattern(name), limit=1)):
            earlier = state.messages - await self._streams.count_from(stream, at_its_source(oldest[0]).sequence)
        if (await self._streams.stream_state(stream), await self._streams.last_copied_sequence(name)) != (
            state,
            position,
        ):
            return None
        return have, state.messages - later - earlier, trimmed

    async def _count_missing(self, name: str, stream: str) -> int:
        """The same, counted for each subject. Exact also where one of the two streams was purged before the other."""
        inbox_counts = await self._streams.count_by_subject(stream, inbox_pattern(name))
        await self._find_stall(name)
        copied = await self._streams.count_by_subject(JOURNAL, inbox_pattern(name))
        return sum(max(0, count - copied.get(subject, 0)) for subject, count in inbox_counts.items())


def _message_identity(message: StoredMessage) -> tuple[str, str]:
    return message.subject, message.ce_id


def _message_id(message: StoredMessage) -> str:
    return message.headers.get(MESSAGE_ID, "")  # In another case it is none to the broker.


def _new_file(folder: Path) -> TextIO:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"messages-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}.jsonl"
    return (folder / name).open("x")


def _render_line(stream: str, message: StoredMessage) -> str:
    row = {
        "stream": stream,
        "sequence": message.sequence,
        "time_unix_ms": message.time_unix_ms,
        "subject": message.subject,
        "headers": dict(message.headers),
        "body_base64": base64.b64encode(message.body).decode(),
    }
    return json.dumps(row) + "\n"
