"""What the journal lacks of its inboxes is seen while it is read, and a purge is not taken for it."""

from bulkhead_services.budget.watch.journal_gaps import LAG_MS, JournalGap, JournalGaps


def begun() -> JournalGaps:
    gaps = JournalGaps()
    gaps.begin_at({"planner": 7, "worker": 3})
    return gaps


def test_a_number_that_is_passed_over_is_a_gap() -> None:
    gaps = begun()
    assert gaps.record_message("planner", 8) is None and gaps.record_message("worker", 4) is None
    assert gaps.record_message("planner", 11) == JournalGap("planner", 9, 10)
    assert gaps.record_message("planner", 11) is None and gaps.record_message("planner", 12) is None
    told = gaps.degraded(0)
    assert "lacks 2 message(s), the first 9 of the inbox of planner" in told


def test_what_lies_before_the_begin_may_have_been_purged() -> None:
    gaps = begun()
    assert (
        gaps.record_message("planner", 2) is None
        and gaps.record_message("planner", 6) is None
        and gaps.record_message("planner", 8) is None
    )
    gaps.forget_reading()
    assert gaps.record_message("planner", 99) is None
    gaps.begin_at({"planner": 120})
    assert gaps.record_message("planner", 121) is None and not gaps.degraded(0)


def test_the_last_message_that_never_comes_is_told_after_a_while() -> None:
    gaps = begun()
    gaps.record_ends({"planner": 8, "worker": 3}, 1_000)
    gaps.record_ends({"planner": 9, "worker": 3}, 1_000 + LAG_MS - 1)
    assert gaps.lagging_inboxes(1_000 + LAG_MS - 1) == ()
    assert gaps.lagging_inboxes(1_000 + LAG_MS) == ("planner",) and "inbox of planner" in gaps.degraded(1_000 + LAG_MS)
    gaps.record_message("planner", 8)
    gaps.record_ends({"planner": 9, "worker": 3}, 1_000 + LAG_MS)
    assert gaps.lagging_inboxes(1_000 + LAG_MS) == (), "it comes on, so it lags"
