"""The watch shares an event loop with admissions: it folds in slices, and a fold that never ends is ended."""

import asyncio
import re
import signal
import time
from collections.abc import Callable

import pytest

from bulkhead.bus.port import Stored
from bulkhead.health.thresholds import DEFAULT
from bulkhead_services.budget.watch.fold import Watching
from bulkhead_services.budget.watch.poison_messages import Aside
from bulkhead_services.budget.watch.time_slices import BREATH, SLICE_MS, Endless, Pace
from tests.unit.services.budget.watch.test_poison_messages import said

JOURNAL = [Stored("mesh.x.y.1.acme.t1", {}, b"{}", sequence, sequence) for sequence in range(1, 101)]


async def turns(cost_ms: int) -> list[int]:
    """How many messages had been folded each time that somebody else came to go on."""
    now, folded, seen, over = [0], list[Stored](), list[int](), False

    def take(stored: Stored) -> None:
        now[0] += cost_ms
        folded.append(stored)

    async def other() -> None:
        while not over:
            seen.append(len(folded))
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    await Pace(lambda: now[0]).each(JOURNAL, take)
    over = True
    await beside
    assert folded == JOURNAL
    return seen


@pytest.mark.parametrize(("cost_ms", "slice_"), [(0, BREATH), (1, SLICE_MS), (2, 3), (SLICE_MS, 1), (500, 1)])
async def test_whoever_else_is_ready_goes_first_after_a_slice(cost_ms: int, slice_: int) -> None:
    seen = await turns(cost_ms)
    assert max(later - earlier for earlier, later in zip([0, *seen], seen, strict=False)) <= slice_
    assert len(seen) >= len(JOURNAL) // slice_, "and does so each time"


def for_ever(_: Stored) -> None:
    while True:
        pass


def backtracks(_: Stored) -> None:
    re.match(r"(a+)+$", "a" * 64 + "b")


@pytest.mark.parametrize("fold", [for_ever, backtracks])
async def test_a_fold_that_never_ends_is_ended_and_nothing_barks_afterwards(fold: Callable[[Stored], None]) -> None:
    with pytest.raises(Endless):
        await Pace(lambda: 0, 0.05).each(JOURNAL, fold)
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)
    signal.raise_signal(signal.SIGVTALRM)
    await Pace(lambda: 0).each(JOURNAL, lambda _: None)
    busy = time.process_time() + 0.1
    while time.process_time() < busy:
        pass


async def test_one_long_pause_of_the_interpreter_is_nobodys_fault() -> None:
    """The collector looks through a large watch in a second, at whichever message comes just then."""
    folded = []

    def collects(stored: Stored) -> None:
        sum(range(24_000_000))  # As the collector: no signal is handled meanwhile, and the first one after it.
        folded.append(stored)

    # A virtual machine that stood still gets its ticks in a row: the second word must be further off than those.
    await Pace(lambda: 0, 0.4).each(JOURNAL[:1], collects)
    assert folded == JOURNAL[:1]


async def test_the_message_is_to_blame_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    take = Watching._take

    def endless(self: Watching, stored: Stored) -> None:
        if b"boom" in stored.body:
            for_ever(stored)
        take(self, stored)

    monkeypatch.setattr(Watching, "_take", endless)
    known, journal = Aside(), said("1", "boom", "2")
    for at in range(3):
        fold = Watching(DEFAULT, known)
        try:
            await Pace(lambda: 0, 0.2).each(journal, fold.take)
        except Endless as error:
            assert known.blame(error) == (at == 1)
    assert fold.folded == len(journal) - 1
    (told,) = fold.due.values()
    assert told.detector == "watch.left_out" and "Endless in for_ever" in told.what
