"""The bus port: the interface of every adapter. One conformance suite holds for all of them.

Stored messages live in streams that a provisioner made; an adapter neither makes nor changes a stream.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class BusError(Exception):
    """Base of all errors of a bus."""


class BusUnavailable(BusError):
    """Missing answer or connection: the outcome is unknown. Retry with the same message id."""


class BusClosed(BusUnavailable):
    """This connection is closed for good: a retry is of no use."""


class NoResponders(BusUnavailable):
    """Request that no service received: nothing was done."""


class PublishRefused(BusError):
    """The broker refused: no permission, no such stream, full, too large. The message says which and what to do."""


class WrongLastSequence(BusError):
    """The optimistic check failed: another writer was first. Compare message ids before believing it."""


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as it lies in a stream. time_unix_ms is the broker's clock.

    The properties read one token or one header each, unchecked: `runtime.inbound.read` checks a whole message. Those of
    the subject are for the `mesh.` plane and raise IndexError where a subject has too few tokens.
    """

    subject: str
    headers: Mapping[str, str]
    body: bytes
    sequence: int
    time_unix_ms: int

    @property
    def sender(self) -> str:
        """The author, whom the broker enforces."""
        return self.subject.split(".", 2)[1]

    @property
    def receiver(self) -> str:
        """The service in whose inbox it lies."""
        return self.subject.split(".", 3)[2]

    @property
    def tenant(self) -> str:
        """Tenant of its task."""
        return self.subject.split(".", 5)[4]

    @property
    def task(self) -> str:
        """Task that it is of."""
        return self.subject.split(".", 6)[5]

    @property
    def key(self) -> str:
        """Key of the call whose outcome it is; `-` of all else."""
        return self.subject.split(".", 7)[6]

    @property
    def ce_id(self) -> str:
        """The message's id, as its author says."""
        return self.header("ce-id")

    @property
    def ce_type(self) -> str:
        """`mesh.step.assigned.v1`, as its author says."""
        return self.header("ce-type")

    @property
    def cause(self) -> str:
        """The id of the message that caused this one; "" for the first."""
        return self.header("ce-causeid")

    @property
    def actor(self) -> str:
        """On whose authority."""
        return self.header("ce-actor")

    def header(self, name: str) -> str:
        """A header by its name in lower case, however its author spelled it; "" where there is none."""
        value = self.headers.get(name)
        if value is None:
            value = next((value for key, value in self.headers.items() if key.lower() == name), "")
        return value


@dataclass(frozen=True, slots=True)
class PubAck:
    """The broker has it (fsynced, in power durability)."""

    stream: str
    sequence: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class StreamCounts:
    """Contents of a stream, counted. max_bytes: 0 for no bound. by_subject: messages per subject, of those asked
    about.
    """

    last_sequence: int
    bytes: int
    max_bytes: int
    by_subject: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DurableCounts:
    """Messages of a durable. pending: never handed out; in_work: handed out and not ended.

    asking: requests for messages that stand; a consumer that has room and was handed nothing lately has one. quiet_ms:
    since a message was last handed out or ended; of a durable that never had one, since the beginning of time.
    """

    pending: int
    in_work: int
    asking: int
    quiet_ms: int


class BusDelivery(Protocol):
    """A message handed to a consumer. Exactly one of ack, nak or term ends it."""

    @property
    def stored(self) -> StoredMessage:
        """The message."""

    @property
    def stream(self) -> str:
        """Its stream."""

    @property
    def consumer_sequence(self) -> int:
        """Number of this delivery in its durable; consecutive numbers of one run mean that nothing was handed
        elsewhere."""

    @property
    def attempts(self) -> int:
        """1 on the first delivery."""

    @property
    def run(self) -> int:
        """Another one where a broker may have been restarted, or another one lead, since the delivery before: it may
        have forgotten the last numbers that it gave, and give them again."""

    async def ack(self) -> None: ...
    async def nak(self, delay_s: float = 0.0) -> None: ...
    async def term(self, reason: str = "") -> None: ...
    async def in_progress(self) -> None: ...


class Consumer(Protocol):
    """A durable pull consumer."""

    @property
    def ack_wait_s(self) -> float:
        """After so long without a word of it, the broker hands a delivery out again."""

    async def fetch(self, max_messages: int, timeout_s: float = 5.0) -> Sequence[BusDelivery]:
        """Up to `max_messages` as soon as there is one; [] after the timeout. Never prefetches beyond it."""

    async def hand_over(self, max_messages: int, take: Callable[[BusDelivery], None], timeout_s: float = 5.0) -> None:
        """Fetch deliveries, each handed to `take` at once, which must return quickly and not raise. Returns after
        some of them, so that the caller can count its free slots again.
        """

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LiveMessage:
    """An unstored message."""

    subject: str
    headers: Mapping[str, str]
    body: bytes


class LiveSubscription(Protocol):
    """A bounded, lossy subscription."""

    @property
    def dropped(self) -> int:
        """Number of messages that did not fit."""

    def __aiter__(self) -> AsyncIterator[LiveMessage]: ...
    async def close(self) -> None: ...


RpcHandler = Callable[[LiveMessage], Awaitable[tuple[Mapping[str, str], bytes]]]
IsLongPoll = Callable[[LiveMessage], bool]
"""Whether a request waits for something to happen, and its handler bounds how many do."""


def never_long_poll(asked: LiveMessage) -> bool:
    """Check nothing: no request is a long poll."""
    return False


@dataclass(frozen=True, slots=True)
class Schedule:
    """A message to appear at `target` at a time (see subjects.timer_set and timer_fired)."""

    subject: str
    target: str
    due_unix_ms: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Bus(Protocol):
    """Operations of a service on the bus; its credentials decide which subjects."""

    async def publish(
        self,
        subject: str,
        body: bytes,
        headers: Mapping[str, str],
        message_id: str,
        *,
        expect_last_on_subject: int | None = None,
        expect_none_on: str = "",
    ) -> PubAck:
        """Store a message; returns after the broker's ack. A known message_id gives `duplicate=True`.

        expect_last_on_subject=0: only if the subject is empty. expect_none_on: only if its stream holds nothing under
        this filter, its own message of an earlier try included; what was stored so says it (`wire.was_first`). Raises
        BusUnavailable, PublishRefused, WrongLastSequence.
        """

    async def schedule(self, schedule: Schedule, message_id: str) -> PubAck:
        """Store a schedule in the service's timers stream."""

    async def publish_live(self, subject: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Publish to the current listeners, without storing."""

    async def subscribe_live(self, subject: str, max_pending: int = 10_000) -> LiveSubscription:
        """Listen to a subject (wildcards allowed)."""

    async def request(
        self, subject: str, body: bytes, headers: Mapping[str, str] | None = None, timeout_s: float = 2.0
    ) -> LiveMessage:
        """Send a request and wait for one reply. Raises BusUnavailable without a reply in time."""

    async def serve(
        self, subject: str, queue: str, handler: RpcHandler, *, is_long_poll: IsLongPoll = never_long_poll
    ) -> Callable[[], Awaitable[None]]:
        """Answer requests, shared among a queue group; returns a function that stops. is_long_poll: such a request
        takes no turn of others: it is handed to the handler at once."""

    async def open_consumer(self, stream: str, durable: str, *, rank: int = 0, reclaims: bool = False) -> Consumer:
        """Attach to a durable that the provisioner made. rank: of those that have room, the lowest is served, where the
        durable heeds ranks (0 to 9); a hint that nothing may rely on. reclaims: while nobody asks for messages, what
        was handed out is handed out again at once; whoever had it is gone, or has no room and handles it as well."""

    async def read(self, stream: str, subject: str, after: int = 0, limit: int = 256) -> list[StoredMessage]:
        """Stored messages of a subject filter with sequence > after, in order; [] when there are none (yet)."""

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """The newest message of a subject (wildcards allowed)."""

    async def last_on(self, stream: str, subject: str) -> StoredMessage | None:
        """The newest message of exactly this subject: the request names it, so that a right to it is a right to no
        other."""

    async def last_sequence(self, stream: str) -> int:
        """The last sequence of a stream, 0 when it is empty; read from its leader, not from a lagging follower."""

    async def stream_counts(self, stream: str, subjects: str = "") -> StreamCounts:
        """Counts of a stream; subjects: a filter, whose subjects are counted one by one (100,000 at most)."""

    async def durable_counts(self, stream: str, durable: str) -> DurableCounts | None:
        """Counts of what waits for a durable; None when there is none of this name."""

    async def is_ready(self) -> bool:
        """True if the broker answers now."""

    async def wait_closed(self) -> str:
        """Return the reason when the connection is closed for good; the process must end then."""

    async def close(self) -> None:
        """Drain and close."""
