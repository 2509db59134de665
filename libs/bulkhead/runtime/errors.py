"""Every exception of the bus and the runtime, as one tree.

What the bus raises (defined in bulkhead.bus):

* BusError
  - BusUnavailable: no answer; nothing is known about the outcome
    + BusClosed: this connection is closed for good
    + ConnectionLost: the connection broke during a wait
    + NoResponders: no service received the request
  - PublishRefused: the broker refused
  - WrongLastSequence: another writer was first
    + StreamWrongLastSequence: the same, with the stream that says it

How a message leaves the shell other than by an ack (defined here):

* NotHandled
  - HandBack: not now; it comes again
  - Unreadable: never here, or only to a newer replica; it becomes a dead letter

Reasons for which a doer does not act on a request (defined here; the requester gets a reply for each):

* NotDone
  - Deferred: not yet; the requester asks again
  - JobRefused: no

Alone stand RpcRefused (here), GrantRefused (bulkhead.grants), BlobMissing and BlobCorrupt
(bulkhead.blobs), BackgroundFailed (runtime.background), CannotReplay (runtime.decider.replay), and the
ValueErrors of wrong input: HistoryError with NoHistory (runtime.decider.history), SecretFileMissing
(runtime.settings), UnknownPoint (runtime.crash_points).
"""

from collections.abc import Awaitable, Callable

from bulkhead_contracts.result import Failure, Usage
from bulkhead_contracts.settlement import Settled


class NotHandled(Exception):
    """A message was not handled; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class HandBack(NotHandled):
    """Not now: nothing was done, no attempt is counted. newer: the code of what only a newer replica can read."""

    def __init__(self, delay_s: float, reason: str, newer: str = "") -> None:
        super().__init__(reason)
        self.delay_s, self.newer = delay_s, newer


class Unreadable(NotHandled):
    """The message cannot be read here; `later` tells that an upgraded reader might."""

    def __init__(self, code: str, reason: str, *, later: bool = False) -> None:
        super().__init__(reason)
        self.code, self.later = code, later


HaltSince = tuple[tuple[str, str, str], int]
"""The key of a halt or a breaker, and since when it holds back."""


class NotDone(Exception):
    """A doer does not act on a request now."""


class Deferred(NotDone):
    """May not act yet: the shell answers `CallDeferred` and acks; the requester asks again later.

    paused: a halt or an open breaker holds it back; see `CallDeferred`. halt: which of them (halts.Key), and since
    when; its end wakes the asker. then: done once the asker has been told, so that what wakes it cannot come before.
    until_unix_ms: it waits for a person, until then. settled: what its attempts used.
    """

    def __init__(
        self,
        after_ms: int,
        reason: str,
        *,
        paused: bool = False,
        code: str = "",
        halt: HaltSince | None = None,
        then: Callable[[], Awaitable[None]] | None = None,
        until_unix_ms: int = 0,
    ) -> None:
        super().__init__(reason)
        self.after_ms, self.reason, self.paused, self.code, self.halt = after_ms, reason, paused, code, halt
        self.then, self.until_unix_ms = then, until_unix_ms
        self.usage = Usage()
        self.settled: tuple[Settled, ...] = ()


class JobRefused(NotDone):
    """Will not act (budget, halt, grant): the shell answers with `Doer.refusal_reply`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class RpcRefused(Exception):
    """The asked service could not handle the request; the message says why."""
