"""Confirmation of suspected deadlocks, so that a phantom cycle of late messages is never broken.

In: a suspicion, the last sequence of every inbox when it was raised, and how far the watcher has read each
inbox. Out: `ConfirmedDeadlock` or `RefutedSuspicion`, once all of them were read. A real deadlock is
stable: its edges still stand then. A phantom of late, repeated or disordered messages has been answered by
a message that the watcher has read by then.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bulkhead.health.deadlock.evidence import SuspectedDeadlock
from bulkhead.health.deadlock.wait_graph import WaitGraph

MAX_PENDING = 10_000


@dataclass(frozen=True, slots=True)
class ConfirmedDeadlock:
    """All earlier messages have been read, and the same edges still close the circle: refuse the victim's wait."""

    suspected: SuspectedDeadlock


@dataclass(frozen=True, slots=True)
class RefutedSuspicion:
    """Refutation of a deadlock: `why` names the edge that had been answered."""

    suspected: SuspectedDeadlock
    why: str


Outcome = ConfirmedDeadlock | RefutedSuspicion


class DeadlockConfirmations:
    """Suspicions that wait until the watcher has read all messages from before they were raised."""

    def __init__(self) -> None:
        self._read: dict[str, int] = {}
        self._pending: dict[str, tuple[SuspectedDeadlock, dict[str, int]]] = {}

    def add_suspicion(self, suspected: SuspectedDeadlock, last: Mapping[str, int]) -> None:
        """Wait until each inbox has been read up to `last`, its newest sequence after the suspicion was raised."""
        if len(self._pending) < MAX_PENDING or suspected.trip in self._pending:
            self._pending[suspected.trip] = (suspected, dict(last))

    def mark_read(self, inbox: str, sequence: int) -> None:
        """The watcher has folded this message, and all before it in the same inbox."""
        if sequence > self._read.get(inbox, 0):
            self._read[inbox] = sequence

    def missing_sequences(self, trip: str) -> dict[str, int]:
        """Inboxes and sequences that a pending suspicion still waits for."""
        pending = self._pending.get(trip)
        return (
            {}
            if pending is None
            else {inbox: sequence for inbox, sequence in pending[1].items() if self._read.get(inbox, 0) < sequence}
        )

    def settle_suspicions(self, graph: WaitGraph, now_unix_ms: int = 0) -> list[Outcome]:
        """Every suspicion that can be judged now, in the order in which they were raised.

        What ends by itself is not stable: a circle through a lease whose time is up is left to its timer, and judged
        when that one was heard of, or the lease was prolonged.
        """
        outcomes: list[Outcome] = []
        for trip, (suspected, _) in list(self._pending.items()):
            if self.missing_sequences(trip):
                continue
            if any(0 < graph.until.get(wait.key, 0) <= now_unix_ms for wait in suspected.waits):
                continue
            del self._pending[trip]
            if graph.still_holds(suspected):
                outcomes.append(ConfirmedDeadlock(suspected))
                continue
            answered_waiter = next((wait.waiter for wait in suspected.waits if graph.waits.get(wait.key) != wait), "")
            reason = f"{answered_waiter} was answered" if answered_waiter else "a party of it can go on"
            outcomes.append(RefutedSuspicion(suspected, reason))
        return outcomes
