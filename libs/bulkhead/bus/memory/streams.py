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
from bulkhead.bus.port import DurableCounts, PubAck, PublishRefused, StoredMessage, StreamCounts

DUPLICATE_WINDOW_MS = 120_000


@lru_cache(16_384)
def subject_matches(pattern: str, subject: str) -> bool:
    """True if a subject falls under a filter with `*` (one token) and `>` (one or more at the end)."""
    return capture_wildcards(pattern, subject) is not None


def capture_wildcards(pattern: str, subject: str) -> list[str] | None:
    """The tokens that the `*` of a filter stand for; None when it does not match."""
    captures: list[str] = []
    tokens = subject.split(".")
    filter_tokens = pattern.split(".")
    for index, want in enumerate(filter_tokens):
        if want == ">":
            return captures if len(tokens) > index else None
        if index >= len(tokens) or want not in ("*", tokens[index]):
            return None
        if want == "*":
            captures.append(tokens[index])
    return captures if len(tokens) == len(filter_tokens) else None


def _any_matches(patterns: tuple[str, ...], subject: str) -> bool:
    for pattern in patterns:  # noqa: SIM110 - asked for every message: a generator would cost more than the answer.
        if subject_matches(pattern, subject):
            return True
    return False


def _task_of(subject: str) -> str:
    """The task of a subject or filter of the mesh, which few others share; of shorter ones the last token."""
    return subject.split(".", 6)[:6][-1]


@dataclass(frozen=True, slots=True)
class StreamSource:
    """Messages copied from another stream; `target` renames them by `$1`, `$2`... of the filter's wildcards."""

    stream: str
    pattern: str = ">"
    target: str = ""

    def target_subject(self, subject: str) -> str | None:
        """The name that a message of the other stream gets here; None when it is not taken."""
        if not self.target:
            return subject if subject_matches(self.pattern, subject) else None
        captures = capture_wildcards(self.pattern, subject)
        if captures is None:
            return None
        names = {f"${number}": token for number, token in enumerate(captures, 1)}
        return ".".join(names.get(token, token) for token in self.target.split("."))


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """Stream as the provisioner would make it. Limits of 0 are none; what is full refuses when `discard_new`."""

    name: str
    subjects: tuple[str, ...] = ()
    max_messages: int = 0
    max_messages_per_subject: int = 0
    max_message_bytes: int = 0
    discard_new: bool = True
    schedules: bool = False
    sources: tuple[StreamSource, ...] = ()
    republish: tuple[str, str] = ("", "")
    """Live subjects under which `$KV.<bucket>.>` is repeated, e.g. `control.live`."""


class Stream:
    """One stream's messages."""

    def __init__(self, config: StreamConfig) -> None:
        self.config = config
        self.last_sequence = 0
        self._messages: dict[int, StoredMessage] = {}
        self._order: list[int] = []
        self._by_subject: dict[str, list[int]] = {}
        self._by_task: dict[str, dict[str, None]] = {}
        self._known: dict[str, tuple[int, int]] = {}

    def takes_subject(self, subject: str) -> bool:
        """True if the stream listens to a subject."""
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
            earlier = self._known.get(message_id)
            if earlier is not None and earlier[1] > now_ms - DUPLICATE_WINDOW_MS:
                return PubAck(self.config.name, earlier[0], duplicate=True)
        self._check_limits(subject, headers)
        return PubAck(self.config.name, self.append(subject, headers, body, now_ms).sequence)

    def _check_limits(self, subject: str, headers: Mapping[str, str]) -> None:
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

    def append(self, subject: str, headers: Mapping[str, str], body: bytes, now_ms: int) -> StoredMessage:
        """Store without asking; drops the oldest over the limits."""
        self.last_sequence += 1
        stored = StoredMessage(subject, dict(headers), body, self.last_sequence, now_ms)
        if message_id := headers.get(wire.MESSAGE_ID, ""):
            self._known[message_id] = (stored.sequence, now_ms)
        self._messages[stored.sequence] = stored
        self._order.append(stored.sequence)
        self._by_subject.setdefault(subject, []).append(stored.sequence)
        self._by_task.setdefault(_task_of(subject), {})[subject] = None
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
        sequences = self._by_subject[stored.subject]
        sequences.remove(sequence)
        if not sequences:
            del self._by_subject[stored.subject]
            del self._by_task[_task_of(stored.subject)][stored.subject]

    def get(self, sequence: int) -> StoredMessage | None:
        """One message; None when it was never there or is gone."""
        return self._messages.get(sequence)

    def newest(self, subject: str, horizon: int | None = None) -> StoredMessage | None:
        """The last message of a subject (wildcards allowed), as seen up to a sequence."""
        if "*" in subject or subject.endswith(">"):
            visible = (
                self._messages[sequence]
                for sequence in reversed(self._messages)
                if horizon is None or sequence <= horizon
            )
            return next((stored for stored in visible if subject_matches(subject, stored.subject)), None)
        sequences = self._by_subject.get(subject, ())
        visible_count = len(sequences) if horizon is None else bisect_right(sequences, horizon)
        return self._messages[sequences[visible_count - 1]] if visible_count else None

    def _newest_under(self, pattern: str) -> StoredMessage | None:
        """Newest message under a filter, by way of the index of tasks."""
        return next(reversed(self.read(pattern, 0, self.last_sequence)), None)

    def read(self, pattern: str, after: int, limit: int, horizon: int | None = None) -> list[StoredMessage]:
        """Messages under a filter, in order, as seen up to a sequence."""
        task, messages = _task_of(pattern), self._messages
        if task in ("*", ">"):
            later = map(messages.__getitem__, self.sequences_after(after))
            page = list(
                islice(
                    (message for message in later if pattern == ">" or subject_matches(pattern, message.subject)), limit
                )
            )
        else:
            mine = [
                self._by_subject[subject]
                for subject in self._by_task.get(task, ())
                if subject_matches(pattern, subject)
            ]
            sequences = [
                sequence
                for of_subject in mine
                for sequence in islice(of_subject, bisect_right(of_subject, after), None)
            ]
            if len(mine) > 1:
                sequences.sort()
            page = [messages[sequence] for sequence in sequences[:limit]]
        return page if horizon is None else [message for message in page if message.sequence <= horizon]

    def counts(self, subjects: str) -> StreamCounts:
        """Counts of its messages; subjects: a filter, whose subjects are counted one by one."""
        by_subject = {
            subject: len(sequences)
            for subject, sequences in self._by_subject.items()
            if subjects and sequences and subject_matches(subjects, subject)
        }
        size = sum(wire.stored_bytes(message.headers, message.body) for message in self._messages.values())
        return StreamCounts(self.last_sequence, size, 0, by_subject)

    def sequences_after(self, sequence: int) -> Iterator[int]:
        """Sequences above one, in order."""
        return iter(self._order[bisect_right(self._order, sequence) :])


@dataclass(frozen=True, slots=True)
class DurableConfig:
    """Durable as the provisioner would make it."""

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

    def next_message(self) -> StoredMessage | None:
        """Message to hand out next: first what comes back, then what is new. None when there is nothing to hand out."""
        while self.again:
            stored = self.stream.get(self.again.popleft())
            if stored is not None and stored.sequence in self.pending:
                return stored
        if len(self.pending) >= self.config.max_ack_pending:
            return None
        for sequence in self.stream.sequences_after(self.cursor):
            self.cursor = sequence
            stored = self.stream.get(sequence)
            assert stored is not None
            if not self.config.patterns or _any_matches(self.config.patterns, stored.subject):
                return stored
        return None

    def counts(self, asking: int, now_unix_ms: int) -> DurableCounts:
        """Counts of what waits and what is in work. asking: consumers that have room."""
        ahead = (self.stream.get(sequence) for sequence in self.stream.sequences_after(self.cursor))
        messages = (message for message in ahead if message is not None)
        patterns = self.config.patterns
        pending = sum(not patterns or _any_matches(patterns, stored.subject) for stored in messages)
        return DurableCounts(pending, len(self.pending), asking, now_unix_ms - self.active_unix_ms)

    def end_pending(self, sequence: int) -> bool:
        """Acked or given up; False when it was not outstanding."""
        cancel = self.pending.pop(sequence, None)
        if cancel is None:
            return False
        cancel()
        self.attempts.pop(sequence, None)
        if sequence in self.again:
            self.again.remove(sequence)
        return True
