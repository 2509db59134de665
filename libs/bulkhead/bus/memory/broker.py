"""The in-memory broker: what a nats-server does for the mesh, in one process and in a fixed order.

In: publishes, pulls, acks, requests of MemoryBus clients. Out: deliveries. Everything that crosses between a client
and the broker, or from stream to stream, passes `deliver` as an Offer: by default it is handed over at once and in
order; a scheduler sets `hold` and picks from `held` what comes next, what comes never, what comes late.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple, Protocol

from bulkhead.bus import wire
from bulkhead.bus.memory.clock import Clock, MachineClock
from bulkhead.bus.memory.streams import Durable, DurableConfig, Stream, StreamConfig, StreamSource, subject_matches
from bulkhead.bus.port import (
    BusUnavailable,
    DurableCounts,
    LiveMessage,
    PubAck,
    PublishRefused,
    RpcHandler,
    StoredMessage,
)
from bulkhead_contracts import bounds, catalog, subjects

MAX_MESSAGE_BYTES = bounds.MAX_BLOB_BYTES + 2 * bounds.MAX_HEADER_BYTES


class Offer(NamedTuple):
    """One thing that may happen next. Dropping it is a loss; handing it twice is a duplicate.

    kind: publish, read, answer, message, ack, live, request, reply, source. whom: the client or stream that it
    reaches.
    """

    kind: str
    whom: str
    what: str
    hand: Callable[[], None]


class Puller(Protocol):
    """The broker's view of a consumer: `room` is what it still asks for."""

    name: str
    room: int

    def accept_delivery(self, stored: StoredMessage, durable: Durable, consumer_sequence: int, attempts: int) -> None:
        """A delivery arrives."""


@dataclass(eq=False, slots=True)
class BrokerListener:
    """A live subscription, or (with a handler) a server in a queue group."""

    pattern: str
    take: Callable[[LiveMessage], None]
    whom: str
    queue: str = ""
    handler: RpcHandler | None = None


class MemoryBroker:
    """Streams, durables, live subjects and requests. One per test or simulation."""

    def __init__(
        self,
        streams: Iterable[StreamConfig] = (),
        durables: Iterable[DurableConfig] = (),
        *,
        clock: Clock | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self.clock: Clock = clock or MachineClock()
        self.max_message_bytes = max_message_bytes
        self.hold = False
        self.held: list[Offer] = []
        self._streams: dict[str, Stream] = {}
        self._takers: dict[str, Stream] = {}
        """Which stream takes a subject that was stored on before; streams do not change their subjects."""
        self._planes: dict[str, list[Stream]] = {}
        """Which streams may take a subject that begins so."""
        self._sourced: dict[str, list[tuple[Stream, StreamSource]]] = {}
        self._consumed: dict[str, dict[str, Durable]] = {}
        """A stream's durables."""
        self._durables: dict[tuple[str, str], Durable] = {}
        self._pullers: dict[tuple[str, str], list[Puller]] = {}
        self._listeners: list[BrokerListener] = []
        self._timers: dict[tuple[str, str], Callable[[], None]] = {}
        self._turns = itertools.count()
        for stream in streams:
            self.add_stream(stream)
        for durable in durables:
            self.add_durable(durable)

    @classmethod
    def for_mesh(cls, *, clock: Clock | None = None, shards: int = 1, ack_wait_ms: int = 5_000) -> "MemoryBroker":
        """All streams and durables of the catalog, as the provisioner makes them on a real broker."""
        return cls(mesh_streams(), mesh_durables(shards, ack_wait_ms), clock=clock)

    def deliver(self, offer: Offer) -> None:
        """The single choice point."""
        if self.hold:
            self.held.append(offer)
        else:
            offer.hand()

    def horizon(self, stream: str) -> int | None:
        """The last sequence that a read of this stream sees now: a follower of a replicated one may lag. None: all."""
        return None

    def add_stream(self, config: StreamConfig) -> None:
        """Make a stream; what it sources must be there already."""
        stream = self._streams[config.name] = Stream(config)
        self._planes.clear()
        for source in config.sources:
            self._sourced.setdefault(source.stream, []).append((stream, source))

    def add_durable(self, config: DurableConfig) -> None:
        """Make a durable on a stream."""
        durable = self._durables[(config.stream, config.name)] = Durable(config, self._streams[config.stream])
        self._consumed.setdefault(config.stream, {})[config.name] = durable

    def get_stream(self, name: str) -> Stream:
        """A stream by name. Raises BusUnavailable."""
        stream = self._streams.get(name)
        if stream is None:
            raise BusUnavailable(f"stream {name} answers no reads: run the provisioner")
        return stream

    def durable_counts(self, stream: str, name: str) -> DurableCounts | None:
        """Counts of what waits for a durable; None when there is none of this name."""
        durable = self._durables.get((stream, name))
        if durable is None:
            return None
        asking = sum(puller.room > 0 for puller in self._pullers.get((stream, name), ()))
        return durable.counts(asking, self.clock.now_ms())

    def get_durable(self, stream: str, name: str) -> Durable:
        """A durable by name. Raises BusUnavailable."""
        durable = self._durables.get((stream, name))
        if durable is None:
            raise BusUnavailable(f"durable {name} of {stream}: consumer not found; run the provisioner")
        return durable

    def store(self, subject: str, headers: Mapping[str, str], body: bytes) -> PubAck:
        """A publish that waits for its ack. Raises WrongLastSequence, PublishRefused."""
        stream = self._takers.get(subject) or self._find_taker(subject)
        due_ms = None
        if stream.config.schedules and wire.SCHEDULE in headers:
            due_ms = _parse_due_ms(headers[wire.SCHEDULE])
            if not stream.takes_subject(headers.get(wire.SCHEDULE_TARGET, "")):
                raise PublishRefused(f"{subject} was not stored: the schedule's target must lie in the same stream")
        ack = stream.store(subject, headers, body, self.clock.now_ms())
        if not ack.duplicate:
            if due_ms is not None:
                self._set_timer(stream, subject, ack.sequence, due_ms)
            self._on_stored(stream, ack.sequence)
        return ack

    def _find_taker(self, subject: str) -> Stream:
        """Many subjects are of one message: only streams whose subjects begin alike are asked."""
        plane = subject.partition(".")[0]
        candidates = self._planes.get(plane)
        if candidates is None:
            candidates = self._planes[plane] = [
                candidate
                for candidate in self._streams.values()
                if any(pattern.partition(".")[0] in (plane, "*", ">") for pattern in candidate.config.subjects)
            ]
        stream = next((candidate for candidate in candidates if candidate.takes_subject(subject)), None)
        if stream is None:
            raise PublishRefused(f"{subject} was not stored: no stream takes this subject; run the provisioner")
        self._takers[subject] = stream
        return stream

    def _set_timer(self, stream: Stream, subject: str, sequence: int, due_ms: int) -> None:
        """Setting a timer again replaces it."""
        key = (stream.config.name, subject)
        if (cancel := self._timers.pop(key, None)) is not None:
            cancel()
        for old in stream.read(subject, 0, bounds.MAX_MESSAGES_PER_TASK):
            if old.sequence != sequence:
                stream.delete(old.sequence)
        self._timers[key] = self.clock.call_at(due_ms, lambda: self._fire_timer(stream, subject, sequence))

    def _fire_timer(self, stream: Stream, subject: str, sequence: int) -> None:
        self._timers.pop((stream.config.name, subject), None)
        schedule = stream.get(sequence)
        if schedule is None:
            return
        stream.delete(sequence)
        own_headers = {wire.MESSAGE_ID, wire.SCHEDULE, wire.SCHEDULE_TARGET, *wire.HEEDED_HEADERS}
        headers = {key: value for key, value in schedule.headers.items() if key not in own_headers}
        headers |= {"Nats-Scheduler": subject, "Nats-Schedule-Next": "purge"}
        target = schedule.headers[wire.SCHEDULE_TARGET]
        fired = stream.append(target, headers, schedule.body, self.clock.now_ms())
        self._on_stored(stream, fired.sequence)

    def _on_stored(self, stream: Stream, sequence: int) -> None:
        """Follow a new message up: copies, live repeats, deliveries."""
        stored = stream.get(sequence)
        assert stored is not None
        for sourcing, source in self._sourced.get(stream.config.name, ()):
            self._copy_to(stream, stored, sourcing, source)
        prefix, live = stream.config.republish
        if live and stored.subject.startswith(prefix):
            extra = {
                "Nats-Stream": stream.config.name,
                "Nats-Subject": stored.subject,
                "Nats-Sequence": str(sequence),
                "Nats-Time-Stamp": wire.format_rfc3339(stored.time_unix_ms),
            }
            self.publish_live(
                LiveMessage(live + stored.subject.removeprefix(prefix), {**stored.headers, **extra}, stored.body)
            )
        for durable in self._consumed.get(stream.config.name, {}).values():
            self.pump_deliveries(durable)

    def _copy_to(self, stream: Stream, stored: StoredMessage, other: Stream, source: StreamSource) -> None:
        subject = source.target_subject(stored.subject)
        if subject is None:
            return
        name = stream.config.name
        headers = {**stored.headers, "Nats-Stream-Source": f"{name} {stored.sequence}"}

        def append_copy() -> None:
            copy = other.append(subject, headers, stored.body, self.clock.now_ms())
            self._on_stored(other, copy.sequence)

        self.deliver(Offer("source", other.config.name, f"{name}:{stored.sequence}", append_copy))

    def attach_puller(self, durable: Durable, puller: Puller) -> None:
        """A consumer asks (its `room` says for how many)."""
        pullers = self._pullers.setdefault((durable.config.stream, durable.config.name), [])
        if puller not in pullers:
            pullers.append(puller)
        self.pump_deliveries(durable)

    def detach_puller(self, durable: Durable, puller: Puller) -> None:
        """A consumer goes."""
        pullers = self._pullers.get((durable.config.stream, durable.config.name), [])
        if puller in pullers:
            pullers.remove(puller)

    def reclaim_pending(self, durable: Durable) -> None:
        """Hand out again what was handed out, unless somebody has room."""
        pullers = self._pullers.get((durable.config.stream, durable.config.name), [])
        if not any(puller.room for puller in pullers):
            for sequence in sorted(durable.pending):
                self.wait_for_ack(durable, sequence, 0)

    def pump_deliveries(self, durable: Durable) -> None:
        """Hand out what there is room for, one message to each waiting consumer in turn."""
        pullers = self._pullers.get((durable.config.stream, durable.config.name), [])
        while (puller := next((candidate for candidate in pullers if candidate.room > 0), None)) is not None:
            stored = durable.next_message()
            if stored is None:
                return
            pullers.remove(puller)
            pullers.append(puller)
            puller.room -= 1
            self._hand_out(durable, puller, stored)

    def _hand_out(self, durable: Durable, puller: Puller, stored: StoredMessage) -> None:
        sequence = stored.sequence
        durable.consumer_sequence += 1
        durable.active_unix_ms = self.clock.now_ms()
        attempts = durable.attempts[sequence] = durable.attempts.get(sequence, 0) + 1
        number = durable.consumer_sequence
        self.wait_for_ack(durable, sequence, durable.config.ack_wait_ms)
        name = f"{durable.config.stream}/{durable.config.name}:{sequence}"
        self.deliver(
            Offer("message", puller.name, name, lambda: puller.accept_delivery(stored, durable, number, attempts))
        )

    def wait_for_ack(self, durable: Durable, sequence: int, wait_ms: int) -> None:
        """(Re)start the wait after which an outstanding message is handed out again."""
        if (cancel := durable.pending.get(sequence)) is not None:
            cancel()
        if sequence in durable.again:
            durable.again.remove(sequence)

        def hand_out_again() -> None:
            if sequence in durable.pending:
                durable.again.append(sequence)
                self.pump_deliveries(durable)

        if wait_ms > 0:
            durable.pending[sequence] = self.clock.call_at(self.clock.now_ms() + wait_ms, hand_out_again)
        else:
            durable.pending[sequence] = lambda: None
            hand_out_again()

    def add_listener(self, listener: BrokerListener) -> None:
        """Start a live subscription or a server."""
        self._listeners.append(listener)

    def remove_listener(self, listener: BrokerListener) -> None:
        """Stop it."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def publish_live(self, live: LiveMessage) -> None:
        """To every listener of a subject, and to one server of each queue group."""
        for listener in list(self._listeners):
            if listener.handler is None and subject_matches(listener.pattern, live.subject):
                self.deliver(Offer("live", listener.whom, live.subject, _bind_live(listener, live)))

    def pick_server(self, subject: str) -> BrokerListener | None:
        """Server that answers a request, in turn among those that can."""
        able = [
            listener
            for listener in self._listeners
            if listener.handler is not None and subject_matches(listener.pattern, subject)
        ]
        return able[next(self._turns) % len(able)] if able else None


def _bind_live(listener: BrokerListener, live: LiveMessage) -> Callable[[], None]:
    return lambda: listener.take(live)


def _parse_due_ms(schedule: str) -> int:
    try:
        kind, text = schedule.split(" ", 1)
        if kind != "@at":
            raise ValueError(kind)
        return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)
    except ValueError:
        raise PublishRefused(f"schedule {schedule[:100]!r} is malformed; '@at <RFC 3339 time>'") from None


def mesh_streams() -> list[StreamConfig]:
    """The streams of the catalog, each with its largest message."""
    blobs = subjects.BLOBS_STREAM
    largest = bounds.MAX_STORED_MESSAGE_BYTES
    return [
        replace(config, max_message_bytes=bounds.MAX_STORED_BLOB_BYTES if config.name == blobs else largest)
        for config in _mesh_streams()
    ]


def _mesh_streams() -> list[StreamConfig]:
    streams = [
        # A broker makes no stream with schedules that refuses when full.
        StreamConfig(subjects.timers_stream(name), (f"timer.{name}.>",), schedules=True, discard_new=False)
        for name in catalog.DECIDERS
    ]
    for name in catalog.INBOXES:
        fired: tuple[StreamSource, ...] = ()
        if name in catalog.DECIDERS:
            target = f"mesh.{name}.{name}.$1.$2.$3.{subjects.NO_KEY}"
            fired = (StreamSource(subjects.timers_stream(name), f"timer.{name}.fired.*.*.*", target),)
        streams.append(StreamConfig(subjects.inbox_stream(name), (f"mesh.*.{name}.>",), sources=fired))
    streams += [StreamConfig(subjects.records_stream(name), (f"record.{name}.>",)) for name in catalog.DOERS]
    inboxes = tuple(StreamSource(subjects.inbox_stream(name)) for name in catalog.INBOXES)
    return [
        *streams,
        StreamConfig(subjects.BLOBS_STREAM, ("blob.>",), max_messages_per_subject=1),
        StreamConfig(subjects.CACHE_STREAM, ("cache.>",), max_messages_per_subject=1, discard_new=False),
        StreamConfig(subjects.JOURNAL_STREAM, sources=inboxes),
        StreamConfig(
            subjects.CONTROL_STREAM,
            ("$KV.CONTROL.>",),
            max_messages_per_subject=1,
            discard_new=False,
            republish=("$KV.CONTROL.", "control.live."),
        ),
        StreamConfig(
            subjects.PROMPTS_STREAM,
            ("prompt.>", "release.>", "evaluation.>", "workflow.>"),
            max_messages_per_subject=1,
            republish=("release.", "releases.live."),
        ),
        StreamConfig(subjects.DEAD_LETTERS_STREAM, ("dead.>",)),
        StreamConfig(subjects.EVENTS_STREAM, ("events.>",), discard_new=False),
    ]


def mesh_durables(shards: int, ack_wait_ms: int) -> list[DurableConfig]:
    """One durable per shard of every service's inbox."""
    durables = []
    for name in catalog.INBOXES:
        if name == catalog.JOURNAL:
            continue
        for shard in range(shards):
            mine = [p for p in range(bounds.PARTITIONS) if p % shards == shard]
            patterns = tuple(f"mesh.*.{name}.{p}.>" for p in mine) if shards > 1 else ()
            durables.append(
                DurableConfig(subjects.inbox_stream(name), subjects.durable_name(name, shard), patterns, ack_wait_ms)
            )
    return durables
