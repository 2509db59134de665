"""The network between replicas and the broker: it loses, delays and lags, and replicas die while they speak.

In: offers of the in-memory broker. Out: the same, late or never; every attempt to store something, written down.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, Protocol

from bulkhead.bus.memory.broker import MemoryBroker, Offer, mesh_durables, mesh_streams
from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.bus.memory.streams import Stream, StreamConfig, subject_matches
from bulkhead.bus.port import StoredMessage, WrongLastSequence
from bulkhead_contracts import subjects
from tests.simulation.mesh.chaos import APART, Chaos
from tests.simulation.mesh.loop import LoopClock
from tests.simulation.scenario import Scenario

LOSSES = {
    "publish": "lose_publish",
    "answer": "lose_answer",
    "message": "lose_message",
    "ack": "lose_ack",
    "request": "lose_request",
    "reply": "lose_reply",
    "read": "lose_read",
    "live": "lose_live",
}
APART_S = 1e-6
EVERYBODY = ""
"""Stands for all when they are cut off at once: then it is the broker that is away."""


@dataclass(slots=True)
class Saying:
    """One attempt to publish. overtaken: the broker refused it, for another was first."""

    who: str
    subject: str
    headers: dict[str, str]
    body: bytes
    overtaken: bool = False


class Mesh(Protocol):
    """What a link needs of the run."""

    net: "Net"
    chaos: Chaos
    sayings: list[Saying]

    def crash(self, who: str, when: str) -> None:
        """As kill -9."""
        ...

    def tell(self, line: str) -> None:
        """A line of the story."""
        ...


class Lagging(Stream):
    """Of each subject the newest alone is kept; a follower that lags has the one before it still."""

    def __init__(self, config: StreamConfig) -> None:
        super().__init__(config)
        self._ever: list[StoredMessage] = []

    def append(self, subject: str, headers: Mapping[str, str], body: bytes, now_ms: int) -> StoredMessage:
        """See Stream."""
        stored = super().append(subject, headers, body, now_ms)
        self._ever.append(stored)
        return stored

    def newest(self, subject: str, horizon: int | None = None) -> StoredMessage | None:
        """See Stream."""
        if horizon is None:
            return super().newest(subject)
        return next(
            (one for one in reversed(self._ever) if one.sequence <= horizon and subject_matches(subject, one.subject)),
            None,
        )

    def read(self, pattern: str, after: int, limit: int, horizon: int | None = None) -> list[StoredMessage]:
        """See Stream."""
        if horizon is None:
            return super().read(pattern, after, limit)
        kept = {
            one.subject: one for one in self._ever if one.sequence <= horizon and subject_matches(pattern, one.subject)
        }
        return sorted((one for one in kept.values() if one.sequence > after), key=lambda one: one.sequence)[:limit]


class Net(MemoryBroker):
    """The broker behind a network that loses, delays and lags."""

    def __init__(self, scenario: Scenario, chaos: Chaos, clock: LoopClock, tell: Callable[[str], None]) -> None:
        super().__init__(mesh_streams(), mesh_durables(scenario.shards, scenario.ack_wait_ms), clock=clock)
        control = subjects.CONTROL_STREAM
        self._streams[control] = Lagging(self.get_stream(control).config)
        self._chaos, self._tell = chaos, tell
        self._loop = asyncio.get_running_loop()
        self._own = copy_context()
        self.contexts: dict[str, Context] = {}
        """Of every replica: what arrives there is taken in its process."""
        self._last: dict[tuple[str, str], float] = {}
        self.cut_off: dict[str, float] = {}
        self._losses = 0
        self.purged: dict[str, list[StoredMessage]] = {}
        self.moments: dict[tuple[str, str], asyncio.Event] = {}
        """By task and kind of message: set when the first is stored."""
        self.halts: list[StoredMessage] = []
        """Every control entry; the stream itself keeps the newest of each."""

    def deliver(self, offer: Offer) -> None:
        """Now, later, or never. Copies between streams and live text keep their order; copies never get lost."""
        kind, whom, what, hand = offer
        there, chaos, in_order = self.contexts.get(whom, self._own), self._chaos, kind == "source" or kind == "live"
        quiet = chaos.calm or not chaos.rates
        if quiet and not in_order and not self.cut_off:
            self._loop.call_soon(hand, context=there)
            return
        if kind != "source" and self.is_cut_off(whom):
            self._tell(f"LOST {kind} to {whom}: {what}")
            return
        delay_s = 0.0
        if not quiet:
            event, strikes, rates = f"{whom} {what}", chaos.strikes, chaos.rates
            if (loss := LOSSES.get(kind)) in rates and strikes(loss, event) is not None:
                self._tell(f"LOST {kind} to {whom}: {what}")
                return
            if kind == "source":
                lag = strikes("lag_source", event)
                delay_s = lag * 3 if lag is not None else 0.0
            else:
                if "jitter" in rates and (shake := strikes("jitter", event)) is not None:
                    delay_s = shake * 0.03
                if "late" in rates and (late := strikes("late", event)) is not None:
                    delay_s = 0.05 + late * 8
                    self._tell(f"LATE by {delay_s:.1f} s: {kind} to {whom}: {what}")
        if kind == "message":
            hand = self._unless_lost(hand)
        if in_order:
            line = (kind, whom)
            if kind == "source" and APART in chaos.rates:
                # Each source of a stream is read by itself: one may lag while the others do not.
                line = (kind, f"{whom} of {what.partition(':')[0]}")
            # What is due in the same moment comes in no order: each is due after the one before.
            due = self._last[line] = max(self._loop.time() + delay_s, self._last.get(line, 0.0) + APART_S)
            self._loop.call_at(due, hand, context=there)
        elif delay_s:
            self._loop.call_later(delay_s, hand, context=there)
        else:
            self._loop.call_soon(hand, context=there)

    def _unless_lost(self, hand: Callable[[], None]) -> Callable[[], None]:
        """What is under way on a connection that breaks never arrives."""
        losses = self._losses
        return lambda: hand() if losses == self._losses else None

    def lose(self, buses: Iterable[MemoryBus]) -> None:
        """Every connection breaks."""
        self._losses += 1
        for bus in buses:
            bus.break_connection()

    def is_cut_off(self, who: str) -> bool:
        """Whether nothing reaches or leaves this replica now."""
        until = self.cut_off
        return bool(until) and max(until.get(who, 0.0), until.get(EVERYBODY, 0.0)) > self._loop.time()

    def horizon(self, stream: str) -> int | None:
        """A follower that is behind by up to two seconds."""
        lag = self._chaos.strikes("stale_read", stream)
        if lag is None:
            return None
        found, since_ms = self.get_stream(stream), self.clock.now_ms() - int(lag * 2_000)
        sequence = found.last_sequence
        while sequence and ((stored := found.get(sequence)) is None or stored.time_unix_ms > since_ms):
            sequence -= 1
        return sequence

    def purge(self, stream: str, pattern: str, below: int | None = None) -> int:
        """Remove what a filter names below a sequence, as the provisioner may; returns how many messages that were."""
        found = self.get_stream(stream)
        gone = [one for one in found.read(pattern, 0, 1_000_000) if below is None or one.sequence < below]
        for one in gone:
            found.delete(one.sequence)
            for durable in self._durables.values():
                if durable.stream is found:
                    durable.end_pending(one.sequence)
        self.purged.setdefault(stream, []).extend(gone)
        return len(gone)

    def moment(self, task: str, kind: str) -> asyncio.Event:
        """Set when the first message of this kind about the task is stored."""
        return self.moments.setdefault((task, kind), asyncio.Event())

    def handed_out(self) -> dict[tuple[str, str], tuple[int, int, dict[int, int], list[int]]]:
        """What each durable knows of what it has handed out: how far, how often, and what is not acked."""
        return {
            key: (one.cursor, one.consumer_sequence, dict(one.attempts), list(one.pending))
            for key, one in self._durables.items()
        }

    def hand_out_again(self, known: dict[tuple[str, str], tuple[int, int, dict[int, int], list[int]]]) -> None:
        """Each durable knows what it knew then, and no more: a broker writes that down a little later than it acts."""
        for key, (cursor, number, attempts, pending) in known.items():
            durable = self._durables[key]
            for sequence in list(durable.pending):
                durable.end_pending(sequence)
            durable.again.clear()
            durable.cursor, durable.consumer_sequence, durable.attempts = cursor, number, dict(attempts)
            for sequence in pending:
                if durable.stream.get(sequence) is not None:
                    self.wait_for_ack(durable, sequence, durable.config.ack_wait_ms)
            self.pump_deliveries(durable)

    def store(self, subject: str, headers: Any, body: bytes) -> Any:
        ack = super().store(subject, headers, body)
        if not ack.duplicate:
            if ack.stream == subjects.CONTROL_STREAM:
                self.halts.append(self.get_stream(ack.stream).get(ack.sequence))  # type: ignore[arg-type]
            kind = headers.get("ce-type", "")
            if self.moments and subject.startswith("mesh."):
                task = subjects.parse(subject).task
                if event := self.moments.get((task, kind.rpartition(".v")[0])):
                    event.set()
            self._tell(f"{ack.stream}:{ack.sequence} {subject} {kind}")
        return ack


class Link:
    """One replica's way to the broker: where it dies, is cut off, and where all that it says is written down."""

    def __init__(self, world: Mesh, who: str) -> None:
        self._world, self._who = world, who

    def __getattr__(self, name: str) -> Any:
        # Asked once for each: what a link does not do itself does not change.
        found = self.__dict__[name] = getattr(self._world.net, name)
        return found

    def store(self, subject: str, headers: dict[str, str], body: bytes) -> Any:
        """As the broker's, written down."""
        saying = Saying(self._who, subject, dict(headers), body)
        self._world.sayings.append(saying)
        try:
            return self._world.net.store(subject, headers, body)
        except WrongLastSequence:
            saying.overtaken = True
            raise

    def deliver(self, offer: Offer) -> None:
        """Everything that this replica says passes here."""
        world, net = self._world, self._world.net
        kind, whom, what, hand = offer
        if whom != "broker" and kind != "request":
            net.deliver(offer)
            return
        chaos, rates = world.chaos, world.chaos.rates
        if (chaos.calm or not rates) and not net.cut_off:
            net.deliver(offer)
            return
        if kind in ("publish", "ack"):
            if "crash_before" in rates and chaos.strikes("crash_before", f"{self._who} {kind} {what}") is not None:
                world.crash(self._who, f"before {kind} {what}")
                return
            if "crash_after" in rates and chaos.strikes("crash_after", f"{self._who} {kind} {what}") is not None:
                hand()
                world.crash(self._who, f"after {kind} {what}")
                return
        if "cut_off" in rates and (how := chaos.strikes("cut_off", f"{self._who} {kind} {what}")) is not None:
            net.cut_off[self._who] = asyncio.get_running_loop().time() + 0.5 + how * 12
            world.tell(f"CUT OFF {self._who} for {0.5 + how * 12:.1f} s")
        if net.is_cut_off(self._who):
            return
        if "pause" in rates:
            chaos.pauses("pause", f"{kind} {what}", self._who)
        net.deliver(offer)
