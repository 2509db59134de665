"""Sees to it that JOURNAL has what its sources have, and has it made again when it will not get that by itself.

In: a broker, the keys of the operator (who reads) and the provisioner (who makes). Out: what was wrong, "" when JOURNAL
is whole or will be. It is written without fsync and remembers how far it has read each inbox: after a full disk it can
lack what it remembers to have read; after an inbox was lost and made anew it waits for numbers that are long past.
Dropped and made again it reads every inbox from its first message on: its own sequences change, which nothing permanent
uses (DESIGN 2). What only it still has of a damaged inbox is told, and kept in a file before it is dropped. What the
broker leaves out because its author used one id twice, in two inboxes, no making again brings: that is told, too.
"""

import asyncio
import base64
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import BusError, BusUnavailable, Stored
from bulkhead.bus.wire import MESSAGE_ID
from bulkhead.runtime.decider.history import at_its_source
from bulkhead_contracts import catalog, envelope, subjects
from bulkhead_infra.identity.policy import OPERATOR, PROVISIONER
from bulkhead_infra.identity.rights import API, inbox_prefix
from bulkhead_infra.nats.provision import STREAM_NOT_FOUND, provision
from bulkhead_infra.nats.purge import MIN_RETENTION_S
from bulkhead_infra.nats.streams import Layout
from bulkhead_infra.nats.trimming import is_trimmed

JOURNAL = subjects.JOURNAL_STREAM
STALLED_S, CLUSTER_STALLED_S = 12.0, 120.0
"""An inbox that has more, of which JOURNAL takes nothing for so long, is not read any more. In a cluster JOURNAL finds
an inbox's new leader by itself, after half a minute or more: to make it again for that would only take longer."""
PAUSE_S = 0.1
TRIES = 100
"""So often the counts are looked at again while messages come in between; then the next look decides."""
TAIL = 512
"""So many of an inbox's last numbers are compared one by one: more were not on the way when its disk was full."""
LOOKED_AT_MAX = 1_000
"""Subjects of which an inbox has fewer messages than JOURNAL; so many are looked at."""
FULL = 0.9
"""Of its size: from there on JOURNAL drops its oldest, and only what came after its first can be compared."""
COUNTER_LIVES_NS = 1_000_000_000
CONNECT_TIMEOUT_S = 5.0
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Report:
    """For people; "" when there is nothing to say. fault: why JOURNAL was made again. lost: what an inbox has lost.
    hidden: what was kept out of JOURNAL."""

    fault: str = ""
    lost: str = ""
    hidden: str = ""


async def keep_whole(
    url: str,
    seed_of: Callable[[str], str],
    layout: Layout,
    keep: Path,
    *,
    stalled_s: float = 0.0,
    ca_file: Path | None = None,
) -> Report:
    """Look, and make JOURNAL again when need be. keep: a folder for what only it still has. ca_file: TLS. stalled_s: as
    the layout wants it, when nobody says.

    Raises BusError, ProvisionError, OSError; JOURNAL is not dropped before what only it has is in that folder.
    """
    connect = partial(_bus, url, seed_of=seed_of, ca_file=ca_file)
    async with connect(OPERATOR) as reader, connect(PROVISIONER) as maker:
        look = Look(reader, maker, stalled_s or (STALLED_S if layout.replicas == 1 else CLUSTER_STALLED_S))
        fault = await look.fault()
        lost = await look.lost()
        where = await look.save(lost, keep) if fault and lost else None
        if fault:
            await look.drop()
    if fault:
        await provision(url, seed_of(PROVISIONER), layout, ca_file=ca_file)
    return Report(fault, _loss(lost, where), _hidden(look.hidden))


def _loss(lost: Mapping[str, Mapping[str, int]], where: Path | None) -> str:
    if not lost:
        return ""
    counts = ", ".join(f"{stream} {sum(gone.values())}" for stream, gone in lost.items())
    tasks = sorted({subject.rpartition(".")[2] for gone in lost.values() for subject in gone})
    return (
        f"messages that the journal has are gone from their inboxes ({counts}; of tasks {', '.join(tasks[:5])}"
        f"{' and others' if len(tasks) > 5 else ''}). Those that were on the way when a disk was full, or the power "
        "failed, nobody was told to be stored. Otherwise files were damaged or taken away: stop the mesh and restore "
        "its directory from a backup. What the journal still had of them is in "
        f"{where or 'the journal (`bulkhead timeline TASK`)'}"
    )


def _hidden(hidden: Mapping[str, set[str]]) -> str:
    if not hidden:
        return ""
    said = "; ".join(f"{author}: {len(found)}, as {min(found)}" for author, found in sorted(hidden.items()))
    return (
        f"messages stand in their inboxes and not in the journal ({said}), so that neither watcher nor timelines see "
        "them: their author gave messages in different inboxes one Nats-Msg-Id, which no program of this mesh does. "
        "Stop it, read what stands there, and replace its key"
    )


@asynccontextmanager
async def _bus(
    url: str, identity: str, seed_of: Callable[[str], str], ca_file: Path | None
) -> AsyncIterator[JetStreamBus]:
    bus = await JetStreamBus.connect(
        url,
        service=identity,
        nkey_seed=seed_of(identity),
        inbox_prefix=inbox_prefix(identity),
        timeout_s=CONNECT_TIMEOUT_S,
        ca_file=ca_file,
    )
    try:
        yield bus
    finally:
        await bus.close()


@dataclass(frozen=True, slots=True)
class _State:
    messages: int
    last: int


class Look:
    """One comparison. reader: the operator's connection; maker: the provisioner's."""

    def __init__(self, reader: JetStreamBus, maker: JetStreamBus, stalled_s: float = STALLED_S) -> None:
        self._reader, self._maker, self._stalled_s = reader, maker, stalled_s
        self._ahead: set[str] = set()
        self.hidden: dict[str, set[str]] = {}
        """By author, where something lies that JOURNAL left out for its id: inbox and number."""

    async def fault(self) -> str:
        """What JOURNAL lacks and will not get; "" otherwise. Waits until it has what there is. Raises BusError."""
        if not await self._ask(f"STREAM.INFO.{JOURNAL}", missing_ok=True):
            return "it is not there"
        for name in catalog.INBOXES:
            if fault := await self._behind(name) or await self._differs(name) or await self._lacking(name):
                return fault
        return ""

    async def lost(self) -> dict[str, dict[str, int]]:
        """Count, by stream and subject, the messages of JOURNAL that vanished without a purge. Raises BusError."""
        found: dict[str, dict[str, int]] = {}
        if not await self._ask(f"STREAM.INFO.{JOURNAL}", missing_ok=True):
            return found
        for name in catalog.INBOXES:
            stream, pattern = subjects.inbox_stream(name), _said_to(name)
            copied = await self._count(JOURNAL, 1, pattern)
            if name not in self._ahead and copied <= (await self._state(stream)).messages:
                continue
            had, has = await self._by_subject(JOURNAL, pattern), await self._by_subject(stream, pattern)
            more = {one: count - has.get(one, 0) for one, count in had.items() if count > has.get(one, 0)}
            looked_at = list(more.items())[:LOOKED_AT_MAX]
            if gone := {
                one: left
                for one, count in looked_at
                if (left := await self._untrimmed(stream, one, count)) and await self._young(one)
            }:
                found[stream] = gone
        return found

    async def save(self, lost: Mapping[str, Mapping[str, int]], keep: Path) -> Path:
        """What JOURNAL has of these subjects and the inboxes have not, in a new file. Raises OSError, BusError."""
        with _new_file(keep) as file:
            for stream, gone in lost.items():
                for subject in gone:
                    left = {one.sequence async for one in self._all(stream, subject)}
                    async for stored in self._all(JOURNAL, subject):
                        one = at_its_source(stored)
                        if one.sequence not in left:
                            file.write(_line(stream, one))
            file.flush()
            os.fsync(file.fileno())
            return Path(file.name)

    async def _all(self, stream: str, subject: str, after: int = 0) -> AsyncIterator[Stored]:
        after = max(0, after)
        while page := await self._reader.read(stream, subject, after=after):
            for stored in page:
                yield stored
            after = page[-1].sequence

    async def _untrimmed(self, stream: str, subject: str, more: int) -> int:
        """Of what JOURNAL has more: where the oldest are trimmed, only what is newer than the first still there."""
        if not is_trimmed(subject):
            return more
        first = next(iter(await self._reader.read(stream, subject, limit=1)), None)
        if first is None:
            return more  # A trim leaves the newest.
        async for stored in self._all(JOURNAL, subject):
            if at_its_source(stored).sequence >= first.sequence:
                copied = await self._count(JOURNAL, stored.sequence, subject)
                return max(0, copied - await self._count(stream, first.sequence, subject))
        return 0

    async def _young(self, subject: str) -> bool:
        """Whether it was said so lately that nothing of it can have been purged."""
        newest = await self._reader.last(JOURNAL, subject)
        if newest is None:
            return False
        try:
            said_unix_ms = envelope.parse(newest.headers).time_unix_ms
        except envelope.EnvelopeError:
            said_unix_ms = newest.time_unix_ms
        return time.time() - said_unix_ms / 1000 < MIN_RETENTION_S

    async def drop(self) -> None:
        """Take JOURNAL away. Raises BusError."""
        await self._ask(f"STREAM.DELETE.{JOURNAL}", missing_ok=True)

    async def _behind(self, name: str) -> str:
        """Whether JOURNAL comes no further in an inbox, or is further than the inbox itself."""
        stream, loop = subjects.inbox_stream(name), asyncio.get_running_loop()
        reached, since = -1, loop.time()
        while True:
            at = await self._read_up_to(name)
            state = await self._state(stream)
            if at > state.last:
                self._ahead.add(name)
                return f"it has read {stream} up to number {at}, which now ends at {state.last} and was made anew"
            newest = await self._reader.last(stream, _said_to(name))
            if newest is None or at >= newest.sequence:
                return ""
            if at != reached:
                reached, since = at, loop.time()
            elif loop.time() - since > self._stalled_s:
                return f"it has read {stream} up to number {at} and does not go on to {newest.sequence}"
            await asyncio.sleep(PAUSE_S)

    async def _differs(self, name: str) -> str:
        """Whether JOURNAL has another message under one of an inbox's newest numbers, or none; counts may agree then.

        What an inbox was handing on when its disk was full was never stored, and its number was given again; JOURNAL
        itself may have read one message twice and another not at all.
        """
        stream, pattern = subjects.inbox_stream(name), _said_to(name)
        newest, copy = await self._reader.last(stream, pattern), await self._reader.last(JOURNAL, pattern)
        if newest is None or copy is None:
            return ""
        said = {one.sequence: one async for one in self._all(stream, pattern, newest.sequence - TAIL)}
        copied: set[int] = set()
        async for stored in self._all(JOURNAL, pattern, copy.sequence - TAIL * len(catalog.INBOXES)):
            one = at_its_source(stored)
            copied.add(one.sequence)
            if one.sequence in said and _identity(said[one.sequence]) != _identity(one):
                self._ahead.add(name)
                return f"something else stands in {stream} under number {one.sequence}, which it has read before"
        # What is older may have been purged from one and not yet from the other.
        since_unix_ms = (time.time() - MIN_RETENTION_S) * 1000
        gaps = [
            one
            for number, one in said.items()
            if copied
            and min(copied) < number < max(copied)
            and number not in copied
            and one.time_unix_ms > since_unix_ms
        ]
        left_out = await self._left_out(stream, gaps)
        return next(
            (
                f"it lacks number {one.sequence} of {stream}, and has read past it"
                for one in gaps
                if one.sequence not in left_out
            ),
            "",
        )

    async def _left_out(self, stream: str, missing: Sequence[Stored]) -> set[int]:
        """The numbers of those that JOURNAL dropped since it has another message under their Nats-Msg-Id."""
        wanted = {(one.sender, _message_id(one)): one for one in missing if _message_id(one)}
        found = set()
        for author in {author for author, _ in wanted}:
            async for stored in self._all(JOURNAL, f"mesh.{author}.>"):
                twin = wanted.get((author, _message_id(stored)))
                if twin is not None and _identity(twin) != _identity(at_its_source(stored)):
                    found.add(twin.sequence)
                    self.hidden.setdefault(author, set()).add(f"{stream}:{twin.sequence}")
        return found

    async def _never_coming(self, name: str, stream: str) -> int:
        """How many messages of an inbox JOURNAL has left out for their ids."""
        said = await self._by_subject(stream, _said_to(name))
        copied = await self._by_subject(JOURNAL, _said_to(name))
        fewer = [one for one, count in said.items() if count > copied.get(one, 0)][:LOOKED_AT_MAX]
        at, missing = await self._read_up_to(name), []
        for subject in fewer:
            have = {at_its_source(one).sequence async for one in self._all(JOURNAL, subject)}
            missing += [one async for one in self._all(stream, subject) if one.sequence not in have | {at}]
        return len(await self._left_out(stream, [one for one in missing if one.sequence < at]))

    async def _lacking(self, name: str) -> str:
        """Whether something is missing among what JOURNAL has read of an inbox."""
        stream, before = subjects.inbox_stream(name), 0
        for _ in range(TRIES):
            found = await self._counts(name, stream)
            if found is None:
                await asyncio.sleep(PAUSE_S)
                continue
            have, should, trimmed = found
            if have > should and not trimmed:
                # Tasks were purged there and not yet here: they must not stand in for what is missing.
                have, should = 0, await self._missing(name, stream)
            lacks = should - have
            if lacks <= 0:
                return ""
            if lacks == before:
                lacks -= await self._never_coming(name, stream)
                return f"it lacks {lacks} of the messages of {stream}" if lacks > 0 else ""
            before = lacks  # Asked twice: what is dropped for a mistake takes long to come back.
        return ""

    async def _counts(self, name: str, stream: str) -> tuple[int, int, bool] | None:
        """How many messages of an inbox JOURNAL has, and should have, and whether it has begun to drop its oldest; None
        when a message came in between."""
        state, at = await self._state(stream), await self._read_up_to(name)
        if not at:
            return 0, 0, False
        have = await self._count(JOURNAL, 1, _said_to(name))
        later = await self._count(stream, at + 1)
        earlier, trimmed = 0, await self._trimmed()
        if trimmed and (oldest := await self._reader.read(JOURNAL, _said_to(name), limit=1)):
            earlier = state.messages - await self._count(stream, at_its_source(oldest[0]).sequence)
        if (await self._state(stream), await self._read_up_to(name)) != (state, at):
            return None
        return have, state.messages - later - earlier, trimmed

    async def _trimmed(self) -> bool:
        """Asked after counting: what has begun to drop its oldest stays full."""
        journal = await self._ask(f"STREAM.INFO.{JOURNAL}")
        return bool(0 < journal["config"].get("max_bytes", -1) * FULL <= journal["state"]["bytes"])

    async def _missing(self, name: str, stream: str) -> int:
        """The same, counted for each subject. Exact also where one of the two streams was purged before the other."""
        said = await self._by_subject(stream, _said_to(name))
        await self._behind(name)
        copied = await self._by_subject(JOURNAL, _said_to(name))
        return sum(max(0, count - copied.get(subject, 0)) for subject, count in said.items())

    async def _by_subject(self, stream: str, pattern: str) -> dict[str, int]:
        found: dict[str, int] = {}
        while True:
            request = {"subjects_filter": pattern, "offset": len(found)}
            answer = await self._ask(f"STREAM.INFO.{stream}", request)
            page: dict[str, int] = answer["state"].get("subjects") or {}
            found |= page
            if not page or len(found) >= answer.get("total", 0):
                return found

    async def _count(self, stream: str, first: int, pattern: str = "") -> int:
        """Messages from a sequence on: what a consumer, made for the moment, would be handed."""
        name = f"count-{secrets.token_hex(8)}"
        config: dict[str, Any] = {
            "name": name,
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": first,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": COUNTER_LIVES_NS,
        }
        if pattern:
            config["filter_subjects"] = [pattern]
        answer = await self._ask(f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config})
        return int(answer["num_pending"])

    async def _read_up_to(self, name: str) -> int:
        """The number in its inbox of the last message that JOURNAL has of it; 0 when it has none."""
        found: Stored | None = await self._reader.last(JOURNAL, _said_to(name))
        return at_its_source(found).sequence if found is not None else 0

    async def _state(self, stream: str) -> _State:
        state = (await self._ask(f"STREAM.INFO.{stream}"))["state"]
        return _State(state["messages"], state["last_seq"])

    async def _ask(self, what: str, body: dict[str, Any] | None = None, *, missing_ok: bool = False) -> dict[str, Any]:
        """{} for a stream that is not there, when that is no fault."""
        answer = await self._maker.request(API + what, json.dumps(body or {}).encode(), timeout_s=TIMEOUT_S)
        found: dict[str, Any] = json.loads(answer.body)
        if "error" not in found:
            return found
        if missing_ok and found["error"].get("err_code") == STREAM_NOT_FOUND:
            return {}
        said = found["error"].get("description", "no reason given")
        if found["error"].get("code", 0) >= 500:
            raise BusUnavailable(f"{what}: {said}")
        raise BusError(f"{what}: {said}; start the mesh again, which provisions what is missing")


def _said_to(name: str) -> str:
    return f"mesh.*.{name}.>"


def _identity(one: Stored) -> tuple[str, str]:
    return one.subject, one.ce_id


def _message_id(one: Stored) -> str:
    return one.headers.get(MESSAGE_ID, "")  # In another case it is none to the broker.


def _new_file(folder: Path) -> TextIO:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"messages-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}.jsonl"
    return (folder / name).open("x")


def _line(stream: str, one: Stored) -> str:
    row = {
        "stream": stream,
        "sequence": one.sequence,
        "time_unix_ms": one.time_unix_ms,
        "subject": one.subject,
        "headers": dict(one.headers),
        "body_base64": base64.b64encode(one.body).decode(),
    }
    return json.dumps(row) + "\n"
