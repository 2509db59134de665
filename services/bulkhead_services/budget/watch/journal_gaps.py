"""What JOURNAL lacks of the inboxes that it copies, seen while it is read. Pure.

In: how far every inbox has come, and the place in its inbox of each message that is read from JOURNAL. Out: gaps, and
inboxes behind whose ends JOURNAL stays. A purge makes no gap here: what was stored after the begin is far too young.
"""

from collections.abc import Mapping
from dataclasses import dataclass

LAG_MS = 15_000
"""JOURNAL lags behind the inboxes under load; what has not come for so long is told."""
MAX_GAPS = 1_000


@dataclass(frozen=True, slots=True)
class Gap:
    """Sequences of an inbox that JOURNAL has passed over: it will never have them."""

    inbox: str
    first: int
    last: int


class JournalGaps:
    """Of one reading of JOURNAL, from `begin` on."""

    def __init__(self) -> None:
        self.begun = False
        self.gaps: list[Gap] = []
        self._at: dict[str, int] = {}
        self._awaited: dict[str, tuple[int, int]] = {}
        """By inbox: the end that JOURNAL has to reach, and since when."""

    def begin(self, ends: Mapping[str, int]) -> None:
        """What lies up to these ends is not judged: it may have been purged from either."""
        self.begun, self._at = True, dict(ends)
        self._awaited.clear()

    def forget(self) -> None:
        """JOURNAL was made again, and is read anew."""
        self.begun = False
        self._awaited.clear()

    def take(self, inbox: str, sequence: int) -> Gap | None:
        """The next message of an inbox, in JOURNAL's order; a gap that shows by it."""
        at = self._at.get(inbox, 0)
        if not self.begun or sequence <= at:
            return None
        self._at[inbox] = sequence
        if sequence == at + 1:
            return None
        gap = Gap(inbox, at + 1, sequence - 1)
        if len(self.gaps) < MAX_GAPS:
            self.gaps.append(gap)
        return gap

    def look(self, ends: Mapping[str, int], now_unix_ms: int) -> None:
        """How far the inboxes have come now."""
        for inbox, end in ends.items():
            at = self._at.get(inbox, 0)
            if end <= at:
                self._awaited.pop(inbox, None)
            elif self._awaited.get(inbox, (0, 0))[0] <= at:
                self._awaited[inbox] = end, now_unix_ms

    def behind(self, now_unix_ms: int) -> tuple[str, ...]:
        """Inboxes whose ends of a while ago JOURNAL has not reached."""
        return tuple(name for name, (_, since) in self._awaited.items() if now_unix_ms - since >= LAG_MS)

    def degraded(self, now_unix_ms: int) -> str:
        """For /readyz; "" when JOURNAL is whole as far as is known."""
        told = []
        if self.gaps:
            count, first = sum(gap.last - gap.first + 1 for gap in self.gaps), self.gaps[0]
            told.append(
                f"the journal lacks {count} message(s), the first {first.first} of the inbox of {first.inbox}: the "
                "watcher and timelines do not see them; a service that uses one message id twice hides them"
            )
        if late := self.behind(now_unix_ms):
            told.append(f"the journal does not come up with the inbox of {', '.join(late)}; see the broker's log")
        return "; ".join(told)
