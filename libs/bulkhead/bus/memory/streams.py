"""Streams and durables of the in-memory broker: state and rules, without waiting or delivery.

In: a message to store, a durable's acks. Out: acks and refusals as a broker on one node gives them (the order of its
checks is kept: size, expected sequence, known id, then limits), and the sequence that a durable hands out next.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

from bulkhead.bus import wire
from bulkhead.bus.port import DurableCounts, PubAck, PublishRefused, Stored, StreamCounts

DUPLICATE_WINDOW_MS = 120_000


@lru_cache(16_384)
def matches(pattern: str, subject: str) -> bool:
    """Whether a subject falls under a filter with `*` (one token) and `>` (one or more at the end)."""
    return captured(pattern, subject) is not None


def captured(pattern: str, subject: str) -> list[str] | None:
    """The tokens that the `*` of a filter stand for; None when it does not match."""
    found: list[str] = []
    tokens = subject.split(".")
    wanted = pattern.split(".")
    for at, want in enumerate(wanted):
        if want == ">":
            return found if len(tokens) > at else None
        if at >= len(tokens) or want not in ("*", tokens[at]):
            return None
        if want == "*":
            found.append(tokens[at])
    return found if len(tokens) == len(wanted) else None


def _any_matches(patterns: tuple[str, ...], subject: str) -> bool:
    for pattern in patterns:  # noqa: SIM110 - asked for every message: a generator would cost more than the answer.
        if matches(pattern, subject):
            return True
    return False


@dataclass(frozen=True, slots=True)
class Source:
    """Messages copied from another stream; `target` renames them by `$1`, `$2`... of the filter's wildcards."""

    stream: str
    pattern: str = ">"
    target: str = ""

    def subject(self, subject: str) -> str | None:
        """The name that a message of the other stream gets here; None when it is not taken."""
        if not self.target:
            return subject if matches(self.pattern, subject) else None
        found = captured(self.pattern, subject)
        if found is None:
            return None
        names = {f"${at}": token for at, token in enumerate(found, 1)}
        return ".".join(names.get(token, token) for token in self.target.split("."))


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """As the provisioner would make it. Limits of 0 are none; what is full refuses when `discard_new`."""

    name: str
    subjects: tuple[str, ...] = ()
    max_messages: int = 0
    max_messages_per_subject: int = 0
    max_message_bytes: int = 0
    discard_new: bool = True
    schedules: bool = False
    sources: tuple[Source, ...] = ()
    republish: str = ""
    """Live subjects under which `$KV.<bucket>.>` is repeated, e.g. `control.live`."""


class Stream:
    """One stream's messages."""

    def __init__(self, config: StreamConfig) -> None:
        self.config = config
        self.last_sequence = 0
        self._messages: dict[int, Stored] = {}
        self._order: list[int] = []
        self._by_subject: dict[str, list[int]] = {}
        self._by_tail: dict[str, dict[str, None]] = {}
        self._known: dict[str, tuple[int, int]] = {}

    def takes(self, subject: str) -> bool:
        """Whether the stream listens to a subject."""
        return _any_matches(self.config.subjects, subject)

    def store(self, subject: str, headers: Mapping[str, str], body: bytes, now_ms: int) -> PubAck:
        """Append, or answer as for a known id. Raises WrongLastSequence, PublishRefused."""
        if 0 < self.config.max_message_bytes < wire.stored_bytes(headers, body):
            raise PublishRefused(
                f"{subject} was not stored: message size exceeds maximum allowed (10054); the message is larger than "
                "the stream takes: store the content as blobs and send references"
            )
        expected = headers.get(wire.EXPECTED_LAST_ON_SUBJECT)
        last = 0
        if expected is not None:
            under = headers.get(wire.EXPECTED_ON, "")
            newest = self._newest_under(under) if under else self.newest(subject)
            last = newest.sequence if newest else 0
        message_id = headers.get(wire.MESSAGE_ID, "")
        if expected is not None and int(expected) != last:
            raise wire.StreamWrongLastSequence(
                f"{subject}: wrong last sequence: {last}; read the newest message there and decide again",
                self.config.name,
            )
        if message_id:
            known = self._known.get(message_id)
            if known is not None and known[1] > now_ms - DUPLICATE_WINDOW_MS:
                return PubAck(self.config.name, known[0], duplicate=True)
        self._refuse(subject, headers)
        return PubAck(self.config.name, self.append(subject, headers, body, now_ms).sequence)

    def _refuse(self, subject: str, headers: Mapping[str, str]) -> None:
        if not self.config.schedules and wire.SCHEDULE in headers:
            raise PublishRefused(f"{subject} was not stored: schedules belong into TIMERS_<SERVICE>")
        if "Nats-Rollup" in headers or "Nats-TTL" in headers:
            raise PublishRefused(f"{subject} was not stored: rollups and times to live are off")
        config, count = self.config, len(self._by_subject.get(subject, ()))
        full_here = 0 < config.max_messages_per_subject <= count
        if config.discard_new and (full_here or 0 < config.max_messages <= len(self._order)):
            raise PublishRefused(
                f"{subject} was not stored: maximum messages exceeded (10077); what is there stays; purge ended tasks "
                "or raise its limit"
            )

    def append(self, subject: str, headers: Mapping[str, str], body: bytes, now_ms: int) -> Stored:
        """Store without asking; drops the oldest over the limits."""
        self.last_sequence += 1
        stored = Stored(subject, dict(headers), body, self.last_sequence, now_ms)
        if message_id := headers.get(wire.MESSAGE_ID, ""):
            self._known[message_id] = (stored.sequence, now_ms)
        self._messages[stored.sequence] = stored
        self._order.append(stored.sequence)
        self._by_subject.setdefault(subject, []).append(stored.sequence)
        self._by_tail.setdefault(subject.rpartition(".")[2], {})[subject] = None
        limit = self.config.max_messages_per_subject
        while limit and len(self._by_subject[subject]) > limit:
            self.delete(self._by_subject[subject][0])
        while self.config.max_messages and len(self._order) > self.config.max_messages:
            self.delete(self._order[0])
        return stored

    def delete(self, sequence: int) -> None:
        """Forget one message."""
        stored = self._messages.pop(sequence)
        self._order.remove(sequence)
        left = self._by_subject[stored.subject]
        left.remove(sequence)
        if not left:
            del self._by_subject[stored.subject]
            del self._by_tail[stored.subject.rpartition(".")[2]][stored.subject]

    def get(self, sequence: int) -> Stored | None:
        """One message; None when it was never there or is gone."""
        return self._messages.get(sequence)

    def newest(self, subject: str, horizon: int | None = None) -> Stored | None:
        """The last message of a subject (wildcards allowed), as seen up to a sequence."""
        if "*" in subject or subject.endswith(">"):
            kept = (self._messages[one] for one in reversed(self._messages) if horizon is None or one <= horizon)
            return next((stored for stored in kept if matches(subject, stored.subject)), None)
        found = self._by_subject.get(subject, ())
        seen = len(found) if horizon is None else bisect_right(found, horizon)
        return self._messages[found[seen - 1]] if seen else None

    def _newest_under(self, pattern: str) -> Stored | None:
        """As newest, by way of the index of tasks."""
        return next(reversed(self.read(pattern, 0, self.last_sequence)), None)

    def read(self, pattern: str, after: int, limit: int, horizon: int | None = None) -> list[Stored]:
        """Messages under a filter, in order, as seen up to a sequence."""
        tail, messages = pattern.rpartition(".")[2], self._messages
        if tail in ("*", ">"):
            later = map(messages.__getitem__, self.after(after))
            page = list(islice((one for one in later if pattern == ">" or matches(pattern, one.subject)), limit))
        else:
            # A task's messages end with its id: few subjects share it.
            mine = [self._by_subject[one] for one in self._by_tail.get(tail, ()) if matches(pattern, one)]
            found = [sequence for one in mine for sequence in islice(one, bisect_right(one, after), None)]
            if len(mine) > 1:
                found.sort()
            page = [messages[sequence] for sequence in found[:limit]]
        return page if horizon is None else [one for one in page if one.sequence <= horizon]

    def counts(self, subjects: str) -> StreamCounts:
        """What it holds; subjects: a filter, whose subjects are counted one by one."""
        found = {
            one: len(held) for one, held in self._by_subject.items() if subjects and held and matches(subjects, one)
        }
        size = sum(wire.stored_bytes(one.headers, one.body) for one in self._messages.values())
        return StreamCounts(self.last_sequence, size, 0, found)

    def after(self, sequence: int) -> Iterator[int]:
        """Sequences above one, in order."""
        return iter(self._order[bisect_right(self._order, sequence) :])


@dataclass(frozen=True, slots=True)
class DurableConfig:
    """As the provisioner would make it."""

    stream: str
    name: str
    patterns: tuple[str, ...] = ()
    ack_wait_ms: int = 5_000
    max_ack_pending: int = 1_000


@dataclass(slots=True)
class Durable:
    """One durable's state. `pending`: handed out and not acked, with what cancels the wait for its ack."""

    config: DurableConfig
    stream: Stream
    consumer_sequence: int = 0
    cursor: int = 0
    pending: dict[int, Callable[[], None]] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    again: deque[int] = field(default_factory=deque)
    active_unix_ms: int = 0
    """When a message was last handed out or ended."""

    def next(self) -> Stored | None:
        """What to hand out next: first what comes back, then what is new. None when there is nothing to hand out."""
        while self.again:
            stored = self.stream.get(self.again.popleft())
            if stored is not None and stored.sequence in self.pending:
                return stored
        if len(self.pending) >= self.config.max_ack_pending:
            return None
        for sequence in self.stream.after(self.cursor):
            self.cursor = sequence
            stored = self.stream.get(sequence)
            assert stored is not None
            if not self.config.patterns or _any_matches(self.config.patterns, stored.subject):
                return stored
        return None

    def counts(self, asking: int, now_unix_ms: int) -> DurableCounts:
        """What waits and what is in work. asking: consumers that have room."""
        ahead = (self.stream.get(sequence) for sequence in self.stream.after(self.cursor))
        wanted = (one for one in ahead if one is not None)
        patterns = self.config.patterns
        pending = sum(not patterns or _any_matches(patterns, stored.subject) for stored in wanted)
        return DurableCounts(pending, len(self.pending), asking, now_unix_ms - self.active_unix_ms)

    def done(self, sequence: int) -> bool:
        """Acked or given up; False when it was not outstanding."""
        cancel = self.pending.pop(sequence, None)
        if cancel is None:
            return False
        cancel()
        self.attempts.pop(sequence, None)
        if sequence in self.again:
            self.again.remove(sequence)
        return True
