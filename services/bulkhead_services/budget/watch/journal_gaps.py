"""Gaps of JOURNAL against the inboxes that it copies, seen while it is read. Pure.

In: how far every inbox has come, and the place in its inbox of each message that is read from JOURNAL. Out:
gaps, and inboxes behind whose ends JOURNAL stays. A purge makes no gap here: what was stored after the begin
is far too young.
"""

from collections.abc import Mapping
from dataclasses import dataclass

LAG_MS = 15_000
"""JOURNAL lags behind the inboxes under load; what has not come for so long is told."""
MAX_GAPS = 1_000


@dataclass(frozen=True, slots=True)
class JournalGap:
    """Sequences of an inbox that JOURNAL has passed over: it will never have them."""

    inbox: str
    first: int
    last: int


class JournalGaps:
    """Gaps of one reading of JOURNAL, from `begin_at` on."""

    def __init__(self) -> None:
        self.begun = False
        self.gaps: list[JournalGap] = []
        self._reached: dict[str, int] = {}
        self._awaited: dict[str, tuple[int, int]] = {}
        """By inbox: the end that JOURNAL has to reach, and since when."""

    def begin_at(self, ends: Mapping[str, int]) -> None:
        """Begin behind these ends: what lies before may have been purged from either."""
        self.begun, self._reached = True, dict(ends)
        self._awaited.clear()

    def forget_reading(self) -> None:
        """JOURNAL was made again, and is read anew."""
        self.begun = False
        self._awaited.clear()

    def record_message(self, inbox: str, sequence: int) -> JournalGap | None:
        """The next message of an inbox, in JOURNAL's order; a gap that shows by it."""
        reached = self._reached.get(inbox, 0)
        if not self.begun or sequence <= reached:
            return None
        self._reached[inbox] = sequence
        if sequence == reached + 1:
            return None
        gap = JournalGap(inbox, reached + 1, sequence - 1)
        if len(self.gaps) < MAX_GAPS:
            self.gaps.append(gap)
        return gap

    def record_ends(self, ends: Mapping[str, int], now_unix_ms: int) -> None:
        """Ends of the inboxes now."""
        for inbox, end in ends.items():
            reached = self._reached.get(inbox, 0)
            if end <= reached:
                self._awaited.pop(inbox, None)
            elif self._awaited.get(inbox, (0, 0))[0] <= reached:
                self._awaited[inbox] = end, now_unix_ms

    def lagging_inboxes(self, now_unix_ms: int) -> tuple[str, ...]:
        """Inboxes whose ends of a while ago JOURNAL has not reached."""
        return tuple(name for name, (_, since) in self._awaited.items() if now_unix_ms - since >= LAG_MS)

    def degraded(self, now_unix_ms: int) -> str:
        """For /readyz; "" when JOURNAL is whole as far as is known."""
        problems = []
        if self.gaps:
            count, first = sum(gap.last - gap.first + 1 for gap in self.gaps), self.gaps[0]
            problems.append(
                f"the journal lacks {count} message(s), the first {first.first} of the inbox of {first.inbox}: the "
                "watcher and timelines do not see them; a service that uses one message id twice hides them"
            )
        if late := self.lagging_inboxes(now_unix_ms):
            problems.append(f"the journal does not come up with the inbox of {', '.join(late)}; see the broker's log")
        return "; ".join(problems)
