"""Confirmation of suspected deadlocks, so that a phantom cycle of late messages is never broken.

In: a suspicion, the last sequence of every inbox when it was raised, and how far the watcher has read each inbox. Out:
`Confirmed` or `Vanished`, once all of them were read. A real deadlock is stable: its edges still stand then. A phantom
of late, repeated or disordered messages has been answered by a message that the watcher has read by then.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bulkhead.health.deadlock.evidence import Suspected
from bulkhead.health.deadlock.wait_graph import WaitGraph

MAX_PENDING = 10_000


@dataclass(frozen=True, slots=True)
class Confirmed:
    """All earlier messages have been read, and the same edges still close the circle: refuse the victim's wait."""

    suspected: Suspected


@dataclass(frozen=True, slots=True)
class Vanished:
    """No deadlock: `why` names the edge that had been answered."""

    suspected: Suspected
    why: str


Outcome = Confirmed | Vanished


class Confirmations:
    """Suspicions that wait until the watcher has read all messages from before they were raised."""

    def __init__(self) -> None:
        self._read: dict[str, int] = {}
        self._pending: dict[str, tuple[Suspected, dict[str, int]]] = {}

    def expect(self, suspected: Suspected, last: Mapping[str, int]) -> None:
        """Wait until each inbox has been read up to `last`, its newest sequence after the suspicion was raised."""
        if len(self._pending) < MAX_PENDING or suspected.trip in self._pending:
            self._pending[suspected.trip] = (suspected, dict(last))

    def read(self, inbox: str, sequence: int) -> None:
        """The watcher has folded this message, and all before it in the same inbox."""
        if sequence > self._read.get(inbox, 0):
            self._read[inbox] = sequence

    def missing(self, trip: str) -> dict[str, int]:
        """What a pending suspicion still waits for: inbox and sequence."""
        found = self._pending.get(trip)
        return (
            {}
            if found is None
            else {inbox: sequence for inbox, sequence in found[1].items() if self._read.get(inbox, 0) < sequence}
        )

    def settle(self, graph: WaitGraph, now_unix_ms: int = 0) -> list[Outcome]:
        """Every suspicion that can be judged now, in the order in which they were raised.

        What ends by itself is not stable: a circle through a lease whose time is up is left to its timer, and judged
        when that one was heard of, or the lease was prolonged.
        """
        found: list[Outcome] = []
        for trip, (suspected, _) in list(self._pending.items()):
            if self.missing(trip):
                continue
            if any(0 < graph.until.get(one.key, 0) <= now_unix_ms for one in suspected.waits):
                continue
            del self._pending[trip]
            if graph.holds(suspected):
                found.append(Confirmed(suspected))
                continue
            gone = next((one.waiter for one in suspected.waits if graph.waits.get(one.key) != one), "")
            why = f"{gone} was answered" if gone else "a party of it can go on"
            found.append(Vanished(suspected, why))
        return found
