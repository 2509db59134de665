"""The watch shares an event loop with admissions: it folds in slices, and a fold that never ends is ended."""

import asyncio
import re
import signal
import time
from collections.abc import Callable

import pytest

from bulkhead.bus.port import StoredMessage
from bulkhead.health.thresholds import DEFAULT
from bulkhead_services.budget.watch.fold import WatchFold
from bulkhead_services.budget.watch.poison_messages import LeftOutMessages
from bulkhead_services.budget.watch.time_slices import MAX_SLICE_MESSAGES, SLICE_MS, FoldTooLong, SlicedFold
from tests.unit.services.budget.watch.test_poison_messages import said

JOURNAL = [StoredMessage("mesh.x.y.1.acme.t1.-", {}, b"{}", sequence, sequence) for sequence in range(1, 101)]


async def turns(cost_ms: int) -> list[int]:
    """How many messages had been folded each time that somebody else came to go on."""
    now, folded, seen, over = [0], list[StoredMessage](), list[int](), False

    def take(stored: StoredMessage) -> None:
        now[0] += cost_ms
        folded.append(stored)

    async def other() -> None:
        while not over:
            seen.append(len(folded))
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    await SlicedFold(lambda: now[0]).fold_each(JOURNAL, take)
    over = True
    await beside
    assert folded == JOURNAL
    return seen


@pytest.mark.parametrize(
    ("cost_ms", "slice_"), [(0, MAX_SLICE_MESSAGES), (1, SLICE_MS), (2, 3), (SLICE_MS, 1), (500, 1)]
)
async def test_whoever_else_is_ready_goes_first_after_a_slice(cost_ms: int, slice_: int) -> None:
    seen = await turns(cost_ms)
    assert max(later - earlier for earlier, later in zip([0, *seen], seen, strict=False)) <= slice_
    assert len(seen) >= len(JOURNAL) // slice_, "and does so each time"


def for_ever(_: StoredMessage) -> None:
    while True:
        pass


def backtracks(_: StoredMessage) -> None:
    re.match(r"(a+)+$", "a" * 64 + "b")


@pytest.mark.parametrize("fold", [for_ever, backtracks])
async def test_a_fold_that_never_ends_is_ended_and_nothing_barks_afterwards(
    fold: Callable[[StoredMessage], None],
) -> None:
    with pytest.raises(FoldTooLong):
        await SlicedFold(lambda: 0, 0.05).fold_each(JOURNAL, fold)
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)
    signal.raise_signal(signal.SIGVTALRM)
    await SlicedFold(lambda: 0).fold_each(JOURNAL, lambda _: None)
    busy = time.process_time() + 0.1
    while time.process_time() < busy:
        pass


async def test_one_long_pause_of_the_interpreter_is_nobodys_fault() -> None:
    """The collector looks through a large watch in a second, at whichever message comes just then."""
    folded = []
    began_s = time.process_time()
    sum(range(2_000_000))
    per_number_s = (time.process_time() - began_s) / 2_000_000

    def collects(stored: StoredMessage) -> None:
        # As the collector: no signal is handled in those 0.5 s, and the first one after them.
        sum(range(int(0.5 / per_number_s)))
        folded.append(stored)

    # A virtual machine that stood still gets its ticks in a row: the second word must be further off than those.
    await SlicedFold(lambda: 0, 0.4).fold_each(JOURNAL[:1], collects)
    assert folded == JOURNAL[:1]


async def test_the_message_is_to_blame_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    take = WatchFold._fold_events

    def endless(self: WatchFold, stored: StoredMessage) -> None:
        if b"boom" in stored.body:
            for_ever(stored)
        take(self, stored)

    monkeypatch.setattr(WatchFold, "_fold_events", endless)
    known, journal = LeftOutMessages(), said("1", "boom", "2")
    for at in range(3):
        fold = WatchFold(DEFAULT, known)
        try:
            await SlicedFold(lambda: 0, 0.2).fold_each(journal, fold.fold_message)
        except FoldTooLong as error:
            assert known.blame_message(error) == (at == 1)
    assert fold.folded == len(journal) - 1
    (told,) = fold.due.values()
    assert told.detector == "watch.left_out" and "FoldTooLong in for_ever" in told.what
