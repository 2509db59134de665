"""Limits on how long the watch may keep the event loop, which it shares with admissions, to itself.

In: messages, and a fold that takes one. Out: all of them folded, in slices, between which whoever else is
ready goes first; `FoldTooLong`, raised inside the fold, where one takes longer than any should: it is to
blame (see `aside`). The watchdog is a timer of processor time, so that a loaded machine makes nothing
endless; its signal ends a regular expression that backtracks for ever, too. Signals come to the main thread,
in which services run; in another one there is no watchdog.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from bulkhead.bus.port import StoredMessage

SLICE_MS = 5
"""Time of folding before other work goes first."""
MAX_SLICE_MESSAGES = 32
"""And so many messages at most: also where the clock stands still."""
MAX_SLICE_S = 1.0
"""Processor time of one slice: a hundred times what the dearest message takes that keeps to the contracts."""
TIMER_SIGNALS = 2
"""The timer speaks so often in that time, and the last one ends the fold. One pause of the interpreter, such as the
collector's look through a large watch, is one word however long it is: no signal is handled meanwhile."""
_slice_running = False
"""Whether a slice is being folded: a signal that comes later hits nobody."""
_signals_heard = 0
"""How often the timer has spoken in this slice."""


class FoldTooLong(Exception):
    """The fold of one message took longer than it may. where: what it was doing then."""

    def __init__(self, where: str) -> None:
        super().__init__(f"folding one message took longer than any may, in {where}")
        self.where = where


class SlicedFold:
    """Slices of a watch. clock: milliseconds."""

    def __init__(self, clock: Callable[[], int], max_slice_s: float = MAX_SLICE_S) -> None:
        self._clock, self._max_slice_s = clock, max_slice_s

    async def fold_each(self, messages: Sequence[StoredMessage], fold: Callable[[StoredMessage], None]) -> None:
        """Fold them in this order. Raises whatever `fold` raises, and FoldTooLong."""
        if not messages:
            return  # Most looks find nothing: no timer need be set for it.
        remaining = iter(messages)
        is_unfinished = self._fold_slice(remaining, fold)
        while is_unfinished:
            await asyncio.sleep(0)
            is_unfinished = self._fold_slice(remaining, fold)

    def _fold_slice(self, remaining: Iterator[StoredMessage], fold: Callable[[StoredMessage], None]) -> bool:
        """True when there may be more."""
        until = self._clock() + SLICE_MS
        with _guard_slice(self._max_slice_s):
            for count, stored in enumerate(remaining, 1):
                fold(stored)
                if count >= MAX_SLICE_MESSAGES or self._clock() >= until:
                    return True
        return False


@contextmanager
def _guard_slice(max_slice_s: float) -> Iterator[None]:
    global _slice_running, _signals_heard
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if signal.getsignal(signal.SIGVTALRM) is not _on_timer_signal:
        signal.signal(signal.SIGVTALRM, _on_timer_signal)
    _slice_running, _signals_heard = True, 0
    # Again and again: whoever takes the first one for an error of the message's is not in time the second time.
    signal.setitimer(signal.ITIMER_VIRTUAL, max_slice_s / TIMER_SIGNALS, max_slice_s / TIMER_SIGNALS)
    try:
        yield
    finally:
        _slice_running = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _on_timer_signal(_number: int, frame: FrameType | None) -> None:
    global _signals_heard
    _signals_heard += _slice_running
    if _slice_running and _signals_heard >= TIMER_SIGNALS:
        raise FoldTooLong(frame.f_code.co_qualname if frame is not None else "no code of Python")
